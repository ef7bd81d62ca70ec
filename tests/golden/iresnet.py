"""Writes iresnet.json: what the networks of InsightFace's arcface_torch compute in PyTorch.

    python tests/golden/iresnet.py     (torch; and what models.py needs, whose formulas it uses)

IResNet and MobileFaceNet are written here a second time, from the papers and with the keys of
arcface_torch. The weights come from a formula, and the numbers have the form of models.json.
"""

import hashlib
import json
import pathlib

import torch
from torch import nn
from torch.nn import functional as F

from models import fill, pictures, summary, weighted

HERE = pathlib.Path(__file__).parent
SIZE = 112


def conv(inputs, outputs, kernel, stride=1, padding=0, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


class Unit(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = conv(outputs, outputs, 3, stride, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        shortcut = (conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.downsample = nn.Sequential(*shortcut) if stride > 1 else None

    def forward(self, x):
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    def __init__(self, depths):
        super().__init__()
        self.conv1, self.bn1, self.prelu = conv(3, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.PReLU(64)
        inputs = 64
        for number, (outputs, depth) in enumerate(zip((64, 128, 256, 512), depths), 1):
            units = [Unit(inputs, outputs, 2)] + [Unit(outputs, outputs, 1) for _ in range(depth - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*units))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * 7 * 7, 512)
        self.features = nn.BatchNorm1d(512)
        self.features.weight.requires_grad = False

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


class Layers(nn.Module):
    def __init__(self, layers, residual=False):
        super().__init__()
        self.layers, self.residual = nn.Sequential(*layers), residual

    def forward(self, x):
        y = self.layers(x)
        return x + y if self.residual else y


def block(inputs, outputs, kernel=1, stride=1, padding=0, groups=1, active=True):
    layers = [conv(inputs, outputs, kernel, stride, padding, groups), nn.BatchNorm2d(outputs)]
    return Layers(layers + [nn.PReLU(outputs)] * active)


def depthwise(inputs, wide, outputs, stride=2, residual=False):
    each = block(wide, wide, 3, stride, 1, wide)
    return Layers([block(inputs, wide), each, block(wide, outputs, active=False)], residual)


def residual(count, channels, wide):
    return Layers([depthwise(channels, wide, channels, 1, True) for _ in range(count)])


class MobileFaceNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([
            block(3, 128, 3, 2, 1), block(128, 128, 3, 1, 1, 64),
            depthwise(128, 128, 128), residual(4, 128, 128),
            depthwise(128, 256, 256), residual(6, 256, 256),
            depthwise(256, 512, 256), residual(2, 256, 256),
        ])
        self.conv_sep = block(256, 512)
        pool = block(512, 512, 7, groups=512, active=False)
        self.features = Layers([pool, nn.Flatten(), nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512)])
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


NETS = {
    "iresnet18": lambda: IResNet([2, 2, 2, 2]),
    "iresnet34": lambda: IResNet([3, 4, 6, 3]),
    "iresnet50": lambda: IResNet([3, 4, 14, 3]),
    "iresnet100": lambda: IResNet([3, 13, 30, 3]),
    "mobilefacenet": MobileFaceNet,
}
# The others are computed once.
IN_DEPTH = ("iresnet18", "mobilefacenet")


def case(name, batch, train, gradient):
    net = NETS[name]()
    fill(net)
    net.double().train(train)
    out = net((pictures(batch, SIZE).double() - 0.5) / 0.5)
    result = {"batch": batch, "size": SIZE, "train": train}
    result["logits"] = summary(out, 32)
    result["embedding"] = summary(F.normalize(out), 32)
    if gradient:
        weighted(out).backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        result["first_gradient"] = summary(gradients[0], 16)
        result["gradients"] = torch.stack([g.norm() for g in gradients]).norm().item()
    if train:
        buffers = [b.flatten() for k, b in net.state_dict().items() if k.endswith(("running_mean", "running_var"))]
        result["statistics"] = torch.cat(buffers).norm().item()
    return result


def multiply_adds(net):
    total = 0

    def count(module, xs, ys):
        nonlocal total
        total += ys.numel() * module.weight[0].numel()

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, SIZE, SIZE))
    return total


def initial(net):
    """The deviation of the first values of every tensor that is large enough to tell it. Visage draws
    IResNet's convolutions from another law than arcface_torch; see src/models/iresnet.rs."""
    rows = []
    for key, tensor in net.named_parameters():
        other = isinstance(net, IResNet) and tensor.dim() == 4
        if tensor.numel() >= (50_000 if tensor.dim() > 1 else 500) and not other:
            rows.append([key, float(f"{tensor.double().std().item():.3g}")])
    return rows


def model(name):
    torch.manual_seed(0)
    net = NETS[name]()
    keys = "".join(f"{k} {list(v.shape)}\n" for k, v in net.state_dict().items())
    parameters = sum(p.numel() for p in net.parameters())
    cases = [case(name, 1, False, False)]
    if name in IN_DEPTH:
        cases.append(case(name, 3, True, True))
    return {
        "name": name,
        "parameters": parameters,
        "trunk_parameters": parameters,
        "trunk_multiply_adds": multiply_adds(net),
        "keys": len(net.state_dict()),
        "keys_sha256": hashlib.sha256(keys.encode()).hexdigest(),
        "initial": initial(net) if name in IN_DEPTH else [],
        "cases": cases,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for name in NETS:
        rows.append(model(name))
        print(name, rows[-1]["parameters"], rows[-1]["trunk_multiply_adds"], flush=True)
    (HERE / "iresnet.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
