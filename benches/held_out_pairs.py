"""Divides folders of people for a distillation: pairs of some to choose the epoch on, of others to test, the rest to train.

    python3 benches/held_out_pairs.py OUT FACES...

FACES have one folder per person; folders of one name are one person. Every seventh of the sorted names is kept out. OUT gets
`train` and `held`, with copies of the pictures, and `val.csv` and `test.csv`, of up to 500 pairs of the same and as many of
different people, paths below `held`.
"""

import csv
import itertools
import pathlib
import random
import shutil
import sys

EACH = 500


def pairs(pictures, names, seed):
    draw = random.Random(seed)
    same = [pair for name in names for pair in list(itertools.combinations(pictures[name], 2))[:12]]
    draw.shuffle(same)
    same = same[:EACH]
    # Four of each person, so that those with many pictures are not in most pairs.
    some = [(name, picture) for name in names for picture in pictures[name][:4]]
    different = set()
    while len(different) < len(same):
        (one, a), (other, b) = draw.sample(some, 2)
        if one != other:
            different.add((min(a, b), max(a, b)))
    rows = [(a, b, 1) for a, b in same] + [(a, b, 0) for a, b in sorted(different)]
    draw.shuffle(rows)
    return rows


def main(out, *roots):
    files = {}
    for root in roots:
        for person in sorted(path for path in root.iterdir() if path.is_dir()):
            files.setdefault(person.name, []).extend(sorted(person.iterdir()))
    people = sorted(files)
    # Every seventh, as in pretrained/strangers.py.
    parts = {"val": people[::14], "test": people[7::14]}
    held = {name for names in parts.values() for name in names}
    for name in people:
        folder = out / ("held" if name in held else "train") / name
        folder.mkdir(parents=True)
        for file in files[name]:
            shutil.copy(file, folder / file.name)
    pictures = {name: [f"{name}/{file.name}" for file in files[name]] for name in held}
    for part, names in parts.items():
        rows = pairs(pictures, names, part)
        with (out / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("a", "b", "same"), *rows])
        print(f"{part}: {len(names)} people, {len(rows)} pairs")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*(pathlib.Path(argument) for argument in sys.argv[1:]))
