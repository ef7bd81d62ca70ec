"""Divides CelebA pictures by people, and draws pairs of those kept out: the figures of docs/recipes.md.

    python3 benches/celeba_pairs.py OUT CELEBA

CELEBA has `identity_CelebA.txt` and `img_align_celeba`. Every fourth of the sorted identities is kept out. OUT gets `celeba-train` and
`celeba-held`, with copies of the pictures in one folder per identity, and `celeba.csv`, of 500 pairs of the same and 500 of
different people, paths below `celeba-held`.
"""

import csv
import pathlib
import random
import shutil
import sys

EACH = 500


def pairs(pictures):
    draw = random.Random(0)
    names = sorted(name for name, files in pictures.items() if len(files) > 1)
    for _ in range(EACH):
        name = draw.choice(names)
        yield *(f"{name}/{file}" for file in draw.sample(pictures[name], 2)), 1
        yield *(f"{name}/{draw.choice(pictures[name])}" for name in draw.sample(names, 2)), 0


def main(out, celeba):
    there = {file.name for file in (celeba / "img_align_celeba").iterdir()}
    people = {}
    for line in (celeba / "identity_CelebA.txt").read_text().splitlines():
        file, name = line.split()
        if file in there:
            people.setdefault(name, []).append(file)
    held = set(sorted(people)[::4])
    for name, files in people.items():
        folder = out / ("celeba-held" if name in held else "celeba-train") / name
        folder.mkdir(parents=True)
        for file in files:
            shutil.copy(celeba / "img_align_celeba" / file, folder / file)
    with (out / "celeba.csv").open("w", newline="") as file:
        rows = pairs({name: people[name] for name in held})
        csv.writer(file).writerows([("a", "b", "same"), *rows])
    print(f"{len(people) - len(held)} people to train on, {len(held)} kept out")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*(pathlib.Path(argument) for argument in sys.argv[1:]))
