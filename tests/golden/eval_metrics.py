"""Expected values for src/eval, worked out slowly in NumPy (and LBFGS of torch for the logistic
regression). Run it from this folder; it writes eval_metrics.json beside itself.

    python eval_metrics.py
"""

import json

import numpy as np
import torch

rng = np.random.default_rng(20240607)
out = {}

# Embeddings with coincidences (every fourth row repeats a value grid) and a lone identity.
rows, dim = 26, 5
centres = rng.normal(size=(5, dim))
labels = [i % 5 for i in range(rows - 1)] + [7]
values = np.array([centres[label % 5] for label in labels]) + 0.8 * rng.normal(size=(rows, dim))
values = (np.round(values * 4) / 4).astype(np.float32)
out["embeddings"] = {"rows": rows, "dim": dim, "values": values.ravel().tolist(), "labels": labels}
exact = values.astype(np.float64)
distance = np.sqrt(((exact[:, None] - exact[None]) ** 2).sum(-1))

others = distance + np.diag([np.inf] * rows)
queries = [i for i in range(rows) if labels.count(labels[i]) > 1]
out["knn_leave_one_out"] = float(np.mean([labels[others[i].argmin()] == labels[i] for i in queries]))

right = []
for i in queries:
    rest = [j for j in range(rows) if j != i]
    means = {c: exact[[j for j in rest if labels[j] == c]].mean(0) for c in {labels[j] for j in rest}}
    found = min(sorted(means), key=lambda c: ((means[c] - exact[i]) ** 2).sum())
    right.append(found == labels[i])
out["centroid_leave_one_out"] = float(np.mean(right))

upper = np.triu_indices(rows, 1)
far = distance[upper].astype(np.float32)
same = np.array([labels[i] == labels[j] for i, j in zip(*upper)])
wins = (far[same][:, None] < far[~same][None]) + 0.5 * (far[same][:, None] == far[~same][None])
out["roc_auc"] = float(wins.mean())
edges = np.unique(far)
cuts = np.concatenate([[edges[0] / 2], (edges[1:].astype(float) + edges[:-1]) / 2, [edges[-1] + 1]])
tar = np.array([(far[same] < cut).mean() for cut in cuts])
fars = np.array([(far[~same] < cut).mean() for cut in cuts])
out["balanced_accuracy"] = float(((tar + 1 - fars) / 2).max())
out["tar_at_far_0.1"] = float(tar[fars <= 0.1].max())
# FAR = 1 - TAR on the broken line, by a very fine walk.
walk = np.linspace(0, len(cuts) - 1, 2_000_001)
fine_tar, fine_far = (np.interp(walk, np.arange(len(cuts)), rate) for rate in (tar, fars))
crossing = np.abs(fine_far - (1 - fine_tar)).argmin()
out["eer"] = float(fine_far[crossing])

# Overconfident logits, the temperature by a grid that narrows.
classes, count = 4, 60
logits = (rng.normal(size=(count, classes)) * 6).astype(np.float32)
truth = [int(np.argmax(row)) if rng.random() < 0.7 else int(rng.integers(classes)) for row in logits]
out["logits"] = {"classes": classes, "values": logits.ravel().tolist(), "labels": truth}


def nll(t, smoothing):
    z = logits.astype(np.float64) / t
    log_p = z - z.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    target = np.full((count, classes), smoothing / (classes - 1))
    target[np.arange(count), truth] = 1 - smoothing
    return -(target * log_p).sum(1).mean()


for name, smoothing in [("temperature", 0.0), ("temperature_smoothed", 1 / (count + 2))]:
    low, high = 0.05, 20.0
    for _ in range(8):
        grid = np.geomspace(low, high, 400)
        at = int(np.argmin([nll(t, smoothing) for t in grid]))
        low, high = grid[max(at - 1, 0)], grid[min(at + 1, 399)]
    out[name] = {"smoothing": smoothing, "t": float(grid[at]), "nll": float(nll(grid[at], smoothing))}

z = logits.astype(np.float64)
p = np.exp(z - z.max(1, keepdims=True))
p /= p.sum(1, keepdims=True)
confidence, correct = p.max(1), p.argmax(1) == np.array(truth)
bins = np.linspace(0, 1, 16)
ece = 0.0
for low, high in zip(bins[:-1], bins[1:]):
    inside = (confidence > low) & (confidence <= high)
    if inside.any():
        ece += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
out["ece_15"] = float(ece)

# Overlapping scores of 30 known and 12 strangers; class-balanced, ridge 1e-3 on the standardised slope.
scores = np.concatenate([rng.normal(0.8, 0.1, 30), rng.normal(0.55, 0.15, 12)])
known = [True] * 30 + [False] * 12
sign = torch.tensor([1.0 if k else -1.0 for k in known], dtype=torch.float64)
weight = torch.tensor([0.5 / 30 if k else 0.5 / 12 for k in known], dtype=torch.float64)
x = torch.tensor((scores - scores.mean()) / scores.std())
theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.LBFGS([theta], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16)


def closure():
    optimiser.zero_grad()
    margin = sign * (theta[0] * x + theta[1])
    loss = (weight * torch.nn.functional.softplus(-margin)).sum() + 0.5e-3 * theta[0] ** 2
    loss.backward()
    return loss


optimiser.step(closure)
slope, offset = theta.detach().numpy()
out["logistic"] = {
    "scores": scores.tolist(),
    "known": known,
    "weight": float(slope / scores.std()),
    "bias": float(offset - slope * scores.mean() / scores.std()),
}

with open("eval_metrics.json", "w") as file:
    json.dump(out, file, separators=(",", ":"))
    file.write("\n")
