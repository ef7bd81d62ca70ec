"""Loads VGG16's full file in Visage and in PyTorch: time and peak memory.

    make bench-load       (python benches/load.py [target/release/examples/load_weights])

torchvision writes the file (random weights, 528 MB) into a temporary folder. Both sides build the
network with its classifier and load the file into it, each in a process of its own, in turns; the file
is in the page cache. PyTorch is given its best: torch.load(mmap=True, weights_only=True) and
load_state_dict, and a network built without drawing first weights twice. Visage holds every tensor
against the zip's checksum before it changes the network, which PyTorch does not. One thread each.
Medians of 5.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

RUNS = 5
ROOT = pathlib.Path(__file__).parent.parent
FIGURES = ("build, s", "load, s", "peak of the process, MB", "peak above the start, MB", "peak / file", "peak above the start / file")


def resident(line):
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) << 10 for row in status if row.startswith(line))


def pytorch(path):
    """What examples/load_weights.rs does, in PyTorch."""
    import time

    import torch
    from torchvision.models import vgg16

    torch.ones(2, 2).sum()
    before, start = resident("VmRSS:"), time.perf_counter()
    net = vgg16(weights=None, init_weights=False)
    built = time.perf_counter() - start
    net.load_state_dict(torch.load(path, mmap=True, weights_only=True), strict=True)
    loaded = time.perf_counter() - start - built
    last = list(net.state_dict().values())[-1].double().sum().item()
    print(json.dumps({"build": built, "load": loaded, "before": before, "peak": resident("VmHWM:"), "check": last}))


def main(example):
    import torch
    from torchvision.models import vgg16

    hidden = ("LD_LIBRARY_PATH", "PYTHONPATH")  # are Python's
    os.environ["OMP_NUM_THREADS"] = "1"
    plain = {key: value for key, value in os.environ.items() if key not in hidden}
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        path = pathlib.Path(folder) / "vgg16.pth"
        torch.manual_seed(0)
        torch.save(vgg16(weights=None, init_weights=False).state_dict(), path)
        size = path.stat().st_size
        sides = {"visage": ([example, "vgg16", path], plain), "PyTorch": ([sys.executable, __file__, "--pytorch", path], None)}
        runs = {side: [] for side in sides}
        for _ in range(RUNS):
            for side, (command, env) in sides.items():
                done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
                runs[side].append(json.loads(done.stdout))
        checks = [run["check"] for side in runs.values() for run in side]
        assert max(checks) - min(checks) < 1e-9, checks
    rows = {}
    for side, found in runs.items():
        middle = {key: statistics.median(run[key] for run in found) for key in ("build", "load", "before", "peak")}
        above = statistics.median(run["peak"] - run["before"] for run in found)
        rows[side] = (middle["build"], middle["load"], middle["peak"] / 1e6, above / 1e6, middle["peak"] / size, above / size)
    print(f"VGG16, a file of {size / 1e6:.0f} MB; medians of {RUNS}, in turns")
    print(f"{'':<30}{'visage':>9}{'PyTorch':>9}{'ratio':>9}")
    for figure, ours, theirs in zip(FIGURES, rows["visage"], rows["PyTorch"]):
        print(f"{figure:<30}{ours:>9.2f}{theirs:>9.2f}{ours / theirs:>9.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pytorch"]:
        pytorch(sys.argv[2])
    else:
        main(*sys.argv[1:] or [ROOT / "target/release/examples/load_weights"])
