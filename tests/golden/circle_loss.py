"""The circle loss (Sun et al. 2020) and its gradient in float64, by loops over the paper's formula
with numpy: writes circle_loss.json beside this file.

    python tests/golden/circle_loss.py

The weights alpha are held constant, as in the paper; pytorch-metric-learning does the same.
"""

import json
import pathlib

import numpy as np


def circle(x, labels, m, gamma):
    """The loss of each anchor and its gradient: [B] and [B, B, D]."""
    size = len(labels)
    length = np.sqrt((x**2).sum(1))
    unit = x / length[:, None]
    losses, gradients = np.zeros(size), np.zeros((size, *x.shape))
    for a in range(size):
        exponents = {True: [], False: []}  # by whether the pair is positive: (other, exponent, slope)
        for i in range(size):
            if i == a:
                continue
            s = unit[a] @ unit[i]
            if labels[i] == labels[a]:
                slope = -gamma * max(0.0, 1 + m - s)
                exponents[True].append((i, slope * (s - (1 - m)), slope))
            else:
                slope = gamma * max(0.0, s + m)
                exponents[False].append((i, slope * (s - m), slope))
        if not exponents[True] or not exponents[False]:
            continue
        sums = {of: sum(np.exp(e) for _, e, _ in pairs) for of, pairs in exponents.items()}
        product = sums[True] * sums[False]
        losses[a] = np.log1p(product)
        for of, pairs in exponents.items():
            for i, exponent, slope in pairs:
                by_cosine = product / (1 + product) * np.exp(exponent) / sums[of] * slope
                s = unit[a] @ unit[i]
                gradients[a, a] += by_cosine * (unit[i] - s * unit[a]) / length[a]
                gradients[a, i] += by_cosine * (unit[a] - s * unit[i]) / length[i]
    return losses, gradients


def main():
    rng = np.random.default_rng(3)
    # Three identities, one of one picture only; the last positive pair is an easy one.
    labels = [0, 1, 0, 1, 0, 2, 3, 3]
    x = rng.normal(size=(len(labels), 5))
    x[7] = x[6] * 1.5 + 0.01
    golden = {
        "numpy": np.__version__,
        "labels": labels,
        "embeddings": x.flatten().tolist(),
    }
    for m, gamma in ((0.4, 80), (0.25, 8)):
        losses, gradients = circle(x, labels, m, gamma)
        for name, count in (("mean", len(labels)), ("active", (losses > 0).sum())):
            golden[f"circle {m} {gamma} {name}"] = {
                "loss": losses.sum() / count,
                "gradient": (gradients.sum(0) / count).flatten().tolist(),
            }
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
