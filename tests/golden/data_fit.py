"""Pillow's bilinear resize, the reference of `data::picture::fit`. Needs pillow and numpy.

    python tests/golden/data_fit.py > tests/golden/data_fit.csv

One line a case: width and height of the source, side of the result, then the result's bytes.
"""

import numpy as np
from PIL import Image


def source(width, height):
    y, x = np.mgrid[:height, :width]
    channels = [x * 37 + y * 11, x * y, x * x + 3 * y]
    return np.stack(channels, axis=2).astype(np.uint32).astype(np.uint8)


# Centre squares of wider, taller and square pictures; smaller, much smaller and larger.
for width, height, size in [(31, 24, 10), (29, 50, 7), (96, 96, 9), (7, 7, 12)]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = Image.fromarray(source(width, height)).crop((left, top, left + side, top + side))
    pixels = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)).ravel()
    print(f"{width},{height},{size}," + ",".join(map(str, pixels)))
