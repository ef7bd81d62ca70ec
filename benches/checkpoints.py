"""What a checkpoint costs a training, in alternating pairs.

    python3 benches/checkpoints.py VISAGE DATA [--pairs 5] [--epochs 6] [-- FLAGS]

Each pair trains twice: with a checkpoint after every step, and with those at the ends of epochs only. The difference of
the two times, divided by the checkpoints that were written more, is what one costs, all of it: copying the tensors,
hashing and writing them on another thread, and waiting for the one before. Divided by the default interval of 5 minutes it is the share of
a long training. The weights of both must be the same.
"""

import argparse
import csv
import hashlib
import pathlib
import statistics
import subprocess
import tempfile

INTERVAL = 300.0


def train(visage, data, every, epochs, flags):
    """Seconds of all steps, their number, and the SHA-256 of the best weights."""
    with tempfile.TemporaryDirectory() as work:
        run = pathlib.Path(work) / "run"
        command = [visage, "--device", "cpu", "--quiet", "train-triplet", "--data", data, "--out", run, "--epochs", epochs,
                   "--checkpoint-every", every, *flags]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        rows = [row for row in csv.DictReader(open(run / "timing.csv")) if row["epoch"] not in ("0", "1")]
        seconds = sum(float(row["seconds"]) for row in rows)
        return seconds, sum(int(float(row["steps"])) for row in rows), hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("visage", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    given, flags = parser.parse_known_args()
    flags = [flag for flag in flags if flag != "--"]
    costs, shares = [], []
    for pair in range(given.pairs):
        order = ["1", "1000h"] if pair % 2 == 0 else ["1000h", "1"]
        taken = {every: train(given.visage.resolve(), given.data.resolve(), every, given.epochs, flags) for every in order}
        (often, steps, one), (seldom, _, other) = taken["1"], taken["1000h"]
        if one != other:
            raise SystemExit("the weights differ")
        costs.append((often - seldom) / steps)
        shares.append(often / seldom)
        print(f"pair {pair + 1}: {steps} steps, {often:.2f} s with a checkpoint each, {seldom:.2f} s without: "
              f"{1000 * costs[-1]:.1f} ms each", flush=True)
    cost = statistics.median(costs)
    print(f"median: {1000 * cost:.1f} ms a checkpoint ({1000 * min(costs):.1f} to {1000 * max(costs):.1f}); every 5 minutes: "
          f"{100 * cost / INTERVAL:.4f} % of the time; after every step: {statistics.median(shares):.3f} times as long")


if __name__ == "__main__":
    main()
