"""PyTorch's learning-rate schedulers, and optimisers whose momentum cycles: writes schedules.json
beside this file.

    python tests/golden/schedules.py

"settings" are ours, as in a configuration file. The base learning rate is 1 throughout, so a
learning rate is a factor.
"""

import json
import pathlib
import warnings

import torch
from torch.optim import SGD, Adam, AdamW, lr_scheduler

STEPS = 60
MOMENTUM = {"low": 0.8, "high": 0.93, "beta2": 0.99}


def run(settings, scheduler, steps=STEPS):
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.5)
    scheduler = scheduler(optimizer)
    factors, momenta = [], []
    for step in range(steps):
        group = optimizer.param_groups[0]
        factors.append(group["lr"])
        momenta.append(group["momentum"])
        if step + 1 < steps:
            optimizer.step()
            scheduler.step()
    case = {"settings": settings, "factors": factors}
    if "momentum" in settings:
        case["momenta"] = momenta
    return case


def cyclic(shape, up, down, gamma, momentum):
    settings = {
        "kind": "cyclic", "shape": shape, "steps_up": up, "steps_down": down,
        "low": 0.2, "high": 1.1, "gamma": gamma,
    }  # fmt: skip
    if momentum:
        settings["momentum"] = MOMENTUM
    return settings, lambda optimizer: lr_scheduler.CyclicLR(
        optimizer,
        base_lr=0.2,
        max_lr=1.1,
        step_size_up=up,
        step_size_down=down,
        mode=shape.replace("-", "_"),
        gamma=gamma,
        cycle_momentum=momentum,
        base_momentum=MOMENTUM["low"],
        max_momentum=MOMENTUM["high"],
    )


def one_cycle(total, up, start, end):
    settings = {
        "kind": "one-cycle", "total_steps": total, "up": up, "start_divisor": start,
        "end_divisor": end, "momentum": MOMENTUM,
    }  # fmt: skip
    return settings, lambda optimizer: lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=total,
        pct_start=up,
        div_factor=start,
        final_div_factor=end,
        base_momentum=MOMENTUM["low"],
        max_momentum=MOMENTUM["high"],
    )


def restarts(first, longer, final):
    settings = {
        "kind": "cosine-restarts", "first_steps": first, "longer": longer, "final_fraction": final,
    }  # fmt: skip
    return settings, lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, first, longer, final
    )


def plateau(settings, scores):
    arguments = {
        "mode": {"lower": "min", "higher": "max"}[settings["better"]],
        "factor": settings["factor"],
        "patience": settings["patience"],
        "threshold": settings["threshold"],
        "threshold_mode": "rel" if settings["relative"] else "abs",
        "cooldown": settings["cooldown"],
        "min_lr": settings["lowest"],
    }
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)
    factors = []
    for score in scores:
        scheduler.step(score)
        factors.append(optimizer.param_groups[0]["lr"])
    return {"settings": settings, "scores": scores, "factors": factors}


def train(kind, optimizer, arguments):
    """Twelve steps with a cycling momentum, from a fixed start, with fixed gradients."""
    settings, scheduler = cyclic("triangular", 3, 2, 1.0, True)
    start = torch.randn(7)
    gradients = torch.randn(12, 7)
    param = torch.nn.Parameter(start.clone())
    steps = optimizer([param], lr=1.0, **arguments)
    cycle = scheduler(steps)
    for gradient in gradients:
        # The scheduler sets the learning rate itself; ours is a base rate of 0.01 times a factor.
        steps.param_groups[0]["lr"] *= 0.01
        param.grad = gradient.clone()
        steps.step()
        cycle.step()
    return {
        "optimizer": kind,
        "schedule": settings,
        "lr": 0.01,
        "start": start.tolist(),
        "gradients": gradients.tolist(),
        "end": param.detach().tolist(),
    }


def main():
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    golden = {
        "torch": torch.__version__.split("+")[0],
        "schedules": [
            run(*cyclic("triangular", 7, 4, 1.0, True)),
            run(*cyclic("triangular", 5, 5, 1.0, False)),
            run(*cyclic("triangular2", 4, 9, 1.0, True)),
            run(*cyclic("exp-range", 6, 6, 0.97, True)),
            run(*one_cycle(60, 0.3, 25.0, 1e4)),
            # Turns between two steps.
            run(*one_cycle(37, 0.31, 4.0, 50.0), steps=37),
            run(*restarts(10, 1, 0.0)),
            run(*restarts(4, 2, 0.1)),
            run(*restarts(3, 3, 0.05)),
            run(
                {"kind": "step", "every": 7, "gamma": 0.3},
                lambda optimizer: lr_scheduler.StepLR(optimizer, 7, 0.3),
            ),
        ],
        "plateaus": [],
        "training": [
            train("adam", Adam, {"betas": (0.9, 0.99)}),
            train("adamw", AdamW, {"betas": (0.9, 0.99), "weight_decay": 0.01}),
            train("sgd", SGD, {"momentum": 0.9}),
        ],
    }
    noise = torch.rand(40, dtype=torch.float64)
    falling = (2.0 / (1 + torch.arange(40) / 4) + 0.2 * noise).tolist()
    rising = (0.9 - 0.5 / (1 + torch.arange(40) / 3) + 0.05 * noise).tolist()
    for better, scores in (("lower", falling), ("higher", rising)):
        for relative, threshold in ((True, 0.05), (False, 0.02)):
            for patience, cooldown, lowest in ((2, 0, 0.0), (1, 3, 0.02), (0, 1, 0.1)):
                settings = {
                    "better": better, "factor": 0.3, "patience": patience, "threshold": threshold,
                    "relative": relative, "cooldown": cooldown, "lowest": lowest,
                }  # fmt: skip
                golden["plateaus"].append(plateau(settings, scores))
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = []
    for key, value in golden.items():
        if isinstance(value, list):
            rows = ",\n".join(json.dumps(row) for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
