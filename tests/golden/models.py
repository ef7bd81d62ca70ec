"""Writes models.json: what torchvision's and facenet-pytorch's own networks compute.

    python tests/golden/models.py     (torch, torchvision, facenet-pytorch --no-deps, requests, tqdm)

No weights are downloaded: every tensor is filled by a formula that tests/models.rs evaluates too,
an integer hash of the tensor's place in the state dict and the element's place in the tensor.
Everything is computed in float64: in float32 a rounding here or there turns a ReLU, and PyTorch's
own gradients differ by percents from one processor to another.
"""

import hashlib
import json
import math
import pathlib
import warnings

import facenet_pytorch
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import openface

HERE = pathlib.Path(__file__).parent
PERIOD = 65537  # elements repeat after so many (a prime), which keeps large tensors cheap
MASK = 0xFFFFFFFF
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FACENET = ((0.5,) * 3, (128 / 255,) * 3)

# name, native size, odd size; the aux head of inception_v3 needs the native size
NETS = [
    *((f"vgg{n}{bn}", 224, 75) for n in (11, 13, 16, 19) for bn in ("", "_bn")),
    *((f"densenet{n}", 224, 75) for n in (121, 161, 169, 201)),
    ("inception_v3", 299, 107),
    ("facenet", 160, 113),
]
# The others are computed once, small.
IN_DEPTH = ("vgg11_bn", "vgg16", "densenet121", "inception_v3", "facenet")
HEADS = ("classifier.", "fc.", "AuxLogits.", "logits.")


def noise(seed, count):
    """Whole numbers hashed to [-1, 1), exactly, in float64."""
    x = torch.arange(min(count, PERIOD)) + 7919 * (seed + 1)
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & MASK
    x = (x ^ (x >> 16)).double() / 2.0**31 - 1
    return x.repeat(-(-count // PERIOD))[:count]


def fill(net):
    for seed, (name, tensor) in enumerate(net.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        u = noise(seed, tensor.numel()).view(tensor.shape)
        if tensor.dim() > 1:
            u = u * math.sqrt(6.0 / tensor[0].numel())
        elif name.endswith("running_var"):
            u = 1 + 0.5 * u.abs()
        elif name.endswith("weight"):
            u = 1 + 0.2 * u
        else:
            u = 0.1 * u
        tensor.copy_(u.float())


def build(name, initialise=False):
    if name == "facenet":
        return facenet_pytorch.InceptionResnetV1(classify=True, num_classes=1000)
    kwargs = {} if name.startswith("densenet") else {"init_weights": initialise}
    if name == "inception_v3":
        kwargs["transform_input"] = True
    return getattr(torchvision.models, name)(weights=None, **kwargs)


def pictures(count, size):
    n, c, i, j = torch.meshgrid(
        *(torch.arange(k, dtype=torch.float64) for k in (count, 3, size, size)), indexing="ij"
    )
    return (0.5 + 0.5 * torch.sin(0.1 * i * (1 + n) + 0.07 * j + c + 2 * n)).float()


def normalised(name, xs):
    mean, std = FACENET if name == "facenet" else IMAGENET
    return torchvision.transforms.functional.normalize(xs, mean, std)


def weighted(xs):
    """A loss that differs from picture to picture: batch normalisation hides what they share."""
    return (xs * torch.cos(torch.arange(xs.numel(), dtype=torch.float64)).view_as(xs)).sum()


def summary(tensor, head):
    return {"norm": tensor.norm().item(), "head": [float(f"{v:.12g}") for v in tensor.flatten()[:head].tolist()]}


def last_layer(name, net):
    """The layer whose input the embedding is made of, as [N, D] or as a map before pooling."""
    if name.startswith("vgg"):
        return net.avgpool
    return net.logits if name == "facenet" else net.fc if name == "inception_v3" else net.classifier


def case(name, batch, size, train, gradient):
    net = build(name)
    fill(net)
    net.double().train(train)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if name == "inception_v3" and size < 299:
        net.aux_logits, net.AuxLogits = False, None
    seen = []
    hook = last_layer(name, net).register_forward_hook(lambda m, xs, y: seen.append(xs[0]))
    out = net(normalised(name, pictures(batch, size).double()))
    hook.remove()
    features = seen[0].mean((2, 3)) if seen[0].dim() == 4 else seen[0]
    result = {"batch": batch, "size": size, "train": train}
    out, aux = out if isinstance(out, tuple) else (out, None)
    result["logits"] = summary(out, 32)
    result["embedding"] = summary(F.normalize(features), 32)
    if aux is not None:
        result["auxiliary"] = summary(aux, 32)
    if gradient:
        (weighted(out) + (0 if aux is None else 0.4 * weighted(aux))).backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        result["first_gradient"] = summary(gradients[0], 16)
        result["gradients"] = torch.stack([g.norm() for g in gradients]).norm().item()
    buffers = [b.flatten() for k, b in net.state_dict().items() if k.endswith(("running_mean", "running_var"))]
    if train and buffers:
        result["statistics"] = torch.cat(buffers).norm().item()
    return result


def initial(name):
    """The deviation of the first values of every tensor that is large enough to tell it."""
    torch.manual_seed(0)
    rows = []
    for key, tensor in build(name, initialise=True).named_parameters():
        if tensor.numel() >= (50_000 if tensor.dim() > 1 else 500):
            rows.append([key, float(f"{tensor.double().std().item():.3g}")])
    return rows


def multiply_adds(net, size):
    """One picture through the trunk alone, without the classifier."""
    total = 0

    def count(module, xs, ys):
        nonlocal total
        total += ys.numel() * module.weight[0].numel()

    for key, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and not (key + ".").startswith(HEADS):
            module.register_forward_hook(count)
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, size, size))
    return total


def model(name, native, odd):
    net = build(name)
    keys = "".join(f"{k} {list(v.shape)}\n" for k, v in net.state_dict().items())
    if name in IN_DEPTH:
        last = native if name == "inception_v3" else odd
        cases = [
            case(name, 1, native, False, False),
            case(name, 3, odd, False, True),
            case(name, 3, last, True, True),
        ]
    else:
        cases = [case(name, 1, odd, False, False)]
    return {
        "name": name.replace("_", "-"),
        "parameters": sum(p.numel() for p in net.parameters()),
        "trunk_parameters": sum(p.numel() for k, p in net.named_parameters() if not k.startswith(HEADS)),
        "trunk_multiply_adds": multiply_adds(net, native),
        "keys": len(net.state_dict()),
        "keys_sha256": hashlib.sha256(keys.encode()).hexdigest(),
        "initial": initial(name) if name in IN_DEPTH else [],
        "cases": cases,
    }


def pooling():
    """ceil_mode and padding on a 1x1x6x6 map."""
    xs = noise(0, 36).float().view(1, 1, 6, 6)
    results = []
    for kernel, stride, padding in ((3, 2, 0), (3, 2, 1), (2, 2, 1)):
        for ceil in (False, True):
            most = F.max_pool2d(xs, kernel, stride, padding, ceil_mode=ceil)
            mean = F.avg_pool2d(xs, kernel, stride, padding, ceil)
            results.append({
                "kernel": kernel, "stride": stride, "padding": padding, "ceil": ceil,
                "max": most.flatten().tolist(), "mean": mean.flatten().tolist(),
            })
    return results


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    models = []
    for net in NETS:
        models.append(model(*net))
        last = models[-1]
        print(last["name"], last["trunk_parameters"], last["trunk_multiply_adds"], flush=True)
        for c in last["cases"]:
            print("   ", c["size"], c["train"], c["logits"]["norm"], c.get("gradients"), c["embedding"]["head"][:4])
    golden = {
        "torch": torch.__version__,
        "openface_multiply_adds": multiply_adds(openface.Net(), 96),
        "pooling": pooling(),
        "models": models,
    }
    (HERE / "models.json").write_text(json.dumps(golden) + "\n")
