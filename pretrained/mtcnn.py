"""Makes mtcnn.safetensors out of facenet-pytorch 2.6.0's three weight files, unchanged, float32.

    python pretrained/mtcnn.py        (pip install --no-deps facenet-pytorch==2.6.0; torch, safetensors)
"""

import hashlib
import importlib.util
import pathlib

import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
package = pathlib.Path(importlib.util.find_spec("facenet_pytorch").origin).parent
tensors = {}
for net in ("pnet", "rnet", "onet"):
    state = torch.load(package / "data" / f"{net}.pt", map_location="cpu", weights_only=True)
    tensors |= {f"{net}.{key}": value.float().contiguous() for key, value in state.items()}
out = here / "mtcnn.safetensors"
save_file(tensors, out, {"licence": "MIT, see mtcnn.LICENCE", "source": "facenet-pytorch 2.6.0"})
print(len(tensors), hashlib.sha256(out.read_bytes()).hexdigest())
