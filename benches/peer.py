"""The other side of `visage bench --against-pytorch`: the same work in PyTorch, as its users write it.

Started by Visage, which says the name of a measure on standard input and reads the seconds of one
round on standard output. The network is the definition in tests/golden/openface.py, or the ONNX file
that Visage exports.

forward         a batch in inference mode, channels_last
embed           picture files to embeddings: a DataLoader whose workers stay, batches of 64
...-16          the same under bfloat16 autocast (OpenVINO: its own bfloat16)
...-onnxruntime, ...-openvino    the same batches through the exported network
step            one forward pass of the batch, batch-hard mined in tensors, channels_last, bfloat16
                autocast where asked for, fused Adam: a loop that somebody has tuned
step-original   three forward passes per triplet in float32, as the published notebook has it
classifier      a linear layer on the frozen trunk, which sees every picture in every epoch
cold            a process of its own: a face to its embedding and a linear layer's probabilities
"""

import argparse
import concurrent.futures
import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from openface import Net

MARGIN = 0.2


def network(weights, channels_last):
    net = Net()
    net.load_state_dict(load_file(weights), strict=True)
    net.eval()  # running statistics, as Visage fine-tunes
    return net.to(memory_format=torch.channels_last) if channels_last else net


def batch_hard(embeddings, labels):
    """Mean of relu(hardest positive - hardest negative + margin) over squared distances."""
    squares = embeddings.square().sum(1)
    distances = (squares[:, None] + squares[None] - 2 * embeddings @ embeddings.T).clamp_min(0)
    same = labels[:, None] == labels[None]
    itself = torch.eye(len(labels), dtype=torch.bool)
    far = distances.masked_fill(~same | itself, float("-inf")).amax(1)
    near = distances.masked_fill(same, float("inf")).amin(1)
    return F.relu(far - near + MARGIN).mean()


def decode(path, side):
    import numpy
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    picture = picture.resize((side, side), Image.BILINEAR, (left, top, left + short, top + short))
    return numpy.array(picture)  # a copy that torch may write to


class Files(torch.utils.data.Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return torch.from_numpy(decode(self.paths[index], 96)).permute(2, 0, 1)


def batches(paths, workers):
    """Batches of bytes, as often as it is iterated; the workers stay between."""
    return torch.utils.data.DataLoader(
        Files(paths), batch_size=64, num_workers=workers, persistent_workers=workers > 0
    )


def onnxruntime_network(flags):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = flags.threads
    session = onnxruntime.InferenceSession("network.onnx", options, ["CPUExecutionProvider"])
    return lambda pictures: session.run(None, {"pictures": pictures.numpy()})[0]


def openvino_network(flags, half):
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": flags.threads,
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
    }
    model = openvino.Core().compile_model("network.onnx", "CPU", settings)
    return lambda pictures: model([pictures.numpy()])[0]


def inference(flags, loader, pictures):
    """forward and embed, by whoever is there."""
    net = network(flags.weights, True)

    def pytorch(half):
        def run(pictures):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return net(pictures.contiguous(memory_format=torch.channels_last))

        return run

    ways = {"": pytorch(False), "-16": pytorch(True)}
    if has("onnxruntime"):
        ways["-onnxruntime"] = onnxruntime_network(flags)
        ways["-16-onnxruntime"] = ways["-onnxruntime"]  # it has no 16 bits for this on a CPU
    if has("openvino"):
        ways["-openvino"] = openvino_network(flags, False)
        ways["-16-openvino"] = openvino_network(flags, True)

    def embed(run):
        return lambda: [run(batch.float() / 255) for batch in loader]

    known = {}
    for suffix, run in ways.items():
        known["forward" + suffix] = lambda run=run: run(pictures)
        if loader:
            known["embed" + suffix] = embed(run)
    return known


def has(package):
    return importlib.util.find_spec(package) is not None


def versions():
    names = {"pytorch": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}
    return {
        name: importlib.metadata.version(package) for name, package in names.items() if has(package)
    }


def measures(flags):
    labels = torch.arange(flags.batch) // flags.pictures
    pictures = torch.rand(flags.batch, 3, 96, 96)
    laid_out = pictures.contiguous(memory_format=torch.channels_last)

    tuned = network(flags.weights, True)
    optimizer = torch.optim.Adam(tuned.parameters(), lr=6e-5, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=flags.bf16):
            embeddings = tuned(laid_out)
        batch_hard(embeddings.float(), labels).backward()
        optimizer.step()

    plain = network(flags.weights, False)
    original_optimizer = torch.optim.Adam(plain.parameters(), lr=6e-5)
    triplet = torch.nn.TripletMarginLoss(MARGIN)

    def original():
        original_optimizer.zero_grad()
        anchor, positive, negative = (plain(pictures) for _ in range(3))
        triplet(anchor, positive, negative).backward()
        original_optimizer.step()

    many = F.normalize(torch.randn(flags.mined, 128))
    owners = torch.arange(flags.mined) // 4

    def mine():
        with torch.no_grad():
            batch_hard(many, owners)

    def load():
        with concurrent.futures.ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(lambda path: decode(path, 96), flags.pictures_to_load))

    frozen = network(flags.weights, True)
    taught = torch.arange(flags.taught * flags.batch) % 5

    def classifier():
        head = torch.nn.Linear(128, 5)
        head_optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
        for _ in range(flags.epochs):
            for batch in taught.split(flags.batch):
                with torch.no_grad():
                    features = frozen(laid_out)
                head_optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(head(features), batch).backward()
                head_optimizer.step()

    paths = flags.pictures_to_load
    loader = batches(paths, flags.threads) if paths else None
    own = {"step": step, "step-original": original, "mine": mine, "load": load}
    return own | {"classifier": classifier} | inference(flags, loader, pictures)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("weights", type=pathlib.Path)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--batch", type=int, default=30)
    options.add_argument("--pictures", type=int, default=6)
    options.add_argument("--mined", type=int, default=2048)
    options.add_argument("--taught", type=int, default=4)
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--bf16", action="store_true")
    options.add_argument("--list", type=pathlib.Path)
    options.add_argument("--cold", type=pathlib.Path)
    flags = options.parse_args()
    torch.set_num_threads(flags.threads)
    if flags.cold:
        picture = torch.from_numpy(decode(flags.cold, 96)).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            embedding = network(flags.weights, False)(picture)
            print(torch.nn.Linear(128, 5)(embedding).softmax(1).max().item())
        return
    flags.pictures_to_load = flags.list.read_text().split("\n") if flags.list else []
    known = measures(flags)
    print(json.dumps(versions()), flush=True)
    for line in sys.stdin:
        name, rounds = line.split()
        start = time.perf_counter()
        for _ in range(int(rounds)):
            known[name]()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
