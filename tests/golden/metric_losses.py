"""Losses and their gradients in float64, by PyTorch and pytorch-metric-learning 2.9: writes
metric_losses.json beside this file.

    python tests/golden/metric_losses.py

"rows" cases are functions of the first rows of the embeddings as a, the next as p (or b), the next
as n; "batch" cases of all embeddings and the labels.
"""

import json
import math
import pathlib

import pytorch_metric_learning
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch.nn import functional as F

ROWS = 4  # rows of each of a, p and n


def main():
    torch.manual_seed(4)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 2, 2, 3, 0, 1, 2])
    x = torch.randn(len(labels), 5, dtype=torch.float64)
    x[6] = x[7] * 1.5 + 0.01  # an easy positive pair
    weight = torch.randn(4, 5, dtype=torch.float64)
    weight[3] = -x[8] + 0.02  # nearly opposite to its only picture: beyond pi - margin
    different = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    golden = {
        "torch": torch.__version__.split("+")[0],
        "pytorch_metric_learning": pytorch_metric_learning.__version__,
        "labels": labels.tolist(),
        "embeddings": x.flatten().tolist(),
        "weight": weight.flatten().tolist(),
        "different": different.tolist(),
    }

    def case(name, function, head=None):
        variable = x.clone().requires_grad_()
        if head is not None:
            head.W.data = weight.t().clone()
        loss = function(variable)
        loss.backward()
        golden[name] = {"loss": loss.item(), "gradient": variable.grad.flatten().tolist()}
        if head is not None:
            golden[name]["weight_gradient"] = head.W.grad.t().flatten().tolist()

    a = lambda x: x[:ROWS]
    p = lambda x: x[ROWS : 2 * ROWS]
    n = lambda x: x[2 * ROWS :]

    # Pairs.
    def contrastive(x):
        distance = ((a(x) - p(x)).square().sum(1) + 1e-7).sqrt()
        same = (1 - different) / 2 * distance.square()
        return (same + different / 2 * (4.0 - distance).clamp_min(0).square()).mean()

    case("contrastive", contrastive)
    logits = lambda x: (a(x) * p(x)).sum(1)
    case("bce_same", lambda x: F.binary_cross_entropy_with_logits(logits(x), 1 - different))
    case("bce_different", lambda x: F.binary_cross_entropy_with_logits(logits(x), different))

    # Explicit triplets.
    def passport(x):
        near = (a(x) - p(x)).square().mean(1)
        far = (a(x) - n(x)).square().mean(1)
        return (near - far + 0.3).clamp_min(0).mean()

    case("passport", passport)
    measures = {
        "squared": lambda a, b: (a - b).square().sum(-1),
        "euclidean": lambda a, b: (a - b).norm(dim=-1),
        "cosine": lambda a, b: 1 - F.cosine_similarity(a, b),
        "mean-squared": lambda a, b: (a - b).square().mean(-1),
    }
    for name, measure in measures.items():
        case(
            f"rows {name} hard",
            lambda x: F.triplet_margin_with_distance_loss(
                a(x), p(x), n(x), distance_function=measure, margin=0.4
            ),
        )
        case(
            f"rows {name} soft",
            lambda x: F.softplus(measure(a(x), p(x)) - measure(a(x), n(x)) + 0.4).mean(),
        )

    # Every triplet of the batch.
    library = {
        "squared": distances.LpDistance(normalize_embeddings=False, power=2),
        "euclidean": distances.LpDistance(normalize_embeddings=False),
        "cosine": distances.CosineSimilarity(),
    }
    for name, distance in library.items():
        for hinge in ("hard", "soft"):
            for reduction, reducer in (
                ("mean", reducers.MeanReducer()),
                ("active", reducers.AvgNonZeroReducer()),
            ):
                loss = losses.TripletMarginLoss(
                    margin=0.4, smooth_loss=hinge == "soft", distance=distance, reducer=reducer
                )
                case(f"batch {name} {hinge} {reduction}", lambda x: loss(x, labels))

    # Embeddings and labels.
    similarity = losses.MultiSimilarityLoss()
    miner = miners.MultiSimilarityMiner(0.1)
    case("multi-similarity mined", lambda x: similarity(x, labels, miner(x, labels)))
    case("multi-similarity all", lambda x: similarity(x, labels))
    for temperature in (0.07, 0.5):
        loss = losses.NTXentLoss(temperature)
        case(f"nt-xent {temperature}", lambda x: loss(x, labels))
    for temperature in (0.1, 0.5):
        loss = losses.SupConLoss(temperature)
        case(f"supcon {temperature}", lambda x: loss(x, labels))

    # Heads.
    for scale in (8, 64):
        head = losses.ArcFaceLoss(4, 5, margin=math.degrees(0.5), scale=scale)
        case(f"arcface {scale}", lambda x: head(x, labels), head)
        head = losses.CosFaceLoss(4, 5, margin=0.35, scale=scale)
        case(f"cosface {scale}", lambda x: head(x, labels), head)

    path = pathlib.Path(__file__).with_suffix(".json")
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
