"""Writes a reference: what PyTorch computes with a network, layer by layer, for `visage weights verify`.

    python tests/parity/reference.py ARCHITECTURE OUT.safetensors [--weights FILE] [--mode train] ...

Needs torch, torchvision, facenet-pytorch (--no-deps) and safetensors, and nothing of Visage but the
definitions of networks in tests/golden (openface.py, iresnet.py). The file holds

    input               uint8 pictures [N, 3, H, W]; the network sees them as x / 255, normalised
    activation:LAYER    the output of every layer with parameters, from forward hooks
    output, auxiliary   logits, or unit-length embeddings where FILE has no classifier
    gradient:KEY        d loss / d KEY; loss = sum(cos(i) output_i) + 0.4 sum(cos(i) auxiliary_i)
    statistic:KEY       running means and variances after the pass (train mode)

and, as JSON under the metadata key `visage-reference`, the architecture, mode, dtype, torch's version,
the keys of the state dict, and every tensor's shape and length (2-norm) in order of execution.
With --values N a tensor holds at most N of its values, at the places floor(k numel / N); the length
is always that of the whole. Dropout is off (p = 0) in train mode, because its draws cannot agree.
"""

import argparse
import json
import pathlib
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "golden"))
import iresnet  # noqa: E402
import models  # noqa: E402
import openface  # noqa: E402

FORMAT = 1
LEAST_AUXILIARY = 299  # torchvision's auxiliary head fails on smaller pictures


def state_dict_of(path):
    """The tensors of a weight file, and whether Visage wrote it."""
    try:
        with safe_open(path, "pt") as file:
            ours = "visage" in (file.metadata() or {})
        state = load_file(path)
    except Exception:  # not safetensors
        ours, state = False, torch.load(path, map_location="cpu", weights_only=True)
        state = next((state[key] for key in ("state_dict", "model") if key in state), state)
        if all(key.startswith("module.") for key in state):
            state = {key[len("module."):]: value for key, value in state.items()}
    if ours:  # the head and the gallery of a model file
        head = ("classifier.weight", "classifier.bias", "gallery.")
        state = {key: value for key, value in state.items() if not key.startswith(head)}
    return state


class Unnormalised(nn.Module):
    """Any of the networks behind Visage's normalisation, and in front of the output Visage compares."""

    def __init__(self, name, classes, embedding):
        super().__init__()
        self.name, self.classes = name, classes
        if name == "openface":
            self.net = openface.Net()
        elif name == "facenet":
            kwargs = {"classify": True, "num_classes": classes} if classes else {}
            self.net = models.facenet_pytorch.InceptionResnetV1(**kwargs)
        elif name in iresnet.NETS:
            self.net = iresnet.NETS[name]()
        else:
            kwargs = {} if name.startswith("densenet") else {"init_weights": False}
            if name == "inception_v3":
                kwargs["transform_input"] = True
            build = getattr(models.torchvision.models, name)
            self.net = build(weights=None, num_classes=classes or 10, **kwargs)
        self.top = nn.Linear(embedding[1], embedding[0]) if embedding else None

    def forward(self, xs):
        if self.name in iresnet.NETS:
            return self.above(F.normalize(self.net((xs - 0.5) / 0.5))), None
        if self.name != "openface":
            xs = models.normalised(self.name, xs)
        if self.classes or self.name in ("openface", "facenet"):
            out = self.net(xs)
            out, auxiliary = out if isinstance(out, tuple) else (out, None)
        else:
            seen = []
            hook = models.last_layer(self.name, self.net).register_forward_pre_hook(lambda m, xs: seen.append(xs[0]))
            self.net(xs)
            hook.remove()
            out, auxiliary = seen[0].mean((2, 3)) if seen[0].dim() == 4 else seen[0], None
            out = F.normalize(out)
        return self.above(out), auxiliary

    def above(self, out):
        return out if self.top is None else F.normalize(self.top(out))

    def state(self):
        """Visage's key and the tensor, in order."""
        pairs = [(key, value) for key, value in self.net.state_dict(keep_vars=True).items() if self.knows(key)]
        if self.top is not None:
            pairs += [(f"embedding.{key}", value) for key, value in self.top.state_dict(keep_vars=True).items()]
        return pairs

    def knows(self, key):
        return bool(self.classes) or self.name in iresnet.NETS or not (key + ".").startswith(models.HEADS)


def build(name, weights=None, classes=1000):
    """The network with the weights of a file, or filled by the formula of tests/golden/models.py."""
    if weights is None:
        net = Unnormalised(name, None if name in ("openface", *iresnet.NETS) else classes, None)
        models.fill(net.net)
        return net
    heads = {"facenet": "logits.weight", "inception_v3": "fc.weight"}
    head = heads.get(name, "classifier.6.weight" if name.startswith("vgg") else "classifier.weight")
    classes = weights[head].shape[0] if head in weights else None
    net = Unnormalised(name, classes, weights["embedding.weight"].shape if "embedding.weight" in weights else None)
    with torch.no_grad():
        theirs = dict(weights)
        for key, tensor in net.state():
            if key in theirs or not key.endswith("num_batches_tracked"):
                tensor.copy_(theirs.pop(key))
    if theirs:
        raise SystemExit(f"the weights hold {', '.join(sorted(theirs))}, which {name} does not know")
    return net


def pictures(batch, size):
    return (models.pictures(batch, size) * 255).round().to(torch.uint8)


def weighted(xs):
    return (xs * torch.cos(torch.arange(xs.numel(), dtype=torch.float64)).to(xs.dtype).view_as(xs)).sum()


class Reference:
    """Collects tensors in order and writes them."""

    def __init__(self, most):
        self.most, self.rows, self.tensors = most, [], {}

    def add(self, name, tensor):
        tensor = tensor.detach()
        flat, length = tensor.flatten(), torch.linalg.vector_norm(tensor, dtype=torch.float64).item()
        if self.most and flat.numel() > self.most:
            flat = flat[torch.arange(self.most) * flat.numel() // self.most]
        self.rows.append([name, list(tensor.shape), length])
        self.tensors[name] = flat.clone()  # later layers may work in place


def write(net, path, xs, train=False, double=False, gradients=None, most=0):
    """Runs `net` on the uint8 pictures and writes all that happened; its statistics and dtype change."""
    gradients = train if gradients is None else gradients
    dtype = torch.float64 if double else torch.float32
    net.to(dtype).train(train)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    net.zero_grad(set_to_none=True)
    keys = [[key, list(value.shape)] for key, value in net.state()]
    reference, hooks = Reference(most), []
    for prefix, root in (("", net.net), ("embedding", net.top)):
        for name, module in () if root is None else root.named_modules(prefix=prefix):
            if next(module.parameters(recurse=False), None) is not None and net.knows(name):
                hear = lambda m, i, ys, name=name: reference.add(f"activation:{name}", ys)  # noqa: E731
                hooks.append(module.register_forward_hook(hear))
    head = getattr(net.net, "AuxLogits", None)
    if head is not None and min(xs.shape[2:]) < LEAST_AUXILIARY:
        net.net.aux_logits, net.net.AuxLogits = False, None
    try:
        with torch.set_grad_enabled(gradients):
            out, aux = net(xs.to(dtype) / 255)
    finally:
        for hook in hooks:
            hook.remove()
        if head is not None:
            net.net.aux_logits, net.net.AuxLogits = True, head
    reference.add("output", out)
    if aux is not None:
        reference.add("auxiliary", aux)
    if gradients:
        (weighted(out) + (0 if aux is None else 0.4 * weighted(aux))).backward()
        for key, value in reversed(net.state()):
            if value.grad is not None:
                reference.add(f"gradient:{key}", value.grad)
    if train:
        for key, value in net.state():
            if key.endswith(("running_mean", "running_var")):
                reference.add(f"statistic:{key}", value)
    about = {
        "format": FORMAT, "tool": "tests/parity/reference.py", "torch": torch.__version__,
        "architecture": net.name.replace("_", "-"), "mode": "train" if train else "eval",
        "dtype": "float64" if double else "float32", "classes": net.classes,
        "embedding_dim": None if net.top is None else net.top.out_features,
        "keys": keys, "tensors": reference.rows,
    }
    tensors = {"input": xs.contiguous(), **reference.tensors}
    save_file(tensors, path, metadata={"visage-reference": json.dumps(about, separators=(",", ":"))})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", help="as `visage` names it: openface, vgg16-bn, inception-v3, ...")
    parser.add_argument("out")
    parser.add_argument("--weights", help="a .pth or .safetensors file; without it a formula fills the network")
    parser.add_argument("--save", help="write the network's weights here, for torch.load")
    parser.add_argument("--mode", choices=("eval", "train"), default="eval")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, help="side of the pictures [default: the native one]")
    parser.add_argument("--gradients", action="store_true", help="in eval mode, too")
    parser.add_argument("--values", type=int, default=0, help="keep at most so many of a tensor [default: all]")
    flags = parser.parse_args()
    name = flags.architecture.replace("-", "_")
    native = {"openface": 96, "facenet": 160, "inception_v3": 299}.get(name, 224)
    net = build(name, state_dict_of(flags.weights) if flags.weights else None)
    if flags.save:
        torch.save({key: value.detach() for key, value in net.state()}, flags.save)
    xs = pictures(flags.batch, flags.size or native)
    train = flags.mode == "train"
    write(net, flags.out, xs, train, flags.dtype == "float64", flags.gradients or train, flags.values)


if __name__ == "__main__":
    main()
