"""Writes lr_find.json: learning-rate range tests in torch, with fastai's stopping rule and suggestions.

The loss is 0.5 * sum(curvature * w^2) plus a term of the step that stands for the batch. As in
fastai's `ParamScheduler`, `Recorder` and `lr_find`: the rate rises by a constant factor, the loss is
the one before the step, its running mean has a decay of 0.98 and is divided by 1 - 0.98^n, and the test
ends above four times the best running mean. Unlike fastai's, the suggestions come from a symmetric mean
over a tenth of the planned steps to both sides (triangular weights), of losses clipped at twice the mean
of the first tenth, which is left out of the suggestions.

    python tests/golden/lr_find.py
"""

import json
import math
import pathlib

import torch

CURVATURE = [1.0, 4.0, 0.25]
START = [1.0, -0.5, 2.0]


def optimizer(name, parameter):
    if name == "sgd":
        return torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    return torch.optim.Adam([parameter], lr=1.0)


def range_test(name, first, last, steps, wobble):
    weight = torch.tensor(START, requires_grad=True)
    curvature = torch.tensor(CURVATURE)
    optim = optimizer(name, weight)
    lrs, losses = [], []
    mean, best = 0.0, math.inf
    for step in range(steps):
        lr = first * (last / first) ** (step / (steps - 1))
        optim.zero_grad()
        loss = 0.5 * (curvature * weight**2).sum() + wobble * (step % 3)
        loss.backward()
        mean = 0.98 * mean + 0.02 * loss.item()
        lrs.append(lr)
        losses.append(loss.item())
        running = mean / (1 - 0.98 ** (step + 1))
        best = min(best, running)
        if running > 4 * best:
            break
        for group in optim.param_groups:
            group["lr"] = lr
        optim.step()
    half = steps // 10
    clipped = torch.tensor(losses, dtype=torch.float64).clamp(max=2 * sum(losses[:half]) / half)
    weight = 1 - (torch.arange(-half, half + 1, dtype=torch.float64) / (half + 1)).abs()
    smooth = lambda x: torch.nn.functional.conv1d(x[None, None], weight[None, None], padding=half)[0, 0]
    smoothed = (smooth(clipped) / smooth(torch.ones_like(clipped))).tolist()
    kept = range(steps // 10, len(lrs))
    lowest = min(kept, key=lambda i: smoothed[i])
    slope = lambda i: (smoothed[i + 1] - smoothed[i - 1]) / (math.log(lrs[i + 1] / lrs[i - 1]))
    steepest = min((i for i in kept if kept[0] < i < lowest), key=slope)
    return {
        "optimizer": name, "from": first, "to": last, "steps": steps, "wobble": wobble,
        "curvature": CURVATURE, "start": START, "lr": lrs, "loss": losses, "smoothed": smoothed,
        "exploded": len(lrs) < steps, "steepest": lrs[steepest], "lowest": lrs[lowest],
    }


cases = [
    range_test("sgd", 1e-5, 100.0, 60, 0.0),
    range_test("adam", 1e-4, 10.0, 50, 0.0),
    range_test("sgd", 1e-4, 0.1, 40, 0.02),
]
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps({"torch": torch.__version__, "cases": cases}) + "\n")
for case in cases:
    print(case["optimizer"], len(case["lr"]), case["exploded"], case["steepest"], case["lowest"])
