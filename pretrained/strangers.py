"""Makes strangers.safetensors: embeddings of people whom no user's data contains, without names or pictures.

    python pretrained/strangers.py VISAGE CROPS LFW...      (numpy, safetensors)

VISAGE is the program, CROPS a folder of square face crops by identity (the Avengers set), LFW the folders of the people
of LFW's View 1 training list (no test people). Of each person the first picture is embedded; every seventh person
is left out, for measuring. The rows are shuffled. For each embedded trunk the same faces are cut out in four framings:

    template    the trunk's own, as `visage embed --detect always`
    square      that of CROPS: the box of a face detector, as in many data sets of crops
    facenet     `visage prepare faces --template facenet`
    celeba      `visage prepare faces --template celeba`
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import save_file

TRUNKS = ("openface", "dlib-resnet")
visage, crops, folders = sys.argv[1], sys.argv[2], sys.argv[3:]
out = pathlib.Path(__file__).resolve().parent / "strangers.safetensors"


def run(*words):
    # Status 1: a photo on which no face is found was skipped.
    if subprocess.run([visage, "--quiet", *map(str, words)]).returncode > 1:
        sys.exit(1)


with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    first = {}
    for folder in folders:
        for person in sorted(path for path in pathlib.Path(folder).iterdir() if path.is_dir()):
            first.setdefault(person.name, sorted(person.iterdir())[0])
    for number, name in enumerate(sorted(first)):
        if number % 7:
            (scratch / "photos" / name).mkdir(parents=True)
            (scratch / "photos" / name / first[name].name).symlink_to(first[name].resolve())
    for template in ("facenet", "celeba"):
        run("prepare", "faces", scratch / "photos", scratch / template, "--keep", "central", "--template", template)

    tensors = {}
    for trunk in TRUNKS:
        bare = ("--backbone", trunk)
        classifier = scratch / f"classifier-{trunk}"
        run("train-classifier", *bare, "--data", crops, "--out", classifier)
        for framing, source, flags in (
            ("template", "photos", (*bare, "--detect", "always")),
            ("square", "photos", ("--model", classifier, "--detect", "always")),
            ("facenet", "facenet", (*bare, "--detect", "never")),
            ("celeba", "celeba", (*bare, "--detect", "never")),
        ):
            file = scratch / f"{trunk}-{framing}.npy"
            run("embed", scratch / source, "--out", file, *flags)
            rows = np.load(file)
            rows = rows[np.random.default_rng(0).permutation(len(rows))]
            tensors[f"{trunk}.{framing}"] = rows.astype(np.float16)
            print(f"{trunk}.{framing}", rows.shape)

save_file(tensors, out, {"source": "Labeled Faces in the Wild, people of the View 1 training list, one picture each"})
print(out, hashlib.sha256(out.read_bytes()).hexdigest())
