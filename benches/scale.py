"""Time of a training step in 1, 2 and more processes on this machine, by its parts.

    python3 benches/scale.py VISAGE DATA [--processes 1 2 4] [--rounds 3] [--backbone openface] [-- FLAGS]

Every round trains once with each number of processes, alternately; an epoch's steps are timed by Visage itself (timing.csv:
without validation). The medians of all epochs but the first of each run are printed. All processes share the CPUs of this machine, so that the ideal is 1.0 here, not N: what is above
is the cost of several processes, and what a network adds comes on top.
"""

import argparse
import csv
import json
import pathlib
import statistics
import subprocess
import tempfile


def parts(visage, data, count, flags):
    """Per epoch: seconds of all steps, and of gathering and summing."""
    with tempfile.TemporaryDirectory() as work:
        run = pathlib.Path(work) / "run"
        command = [visage, "--device", "cpu", "--quiet", "train-triplet", "--data", data, "--out", run, "--epochs", "4",
                   "--checkpoint-every", "1h", *flags, *(["--processes", count] if count > 1 else [])]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        rows = [row for row in csv.DictReader(open(run / "timing.csv")) if row["epoch"] not in ("0", "1")]
        return [tuple(float(row.get(key) or 0) for key in ("seconds", "gather_seconds", "reduce_seconds", "gather_mb", "reduce_mb"))
                for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("visage", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="openface")
    parser.add_argument("--json", type=pathlib.Path)
    given, flags = parser.parse_known_args()
    flags = ["--backbone", given.backbone, *(flag for flag in flags if flag != "--")]
    found = {count: [] for count in given.processes}
    for _ in range(given.rounds):
        for count in given.processes:
            found[count] += parts(given.visage.resolve(), given.data.resolve(), count, flags)
    print("| processes | steps of an epoch, s | of that gathering | of that summing | MB gathered | MB summed | against one |")
    print("|---|---|---|---|---|---|---|")
    table = {}
    for count, rows in found.items():
        seconds, gather, reduce, gathered, reduced = (statistics.median(column) for column in zip(*rows))
        table[count] = dict(seconds=seconds, gather=gather, reduce=reduce, gathered_mb=gathered, reduced_mb=reduced)
        first = table[given.processes[0]]["seconds"]
        print(f"| {count} | {seconds:.3f} | {gather:.3f} | {reduce:.3f} | {gathered:.2f} | {reduced:.1f} | {first / seconds:.2f} x |")
    if given.json:
        given.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
