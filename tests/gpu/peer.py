"""The same networks in PyTorch, with nothing but torch: for run.py.

    python peer.py compare DEVICE FILE.safetensors    our weights and pictures, PyTorch's answers
    python peer.py speed DEVICE eager|compile         triplets/s and pictures/s

One JSON object a line on standard output. OpenFace is the definition in openface.py; VGG16 and
DenseNet121 are written out here under torchvision's keys. A training step is what a user tunes: bytes
in pinned memory copied without blocking, bfloat16 autocast, channels last, batch-hard triplets mined in
tensors, fused Adam.
"""

import json
import pathlib
import struct
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(path):
    raw = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    kinds = {"F32": torch.float32, "I64": torch.int64}
    found = {}
    for key, about in header.items():
        begin, end = (8 + size + at for at in about["data_offsets"])
        data = bytearray(raw[begin:end])
        flat = torch.frombuffer(data, dtype=kinds[about["dtype"]]) if data else torch.empty(0)
        found[key] = flat.reshape(about["shape"]).clone()
    return found


class Pooled(nn.Module):
    """torchvision's normalisation, the convolutions, their mean over all places, length one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x):
        x = F.relu(self.features((x - self.mean) / self.std))
        return F.normalize(x.mean((2, 3)).float())


class Vgg16(Pooled):
    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for outputs in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            if outputs:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            else:
                layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)


class DenseLayer(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 128, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(128), nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class Transition(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, inputs // 2, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet121(Pooled):
    def __init__(self):
        super().__init__()
        parts, channels = nn.Sequential(), 64
        parts.add_module("conv0", nn.Conv2d(3, 64, 7, 2, 3, bias=False))
        parts.add_module("norm0", nn.BatchNorm2d(64))
        parts.add_module("relu0", nn.ReLU())
        parts.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        for block, depth in enumerate((6, 12, 24, 16), 1):
            layers = nn.Sequential()
            for layer in range(1, depth + 1):
                layers.add_module(f"denselayer{layer}", DenseLayer(channels))
                channels += 32
            parts.add_module(f"denseblock{block}", layers)
            if block < 4:
                parts.add_module(f"transition{block}", Transition(channels))
                channels //= 2
        parts.add_module("norm5", nn.BatchNorm2d(channels))
        self.features = parts


def build(name):
    if name == "openface":
        from openface import Net

        return Net()
    return {"vgg16": Vgg16, "densenet121": DenseNet121}[name]()


def say(what, figure, **more):
    print(json.dumps({"what": what, "figure": figure, **more}), flush=True)


def compare(device, path):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    stored = load(path)
    wanted, pictures = stored.pop("output"), stored.pop("input").to(device)
    gradients = {key.removeprefix("gradient:"): stored.pop(key) for key in list(stored) if key.startswith("gradient:")}
    net = build(pathlib.Path(path).stem.removeprefix("peer-"))
    net.load_state_dict(stored, strict=True)
    net = net.to(device).eval()
    output = net(pictures)
    say("float32, forward", (output.detach().cpu() - wanted).abs().max().item(), bound=1e-4)
    weights = torch.arange(output.numel(), dtype=torch.float64).cos().float().view_as(output).to(device)
    (output * weights).sum().backward()
    own = {name: param.grad.cpu() for name, param in net.named_parameters()}
    apart = sum((own[name] - gradients[name]).double().square().sum() for name in own)
    length = sum(gradient.double().square().sum() for gradient in own.values())
    # A last bit turns ReLUs that sit at zero: a gradient in float32 moves by percents.
    say("float32, gradient", (apart / length).sqrt().item(), bound=5e-2)


def batch_hard(embeddings, labels, margin=0.2):
    squares = embeddings.square().sum(1)
    distances = (squares[:, None] + squares[None] - 2 * embeddings @ embeddings.T).clamp_min(0)
    same = labels[:, None] == labels[None]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    far = distances.masked_fill(~same | itself, float("-inf")).amax(1)
    near = distances.masked_fill(same, float("inf")).amin(1)
    return F.relu(far - near + margin).mean()


def per_second(device, batch, work):
    """As tests/cuda.rs: the median of five rounds of about a second."""
    on_gpu = device.startswith("cuda")
    finish = torch.cuda.synchronize if on_gpu else (lambda: None)
    warm, rounds, seconds = (10, 5, 1.0) if on_gpu else (1, 2, 0.05)
    for _ in range(warm):
        work()
    finish()
    rates = []
    for _ in range(rounds):
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for _ in range(5):
                work()
            done += 5
            finish()
        rates.append(done * batch / (time.perf_counter() - start))
    return sorted(rates)[len(rates) // 2]


def speed(device, way):
    on_gpu = device.startswith("cuda")
    torch.backends.cudnn.benchmark = on_gpu
    kind = "cuda" if on_gpu else "cpu"
    sizes = {"openface": (96, 240), "vgg16": (224, 60), "densenet121": (224, 60)} if on_gpu else {"openface": (96, 12), "vgg16": (64, 6), "densenet121": (64, 6)}
    for name, (side, batch) in sizes.items():
        torch.manual_seed(2)
        net = build(name).to(device, memory_format=torch.channels_last).eval()
        run = torch.compile(net) if way == "compile" else net
        optimizer = torch.optim.Adam(net.parameters(), lr=6e-5, fused=True)
        raw = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
        raw = raw.pin_memory() if on_gpu else raw
        labels = torch.arange(batch, device=device) // 6

        def arrive():
            return raw.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255

        def step():
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(kind, torch.bfloat16):
                rows = run(arrive())
            batch_hard(rows.float(), labels).backward()
            optimizer.step()

        def embed():
            with torch.inference_mode(), torch.autocast(kind, torch.bfloat16):
                run(arrive())

        say(f"{name}: training step", per_second(device, batch, step))
        say(f"{name}: embedding", per_second(device, batch, embed))


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("compare", "speed"):
        sys.exit(__doc__)
    {"compare": compare, "speed": speed}[sys.argv[1]](*sys.argv[2:])
