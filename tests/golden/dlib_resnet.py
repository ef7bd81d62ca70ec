"""Writes dlib_resnet.json: what PyTorch and dlib compute with dlib's face recognition network.

    python tests/golden/dlib_resnet.py [dlib_face_recognition_resnet_model_v1.dat]

Needs torch and safetensors; with the original file (in face_recognition_models 0.3.0) also dlib-bin
20.0.1 and numpy, and then dlib's own descriptors are written beside PyTorch's. The network is written
here a second time, from dlib's description. The input is a formula both sides evaluate, rounded to the
whole pixel values that dlib takes.
"""

import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from torch import nn

HERE = pathlib.Path(__file__).parent
WEIGHTS = HERE.parent.parent / "pretrained/dlib-resnet.safetensors"
MEAN = (122.782, 117.001, 104.298)
# Output channels and stride.
PLAN = [(32, 1)] * 3 + [(64, 2)] + [(64, 1)] * 3 + [(128, 2)] + [(128, 1)] * 2 + [(256, 2)] + [(256, 1)] * 2 + [(256, 2)]


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1 if stride == 1 else 0)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x):
        y = self.conv2(F.relu(self.conv1(x)))
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, 2)
        total = y.new_zeros(y.shape[0], *(max(a, b) for a, b in zip(y.shape[1:], x.shape[1:])))
        for part in (y, x):
            _, c, h, w = part.shape
            total[:, :c, :h, :w] += part
        return F.relu(total)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2)
        inputs = [32] + [outputs for outputs, _ in PLAN]
        self.blocks = nn.Sequential(*(Block(i, o, s) for i, (o, s) in zip(inputs, PLAN)))
        self.fc = nn.Linear(256, 128, bias=False)

    def forward(self, pixels):
        """Pixels from 0 to 255 to dlib's descriptor, not normalised."""
        x = (pixels - torch.tensor(MEAN, dtype=pixels.dtype).view(1, 3, 1, 1)) / 256
        x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2)
        return self.fc(self.blocks(x).mean((2, 3)))


def pixels(count, size):
    """round(255 (0.5 + 0.5 sin(0.1 i (1 + n) + 0.07 j + c + 2 n)))"""
    n, c, i, j = torch.meshgrid(*(torch.arange(k, dtype=torch.float64) for k in (count, 3, size, size)), indexing="ij")
    return (255 * (0.5 + 0.5 * torch.sin(0.1 * i * (1 + n) + 0.07 * j + c + 2 * n))).round()


def multiply_adds(net, size):
    total = 0

    def count(module, xs, ys):
        nonlocal total
        total += ys.numel() * module.weight[0].numel()

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size))
    return total


def from_dlib(path, xs):
    import dlib

    model = dlib.face_recognition_model_v1(path)
    chips = xs.permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy()
    return [list(model.compute_face_descriptor(chip)) for chip in chips]


if __name__ == "__main__":
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    state = {key: tensor.float() for key, tensor in load_file(WEIGHTS).items()}
    adds = multiply_adds(Net(), 150)
    net = Net()
    net.load_state_dict(state)
    net.double()
    cases = []
    for count, size in ((2, 150), (1, 131)):
        net.zero_grad()
        raw = net(pixels(count, size))
        unit = F.normalize(raw)
        (unit * torch.cos(torch.arange(unit.numel(), dtype=torch.float64)).view_as(unit)).sum().backward()
        case = {"count": count, "size": size, "descriptors": raw.tolist(), "embeddings": unit.tolist()}
        case["gradients"] = {key: p.grad.norm().item() for key, p in net.named_parameters()}
        cases.append(case)
    golden = {
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in net.parameters()),
        "multiply_adds": adds,
        "cases": cases,
    }
    if len(sys.argv) > 1:
        golden["dlib"] = from_dlib(sys.argv[1], pixels(2, 150))
        away = torch.tensor(golden["dlib"]) - torch.tensor(cases[0]["descriptors"])
        print("dlib and PyTorch on the float16 weights differ by", away.abs().max().item())
    rounded = json.loads(json.dumps(golden), parse_float=lambda text: float(f"{float(text):.9g}"))
    (HERE / "dlib_resnet.json").write_text(json.dumps(rounded) + "\n")
    print(golden["parameters"], golden["multiply_adds"], [math.dist(row, [0] * 128) for row in cases[0]["descriptors"]])
