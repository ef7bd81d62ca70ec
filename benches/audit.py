"""Time, processor time (of all cores) and memory of `visage audit` as the data grows.

    python3 benches/audit.py VISAGE PHOTOS... [--sizes 5000 20000 80000] [-- FLAGS of audit]

PHOTOS are folders of people. Each size is a folder of that many 112 x 112 pictures: the photos of PHOTOS, first each
once, then crops of them (75 to 100 % of the side, anywhere), some mirrored or darker, under the same names. Needs Pillow.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import tempfile
import time

from PIL import Image, ImageOps

SIDE = 112


def copy(picture, draw, first):
    width, height = picture.size
    side = int(min(width, height) * (1.0 if first else draw.uniform(0.75, 1.0)))
    left, top = draw.randint(0, width - side), draw.randint(0, height - side)
    if first:
        left, top = (width - side) // 2, (height - side) // 2
    out = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    if not first and draw.random() < 0.3:
        out = ImageOps.mirror(out)
    gain = 1.0 if first else draw.uniform(0.7, 1.0)
    return out.point(lambda value: int(value * gain))


def extend(folder, photos, start, end, draw):
    """Adds pictures `start` to `end`."""
    for number in range(start, end):
        source = photos[number % len(photos)]
        person = folder / source.parent.name
        person.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as picture:
            copy(picture.convert("RGB"), draw, number < len(photos)).save(person / f"{number:06}.jpg", quality=92)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("visage", type=pathlib.Path)
    parser.add_argument("photos", type=pathlib.Path, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 20000, 80000])
    parser.add_argument("--out", type=pathlib.Path, help="where the pictures are kept (a temporary folder)")
    given, flags = parser.parse_known_args()
    flags = [flag for flag in flags if flag != "--"]
    photos = sorted(file for root in given.photos for file in root.glob("*/*.*"))
    draw = random.Random(0)
    draw.shuffle(photos)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.out or pathlib.Path(temporary)) / "faces"
        done = 0
        for size in sorted(given.sizes):
            extend(folder, photos, done, size, draw)
            done = size
            begun = time.time()
            child = subprocess.Popen([given.visage.resolve(), "--device", "cpu", "audit", folder, "--json", *flags],
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            report = json.loads(child.stdout.read())
            _, status, usage = os.wait4(child.pid, 0)
            seconds, code = time.time() - begun, os.waitstatus_to_exitcode(status)
            if code not in (0, 1):
                raise SystemExit(f"audit ended with {code}")
            processor = usage.ru_utime + usage.ru_stime
            print(f"{size:>8} pictures: {seconds:8.1f} s, {processor:8.1f} s of processor time, {1000 * processor / size:6.2f} ms a picture, "
                  f"{usage.ru_maxrss / 1024:7.0f} MiB, {len(report['findings'])} findings", flush=True)


if __name__ == "__main__":
    main()
