"""Faces found by `visage detect` and by facenet-pytorch's MTCNN: time on the same pictures.

    python benches/detect.py VISAGE PHOTOS [--count 200] [--threads 1] [--min-face 20]

Both sides find all faces on `count` pictures, decoded in memory before the clock starts, on the same
libtorch and as many threads; in turns, five times each. facenet-pytorch takes one picture at a time,
or lists of 16 of one size where all have one size, whichever is faster; Visage takes batches of 16.
Medians are compared. VISAGE is the example target/release/examples/detect_speed.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import torch
from facenet_pytorch import MTCNN
from PIL import Image

RUNS = 5
BATCH = 16


def main():
    options = argparse.ArgumentParser()
    options.add_argument("visage", type=pathlib.Path)
    options.add_argument("photos", type=pathlib.Path)
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--min-face", type=int, default=20)
    flags = options.parse_args()
    torch.set_num_threads(flags.threads)
    paths = sorted(path for path in flags.photos.rglob("*") if path.suffix.lower() in {".jpg", ".png", ".jpeg"})
    paths = paths[:: max(1, len(paths) // flags.count)][: flags.count]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    mtcnn = MTCNN(keep_all=True, min_face_size=flags.min_face)
    hidden = ("LD_LIBRARY_PATH", "PYTHONPATH")  # are Python's
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    env |= {"OMP_NUM_THREADS": str(flags.threads), "RAYON_NUM_THREADS": str(flags.threads)}

    def single():
        return sum(0 if boxes is None else len(boxes) for boxes, _ in map(mtcnn.detect, pictures))

    def batched():
        found = [boxes for at in range(0, len(pictures), BATCH) for boxes in mtcnn.detect(pictures[at : at + BATCH])[0]]
        return sum(0 if boxes is None else len(boxes) for boxes in found)

    def clocked(run):
        start = time.perf_counter()
        return run(), time.perf_counter() - start

    def visage():
        done = subprocess.run([flags.visage, str(flags.min_face), *paths], env=env, stdout=subprocess.PIPE, check=True)
        answer = json.loads(done.stdout)
        return answer["faces"], answer["seconds"]

    sides = {"facenet-pytorch, one by one": lambda: clocked(single)}
    if len({picture.size for picture in pictures}) == 1:
        sides["facenet-pytorch, lists of 16"] = lambda: clocked(batched)
    sides["visage"] = visage
    mtcnn.detect(pictures[0])
    times = {name: [] for name in sides}
    faces = {}
    for _ in range(RUNS):
        for name, run in sides.items():
            faces[name], seconds = run()
            times[name].append(seconds)
    print(f"torch {torch.__version__}, {flags.threads} threads, {len(pictures)} pictures, smallest face {flags.min_face}")
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, median in medians.items():
        print(f"{name:30s} {1e3 * median / len(pictures):8.2f} ms a picture ({min(times[name]):.2f} to {max(times[name]):.2f} s), {faces[name]} faces")
    best = min(median for name, median in medians.items() if name != "visage")
    print(f"visage is {best / medians['visage']:.2f} times as fast")


if __name__ == "__main__":
    main()
