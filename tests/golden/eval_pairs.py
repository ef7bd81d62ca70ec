"""Expected values for the pair scores of src/eval, from scikit-learn and NumPy. Run it from this
folder; it writes eval_pairs.json beside itself.

    python eval_pairs.py
"""

import json

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

rng = np.random.default_rng(20240911)
# Two clouds that overlap, with ties (two decimals), more different pairs than same ones.
near, far = rng.normal(0.8, 0.22, 180), rng.normal(1.25, 0.22, 270)
distance = np.round(np.clip(np.concatenate([near, far]), 0.01, 2), 2).astype(np.float32)
same = np.array([True] * 180 + [False] * 270)
order = rng.permutation(len(same))
distance, same = distance[order], same[order]
fold = rng.integers(0, 6, len(same))
exact = distance.astype(np.float64)

fpr, tpr, _ = roc_curve(same, -exact, drop_intermediate=False)


def tar_at(fpr, tpr, allowed):
    return float(tpr[fpr <= allowed].max())


def cut(exact, same):
    """Most pairs right; of equals the widest gap, then the lowest."""
    edges = np.concatenate([[0.0], np.unique(exact)])
    best = None
    for at, edge in enumerate(edges):
        last = at + 1 == len(edges)
        gap = 0.0 if last else edges[at + 1] - edge
        threshold = np.nextafter(edge, np.inf) if last else (edge + edges[at + 1]) / 2
        right = int(((exact < threshold) == same).sum())
        if best is None or (right, gap) > best[:2]:
            best = (right, gap, threshold)
    return float(best[2])


accuracies, thresholds = [], []
for number in range(6):
    inside = fold == number
    thresholds.append(cut(exact[~inside], same[~inside]))
    accuracies.append(float(((exact[inside] < thresholds[-1]) == same[inside]).mean()))
threshold = cut(exact, same)

# The interval by brute force: scikit-learn's own curve of every resample.
ones, zeros = exact[same], exact[~same]
draws = {0.1: [], 0.01: []}
for _ in range(4000):
    scores = np.concatenate([rng.choice(ones, len(ones)), rng.choice(zeros, len(zeros))])
    labels = np.arange(len(scores)) < len(ones)
    again = roc_curve(labels, -scores, drop_intermediate=False)
    for allowed, rates in draws.items():
        rates.append(tar_at(again[0], again[1], allowed))

# Both kinds weigh the same; the ridge is 1e-3 / 2 on the standardised slope beside the mean loss.
z = (exact - exact.mean()) / exact.std()
model = LogisticRegression(C=1 / (1e-3 * len(z)), class_weight="balanced", tol=1e-12, max_iter=10000)
model.fit(z[:, None], same)
slope = model.coef_[0, 0] / exact.std()

out = {
    "distance": distance.tolist(),
    "same": same.tolist(),
    "fold": fold.tolist(),
    "auc": float(roc_auc_score(same, -exact)),
    # FAR + TAR rises along the curve, and is 1 where FAR = 1 - TAR.
    "eer": float(np.interp(1.0, fpr + tpr, fpr)),
    "tar_at_far": [
        [allowed, tar_at(fpr, tpr, allowed), *np.percentile(rates, [2.5, 97.5]).tolist()]
        for allowed, rates in draws.items()
    ],
    "accuracies": accuracies,
    "thresholds": thresholds,
    "accuracy": float(np.mean(accuracies)),
    "accuracy_std": float(np.std(accuracies, ddof=1)),
    "threshold": threshold,
    "f1": float(f1_score(same, exact < threshold)),
    "weight": float(slope),
    "bias": float(model.intercept_[0] - slope * exact.mean()),
}
with open("eval_pairs.json", "w") as file:
    json.dump(out, file, separators=(",", ":"))
    file.write("\n")
