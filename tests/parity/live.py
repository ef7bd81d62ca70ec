"""`make parity`: Visage against this machine's PyTorch, every backbone, now.

    python tests/parity/live.py VISAGE [ARCHITECTURE ...]        (or `all` of them)

First the numbers. For every architecture (weights by the formula of tests/golden/models.py, with the
classifier of 1000 classes), native and odd pictures, 1 and 3 of them, `visage weights verify` is held
against what reference.py writes: the keys must be the same, and these differences within bounds
(relative to the largest value of the tensor; see src/weights/verify.rs):

    eval   float32   output 1e-5, every layer 1e-5, every gradient 1e-4
    train  float32   output 1e-5, every layer 1e-3, running statistics 1e-5
    train  float64   output 1e-5, every layer 1e-5, every gradient 1e-4, running statistics 1e-5

A batch normalisation over three values (OpenFace's last blocks) magnifies the last bit a hundredfold.
Gradients in train mode are taken in float64: with batch statistics a last bit of difference in
float32 turns ReLUs that sit at zero, and a gradient moves by percents. Dropout is off on both sides
(p = 0). Where PyTorch refuses to train (one value a channel) Visage uses the running statistics.

Then the files: what torch.save writes, in its two formats, bare and as a checkpoint of a wrapped
model, goes through `weights verify` and through `weights convert` to .pth and .safetensors, and
PyTorch must load the results strictly with every tensor identical.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

import torch
from safetensors.torch import load_file

import reference
from reference import iresnet, models

SIZES = {"openface": [96], **{name: [native, odd] for name, native, odd in models.NETS},
         **{name: [iresnet.SIZE] for name in iresnet.NETS}}
USUAL = ("openface", "vgg16", "vgg16_bn", "densenet121", "inception_v3", "facenet", "iresnet18", "mobilefacenet")
FAMILIES = ("openface", "vgg16", "densenet121", "inception_v3", "facenet")
VALUES = 20_000  # of every tensor; the length is that of the whole
PASSES = [  # name, train, float64, gradients, bounds
    ("eval f32", False, False, True, {"output": 1e-5, "activation": 1e-5, "gradient": 1e-4}),
    ("train f32", True, False, False, {"output": 1e-5, "activation": 1e-3, "statistic": 1e-5}),
    ("train f64", True, True, True, {"output": 1e-5, "activation": 1e-5, "gradient": 1e-4, "statistic": 1e-5}),
]


class Visage:
    def __init__(self, path):
        self.path = pathlib.Path(path).resolve()
        hidden = ("LD_LIBRARY_PATH", "PYTHONPATH")  # are Python's
        self.env = {key: value for key, value in os.environ.items() if key not in hidden}

    def run(self, *arguments):
        done = subprocess.run([self.path, *arguments], env=self.env, capture_output=True, text=True)
        if done.returncode > 1 or done.stderr.startswith("error"):
            raise RuntimeError(done.stderr.strip())
        return done.stdout

    def verify(self, against, model):
        """The worst difference of each part; raises where the key sets differ."""
        report = json.loads(self.run("weights", "verify", "--json", "--quiet", "--against", against, model))
        keys = report["keys"]
        if "compared" not in report or keys["missing"] or keys["unexpected"] or keys["renamed"]:
            raise RuntimeError(f"other keys: {keys}")
        worst = {}
        for row in report["compared"]:
            off = row.get("difference")
            worst[row["part"]] = max(worst.get(row["part"], 0.0), float("inf") if off is None else off)
        return worst


class Network:
    """A network that can be put back to its first weights."""

    def __init__(self, name):
        self.name, self.net = name, reference.build(name)
        self.first = {key: value.detach().clone() for key, value in self.net.state()}

    def reset(self):
        self.net.float().zero_grad(set_to_none=True)
        with torch.no_grad():
            for key, value in self.net.state():
                value.copy_(self.first[key])
        return self.net

    def holds(self, state):
        """The state loads strictly and every tensor is the first one's, dtype and all."""
        self.reset().net.load_state_dict(state, strict=True)
        same = (self.first[key].dtype == value.dtype and torch.equal(self.first[key], value) for key, value in state.items())
        return len(state) == len(self.first) and all(same)


def numbers(visage, network, folder):
    """One row a size and batch; whether all are within bounds."""
    weights, against, fine = folder / "weights.pth", folder / "reference.safetensors", True
    torch.save(network.first, weights)
    for size in SIZES[network.name]:
        for batch in (1, 3):
            cells = []
            for _, train, double, gradients, bounds in PASSES:
                xs = reference.pictures(batch, size)
                try:
                    reference.write(network.reset(), against, xs, train, double, gradients, VALUES)
                except ValueError as error:  # one value a channel cannot be normalised
                    if "more than 1 value per channel" not in str(error):
                        raise
                    cells.append("PyTorch refuses")
                    continue
                try:
                    worst = visage.verify(against, weights)
                    good = all(worst.get(part, float("inf")) <= bound for part, bound in bounds.items()
                               if part != "statistic" or part in worst)
                    shown = [worst["output"], worst["activation"], worst.get("gradient", worst.get("statistic"))]
                    text = " ".join("      -" if off is None else f"{off:7.1e}" for off in shown)
                except RuntimeError as error:
                    good, text = False, str(error)
                fine &= good
                cells.append(text + ("" if good else " FAIL"))
            print(f"{network.name:<13}{size:>4} {batch:>2}  " + "  ".join(f"{cell:<23}" for cell in cells), flush=True)
    weights.unlink()
    return fine


def files(visage, network, folder):
    """One row a form of torch.save."""
    against, fine = folder / "reference.safetensors", True
    xs = reference.pictures(1, SIZES[network.name][-1])
    reference.write(network.reset(), against, xs, most=VALUES)
    whole = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in network.first.items()}}
    for form, content, zipped in (
        ("state dict, zip", network.first, True),
        ("state dict, before 1.6", network.first, False),
        ("checkpoint, zip", whole, True),
        ("checkpoint, before 1.6", whole, False),
    ):
        path, results = folder / "from_torch.pth", []
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        try:
            results.append(visage.verify(against, path)["output"] <= 1e-5)
            for ending, load in (("pth", lambda path: torch.load(path, weights_only=True)), ("safetensors", load_file)):
                back = folder / f"back.{ending}"
                visage.run("weights", "convert", "--quiet", path, back)
                results.append(network.holds(load(back)))
                back.unlink()
        except RuntimeError as error:
            results = [False, error]
        good = all(result is True for result in results)
        fine &= good
        print(f"{network.name:<13}{form:<24}{'identical' if good else f'FAIL {results}'}", flush=True)
        path.unlink()
    return fine


def main(visage, names):
    warnings.filterwarnings("ignore")
    names = [name.replace("-", "_") for name in names]
    names = list(SIZES) if names == ["all"] else names or list(USUAL)
    unknown = [name for name in names if name not in SIZES]
    if unknown:
        sys.exit(f"no such architecture: {', '.join(unknown)}; there are {', '.join(SIZES)} and all")
    visage, fine, start = Visage(visage), True, time.time()
    print(f"PyTorch {torch.__version__}, torchvision {models.torchvision.__version__}; worst relative differences")
    heads = "  ".join(f"{name + ':':<23}" for name, *_ in PASSES)
    print(f"{'network':<13}size  N  {heads}\n{'':21}" + "  ".join(["output  layers  grad.  ", "output  layers  stat.  ", "output  layers  grad.  "]))
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        for name in names:
            network, folder = Network(name), pathlib.Path(folder)
            fine &= numbers(visage, network, folder)
            if name in FAMILIES:
                fine &= files(visage, network, folder)
    print(f"{'all within bounds' if fine else 'NOT ALL WITHIN BOUNDS'}, {time.time() - start:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
