"""Expected values for src/eval/retrieval.rs, from pytorch-metric-learning's AccuracyCalculator. Run it
from this folder; it writes retrieval.json beside itself.

    python retrieval.py
"""

import json

import numpy as np
import pytorch_metric_learning
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

rng = np.random.default_rng(11)
rows, dim = 30, 4
labels = [i % 4 for i in range(rows - 2)] + [8, 9]
centres = rng.normal(size=(10, dim))
values = np.array([centres[label] for label in labels]) + 0.9 * rng.normal(size=(rows, dim))
embeddings = torch.tensor(values, dtype=torch.float32)

names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
# Differences, not a matrix product: the order of the neighbours is then that of exact distances.
knn = CustomKNN(LpDistance(normalize_embeddings=False))
calculator = AccuracyCalculator(include=names, k="max_bin_count", knn_func=knn)
found = calculator.get_accuracy(embeddings, torch.tensor(labels))
out = {
    "pytorch_metric_learning": pytorch_metric_learning.__version__,
    "dim": dim,
    "labels": labels,
    "embeddings": embeddings.ravel().tolist(),
    **{name: float(found[name]) for name in names},
}
with open("retrieval.json", "w") as file:
    json.dump(out, file)
    file.write("\n")
print({name: out[name] for name in names})
