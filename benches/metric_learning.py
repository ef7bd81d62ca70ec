"""train-triplet against pytorch-metric-learning: the same trunk, start, split, batches, loss and optimizer.

    python benches/metric_learning.py FACES WORK [SEEDS]         (make bench-metric-learning)

Three ways, each over SEEDS seeds (5), judged on the validation part of the seed's split by Visage's own figures:

pml      pytorch-metric-learning: TripletMarginLoss and BatchHardMiner, squared distances, PyTorch's Adam, on the batches of
         `plain`, float32, no augmentation
plain    `visage train-triplet` doing the same
default  `visage train-triplet` as it comes: augmentation, autocast, weight interpolation

All figures are of the last epoch. FACES has crops, one folder per identity. Prints each way's mean, the mean difference to pml with its
95 % interval (t distribution over the seeds), and how far the weights of `plain` end from those of pml, as a share of the
way they have gone.
"""

import csv
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import numpy as np
import torch
from PIL import Image
from pytorch_metric_learning import distances, losses, miners
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/golden"))
from openface import Net  # noqa: E402

WEIGHTS = ROOT / "pretrained/openface-nn4-distilled.safetensors"
VISAGE = pathlib.Path(os.environ.get("VISAGE", ROOT / "target/release/visage")).resolve()
BATCHES = ROOT / "target/release/examples/batches"
P, K, EPOCHS, RATE, WARMUP, MARGIN = 8, 4, 10, 6e-5, 0.1, 0.2
FIGURES = ("knn", "knn_gallery", "centroid", "verification", "auc")
TRUNK = ["--backbone", "openface", "--detect", "never"]
PLAIN = ["--flip", "off", "--crop", "off", "--jitter", "off", "--blend", "1", "--precision", "f32", "--reduction", "active"]
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def visage(work, *arguments):
    subprocess.run([VISAGE, "--quiet", *arguments], cwd=work, check=True, stdout=subprocess.DEVNULL)


def trained(work, faces, seed, out, flags):
    if not (work / out / "summary.json").exists():
        shutil.rmtree(work / out, ignore_errors=True)  # of a run that was interrupted
        given = ["--data", str(faces), "--seed", str(seed), "--epochs", str(EPOCHS), "--out", out]
        visage(work, "train-triplet", *TRUNK, *given, *flags)
    rows = list(csv.DictReader((work / out / "metrics.csv").open()))
    return {name: float(rows[-1][name]) for name in FIGURES}


def network(weights):
    net = Net()
    net.load_state_dict(load_file(weights), strict=True)
    return net.eval()  # running statistics, as Visage fine-tunes


def pixels(path):
    """The central square at 96 pixels, as Visage fits a crop."""
    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    square = picture.crop((left, top, left + side, top + side)).resize((96, 96), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def rate(step, steps):
    warmup = round(WARMUP * steps)
    if step < warmup:
        return RATE * (step + 1) / (warmup + 1)
    return RATE * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def pml(work, faces, seed):
    """Trains on the batches of `plain`; returns the file of the weights."""
    out = work / f"pml-{seed}.safetensors"
    if out.exists():
        return out
    split = work / f"plain-{seed}/split.csv"
    table = subprocess.run(
        [BATCHES, split, *map(str, (P, K, seed, EPOCHS))], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    batches = {}
    for row in csv.DictReader(table.splitlines()):
        batches.setdefault((int(row["epoch"]), int(row["batch"])), []).append(row["path"])
    stored = {path: pixels(faces / path) for paths in batches.values() for path in paths}
    names = sorted({path.split("/")[0] for path in stored})
    net = network(WEIGHTS)
    distance = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
    loss_of, miner = losses.TripletMarginLoss(margin=MARGIN, distance=distance), miners.BatchHardMiner(distance=distance)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    for step, (_, paths) in enumerate(sorted(batches.items())):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, len(batches))
        embeddings = net(torch.stack([stored[path] for path in paths]))
        labels = torch.tensor([names.index(path.split("/")[0]) for path in paths])
        loss = loss_of(embeddings, labels, miner(embeddings, labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, out)
    return out


def judged(work, faces, seed, weights):
    """Visage's figures of a trunk, before it trains any further."""
    out = f"judged-{seed}"
    if not (work / out / "summary.json").exists():
        shutil.rmtree(work / out, ignore_errors=True)
        split = ["--split", f"plain-{seed}/split.csv", "--weights", str(weights), "--seed", str(seed)]
        flags = [*TRUNK, *split, *PLAIN, "--epochs", "1", "--lr", "1e-12", "--out", out]
        visage(work, "train-triplet", "--data", str(faces), *flags)
    summary = json.loads((work / out / "summary.json").read_text())
    return {name: summary["untouched"][name] for name in FIGURES}


def apart(work, seed, weights):
    """How far apart both trainings end, as a share of the way from the start."""
    start, other = load_file(WEIGHTS), load_file(weights)
    own = load_file(work / f"plain-{seed}/last.safetensors")
    names = [name for name in start if name in own and start[name].is_floating_point()]
    if len(names) < 100:
        sys.exit(f"only {len(names)} tensors have the same names")
    far = sum(((own[name].double() - other[name].double()) ** 2).sum().item() for name in names)
    gone = sum(((other[name].double() - start[name].double()) ** 2).sum().item() for name in names)
    return math.sqrt(far / gone)


def main(faces, work, seeds=5):
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = {way: [] for way in ("pml", "plain", "default")}
    shares = []
    for seed in range(seeds):
        rows["plain"].append(trained(work, faces, seed, f"plain-{seed}", PLAIN))
        rows["default"].append(trained(work, faces, seed, f"default-{seed}", []))
        weights = pml(work, faces, seed)
        rows["pml"].append(judged(work, faces, seed, weights))
        shares.append(apart(work, seed, weights))
        print(f"seed {seed}: weights {shares[-1]:.2e} of the way apart", file=sys.stderr)
    table = csv.writer(sys.stdout)
    table.writerow(["figure", *rows, "plain - pml", "95 %", "default - pml", "95 %"])
    for name in FIGURES:
        means = [f"{statistics.mean(row[name] for row in own):.4f}" for own in rows.values()]
        differences = []
        for way in ("plain", "default"):
            values = [ours[name] - theirs[name] for ours, theirs in zip(rows[way], rows["pml"])]
            half = T95.get(seeds, 1.96) * statistics.stdev(values) / math.sqrt(seeds)
            differences += [f"{statistics.mean(values):+.4f}", f"{half:.4f}"]
        table.writerow([name, *means, *differences])
    print(f"weights apart, as a share of the way: at most {max(shares):.2e}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    paths = [pathlib.Path(argument).resolve() for argument in sys.argv[1:3]]
    main(*paths, *map(int, sys.argv[3:]))
