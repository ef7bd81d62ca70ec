"""How well unknown people are grouped: BCubed precision, recall and F, next to scikit-learn's DBSCAN and HDBSCAN.

    python3 benches/cluster.py --photos DIR --known DIR --out DIR [--people 300]

PHOTOS has one folder of photos per person. Half of the people (by the position of their name) choose, the other half are
scored; of each half --people have one photo and --people have several (at most ten). One person of KNOWN is enrolled, with
the choosing half as --strangers, `visage gallery identify --remember-strangers` sees all photos in a random order
(one by one: "as they come"), and `visage gallery cluster` groups them again. The others group the same embeddings, read from
the gallery's file; their settings are those with the best F on the choosing half. All faces are grouped; the largest one of
each photo is scored, under the name of its folder.
"""

import argparse
import collections
import json
import pathlib
import random
import sqlite3
import subprocess

import numpy
from sklearn.cluster import DBSCAN, HDBSCAN, AgglomerativeClustering

parser = argparse.ArgumentParser()
parser.add_argument("--photos", type=pathlib.Path, required=True)
parser.add_argument("--known", type=pathlib.Path, required=True)
parser.add_argument("--out", type=pathlib.Path, required=True)
parser.add_argument("--people", type=int, default=300)
parser.add_argument("--visage", default="target/release/visage")
options = parser.parse_args()


def visage(*arguments):
    run = subprocess.run([options.visage, *map(str, arguments), "--quiet"], stdout=subprocess.PIPE, text=True)
    if run.returncode > 1:
        raise SystemExit(f"visage {arguments[1]}: exit code {run.returncode}")
    return run.stdout


def link(folder, photos):
    for name, photo in photos:
        (folder / name).mkdir(parents=True, exist_ok=True)
        path = folder / name / photo.name
        if not path.exists():
            path.symlink_to(photo.resolve())
    return folder


def photos_of(people, draw):
    """One photo of some people and several of others, in a random order."""
    single = [(name, photos[:1]) for name, photos in people if len(photos) == 1]
    several = [(name, photos[:10]) for name, photos in people if len(photos) > 1]
    chosen = draw.sample(single, min(options.people, len(single))) + draw.sample(several, min(options.people, len(several)))
    photos = [(name, photo) for name, own in chosen for photo in own]
    draw.shuffle(photos)
    return photos


def groups(db):
    """The group of each face, its embedding, and the name of the face if it is its photo's largest."""
    with sqlite3.connect(db) as file:
        rows = file.execute("SELECT unknown, path, (x2 - x1) * (y2 - y1), vector FROM faces JOIN vectors ON face = faces.id "
                            "WHERE unknown IS NOT NULL ORDER BY faces.id").fetchall()
    largest = {}
    for at, (_, path, area, _) in enumerate(rows):
        if path not in largest or area > rows[largest[path]][2]:
            largest[path] = at
    names = [pathlib.Path(path).parent.name if largest[path] == at else None for at, (_, path, _, _) in enumerate(rows)]
    vectors = numpy.array([numpy.frombuffer(vector, "<f4") for *_, vector in rows], numpy.float64)
    return [row[0] for row in rows], names, vectors


def bcubed(labels, names):
    """Precision, recall and F; a label of -1 is a group of its own."""
    scored = [(label if label != -1 else f"alone {at}", name) for at, (label, name) in enumerate(zip(labels, names)) if name]
    both, of_group, of_name = (collections.Counter(key(pair) for pair in scored) for key in (lambda p: p, lambda p: p[0], lambda p: p[1]))
    precision = sum(both[pair] / of_group[pair[0]] for pair in scored) / len(scored)
    recall = sum(both[pair] / of_name[pair[1]] for pair in scored) / len(scored)
    return precision, recall, 2 * precision * recall / (precision + recall)


def remembered(part, photos, strangers):
    work = options.out / part
    db = work / "gallery.db"
    if not db.exists():
        folder = link(work / "photos", photos)
        known = sorted(path for path in options.known.iterdir() if path.is_dir())[0]
        visage("gallery", "enroll", "--db", db, "--name", known.name, *sorted(known.iterdir())[:3], "--strangers", strangers)
        paths = [folder / name / photo.name for name, photo in photos]
        visage("gallery", "identify", "--db", db, *paths, "--remember-strangers")
    return db


people = sorted((folder.name, sorted(folder.iterdir())) for folder in options.photos.iterdir() if folder.is_dir())
choosing, scoring = (photos_of(people[start::2], random.Random(start)) for start in (0, 1))
firsts = dict(reversed(choosing)).items()
strangers = link(options.out / "strangers", firsts)
databases = [remembered(part, photos, strangers) for part, photos in (("choosing", choosing), ("scoring", scoring))]
rows = {}
come = [groups(db) for db in databases]
for db in databases:
    visage("gallery", "cluster", "--db", db)
again = [groups(db) for db in databases]
(_, tune_names, tune), (_, names, vectors) = again
for title, answers in (("visage, as they come", come), ("visage gallery cluster", again)):
    rows[title] = ("", *(bcubed(labels, own) for labels, own, _ in answers))

distances = [round(0.2 + 0.01 * step, 2) for step in range(41)]
link_by = lambda how: lambda limit: AgglomerativeClustering(None, linkage=how, distance_threshold=limit)
ways = {
    "DBSCAN": (DBSCAN, [{"eps": eps, "min_samples": least} for eps in distances for least in (1, 2, 3)]),
    "HDBSCAN": (HDBSCAN, [{"min_cluster_size": size, "min_samples": least, "cluster_selection_epsilon": eps, "cluster_selection_method": how}
                          for size in (2, 3) for least in (1, 2) for eps in (0.0, *distances[:31:3]) for how in ("eom", "leaf")]),
    "complete linkage": (link_by("complete"), [{"limit": limit} for limit in distances]),
    "average linkage": (link_by("average"), [{"limit": limit} for limit in distances]),
}
for title, (make, settings) in ways.items():
    group = lambda rows, setting: make(**setting, **({"copy": True} if make is HDBSCAN else {})).fit_predict(rows)
    best = max(settings, key=lambda setting: bcubed(group(tune, setting), tune_names)[2])
    rows[title] = (" ".join(f"{key}={value}" for key, value in best.items()), bcubed(group(tune, best), tune_names), bcubed(group(vectors, best), names))

counts = collections.Counter(name for name in names if name)
print(f"scored: {len(counts)} people, {sum(counts.values())} faces ({len(names)} grouped), {sum(count == 1 for count in counts.values())} people with one")
for part, db in zip(("choosing", "scoring"), databases):
    print(part, json.loads(visage("gallery", "list", "--db", db, "--json"))["limit"])
print("| | settings chosen on the other half | its F | precision | recall | F |\n|---|---|---|---|---|---|")
for title, (setting, tuned, scored) in rows.items():
    print(f"| {title} | {setting} | {tuned[2]:.3f} | {scored[0]:.3f} | {scored[1]:.3f} | {scored[2]:.3f} |")
