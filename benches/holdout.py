"""The figures of docs/evaluation.md on pictures nothing was chosen on.

    python3 benches/holdout.py FACES STRANGERS WORK [train-triplet flags]

Puts one picture in five of every identity of FACES aside, at random, before anything else. Trains on
the others with the defaults or the flags given, and a classifier on the untouched trunk with the
same split, and measures both on the pictures put aside and on STRANGERS (`none` leaves them out).
WORK is created and holds all of it.
"""

import json
import pathlib
import random
import subprocess
import sys
import time

VISAGE = pathlib.Path(__file__).parent.parent / "target/release/visage"
FIGURES = ("pictures", "accuracy", "knn_accuracy", "knn_leave_one_out", "named", "named_right", "ece")


def visage(work, *arguments):
    return subprocess.run(
        [VISAGE.resolve(), *arguments], cwd=work, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def untouched(flags):
    """The flags that build the same trunk without training."""
    own = {"--weights": "--trunk", "--backbone": "--backbone", "--input-size": "--input-size"}
    pairs = [(own[name], value) for name, value in zip(flags, flags[1:]) if name in own]
    return [word for pair in pairs for word in pair] or ["--trunk", "dlib-resnet"]


def main(faces, strangers, work, flags):
    random.seed(20)
    for identity in sorted(path for path in faces.iterdir() if path.is_dir()):
        pictures = sorted(path.name for path in identity.iterdir())
        random.shuffle(pictures)
        aside = len(pictures) // 5
        for index, name in enumerate(pictures):
            folder = work / ("test" if index < aside else "train") / identity.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(identity / name)
    start = time.monotonic()
    visage(work, "train-triplet", "--data", "train", *flags)
    print(f"train-triplet took {(time.monotonic() - start) / 60:.1f} minutes")
    visage(work, "train-classifier")
    split = ["--data", "train", "--split", "runs/triplet/split.csv", "--out", "runs/untouched"]
    visage(work, "train-classifier", *split, *untouched(flags))
    for run in ("untouched", "classifier"):
        model = f"runs/{run}/best.safetensors"
        data = ["--data", "test"] + (["--strangers", strangers] if strangers != "none" else [])
        report = json.loads(visage(work, "evaluate", "--model", model, *data, "--json"))
        print(run)
        for figure in FIGURES:
            print(f"  {figure:<20}{report[figure]:.4f}")
        if strangers != "none":
            print(f"  {'strangers UNKNOWN':<20}{report['strangers']['unknown_rate']:.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    faces, strangers, work = sys.argv[1:4]
    strangers = strangers if strangers == "none" else str(pathlib.Path(strangers).resolve())
    main(pathlib.Path(faces).resolve(), strangers, pathlib.Path(work).resolve(), sys.argv[4:])
