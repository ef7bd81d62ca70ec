"""Miners at equal epochs over several seeds, on the validation part of each seed's own split.

    python3 benches/seeds.py FACES STRANGERS WORK [SEEDS] [MINER ...]

Defaults: 5 seeds, batch-hard and random. One thread a run, one run a core.
"""

import concurrent.futures
import csv
import json
import os
import pathlib
import subprocess
import sys

VISAGE = pathlib.Path(__file__).parent.parent / "target/release/visage"
FIGURES = ("knn", "knn_gallery", "centroid", "verification", "auc")


def visage(work, *arguments):
    command = [VISAGE.resolve(), "--threads", "1", *arguments]
    return subprocess.run(
        command, cwd=work, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout


def one(faces, strangers, work, miner, seed):
    trunk, model = f"{miner}-{seed}", f"{miner}-{seed}-classifier"
    data = ["--data", str(faces)]
    visage(work, "train-triplet", *data, "--miner", miner, "--seed", str(seed), "--out", trunk)
    visage(work, "train-classifier", "--trunk", f"{trunk}/best.safetensors", "--out", model)
    summary = json.loads((work / trunk / "summary.json").read_text())
    classifier = json.loads((work / model / "summary.json").read_text())["best"]
    data += ["--strangers", str(strangers), "--json"]
    report = json.loads(visage(work, "evaluate", "--model", f"{model}/best.safetensors", *data))
    row = {f"untouched {name}": summary["untouched"][name] for name in FIGURES}
    row |= {name: summary["best"][name] for name in FIGURES}
    unknown = report["strangers"]["unknown_rate"]
    row |= {"classifier": classifier["accuracy"], "named": classifier["named"]}
    return row | {"strangers UNKNOWN": unknown}


def main(faces, strangers, work, seeds=5, *miners):
    work.mkdir(parents=True, exist_ok=True)
    miners = miners or ("batch-hard", "random")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {
            (miner, seed): pool.submit(one, faces, strangers, work, miner, seed)
            for seed in range(int(seeds)) for miner in miners
        }
        rows = {key: run.result() for key, run in runs.items()}
    table = csv.writer(sys.stdout)
    names = list(next(iter(rows.values())))
    table.writerow(["miner", "seed", *names])
    for (miner, seed), row in sorted(rows.items()):
        table.writerow([miner, seed, *(f"{row[name]:.4f}" for name in names)])
    for miner in miners:
        own = [row for (of, _), row in rows.items() if of == miner]
        means = (sum(row[name] for row in own) / len(own) for name in names)
        table.writerow([miner, "mean", *(f"{mean:.4f}" for mean in means)])


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    paths = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    main(*paths, *sys.argv[4:])
