"""The other side of `visage bench --against-pytorch`: the same work in PyTorch, as its users write it.

Started by Visage, which says the name of a measure on standard input and reads the seconds of one
round on standard output. The network is the definition in tests/golden/openface.py.

step            one forward pass of the batch, batch-hard mined in tensors, channels_last, bfloat16
                autocast where asked for, fused Adam: a loop that somebody has tuned
step-original   three forward passes per triplet in float32, as the published notebook has it
"""

import argparse
import concurrent.futures
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


def measures(flags):
    labels = torch.arange(flags.batch) // flags.pictures
    pictures = torch.rand(flags.batch, 3, 96, 96)
    laid_out = pictures.contiguous(memory_format=torch.channels_last)

    forward_net = network(flags.weights, True)

    def forward():
        with torch.inference_mode():
            forward_net(laid_out)

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

    return {"forward": forward, "step": step, "step-original": original, "mine": mine, "load": load}


def main():
    options = argparse.ArgumentParser()
    options.add_argument("weights", type=pathlib.Path)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--batch", type=int, default=30)
    options.add_argument("--pictures", type=int, default=6)
    options.add_argument("--mined", type=int, default=2048)
    options.add_argument("--bf16", action="store_true")
    options.add_argument("--list", type=pathlib.Path)
    options.add_argument("--cold", type=pathlib.Path)
    flags = options.parse_args()
    torch.set_num_threads(flags.threads)
    if flags.cold:
        picture = torch.from_numpy(decode(flags.cold, 96)).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            print(network(flags.weights, False)(picture)[0, 0].item())
        return
    flags.pictures_to_load = flags.list.read_text().split("\n") if flags.list else []
    known = measures(flags)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        name, rounds = line.split()
        start = time.perf_counter()
        for _ in range(int(rounds)):
            known[name]()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
