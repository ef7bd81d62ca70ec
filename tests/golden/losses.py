"""Triplet losses and their gradients by PyTorch, in float64: writes losses.json beside this file.

    python tests/golden/losses.py
"""

import json
import pathlib

import torch
from torch.nn.functional import triplet_margin_loss, triplet_margin_with_distance_loss

MARGIN = 0.35


def squared(a, b):
    return (a - b).square().sum(-1)


def per_tuple(x, triplets):
    anchor, positive, negative = (x[column] for column in triplets.T)
    return triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=squared, margin=MARGIN, reduction="none"
    )


def active_mean(values):
    return values.sum() / (values > 0).sum()


def euclidean(x, triplets):
    anchor, positive, negative = (x[column] for column in triplets.T)
    return triplet_margin_loss(anchor, positive, negative, margin=MARGIN, eps=0.0)


def main():
    torch.manual_seed(0)
    # Two identities of four, one of two and a lone one; the last two pictures are the same.
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 3])
    x = torch.nn.functional.normalize(torch.randn(len(labels), 5, dtype=torch.float64), dim=1)
    x[-1] = x[-2]
    size = range(len(labels))
    every = torch.tensor(
        [
            (a, p, n)
            for a in size
            for p in size
            for n in size
            if a != p and labels[a] == labels[p] and labels[a] != labels[n]
        ]
    )
    # The root's gradient has no value at a distance of zero: the listed ones leave those pairs out.
    apart = squared(x[every[:, 0]], x[every[:, 1]]) > 0
    listed = every[apart][torch.randperm(int(apart.sum()))[:20]]

    def case(function, triplets):
        variable = x.clone().requires_grad_()
        loss = function(variable, triplets)
        loss.backward()
        return {"loss": loss.item(), "gradient": variable.grad.flatten().tolist()}

    mean = lambda x, triplets: per_tuple(x, triplets).mean()
    active = lambda x, triplets: active_mean(per_tuple(x, triplets))
    golden = {
        "torch": torch.__version__.split("+")[0],
        "margin": MARGIN,
        "labels": labels.tolist(),
        "embeddings": x.flatten().tolist(),
        "triplets": listed.flatten().tolist(),
        "mean": case(mean, listed),
        "active": case(active, listed),
        "all_mean": case(mean, every),
        "all_active": case(active, every),
        "euclidean_mean": case(euclidean, listed),
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
