"""What a training step of `train-triplet` takes in N processes, by a model of its parts.

    python3 benches/scaling_model.py                               # the predictions of docs/scaling.md
    python3 benches/scaling_model.py --check scale.json            # against `benches/scale.py --json scale.json`

A step of N processes, each with b pictures, so that the batch is B = N b, takes

    compute   b / rate                              forward and backward pass of the own pictures
    gather    (N-1)/N * 4 B D / bandwidth + (N-1) * latency          all-gather of B embeddings of D numbers
    mine      2 B^2 D / flops                       distances of the whole batch; each process does all of it
    reduce    2 (N-1)/N * 4 P / bandwidth + 2 (N-1) * latency        ring all-reduce of the gradient of P parameters

one after the other, except that reducing goes on beside the backward pass, two thirds of compute: what is left of it afterwards is the
part that is longer than that, and at least its last bucket of 4 MB. Bandwidth is that of the slowest link of the ring.
"""

import argparse
import json
import pathlib

# (name, parameters, numbers of an embedding, pictures/s of a training step on one H200: docs/gpu.md; a triplet is 3 pictures)
TRUNKS = [("OpenFace", 3.73e6, 128, 3 * 8725), ("DenseNet121", 7.0e6, 1024, 3 * 1079), ("VGG16", 14.7e6, 512, 3 * 3285)]

# Bytes of gradients that are summed at once (src/native/group.rs)
BUCKET = 4 * 2**20


def step(count, batch, rate, parameters, dim, bandwidth, latency, flops):
    """Seconds of compute, gather, mine, and of what is left of reduce."""
    whole = count * batch
    others = (count - 1) / count
    gather = others * 4 * whole * dim / bandwidth + (count - 1) * latency
    compute = batch / rate
    reduce, last = (2 * others * size / bandwidth + 2 * (count - 1) * latency for size in (4 * parameters, BUCKET))
    left = max(reduce - 2 / 3 * compute, min(reduce, last))
    return compute, gather, 2 * whole**2 * dim / flops, left


def predict(given):
    print(f"{given.batch} pictures per GPU, {given.bandwidth:g} GB/s, {1e6 * given.latency:g} us, {given.tflops:g} TFLOP/s for the distances\n")
    print("| trunk | GPUs | batch | compute, ms | gather | mine | left of reduce | step | pictures/s | efficiency |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, parameters, dim, rate in TRUNKS:
        for count in given.gpus:
            parts = step(count, given.batch, rate, parameters, dim, 1e9 * given.bandwidth, given.latency, 1e12 * given.tflops)
            cells = " | ".join(f"{1000 * part:.2f}" for part in (*parts, sum(parts)))
            speed = count * given.batch / sum(parts)
            print(f"| {name} | {count} | {count * given.batch:,} | {cells} | {speed:,.0f} | {100 * speed / (count * rate):.0f} % |")


def check(path):
    """Fits bandwidth and compute to the first two rows of a measured table, and predicts the others."""
    rows = {int(count): row for count, row in json.loads(path.read_text()).items()}
    alone, pair = rows[1], rows[2]
    # All processes share one machine's CPUs: N of them compute their shares no faster than one computes all.
    compute = alone["seconds"]
    # An epoch's sum of b bytes: 2 (N-1)/N b through each link, N links over one memory.
    bandwidth = 2 * 1 / 2 * pair["reduced_mb"] * 2 / pair["reduce"]
    print("| processes | steps of an epoch, s: measured | predicted | summing: measured | predicted |\n|---|---|---|---|---|")
    for count, row in rows.items():
        reduce = 0 if count == 1 else 2 * (count - 1) / count * row["reduced_mb"] * count / bandwidth
        print(f"| {count} | {row['seconds']:.3f} | {compute + reduce + row['gather']:.3f} | {row['reduce']:.3f} | {reduce:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=pathlib.Path)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--batch", type=int, default=128, help="pictures per process")
    parser.add_argument("--bandwidth", type=float, default=5.0, help="GB/s of the slowest link (gloo through host memory and TCP: 5)")
    parser.add_argument("--latency", type=float, default=20e-6, help="seconds of one message")
    parser.add_argument("--tflops", type=float, default=30.0, help="float32 matrix products of a GPU, in TFLOP/s")
    given = parser.parse_args()
    check(given.check) if given.check else predict(given)


main()
