"""Writes weights/*: the same few tensors in every format that PyTorch and NumPy write.

    python tests/golden/weights.py        (needs torch, numpy and safetensors)

weights/expected.json says for every file which tensors Visage must find in it, as PyTorch holds
them. The values are formulas, so the files are tiny and come out the same every time.
"""

import collections
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

OUT = pathlib.Path(__file__).parent / "weights"
OUT.mkdir(exist_ok=True)
expected = {}


def note(name, tensors):
    expected[name] = {
        key: {
            "dtype": str(t.dtype).removeprefix("torch."),
            "shape": list(t.shape),
            "values": t.detach().to(torch.float64 if t.is_floating_point() else t.dtype).flatten().tolist(),
        }
        for key, t in tensors.items()
    }


def ramp(*shape, dtype=torch.float32, start=0):
    count = int(np.prod(shape))
    return ((torch.arange(count, dtype=torch.float64) + start) / 8).reshape(shape).to(dtype)


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def dtypes():
    state = collections.OrderedDict()
    for dtype in FLOATS + INTS:
        state[f"of.{str(dtype).removeprefix('torch.')}"] = ramp(2, 3, dtype=dtype, start=8)
    state["of.bool"] = torch.tensor([True, False, True])
    state["scalar"] = torch.tensor(-2.5)
    state["empty"] = torch.zeros(0, 4)
    state["big"] = torch.tensor([2**62 + 1, -5])
    return state


def views():
    base = ramp(4, 6)
    return collections.OrderedDict(
        base=base,
        transposed=base.t(),
        rows=base[1:3],
        columns=base[:, 1:5:2],
        expanded=base[0].expand(3, 6),
        diagonal=torch.diagonal(base),
        parameter=nn.Parameter(base[3]),
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.sizes = [1, 2]
        with torch.no_grad():
            for at, p in enumerate(self.parameters()):
                p.copy_(ramp(*p.shape, start=at))

    def forward(self, x):
        return self.layer(x)


def save(value, name, tensors, **flags):
    torch.save(value, OUT / name, **flags)
    note(name, tensors)


old = {"_use_new_zipfile_serialization": False}
for ending, flags in [("zip", {}), ("legacy", old)]:
    save(dtypes(), f"dtypes_{ending}.pth", dtypes(), **flags)
    save(views(), f"views_{ending}.pth", views(), **flags)
for protocol in [3, 4, 5]:
    save(views(), f"protocol{protocol}.pth", views(), pickle_protocol=protocol)
save([ramp(2), (ramp(3),)], "list.pth", {"0": ramp(2), "1.0": ramp(3)})
save(ramp(2, 2), "bare.pth", {"tensor": ramp(2, 2)})

# A parameter with a Python attribute is pickled in another way.
marked = nn.Parameter(ramp(2))
marked.mark = "head"
save({"marked": marked}, "marked.pth", {"marked": marked})

# A whole training checkpoint of a wrapped model: everything a state dict may be surrounded by.
net = Net()
optimiser = torch.optim.Adam(net.parameters())
net(torch.ones(2, 2)).sum().backward()
optimiser.step()
plain = dict(net.state_dict())
checkpoint = {
    "epoch": 3,
    "best": 0.75,
    "rate": np.float64(0.5),
    "classes": {"ada", "bohr"},
    "huge": 1 << 100,
    "state_dict": {f"module._orig_mod.{key}": value for key, value in plain.items()},
    "optimizer": optimiser.state_dict(),
}
for ending, flags in [("zip", {}), ("legacy", old)]:
    save(checkpoint, f"checkpoint_{ending}.pth", plain, **flags)
save({"model": {"net": plain}, "note": None}, "nested.pth", plain)

torch.serialization.set_crc32_options(False)
save(views(), "without_checksums.pth", views())
torch.serialization.set_crc32_options(True)

scripted = torch.jit.script(Net().eval())
scripted.save(OUT / "script.pt")
note("script.pt", dict(scripted.state_dict()))
traced = torch.jit.trace(Net().eval(), torch.ones(1, 2))
traced.save(OUT / "traced.pt")
note("traced.pt", dict(traced.state_dict()))

save_file({k: v.contiguous() for k, v in dtypes().items()}, OUT / "dtypes.safetensors", {"format": "pt"})
note("dtypes.safetensors", dtypes())

arrays = {k: v.numpy() for k, v in dtypes().items() if v.dtype != torch.bfloat16}
arrays["fortran"] = np.asfortranarray(ramp(3, 4).numpy())
as_tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
np.savez(OUT / "stored.npz", **arrays)
np.savez_compressed(OUT / "deflated.npz", **arrays)
note("stored.npz", as_tensors)
note("deflated.npz", as_tensors)

# Files to refuse, with a part of the sentence they are refused with.
class Evil:
    def __reduce__(self):
        import os

        return os.system, ("echo gotcha",)


refused = {}


def refuse(value, name, reason, **flags):
    torch.save(value, OUT / name, **flags)
    refused[name] = reason


refuse({"a": ramp(2), "b": Evil()}, "evil.pth", "posix.system")
refuse({"a": ramp(2), "b": Evil()}, "evil_legacy.pth", "posix.system", **old)
refuse(nn.Linear(2, 2), "whole_model.pth", "torch.nn.modules.linear.Linear")
refuse({"a": torch.zeros(2, dtype=torch.complex64)}, "complex.pth", "torch.ComplexFloatStorage")
refuse({"epoch": 1}, "no_tensors.pth", "no tensors")
np.savez(OUT / "big_endian.npz", a=np.zeros(2, dtype=">f4"))
refused["big_endian.npz"] = "big-endian"
np.savez(OUT / "strings.npz", a=np.array(["x", "y"]))
refused["strings.npz"] = "dtype"

text = json.dumps({"read": expected, "refused": refused}, separators=(",", ":"), allow_nan=False)
(OUT / "expected.json").write_text(text + "\n")
