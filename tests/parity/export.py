"""Exported files against `visage embed`: TorchScript in torch, ONNX in onnxruntime. And ONNX files as weights.

For each architecture: random weights with random batch statistics, exported both ways, run on random
pictures in batches of 1 and 3 (the graph was recorded with 2), and held against what `visage embed`
computes from the same weights. The largest difference of any number is printed; embeddings have
length one. The ONNX file is then read as `--weights`, and so is one that PyTorch's exporter makes of the
same network, with batch normalisations folded into convolutions and other names. `--model FILE` does the same
with a model file of yours, whose logits are compared with each other, too, and which is not read back.

Needs what reference.py needs, onnx and onnxruntime.

    python tests/parity/export.py [--visage target/release/visage] [architecture ...]
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image

import reference

warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit works, but is old
FAMILIES = ["openface", "dlib-resnet", "facenet", "vgg11-bn", "vgg16", "densenet121", "inception-v3", "iresnet18",
            "mobilefacenet"]
TOLERANCE = 1e-5


def randomise(state, generator):
    """Weights stay as they were drawn; statistics become such that leaving them out would show."""
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(0.0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
    return {name: value for name, value in state.items() if not name.startswith("constant_")}


def pictures(folder, side, count):
    """Random pictures of the native size, so that no resizing plays a part; as `[N, 3, H, W]`."""
    folder.mkdir()
    values = np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    for number, value in enumerate(values):
        Image.fromarray(value).save(folder / f"{number}.png")
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32) / 255


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run_onnx(path, batch):
    onnx.checker.check_model(str(path), full_check=True)
    session = session_of(path)
    answers = session.run(None, {"pictures": batch})
    about = json.loads(session.get_modelmeta().custom_metadata_map["visage"])
    return dict(zip((port.name for port in session.get_outputs()), answers)), about


def run_torch(path, batch):
    extra = {"visage.json": ""}
    module = torch.jit.load(path, _extra_files=extra).eval()
    with torch.no_grad():
        answer = module(torch.from_numpy(batch))
    answers = answer if isinstance(answer, tuple) else (answer,)
    answers = dict(zip(["embedding", "logits"], (one.numpy() for one in answers)))
    return answers, json.loads(extra["visage.json"])


def as_weights(visage, work, name, wanted):
    """The largest difference of the embeddings with the ONNX files of Visage and of PyTorch as weights."""
    files = [work / f"{name}.onnx"]
    if name != "dlib-resnet":  # PyTorch has no definition of it here
        theirs = reference.build(name.replace("-", "_"), torch.load(work / f"{name}.pth")).net.eval()
        side = Image.open(work / f"{name}-pictures" / "0.png").width
        files.append(work / f"{name}-torch.onnx")
        torch.onnx.export(theirs, (torch.zeros(1, 3, side, side),), files[-1], dynamo=False)
    worst = []
    for file in files:
        visage("embed", work / f"{name}-pictures", "--backbone", name, "--weights", file, "--out", work / "onnx.npy", "--force")
        worst.append(float(np.abs(np.load(work / "onnx.npy") - wanted).max()))
    return worst


def compare(visage, work, name, exported, embedded):
    """`exported` and `embedded` are the arguments of the two commands; returns the worst difference."""
    for ending in ["pt", "onnx"]:
        visage("export", *exported, work / f"{name}.{ending}")
    (shape,) = (port.shape for port in session_of(work / f"{name}.onnx").get_inputs())
    xs = pictures(work / f"{name}-pictures", shape[2], 4)
    visage("embed", work / f"{name}-pictures", *embedded, "--out", work / f"{name}.npy")
    wanted = np.load(work / f"{name}.npy")
    worst, logits, abouts = {}, [], []
    for how, run, ending in [("torch.jit", run_torch, "pt"), ("onnxruntime", run_onnx, "onnx")]:
        parts, about = zip(*(run(work / f"{name}.{ending}", part) for part in (xs[:1], xs[1:])))
        abouts += about
        found = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        worst[how] = float(np.abs(found["embedding"] - wanted).max())
        if "logits" in found:
            logits.append(found["logits"])
    if "--weights" in embedded:
        worst["as weights"] = max(as_weights(visage, work, name, wanted))
    if logits:
        ours, theirs = logits
        worst["their logits"] = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    assert all(about == abouts[0] for about in abouts), "the metadata differ"
    sizes = [(work / f"{name}.{ending}").stat().st_size / 1e6 for ending in ("pt", "onnx")]
    print(f"{name:<14}{sizes[0]:8.1f} MB{sizes[1]:8.1f} MB   "
          + "   ".join(f"{how} {value:.1e}" for how, value in worst.items()), flush=True)
    return max(worst.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visage", default="target/release/visage", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, help="a model file to check as well")
    parser.add_argument("architectures", nargs="*", default=FAMILIES)
    flags = parser.parse_args()

    def visage(*arguments):
        subprocess.run([flags.visage, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)

    print(f"torch {torch.__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for name in flags.architectures:
            fresh, weights = work / f"{name}-fresh.pt", work / f"{name}.pth"
            visage("export", "none", fresh, "--backbone", name)
            state = torch.jit.load(fresh).state_dict()
            torch.save(randomise(state, torch.Generator().manual_seed(0)), weights)
            worst = max(worst, compare(visage, work, name, [weights, "--backbone", name],
                                       ["--backbone", name, "--weights", weights]))
        if flags.model:
            worst = max(worst, compare(visage, work, "model", [flags.model], ["--model", flags.model]))
    print(f"worst {worst:.1e}, allowed {TOLERANCE:.0e}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
