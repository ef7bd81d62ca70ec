"""Runs every check of the GPU kit and writes report.md and report.json; started by run.sh.

    run.sh [--device cuda:0] [--minutes 8.5] [--only PART,...] [--keep]

The folder holds, made by `make gpu-kit`: programs.tar.xz (the command `visage`, stripped, and
tests/cuda.rs as a program), faces/ (ORL, one folder per person), photos/, peer.py and openface.py (the
same networks in PyTorch). libtorch is the one in this Python's torch.
"""

import argparse
import csv
import hashlib
import json
import lzma
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

import torch

HERE = pathlib.Path(__file__).resolve().parent


class Kit:
    def __init__(self, flags, work):
        self.device, self.work = flags.device, work
        self.end = time.time() + 60 * flags.minutes
        self.rows = []
        self.libraries = pathlib.Path(torch.__file__).resolve().parent / "lib"
        self.env = dict(os.environ)
        own = self.own_names()
        path = [str(own), str(self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        self.env["LD_LIBRARY_PATH"] = os.pathsep.join(part for part in path if part)
        self.env |= {"VISAGE_TEST_DEVICE": self.device, "NO_COLOR": "1"}
        with lzma.open(HERE / "programs.tar.xz") as packed, tarfile.open(fileobj=packed) as tar:
            tar.extractall(work, filter="data")
        self.visage, self.tests = work / "visage", work / "cuda-tests"

    def own_names(self):
        """The OpenMP library under the name that the programs were linked with, where this PyTorch
        brings it under another."""
        folder = self.work / "libraries"
        folder.mkdir()
        wanted = (HERE / "openmp").read_text().strip()
        found = sorted(self.libraries.glob("libgomp*"))
        if wanted and found and not (self.libraries / wanted).exists():
            (folder / wanted).symlink_to(found[0])
        return folder

    @property
    def on_gpu(self):
        return self.device.startswith("cuda")

    def row(self, check, ok, figure=None, unit="", bound=None, note=""):
        self.rows.append({"check": check, "ok": bool(ok), "figure": figure, "unit": unit, "bound": bound, "note": note})
        shown = "" if figure is None else f"  {figure:.4g} {unit}"
        print(f"{'ok  ' if ok else 'FAIL'}  {check}{shown}{'  ' + note if note else ''}", flush=True)

    def run(self, *arguments, device=None, limit=None, code=0):
        """Standard output of a command that must end with `code`."""
        command = [self.visage, "--device", device or self.device, *map(str, arguments)]
        done = subprocess.run(command, cwd=self.work, env=self.env, text=True, capture_output=True,
                              timeout=self.left(), preexec_fn=limit)
        if done.returncode != code:
            raise RuntimeError(f"{' '.join(map(str, command[1:]))} ended with {done.returncode}: {done.stderr.strip()[-600:]}")
        self.said = done.stderr
        return done.stdout

    def left(self):
        """Seconds until the checks must have ended."""
        left = self.end - time.time()
        if left < 1:
            raise RuntimeError("no time was left")
        return left

    def check(self, name, body):
        """Runs one check; whatever it raises is its failure."""
        if time.time() > self.end:
            return self.row(name, False, note="no time was left")
        try:
            body()
        except Exception as error:  # a check that breaks must not end the others
            self.row(name, False, note=f"{type(error).__name__}: {error}"[:800])


def tensors(path):
    """The tensors of a safetensors file as bytes, and the kind and shape of each."""
    raw = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    begin = 8 + size
    return {key: (about["dtype"], about["shape"], raw[begin + about["data_offsets"][0]:begin + about["data_offsets"][1]])
            for key, about in header.items()}


def digest(path):
    whole = hashlib.sha256()
    for key, (_, _, raw) in sorted(tensors(path).items()):
        whole.update(key.encode() + raw)
    return whole.hexdigest()


def embeddings(path):
    with open(path, newline="") as file:
        rows = list(csv.reader(file))[1:]
    numbers = []
    for row in rows:
        numbers.append([float(cell) for cell in row if cell.lstrip("-")[:1].isdigit() and "." in cell])
    return torch.tensor(numbers)


def start(kit):
    """1. The installation."""
    report = json.loads(kit.run("doctor", "--json"))
    kit.row("doctor: no finding is broken", True, note=report["libtorch"]["text"])
    kit.row("doctor: device", True, note=report["device"]["text"])
    auto = json.loads(kit.run("doctor", "--json", device="auto"))["device"]["text"]
    wanted = "cuda:0" if torch.cuda.is_available() else "cpu"
    kit.row(f"--device auto is {wanted}", auto.endswith(wanted), note=auto)
    said = json.loads(kit.run("doctor", "--json", device="cuda:9", code=1))["device"]["text"]
    kit.row("--device cuda:9 is refused by name", "cuda:9" in said, note=said[:200])
    if kit.on_gpu:
        kit.row("libtorch_cuda is loaded", report["cuda"]["state"] == "ok", note=report["cuda"]["text"])


def library(kit):
    """2. and 3.: tests/cuda.rs."""
    lines = kit.work / "tests.jsonl"
    env = kit.env | {"VISAGE_TEST_REPORT": str(lines), "VISAGE_TEST_OUT": str(kit.work), "VISAGE_TEST_ALL": "1"}
    if not kit.on_gpu:
        del env["VISAGE_TEST_ALL"]  # one architecture of each family is enough to prove the kit
    try:  # at most half of the time: the commands come after it
        done = subprocess.run([kit.tests, "--test-threads", "1", "--skip", "speed"], cwd=kit.work, env=env, text=True,
                              capture_output=True, timeout=kit.left() / 2)
    except subprocess.TimeoutExpired:
        done = None
    for line in lines.read_text().splitlines() if lines.exists() else []:
        row = json.loads(line)
        kit.row(row["check"], row["ok"], row["figure"], row.get("unit", ""), row.get("bound"))
    if done is None:
        return kit.row("tests/cuda.rs", False, note="did not end in half of the time; what it had checked by then is above")
    summary = next((line for line in done.stdout.splitlines() if line.startswith("test result")), "no result")
    kit.row("tests/cuda.rs", done.returncode == 0, note=summary if done.returncode == 0 else (done.stdout + done.stderr)[-1500:])


def peer(kit):
    """The same networks in PyTorch, on the same device."""
    for path in sorted(kit.work.glob("peer-*.safetensors")):
        done = subprocess.run([sys.executable, HERE / "peer.py", "compare", kit.device, path], capture_output=True, text=True, timeout=kit.left())
        if done.returncode != 0:
            kit.row(f"PyTorch: {path.stem}", False, note=done.stderr[-600:])
            continue
        for row in map(json.loads, done.stdout.splitlines()):
            kit.row(f"PyTorch, {path.stem.removeprefix('peer-')}: {row['what']}", row["figure"] <= row["bound"], row["figure"], bound=row["bound"])


TRAIN = ("train-triplet", "--data", "faces", "--backbone", "openface", "-p", "8", "-k", "4", "--seed", "3", "--epochs")


def commands(kit):
    """4. Commands from end to end."""
    kit.run(*TRAIN, 2, "--out", "runs/triplet", "--deterministic")
    first, said = digest(kit.work / "runs/triplet/last.safetensors"), kit.said
    kit.row("train-triplet", True, note=next(line for line in said.splitlines() if line.startswith("trunk")))
    kit.run(*TRAIN, 2, "--out", "runs/again", "--deterministic")
    same = first == digest(kit.work / "runs/again/last.safetensors")
    unable = sorted({line.split("Warning: ")[1].split(" does not")[0] for line in said.splitlines() if "does not have a deterministic" in line and "Warning: " in line})
    kit.row("--deterministic: the same seed gives the same weights", same or unable, note="bit for bit" if same else f"without a deterministic kernel: {', '.join(unable)}")
    for precision in ("f32", "bf16", "f16", "tf32"):
        if precision == "f16" and not kit.on_gpu:
            continue  # a processor takes minutes
        kit.run(*TRAIN, 2, "--out", f"runs/{precision}", "--precision", precision, "--clip-grad-norm", "1")
        kit.row(f"train-triplet --precision {precision}", "diverged" not in kit.said and "overflowed" not in kit.said)
    kit.run(*TRAIN, 2, "--out", "runs/cached", "--freeze", "layer1,layer2", "--crop", "off", "--jitter", "off")
    kit.row("train-triplet with frozen blocks cached", "computed once" in kit.said,
            note=next((line for line in kit.said.splitlines() if "computed once" in line), ""))
    kit.run(*TRAIN, 2, "--out", "runs/pieces", "--micro-batch", "8")
    kit.row("train-triplet --micro-batch", True)
    kit.run("train-classifier", "--data", "faces", "--trunk", "runs/triplet/best.safetensors", "--out", "runs/classifier")
    kit.row("train-classifier", True)
    kit.run("train-pairs", "--data", "faces", "--backbone", "openface", "--pairs", "64", "--epochs", "1", "--out", "runs/pairs")
    kit.row("train-pairs", True)

    model, faces = "runs/classifier/best.safetensors", [f"faces/s{n:02}/01.pgm" for n in range(1, 9)]
    answers = {}
    for device in {kit.device, "cpu"}:
        out = kit.run("classify", *faces, "--model", model, "--detect", "never", "--json", device=device)
        answers[device] = [(row["nearest"], row["label"], row["probability"]) for row in map(json.loads, out.splitlines())]
    apart = max(abs(a[2] - b[2]) for a, b in zip(answers[kit.device], answers["cpu"]))
    names = [a[:2] for a in answers[kit.device]] == [b[:2] for b in answers["cpu"]]
    kit.row("classify: a model trained here, the same names on the CPU", names)
    kit.row("classify: probabilities, this device against the CPU", apart <= 2e-3, apart, bound=2e-3)

    photos, found = sorted(str(path) for path in (HERE / "photos").glob("*.png")), {}
    for device in {kit.device, "cpu"}:
        rows = [json.loads(line) for line in kit.run("detect", *photos, "--json", device=device).splitlines()]
        found[device] = [[face["box"] for face in row["faces"]] for row in rows]
    counts = [[len(boxes) for boxes in found[device]] for device in (kit.device, "cpu")]
    kit.row("detect: as many faces as on the CPU", counts[0] == counts[1] and sum(counts[0]) > 0, note=str(counts[0]))
    flat = [torch.tensor([list(box.values()) if isinstance(box, dict) else box for boxes in found[device] for box in boxes]) for device in (kit.device, "cpu")]
    if counts[0] == counts[1]:
        apart = (flat[0] - flat[1]).abs().max().item()
        kit.row("detect: boxes against the CPU's", apart <= 0.5, apart, "pixels", 0.5)

    table = {}
    for device in {kit.device, "cpu"}:
        name = f"embeddings-{device.replace(':', '')}.csv"
        kit.run("embed", "faces", "--model", model, "--out", name, device=device)
        table[device] = embeddings(kit.work / name)
    apart = (table[kit.device] - table["cpu"]).abs().max().item()
    kit.row(f"embed: {len(table['cpu'])} faces against the CPU", apart <= 1e-4, apart, bound=1e-4)
    same = subprocess.run([kit.visage, "--device", kit.device, "verify", faces[0], "faces/s01/02.pgm", "--model", model, "--json"],
                          cwd=kit.work, env=kit.env, capture_output=True, text=True)
    kit.row("verify", same.returncode in (0, 1) and "distance" in json.loads(same.stdout))
    report = json.loads(kit.run("evaluate", "--data", "faces", "--model", model, "--json"))
    kit.row("evaluate", bool(report))
    kit.run("tsne", "--data", "faces", "--model", model, "--out", "tsne.png", "--iterations", "50")
    kit.row("tsne", (kit.work / "tsne.png").stat().st_size > 1000)
    kit.run("export", model, "face.pt")
    exported = torch.jit.load(str(kit.work / "face.pt"), map_location=kit.device)
    rows = exported(torch.rand(2, 3, 96, 96, device=kit.device))[0]
    apart = (rows.norm(dim=1) - 1).abs().max().item()
    kit.row("export: TorchScript runs in PyTorch on this device", apart < 1e-3, apart, bound=1e-3)


def memory(kit):
    """5. A batch that cannot fit."""
    limit, batch = None, 2400  # about 290 GB in float32, and no tensor of more than 2^31 numbers
    if not kit.on_gpu:
        size = 10 << 30
        limit, batch = (lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))), 2000
    kit.run(*TRAIN, 1, "--out", "runs/large")
    before = digest(kit.work / "runs/large/best.safetensors")
    flags = ("train-triplet", "--data", "faces", "--backbone", "densenet121", "--weights", "none", "--input-size", "224",
             "--bn", "train", "-p", "40", "-k", batch // 40, "--epochs", "1", "--val-fraction", "0", "--precision", "f32", "--out", "runs/huge")
    kit.run(*flags, limit=limit, code=2)
    said = [line for line in kit.said.splitlines() if line.startswith("error")]
    good = said and "--micro-batch" in said[0] and "not enough memory" in said[0] and "panicked" not in kit.said
    kit.row(f"a batch of {batch} that does not fit ends with a sentence", good, note=" ".join(said)[:300] or kit.said[-300:])
    kit.row("models of other runs are intact", before == digest(kit.work / "runs/large/best.safetensors"))
    kept = kit.work / "runs/huge/best.safetensors"
    kit.row("the run's best model is intact", kept.exists() and len(tensors(kept)) > 100)


class Utilisation:
    """The mean of nvidia-smi's utilisation while a block runs."""

    def __init__(self, on):
        self.on, self.samples, self.mean = on and shutil.which("nvidia-smi"), [], None

    def __enter__(self):
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        if self.on:
            self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.2):
            out = subprocess.run(["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"], capture_output=True, text=True)
            self.samples += [float(line) for line in out.stdout.split()[:1]]

    def __exit__(self, *_):
        self.done.set()
        if self.on:
            self.thread.join()
            busy = [sample for sample in self.samples if sample > 0]
            self.mean = sum(busy) / len(busy) if busy else None


def speed(kit):
    """6. Speed beside PyTorch."""
    lines = kit.work / "speed.jsonl"
    env = kit.env | {"VISAGE_TEST_REPORT": str(lines), "VISAGE_TEST_ALL": "1"}
    with Utilisation(kit.on_gpu) as used:
        done = subprocess.run([kit.tests, "--exact", "speed"], cwd=kit.work, env=env, capture_output=True, text=True, timeout=kit.left())
    if done.returncode != 0:
        raise RuntimeError((done.stdout + done.stderr)[-600:])
    own = {row["check"]: row for row in map(json.loads, lines.read_text().splitlines())}
    if used.mean is not None:
        kit.row("GPU utilisation while training and embedding", True, used.mean, "%")
    names = "forward,forward-16,step,mine"
    benches = kit.run("bench", "--only", names, "--json", "--repeats", 3 if kit.on_gpu else 1, "--mined", 16384 if kit.on_gpu else 1024)
    ways = ["eager", "compile"] if kit.on_gpu else ["eager"]  # torch.compile takes the longest
    theirs = {}
    for way in ways:
        left = kit.end - time.time()
        if left < 20:
            kit.row(f"PyTorch {way}: speed", True, note="left out: no time was left")
            continue
        try:
            done = subprocess.run([sys.executable, HERE / "peer.py", "speed", kit.device, way], capture_output=True, text=True, timeout=left)
            said = done.stdout
            if done.returncode != 0:
                kit.row(f"PyTorch {way}: speed", way == "compile", note=done.stderr[-300:])
        except subprocess.TimeoutExpired as late:
            said = late.stdout or b""
            said = said.decode() if isinstance(said, bytes) else said
            kit.row(f"PyTorch {way}: speed", True, note="cut short: no time was left")
        for row in map(json.loads, said[:said.rfind("\n") + 1].splitlines()):
            theirs[row["what"], way] = row["figure"]
    for name, row in own.items():
        ratios = [f"{row['figure'] / theirs[name, way]:.2f}x PyTorch {way} ({theirs[name, way]:.4g})" for way in ways if (name, way) in theirs]
        kit.row(name, True, row["figure"], row["unit"], note=", ".join(ratios))
    for line in benches.splitlines():
        row = json.loads(line)
        kit.row(f"visage bench: {row['name']}", True, row["visage"], row["unit"])


def machine(kit):
    about = {"torch": torch.__version__, "python": sys.version.split()[0], "device": kit.device, "kit": (HERE / "torch-version").read_text().strip()}
    if kit.on_gpu:
        about["gpu"] = torch.cuda.get_device_name(0)
        about["cuda"], about["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
        if shutil.which("nvidia-smi"):
            out = subprocess.run(["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"], capture_output=True, text=True)
            about["driver"] = out.stdout.strip().splitlines()[0] if out.stdout.strip() else "?"
    return about


def markdown(about, rows, seconds):
    failed = [row for row in rows if not row["ok"]]
    head = ", ".join(f"{key} {value}" for key, value in about.items())
    lines = ["# Visage on " + about.get("gpu", about["device"]), "", head + ".", "",
             f"{len(rows)} checks in {seconds:.0f} s, {len(failed)} failed.", "",
             "| check | figure | bound | ok | note |", "|---|---|---|---|---|"]
    for row in rows:
        figure = "" if row["figure"] is None else f"{row['figure']:.4g} {row['unit']}".strip()
        bound = "" if row["bound"] is None else f"{row['bound']:g}"
        note = " ".join(str(row["note"]).replace("|", "/").split())
        lines.append(f"| {row['check']} | {figure} | {bound} | {'yes' if row['ok'] else '**no**'} | {note} |")
    return "\n".join(lines) + "\n"


PARTS = {"start": start, "library": library, "peer": peer, "commands": commands, "memory": memory, "speed": speed}


def chosen(text):
    parts = text.split(",")
    wrong = [part for part in parts if part not in PARTS]
    if wrong:
        raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: the parts are {', '.join(PARTS)}")
    if "peer" in parts and "library" not in parts:
        raise argparse.ArgumentTypeError("peer compares what library writes: name both")
    return [part for part in PARTS if part in parts]


def main():
    parser = argparse.ArgumentParser(description="Checks Visage on this machine's GPU.")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu to check the kit itself")
    parser.add_argument("--minutes", type=float, default=8.5, help="checks that would start later are left out")
    parser.add_argument("--only", type=chosen, default=list(PARTS), metavar="PART,...", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the runs")
    flags = parser.parse_args()
    begun = time.time()
    work = pathlib.Path(tempfile.mkdtemp(prefix="visage-kit-"))
    try:
        kit = Kit(flags, work)
        os.symlink(HERE / "faces", work / "faces")
        about = machine(kit)
        print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
        for part in map(PARTS.get, flags.only):
            kit.check(part.__doc__, lambda: part(kit))
            # After each part, so that a run that is cut off leaves what it has.
            seconds = time.time() - begun
            (HERE / "report.md").write_text(markdown(about, kit.rows, seconds))
            (HERE / "report.json").write_text(json.dumps({"machine": about, "seconds": seconds, "checks": kit.rows}, indent=1))
    finally:
        if flags.keep:
            print(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    failed = sum(not row["ok"] for row in kit.rows)
    print(f"{len(kit.rows) - failed} passed, {failed} failed in {seconds:.0f} s: {HERE / 'report.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
