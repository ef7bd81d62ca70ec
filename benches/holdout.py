"""The figures of the README on pictures nothing was chosen on.

    python3 benches/holdout.py FACES STRANGERS WORK

Puts one picture in five of every identity of FACES aside, at random, before anything else. Trains on
the others with the defaults, and a classifier on the untouched trunk with the same split, and
measures both on the pictures put aside and on STRANGERS. WORK is created and holds all of it.
"""

import json
import pathlib
import random
import subprocess
import sys

VISAGE = pathlib.Path(__file__).parent.parent / "target/release/visage"
FIGURES = ("pictures", "accuracy", "knn_accuracy", "knn_leave_one_out", "named", "named_right", "ece")


def visage(work, *arguments):
    return subprocess.run(
        [VISAGE.resolve(), *arguments], cwd=work, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main(faces, strangers, work):
    random.seed(20)
    for identity in sorted(path for path in faces.iterdir() if path.is_dir()):
        pictures = sorted(path.name for path in identity.iterdir())
        random.shuffle(pictures)
        aside = len(pictures) // 5
        for index, name in enumerate(pictures):
            folder = work / ("test" if index < aside else "train") / identity.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(identity / name)
    visage(work, "train-triplet", "--data", "train")
    visage(work, "train-classifier")
    untouched = ["--trunk", "openface-nn4-distilled", "--out", "runs/untouched"]
    split = ["--data", "train", "--split", "runs/triplet/split.csv"]
    visage(work, "train-classifier", *split, *untouched)
    for run in ("untouched", "classifier"):
        model = f"runs/{run}/best.safetensors"
        data = ["--data", "test", "--strangers", str(strangers)]
        report = json.loads(visage(work, "evaluate", "--model", model, *data, "--json"))
        print(run)
        for figure in FIGURES:
            print(f"  {figure:<20}{report[figure]:.4f}")
        print(f"  {'strangers UNKNOWN':<20}{report['strangers']['unknown_rate']:.4f}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*(pathlib.Path(argument).resolve() for argument in sys.argv[1:]))
