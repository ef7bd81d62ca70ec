"""Draws jpeg/*.jpg and writes jpeg.json: the SHA-256 of the pixels that Pillow decodes (Pillow, numpy).

    python tests/golden/jpeg.py

Grey and colour, every subsampling that Pillow writes, progressive, odd sizes, restart markers, and one damaged in
the middle. CMYK is converted by neither libjpeg nor in the same way by all decoders, and is left out.
"""

import hashlib
import io
import json
import pathlib

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFilter

HERE = pathlib.Path(__file__).parent
OUT = HERE / "jpeg"


def picture(width, height):
    y, x = np.mgrid[0:height, 0:width].astype(float)
    waves = [127 + 120 * np.sin(a * x + b * y + c) for a, b, c in ((0.31, 0.05, 0), (0.02, 0.43, 1), (0.11, 0.17, 2))]
    image = Image.fromarray(np.stack(waves, 2).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse([width * 0.2, height * 0.2, width * 0.8, height * 0.9], fill=(224, 172, 105))
    draw.rectangle([width * 0.3, height * 0.4, width * 0.45, height * 0.5], fill=(20, 60, 250))
    draw.line([0, 0, width, height], fill=(255, 0, 0), width=2)
    return image.filter(ImageFilter.GaussianBlur(0.6))


def damaged():
    buffer = io.BytesIO()
    picture(64, 64).save(buffer, "JPEG", quality=80)
    content = bytearray(buffer.getvalue())
    for at in range(len(content) * 3 // 4, len(content) * 3 // 4 + 8):
        content[at] ^= 0x2A
    return bytes(content)


def main():
    OUT.mkdir(exist_ok=True)
    cases = {
        "420": dict(size=(61, 47), subsampling=2, quality=75),
        "422": dict(size=(62, 33), subsampling=1, quality=75),
        "444": dict(size=(40, 40), subsampling=0, quality=92),
        "progressive": dict(size=(75, 50), subsampling=2, quality=60, progressive=True),
        "restarts": dict(size=(80, 48), subsampling=2, quality=85, restart_marker_rows=1),
        "tiny": dict(size=(1, 3), subsampling=2, quality=75),
        "grey": dict(size=(37, 29), quality=70, mode="L"),
        "coarse": dict(size=(64, 64), subsampling=2, quality=5),
    }
    for name, options in cases.items():
        size, mode = options.pop("size"), options.pop("mode", "RGB")
        picture(*size).convert(mode).save(OUT / f"{name}.jpg", **options)
    (OUT / "damaged.jpg").write_bytes(damaged())
    digests = {}
    for path in sorted(OUT.glob("*.jpg")):
        with Image.open(path) as image:
            digests[path.stem] = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    text = {"pillow": PIL.__version__, "sha256": digests}
    (HERE / "jpeg.json").write_text(json.dumps(text, indent=1) + "\n")


main()
