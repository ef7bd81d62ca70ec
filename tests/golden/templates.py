"""Prints the landmarks that src/detect/align.rs wants a crop to have: where faces are in two data sets.

    python tests/golden/templates.py LFW CELEBA        (folders; facenet-pytorch==2.6.0, numpy, pillow)

Medians over the faces nearest the middle of some 500 pictures of each, as MTCNN sees them. LFW's are
given in a centred square of 156 of 250 pixels that was resized to 96; CelebA's as they are.
"""

import pathlib
import sys

import numpy as np
from facenet_pytorch import MTCNN
from PIL import Image

mtcnn = MTCNN(keep_all=True, min_face_size=60)
for folder, cut, side in zip(sys.argv[1:], (156, 178), (96, 178)):
    paths = sorted(pathlib.Path(folder).rglob("*.jpg"))
    found = []
    for path in paths[:: max(1, len(paths) // 500)]:
        picture = Image.open(path).convert("RGB")
        boxes, _, points = mtcnn.detect(picture, landmarks=True)
        if boxes is not None:
            middle = np.asarray(boxes, float).reshape(-1, 2, 2).mean(axis=1) - np.asarray(picture.size) / 2
            nearest = int(np.abs(middle).sum(axis=1).argmin())
            found.append(np.asarray(points[nearest], float) - (picture.width - cut) / 2 * np.array([1, side < cut]))
    print(folder, len(found), ((np.median(found, axis=0) + 0.5) * side / cut - 0.5).round(1).tolist())
