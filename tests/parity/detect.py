"""`make parity-detect`: `visage detect` against facenet-pytorch's MTCNN, live, on the same pixels.

    python tests/parity/detect.py VISAGE PHOTOS [--count 160] [--min-face 20]

Takes `count` pictures out of the folder PHOTOS, evenly over its sub-folders, enlarges or shrinks some,
and composes further scenes of several of them between broad borders. All are saved as PNG, so that
both sides see identical pixels (decoders of JPEG differ by a level here and there). Every face must
be found by both, its box within 1 pixel, its probability within 1e-3, its landmarks within 1 pixel.

Of two boxes that both are worth exactly 1 facenet-pytorch keeps the one that numpy's argsort puts last,
and that sort is not stable: with more than 16 boxes the answer depends on the processor. Here it is
told to be stable.
"""

import argparse
import functools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".pgm"}
PIXEL, CHANCE = 1.0, 1e-3


def choose(folder, count):
    """`count` pictures, the sub-folders in turn."""
    sets = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS:
            sets.setdefault(path.relative_to(folder).parts[0], []).append(path)
    dice = random.Random(7)
    queues = [dice.sample(paths, len(paths)) for paths in sets.values()]
    chosen = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    return chosen[:count]


def scenes(paths, dice):
    """Pictures of their own size, of others, and several on one canvas."""
    for index, path in enumerate(paths):
        picture = Image.open(path).convert("RGB")
        if index % 4 == 1:
            factor = dice.uniform(0.4, 2.5)
            picture = picture.resize([max(24, int(side * factor)) for side in picture.size], Image.BICUBIC)
        yield f"{index:03d}-{path.stem}", picture
    for index in range(len(paths) // 6):
        canvas = Image.new("RGB", (dice.randint(500, 1500), dice.randint(400, 1100)), tuple(dice.randrange(256) for _ in range(3)))
        for path in dice.sample(paths, min(6, len(paths))):
            part = Image.open(path).convert("RGB")
            side = dice.randint(60, 420)
            part.thumbnail((side, side))
            canvas.paste(part, (dice.randint(-20, canvas.width - side // 2), dice.randint(-20, canvas.height - side // 2)))
        yield f"scene-{index:03d}", canvas


def distance(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def compare(theirs, ours):
    """The largest differences of box, probability and landmarks; None where a face has no partner."""
    worst, rest = [0.0, 0.0, 0.0], list(ours)
    if len(theirs) != len(ours):
        return None
    for box, chance, points in theirs:
        mate = min(rest, key=lambda face: distance(face["box"], box))
        rest.remove(mate)
        found = (distance(mate["box"], box), abs(mate["probability"] - chance), distance(mate["landmarks"], points))
        worst = [max(pair) for pair in zip(worst, found)]
    return worst


def main():
    options = argparse.ArgumentParser()
    options.add_argument("visage", type=pathlib.Path)
    options.add_argument("photos", type=pathlib.Path)
    options.add_argument("--count", type=int, default=160)
    options.add_argument("--min-face", type=int, default=20)
    flags = options.parse_args()
    paths = choose(flags.photos, flags.count)
    if not paths:
        sys.exit(f"{flags.photos}: holds no pictures")
    np.argsort = functools.partial(np.argsort, kind="stable")
    mtcnn = MTCNN(keep_all=True, min_face_size=flags.min_face)
    hidden = ("LD_LIBRARY_PATH", "PYTHONPATH")  # are Python's
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    with tempfile.TemporaryDirectory() as folder:
        theirs, sizes = {}, []
        for name, picture in scenes(paths, random.Random(11)):
            path = pathlib.Path(folder) / f"{name}.png"
            picture.save(path, compress_level=1)
            sizes.append(picture.size)
            try:
                boxes, chances, points = mtcnn.detect(picture, landmarks=True)
            except RuntimeError:  # nothing behind the first net: torch.cat of no tensors
                boxes = None
            theirs[str(path)] = [] if boxes is None else list(zip(boxes, chances, points))
        run = [flags.visage.resolve(), "detect", "--json", "--quiet", "--min-face", str(flags.min_face), folder]
        done = subprocess.run(run, env=env, stdout=subprocess.PIPE, text=True, check=True)
        ours = {row["file"]: row["faces"] for row in map(json.loads, done.stdout.splitlines())}
    if set(ours) != set(theirs):
        sys.exit("other files")
    worst, wrong, faces = [0.0, 0.0, 0.0], [], sum(map(len, theirs.values()))
    for path, found in theirs.items():
        off = compare(found, ours[path])
        if off is None or off[0] > PIXEL or off[1] > CHANCE or off[2] > PIXEL:
            wrong.append(f"{pathlib.Path(path).name}: {len(found)} faces, ours {len(ours[path])}, differences {off}")
        worst = worst if off is None else [max(pair) for pair in zip(worst, off)]
    low, high = min(min(size) for size in sizes), max(max(size) for size in sizes)
    print(f"torch {torch.__version__}, {len(sizes)} pictures with sides of {low} to {high} pixels, {faces} faces by facenet-pytorch")
    print(f"largest difference: box {worst[0]:.5f} px, probability {worst[1]:.2e}, landmarks {worst[2]:.5f} px")
    print(f"{len(sizes) - len(wrong)} of {len(sizes)} pictures agree")
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
