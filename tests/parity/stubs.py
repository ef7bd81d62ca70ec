"""Lets the lean libtorch of `make libtorch` serve Python on a machine without CUDA's libraries.

    python tests/parity/stubs.py LIBTORCH/lib OUT

PyTorch's wheel cannot be imported unless the libraries that its CUDA part names can be loaded, 3.4 GB
that a CPU never calls. For each that is missing this writes an empty one into OUT, with the symbols
that are looked up and nothing behind them; put OUT on LD_LIBRARY_PATH. Where nothing is missing,
nothing is written. Needs ldd, nm and cc (Linux).
"""

import collections
import pathlib
import subprocess
import sys


def said(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(lib, out):
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(lib.glob("libtorch_*.so")) + sorted(lib.glob("libc10_*.so"))
    lines = [line for file in files for line in said("ldd", file).splitlines()]
    missing = sorted({line.split()[0] for line in lines if line.endswith("not found")})
    if not missing:
        return
    versions = collections.defaultdict(set)  # of symbols, by what the loader asks for
    for file in files:
        for line in said("nm", "-D", "--undefined-only", file).splitlines():
            name, _, version = line.split()[1].partition("@")
            version = version.lstrip("@")
            if name.startswith(("cu", "nccl", "nv")) and not version.startswith(("libcudart", "libcupti")):
                versions[version].add(name)
    names = sorted(set().union(*versions.values()))
    code = "".join(f".globl {name}\n.type {name},%function\n{name}:\n" for name in names)
    (out / "stub.s").write_text(f'.text\n{code}.section .note.GNU-stack,"",%progbits\n')
    nodes = (f"{version} {{ {'; '.join(sorted(found))}; }};\n" for version, found in versions.items() if version)
    (out / "stub.map").write_text("".join(nodes))
    for name in missing:
        link = [f"-Wl,--version-script={out}/stub.map", f"-Wl,-soname,{name}", "-o", out / name]
        subprocess.run(["cc", "-shared", "-nostdlib", out / "stub.s", *link], check=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:]))
