"""Writes detect/*.png, drawn scenes with faces, and detect/detect.json: what facenet-pytorch sees there.

    python tests/golden/detect.py        (facenet-pytorch==2.6.0 without its dependencies, torch 2.13.0,
                                          torchvision 0.28.0, numpy, pillow)

The faces are ellipses: enough for MTCNN. Boxes, probabilities and landmarks are those of
MTCNN(keep_all=True).detect, largest face first; `crops` are extract_face(160, margin), three rows of
each, of the first face.
"""

import json
import math
import pathlib
import random

import numpy as np
from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils.detect_face import extract_face
from PIL import Image, ImageDraw, ImageFilter

OUT = pathlib.Path(__file__).parent / "detect"
FINE = 4  # drawn that much larger, then reduced
MARGINS = (0, 14, 32)
ROWS = (10, 80, 150)


def face(side, skin, turn, chance):
    """An RGBA tile of `side` pixels with one face, turned by `turn` degrees."""
    size = side * FINE
    tile = Image.new("RGBA", (size, size), skin + (0,))
    pen = ImageDraw.Draw(tile)
    dark = tuple(int(c * 0.35) for c in skin)
    shade = tuple(int(c * 0.78) for c in skin)

    def blob(x, y, wide, high, colour, shape=pen.ellipse):
        shape([(x - wide / 2) * size, (y - high / 2) * size, (x + wide / 2) * size, (y + high / 2) * size], fill=colour + (255,))

    blob(0.5, 0.44, 0.80, 0.88, dark)  # hair
    blob(0.5, 0.55, 0.66, 0.86, skin)
    for x in (0.36, 0.64):
        blob(x, 0.45, 0.17, 0.11, shade)
        blob(x, 0.46, 0.15, 0.07, (235, 235, 235))
        blob(x, 0.46, 0.07, 0.07, (45, 30, 25))
        blob(x, 0.385, 0.19, 0.03, dark)
    blob(0.5, 0.60, 0.10, 0.14, shade)
    blob(0.5, 0.57, 0.06, 0.17, skin)
    for x in (0.47, 0.53):
        blob(x, 0.66, 0.03, 0.02, dark)
    blob(0.5, 0.78, 0.27 + 0.05 * chance, 0.09, (170, 70, 70))
    blob(0.5, 0.775, 0.22, 0.02, (90, 30, 35))
    tile = tile.filter(ImageFilter.GaussianBlur(size / 60))
    return tile.rotate(turn, resample=Image.BICUBIC).resize((side, side), Image.BOX)


def scene(seed, width, height, faces):
    """A sky of soft waves with faces (x, y, side, turn) on it."""
    dice = random.Random(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / dice.uniform(9, 60) + y / dice.uniform(9, 60) + dice.uniform(0, 6)) for _ in range(3)]
    ground = np.stack([120 + 40 * wave for wave in waves], axis=2)
    picture = Image.fromarray(ground.astype(np.uint8))
    for left, top, side, turn in faces:
        skin = dice.choice([(224, 172, 140), (198, 134, 96), (141, 85, 54), (240, 200, 175)])
        tile = face(side, skin, turn, dice.random())
        picture.paste(tile, (left, top), tile)
    return picture


SCENES = {
    "one": (1, 161, 203, [(20, 30, 120, 0)]),
    "row": (2, 400, 150, [(5, 20, 60, 0), (90, 10, 110, 8), (230, 30, 40, -6), (300, 20, 90, -15)]),
    "edge": (3, 180, 140, [(-25, 10, 100, 0), (110, 60, 100, 5)]),
    "none": (4, 90, 70, []),
}


def rounded(values):
    return [round(float(value), 4) for value in np.asarray(values).flatten()]


def main():
    OUT.mkdir(exist_ok=True)
    mtcnn = MTCNN(keep_all=True)
    answers = {}
    for name, (seed, width, height, faces) in SCENES.items():
        path = OUT / f"{name}.png"
        scene(seed, width, height, faces).quantize(64, dither=Image.Dither.NONE).convert("RGB").save(path, optimize=True)
        picture = Image.open(path)
        boxes, chances, points = mtcnn.detect(picture, landmarks=True)
        found = [] if boxes is None else [
            {"box": rounded(box), "probability": round(float(chance), 6), "landmarks": rounded(point)}
            for box, chance, point in zip(boxes, chances, points)
        ]
        crops = {}
        if found:
            for margin in MARGINS:
                crop = np.asarray(extract_face(picture, boxes[0], 160, margin).permute(1, 2, 0) * 1.0)
                crop = crop.astype(int) if crop.max() > 1.5 else (crop * 255).round().astype(int)
                crops[str(margin)] = {str(row): crop[row].flatten().tolist() for row in ROWS}
        answers[name] = {"faces": found, "crops": crops}
        print(name, path.stat().st_size, [(f["box"], f["probability"]) for f in found])
    (OUT / "detect.json").write_text(json.dumps(answers, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
