"""Makes openface-nn4-distilled.safetensors: halfway between the weights that it started from and what a distillation made of them.

    python pretrained/openface.py START CHECKPOINT      (torch, safetensors; tests/golden/openface.py)

START is the weight file that the distillation began with, CHECKPOINT its checkpoint.safetensors, of which the moving average is
taken. docs/evaluation.md has the command. The middle of the two keeps what only the start knew (Wortsman et al. 2022).
"""

import hashlib
import pathlib
import sys

from safetensors import safe_open
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "golden"))
import openface  # noqa: E402

start, checkpoint = load_file(sys.argv[1]), load_file(sys.argv[2])
keys = [key for key, value in openface.Net().state_dict().items() if value.is_floating_point()]
half = dict(start)
for number, key in enumerate(keys):
    average = checkpoint[f"task.kept.average.{number}"].to(start[key].dtype)  # in the order of the state dict
    half[key] = ((start[key].float() + average.float()) / 2).to(start[key].dtype)
with safe_open(sys.argv[1], "pt") as file:
    metadata = file.metadata() | {
        "made_by": "distilled from FaceNet InceptionResnetV1 (CASIA-WebFace, MIT), then from dlib-resnet (Davis E. King, CC0), "
                   "on LFW View 1 training people and 120 CelebA people; no original OpenFace weights",
        "quality": "see docs/evaluation.md",
    }
out = HERE / "openface-nn4-distilled.safetensors"
save_file(half, out, metadata)
print(out, hashlib.sha256(out.read_bytes()).hexdigest())
