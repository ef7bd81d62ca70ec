"""Who is named by a gallery: realised rates on people it was not made for.

Galleries of several sizes are enrolled from labelled photos (half of each person's, at most three), the other
photos are asked for (FNIR: not named, or named wrongly), and so are people who are in no gallery and not
among the strangers that the threshold was chosen on (FPIR: named at all). Each person's main face counts.

    python3 benches/gallery.py --photos DIR [DIR] --out DIR [--sizes 5,50,500] [--fpir 1%]

DIR holds one folder of photos per person. Every seventh person (sorted by name) is a stranger for the test;
the people who are not enrolled of the others are the strangers of --strangers, so that nobody plays two parts.
"""

import argparse
import json
import pathlib
import random
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument("--photos", nargs="+", type=pathlib.Path, required=True)
parser.add_argument("--out", type=pathlib.Path, required=True)
parser.add_argument("--sizes", default="5,50,500")
parser.add_argument("--fpir", default="1%")
parser.add_argument("--visage", default="target/release/visage")
parser.add_argument("--most", type=int, default=2000, help="strangers that the threshold is chosen on")
options = parser.parse_args()

people = {}
for root in options.photos:
    for folder in sorted(root.iterdir()):
        if folder.is_dir():
            people.setdefault(folder.name, []).extend(sorted(folder.iterdir()))
names = sorted(people)
unseen = names[::7]
usable = [name for name in names if name not in set(unseen)]


def tree(folder, chosen):
    """Links to the photos of each person."""
    for name, photos in chosen.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for photo in photos:
            link = folder / name / photo.name
            if not link.exists():
                link.symlink_to(photo.resolve())
    return str(folder)


def visage(*arguments):
    run = subprocess.run([options.visage, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if run.returncode > 1:
        raise SystemExit(f"visage {arguments[0]} {arguments[1]}: exit code {run.returncode}")
    return [json.loads(line) for line in run.stdout.splitlines()]


print("people  faces  limit  promised FPIR  realised FPIR (n)  FNIR (n)  wrong name")
for size in map(int, options.sizes.split(",")):
    rng = random.Random(size)
    several = [name for name in usable if len(people[name]) >= 2]
    chosen = rng.sample(several, size)
    half = {name: rng.sample(people[name], min(3, len(people[name]) // 2)) for name in chosen}
    rest = {name: [p for p in people[name] if p not in half[name]][:5] for name in chosen}
    others = rng.sample([n for n in usable if n not in set(chosen)], options.most)
    work = options.out / str(size)
    gallery = tree(work / "gallery", half)
    known = tree(work / "known", rest)
    strangers = tree(work / "strangers", {name: people[name][:1] for name in others})
    new = tree(options.out / "unseen", {name: people[name][:1] for name in unseen})
    db = work / "gallery.db"
    db.unlink(missing_ok=True)
    report = visage("gallery", "enroll", "--db", db, "--tree", gallery, "--strangers", strangers,
                    "--fpir", options.fpir, "--json", "--quiet")[0]
    ask = lambda folder: visage("gallery", "identify", "--db", db, folder, "--json", "--quiet")
    answers = [(a["label"], pathlib.Path(a["file"]).parent.name) for a in ask(known) if a["faces"]]
    missed = sum(label != name for label, name in answers)
    wrong = sum(label is not None and label != name for label, name in answers)
    labels = [a["label"] for a in ask(new) if a["faces"]]
    named = sum(label is not None for label in labels)
    print(f"{report['total_people']:6} {report['total_faces']:6}  {report['limit']:.3f}  {options.fpir:>13}"
          f"  {100 * named / len(labels):10.1f}% ({len(labels)})  {100 * missed / len(answers):.1f}% ({len(answers)})"
          f"  {wrong}", flush=True)
