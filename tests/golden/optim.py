"""Five steps of torch.optim's optimisers and a warm-up + cosine schedule: writes optim.json beside
this file.

    python tests/golden/optim.py

Parameter `b` gets no gradient in step 1 (counted from 0) and `c` none before step 2, so each has its
own count of steps. The learning rate changes from step to step.
"""

import json
import pathlib

import torch

SHAPES = {"a": (3, 4), "b": (5,), "c": (1,)}
SKIPPED = {("b", 1), ("c", 0), ("c", 1)}
STEPS = 5

# Each case: our settings, the PyTorch class, its arguments.
CASES = {
    "adam": ({"kind": "adam"}, torch.optim.Adam, {}),
    "adam-decay": (
        {"kind": "adam", "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
        torch.optim.Adam,
        {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3},
    ),
    "adamw": ({"kind": "adamw"}, torch.optim.AdamW, {}),
    "adamw-decay": (
        {"kind": "adamw", "weight_decay": 0.2},
        torch.optim.AdamW,
        {"weight_decay": 0.2},
    ),
    "sgd-plain": ({"kind": "sgd", "momentum": 0.0}, torch.optim.SGD, {}),
    "sgd": ({"kind": "sgd"}, torch.optim.SGD, {"momentum": 0.9}),
    "sgd-decay": (
        {"kind": "sgd", "weight_decay": 0.1},
        torch.optim.SGD,
        {"momentum": 0.9, "weight_decay": 0.1},
    ),
    "sgd-nesterov": (
        {"kind": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    ),
}


def flat(tensor):
    return tensor.detach().flatten().tolist()


def train(start, grads, optimizer, arguments, learning_rates):
    params = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    steps = optimizer(list(params.values()), lr=learning_rates[0], **arguments)
    for step, lr in enumerate(learning_rates):
        for name, param in params.items():
            param.grad = None if (name, step) in SKIPPED else grads[step][name].clone()
        steps.param_groups[0]["lr"] = lr
        steps.step()
    return {name: flat(param) for name, param in params.items()}


def schedule(warmup, total, final):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, final)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [warmup])
    factors = []
    for _ in range(total + 1):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()
    return {
        "warmup_steps": warmup,
        "total_steps": total,
        "final_fraction": final,
        "factors": factors,
    }


def main():
    torch.manual_seed(0)
    start = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    grads = [
        {name: torch.randn(shape) for name, shape in SHAPES.items()} for _ in range(STEPS)
    ]
    learning_rates = [0.01, 0.02, 0.03, 0.02, 0.01]
    golden = {
        "torch": torch.__version__.split("+")[0],
        "shapes": SHAPES,
        "start": {name: flat(value) for name, value in start.items()},
        "gradients": [
            {name: None if (name, step) in SKIPPED else flat(grad) for name, grad in row.items()}
            for step, row in enumerate(grads)
        ],
        "learning_rates": learning_rates,
        "schedule": schedule(4, 20, 0.1),
    }
    for name, (settings, optimizer, arguments) in CASES.items():
        end = train(start, grads, optimizer, arguments, learning_rates)
        golden[f"case {name}"] = {"settings": settings, "end": end}
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
