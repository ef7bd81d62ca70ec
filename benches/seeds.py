"""Ways to train at equal epochs over several seeds, on the validation part of each seed's own split.

    python3 benches/seeds.py FACES STRANGERS WORK [SEEDS] [WAY ...]

A way is a miner, perhaps with a precision and a backbone: `batch-hard`, `batch-hard+f32`, `batch-hard+f32+dlib-resnet`.
Defaults: 5 seeds, batch-hard and random. STRANGERS `none` leaves those figures out. One thread a run, one run a core.
"""

import concurrent.futures
import csv
import json
import os
import pathlib
import subprocess
import sys
import time

VISAGE = pathlib.Path(os.environ.get("VISAGE", pathlib.Path(__file__).parent.parent / "target/release/visage"))
FIGURES = ("knn", "knn_gallery", "centroid", "verification", "auc")


def visage(work, *arguments):
    command = [VISAGE.resolve(), "--threads", "1", *arguments]
    return subprocess.run(
        command, cwd=work, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout


def one(faces, strangers, work, way, seed):
    trunk, model = f"{way}-{seed}", f"{way}-{seed}-classifier"
    data = ["--data", str(faces)]
    miner, precision, backbone = [*way.split("+"), "", ""][:3]
    flags = ["--backbone", backbone or "openface", "--miner", miner, "--precision", precision or "auto", "--seed", str(seed)]
    start = time.time()
    visage(work, "train-triplet", *data, *flags, "--out", trunk)
    seconds = time.time() - start
    visage(work, "train-classifier", "--trunk", f"{trunk}/best.safetensors", "--out", model)
    summary = json.loads((work / trunk / "summary.json").read_text())
    classifier = json.loads((work / model / "summary.json").read_text())["best"]
    row = {f"untouched {name}": summary["untouched"][name] for name in FIGURES}
    row |= {name: summary["best"][name] for name in FIGURES}
    row |= {"classifier": classifier["accuracy"], "named": classifier["named"]}
    if strangers is not None:
        data += ["--strangers", str(strangers), "--json"]
        report = json.loads(visage(work, "evaluate", "--model", f"{model}/best.safetensors", *data))
        row |= {"strangers UNKNOWN": report["strangers"]["unknown_rate"]}
    return row | {"seconds": seconds}


def main(faces, strangers, work, seeds=5, *ways):
    work.mkdir(parents=True, exist_ok=True)
    strangers = None if strangers.name == "none" else strangers
    ways = ways or ("batch-hard", "random")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {
            (way, seed): pool.submit(one, faces, strangers, work, way, seed)
            for seed in range(int(seeds)) for way in ways
        }
        rows = {key: run.result() for key, run in runs.items()}
    table = csv.writer(sys.stdout)
    names = list(next(iter(rows.values())))
    table.writerow(["way", "seed", *names])
    for (way, seed), row in sorted(rows.items()):
        table.writerow([way, seed, *(f"{row[name]:.4f}" for name in names)])
    for way in ways:
        own = [row for (of, _), row in rows.items() if of == way]
        means = (sum(row[name] for row in own) / len(own) for name in names)
        table.writerow([way, "mean", *(f"{mean:.4f}" for mean in means)])


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    paths = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    main(*paths, *sys.argv[4:])
