"""Puts the GPU kit together: `make gpu-kit` runs it after building.

    python tests/gpu/pack.py --torch 2.13.0 --target target/release --python PYTHON

gpu-kit/ then holds the two programs (stripped, packed), the scripts, 200 ORL faces and the photos of the
detection tests. It needs nothing of this checkout: copy it to a machine with a GPU, PyTorch of the same
version and Python, and start run.sh.
"""

import argparse
import lzma
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
LARGEST = 48 << 20
SCRIPTS = ("tests/gpu/run.sh", "tests/gpu/run.py", "tests/gpu/peer.py", "tests/golden/openface.py")


def newest_test(target):
    """The program that cargo made of tests/cuda.rs last."""
    found = [path for path in (target / "deps").glob("cuda-*") if not path.suffix]
    if not found:
        sys.exit(f"pack.py: {target}/deps has no program of tests/cuda.rs")
    return max(found, key=lambda path: path.stat().st_mtime)


def openmp(program):
    """The name of the OpenMP library that a program asks for."""
    said = subprocess.run(["readelf", "-d", program], check=True, capture_output=True, text=True).stdout
    names = [line.split("[")[1].split("]")[0] for line in said.splitlines() if "NEEDED" in line and "gomp" in line]
    return names[0] if names else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", required=True)
    parser.add_argument("--target", required=True, type=pathlib.Path)
    parser.add_argument("--python", required=True, help="a Python of this machine that imports torch")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "gpu-kit")
    flags = parser.parse_args()
    new = flags.out.with_suffix(".tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    programs = {"visage": flags.target / "visage", "cuda-tests": newest_test(flags.target)}
    (new / "openmp").write_text(openmp(programs["visage"]) + "\n")
    (new / "torch-version").write_text(flags.torch + "\n")
    (new / "python").write_text(flags.python + "\n")
    # Both programs hold the same weights: a dictionary longer than the first one packs them once.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 128 << 20}]
    with (
        tempfile.TemporaryDirectory() as folder,
        lzma.open(new / "programs.tar.xz", "wb", filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, program in programs.items():
            stripped = pathlib.Path(folder) / name
            subprocess.run(["strip", "-o", stripped, program], check=True)
            tar.add(stripped, name)
    for script in SCRIPTS:
        shutil.copy2(ROOT / script, new)
    for person in sorted((ROOT / "data/orl").glob("s*")):
        (new / "faces" / person.name).mkdir(parents=True)
        for picture in sorted(person.glob("*.pgm"))[:5]:
            shutil.copy(picture, new / "faces" / person.name)
    shutil.copytree(ROOT / "tests/golden/detect", new / "photos", ignore=shutil.ignore_patterns("*.json"))
    size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
    if size > LARGEST:
        sys.exit(f"pack.py: the kit has {size / 2**20:.1f} MiB, more than {LARGEST >> 20}")
    shutil.rmtree(flags.out, ignore_errors=True)
    new.rename(flags.out)
    print(f"gpu-kit/ is ready: {size / 2**20:.1f} MiB, for PyTorch {flags.torch}. Start gpu-kit/run.sh on a machine with a GPU.")


if __name__ == "__main__":
    main()
