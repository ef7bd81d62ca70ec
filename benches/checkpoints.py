"""What checkpoints cost a training, in alternating pairs.

    python3 benches/checkpoints.py VISAGE DATA [--pairs 5] [--epochs 10] [--every 2] [-- FLAGS]

Each pair trains twice, with a checkpoint every --every seconds, and with those at the ends of epochs only. Compared is the time of
all steps (timing.csv: without start and validation), which includes everything that a checkpoint does to them: copying the tensors,
waiting for the one before, and sharing the processor with the thread that hashes and writes. The default interval is 5
minutes: the cost of --every seconds, divided by 300 / --every, is its share. The weights of both must be the same.
"""

import argparse
import csv
import hashlib
import pathlib
import statistics
import subprocess
import tempfile

DEFAULT = 300.0


def train(visage, data, every, epochs, flags):
    """Seconds of all steps but the first epoch's, and the SHA-256 of the best weights."""
    with tempfile.TemporaryDirectory() as work:
        run = pathlib.Path(work) / "run"
        command = [visage, "--device", "cpu", "--quiet", "train-triplet", "--data", data, "--out", run, "--epochs", epochs,
                   "--checkpoint-every", every, *flags]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        seconds = sum(float(row["seconds"]) for row in csv.DictReader(open(run / "timing.csv")) if row["epoch"] not in ("0", "1"))
        return seconds, hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("visage", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--every", type=float, default=2.0)
    given, flags = parser.parse_known_args()
    flags = [flag for flag in flags if flag != "--"]
    ratios = []
    for pair in range(given.pairs):
        every = [f"{given.every:g}s", "1000h"]
        taken = {one: train(given.visage.resolve(), given.data.resolve(), one, given.epochs, flags)
                 for one in (every if pair % 2 == 0 else every[::-1])}
        (often, one), (seldom, other) = taken[every[0]], taken[every[1]]
        if one != other:
            raise SystemExit("the weights differ")
        ratios.append(often / seldom)
        print(f"pair {pair + 1}: {often:.2f} s with one every {given.every:g} s, {seldom:.2f} s without: {ratios[-1]:.4f}", flush=True)
    middle = statistics.median(ratios)
    print(f"median ratio {middle:.4f} ({min(ratios):.4f} to {max(ratios):.4f}); one every 5 minutes: "
          f"{100 * (middle - 1) * given.every / DEFAULT:.4f} % of the time")


if __name__ == "__main__":
    main()
