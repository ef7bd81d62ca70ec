"""Writes openface.json: what PyTorch computes with pretrained/openface-nn4-distilled.safetensors.

    python tests/golden/openface.py        (needs torch and safetensors)

The network is written here a second time, from the published description, with PyTorch's own
modules (LocalResponseNorm, LPPool2d), so that the Rust side is compared with something it does not
share a line with. The input is a formula both sides evaluate.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

HERE = pathlib.Path(__file__).parent
WEIGHTS = HERE.parent.parent / "pretrained/openface-nn4-distilled.safetensors"



class Block(nn.Module):
    def __init__(self, inputs, towers, stride, pool, pooled, plain):
        super().__init__()
        rows = []
        for k, reduce, out in towers:
            row = nn.Module()
            row.add_module("1_conv", nn.Conv2d(inputs, reduce, 1))
            row.add_module("2_bn", nn.BatchNorm2d(reduce))
            row.add_module("4_conv", nn.Conv2d(reduce, out, k, stride, k // 2))
            row.add_module("5_bn", nn.BatchNorm2d(out))
            rows.append(row)
        row = nn.Module()
        if pooled:
            row.add_module("2_conv", nn.Conv2d(inputs, pooled, 1))
            row.add_module("3_bn", nn.BatchNorm2d(pooled))
        rows.append(row)
        if plain:
            row = nn.Module()
            row.add_module("1_conv", nn.Conv2d(inputs, plain, 1))
            row.add_module("2_bn", nn.BatchNorm2d(plain))
            rows.append(row)
        self.seq_list = nn.ModuleList(rows)
        self.towers, self.pool, self.pooled, self.plain = len(towers), pool, pooled, plain

    def forward(self, x):
        rows, outputs = self.seq_list, []
        for row in rows[: self.towers]:
            y = F.relu(getattr(row, "2_bn")(getattr(row, "1_conv")(x)))
            outputs.append(F.relu(getattr(row, "5_bn")(getattr(row, "4_conv")(y))))
        y = self.pool(x)
        if self.pooled:
            row = rows[self.towers]
            y = F.relu(getattr(row, "3_bn")(getattr(row, "2_conv")(y)))
        outputs.append(y)
        if self.plain:
            row = rows[self.towers + 1]
            outputs.append(F.relu(getattr(row, "2_bn")(getattr(row, "1_conv")(x))))
        side = max(y.shape[-1] for y in outputs)
        for n, y in enumerate(outputs):
            short = side - y.shape[-1]
            low, high = short // 2, short - short // 2
            outputs[n] = F.pad(y, (low, high, low, high))
        return torch.cat(outputs, 1)


def maximum():
    return nn.MaxPool2d(3, 2)


class L2Pool(nn.Module):
    """LPPool2d(2, 3): PyTorch's own forward; its gradient is NaN on all-zero windows."""

    def forward(self, x):
        exact = F.lp_pool2d(x, 2.0, 3, 3)
        smooth = (F.avg_pool2d(x * x, 3, 3) * 9).clamp_min(1e-12).sqrt()
        return smooth + (exact - smooth).detach()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1, self.layer2 = nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64)
        self.layer6, self.layer7 = nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64)
        self.layer9, self.layer10 = nn.Conv2d(64, 192, 3, 1, 1), nn.BatchNorm2d(192)
        self.layer14 = Block(192, [(3, 96, 128), (5, 16, 32)], 1, maximum(), 32, 64)
        self.layer15 = Block(256, [(3, 96, 128), (5, 32, 64)], 1, L2Pool(), 64, 64)
        self.layer16 = Block(320, [(3, 128, 256), (5, 32, 64)], 2, maximum(), None, None)
        self.layer17 = Block(640, [(3, 96, 192), (5, 32, 64)], 1, L2Pool(), 128, 256)
        self.layer18 = Block(640, [(3, 160, 256), (5, 64, 128)], 2, maximum(), None, None)
        self.layer19 = Block(1024, [(3, 96, 384)], 1, L2Pool(), 96, 256)
        self.layer21 = Block(736, [(3, 96, 384)], 1, maximum(), 96, 256)
        self.layer25 = nn.Linear(736, 128)
        self.lrn = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)

    def forward(self, x):
        x = F.relu(self.layer2(self.layer1(x)))
        x = self.lrn(F.max_pool2d(x, 3, 2, 1))
        x = F.relu(self.layer7(self.layer6(x)))
        x = F.relu(self.layer10(self.layer9(x)))
        x = F.max_pool2d(self.lrn(x), 3, 2, 1)
        for n in (14, 15, 16, 17, 18, 19, 21):
            x = getattr(self, f"layer{n}")(x)
        x = self.layer25(F.avg_pool2d(x, 3).flatten(1))
        return x / torch.sqrt((x * x).sum(1, keepdim=True) + 1e-6)


def pictures(count):
    n, c, i, j = torch.meshgrid(
        *(torch.arange(k, dtype=torch.float64) for k in (count, 3, 96, 96)), indexing="ij"
    )
    return (0.5 + 0.5 * torch.sin(0.1 * i * (1 + n) + 0.07 * j + c + 2 * n)).float()


def run(count, train):
    from safetensors.torch import load_file  # the network itself needs torch alone

    net = Net()
    net.load_state_dict(load_file(WEIGHTS), strict=True)
    net.train(train)
    # The gradient in float64: in float32 the order of a sum, which depends on the processor and
    # the number of threads, decides whether a ReLU near zero lets its gradient through.
    exact = Net().double()
    exact.load_state_dict(load_file(WEIGHTS), strict=True)
    exact.train(train)
    weight = torch.cos(torch.arange(128, dtype=torch.float64))
    (exact(pictures(count).double()) * weight).sum().backward()
    grad = exact.layer1.weight.grad
    with torch.no_grad():
        out = net(pictures(count))
    return {
        "batch": count,
        "train": train,
        "embedding": [round(v, 7) for v in out.flatten().tolist()],
        "layer1_grad_norm": grad.norm().item(),
        "layer1_grad_head": grad.flatten()[:24].tolist(),
        "bn_mean_after": net.layer2.running_mean[:8].tolist(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert sum(p.numel() for p in Net().parameters()) == 3_733_968
    # Train mode needs more than one picture: layer19 pools to 1x1, one value per channel.
    cases = [run(1, False), run(3, False), run(3, True)]
    (HERE / "openface.json").write_text(json.dumps({"torch": torch.__version__, "cases": cases}) + "\n")
