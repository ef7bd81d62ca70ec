"""Kills trainings with SIGKILL at random moments and resumes them until they end: for `make torture`.

    python3 tests/torture.py VISAGE DATA [KILLS] [SEED]

Every trainer, in float32 and bfloat16, on the labelled faces in DATA. Each run is killed until it ends, over and
over until KILLS kills are done (200), and its files are compared, by SHA-256, with those of the same run left alone.
Then a disk that is full (a small tmpfs, where this user may mount one), and two live runs at one --out.
"""

import hashlib
import pathlib
import random
import subprocess
import sys
import tempfile
import time

FILES = ("best.safetensors", "last.safetensors", "metrics.csv", "lr_find.csv")
TRAININGS = {
    "triplet": ["train-triplet", "--backbone", "openface", "--epochs", "3"],
    "triplet, xbm": ["train-triplet", "--backbone", "openface", "--epochs", "3", "--xbm", "100", "--miner", "semi-hard", "--schedule", "plateau"],
    "triplet, arcface": ["train-triplet", "--backbone", "openface", "--epochs", "2", "--loss", "arcface", "--freeze", "layer1,layer2"],
    "triplet, sampled": ["train-triplet", "--backbone", "openface", "--epochs", "2", "--val-limit", "8", "--freeze", "layer1,layer2"],
    "pairs": ["train-pairs", "--backbone", "openface", "--epochs", "2", "--pairs", "96", "--hard-negatives", "2", "--model-ema", "0.9"],
    "recovering": ["train-triplet", "--backbone", "openface", "--epochs", "2", "--lr", "0.02"],
    "strips": ["train-triplet", "--triplets", "strips", "--backbone", "openface", "--epochs", "2"],
    "classifier": ["train-classifier", "--backbone", "openface", "--epochs", "300"],
    "distil": ["distil", "--teacher", "dlib-resnet", "--backbone", "openface", "--epochs", "2", "--batch-size", "16"],
    "lr-find": ["lr-find", "--backbone", "openface", "--steps", "40"],
}


def files(run):
    return [hashlib.sha256((run / name).read_bytes()).hexdigest()[:12] if (run / name).exists() else "-" for name in FILES]


def start(visage, work, arguments):
    return subprocess.Popen([visage, "--device", "cpu", *map(str, arguments)], cwd=work, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def left_alone(visage, work, arguments):
    begun = time.time()
    child = start(visage, work, arguments)
    said = child.communicate()[1]
    if child.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}: {said}")
    return time.time() - begun


def killed(visage, work, flags, seconds, draw):
    """Kills at random moments until the run is finished; the number of kills."""
    run, kills, arguments = work / "killed", 0, [*flags, "--out", "killed", "--checkpoint-every", draw.choice(["1", "3", "0.3s"])]
    while not (run / "summary.json").exists():
        child = start(visage, work, arguments)
        try:
            # Later and later, so that every run ends.
            said = child.communicate(timeout=draw.uniform(0.1, 0.5 + kills / 4) * seconds)[1]
            if child.returncode:
                sys.exit(f"{' '.join(map(str, arguments))}: {said}")
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            kills += 1
        if (run / "config.toml").exists():
            arguments = [flags[0], "--resume", "killed"]
    return kills


def is_sound(visage, work, run):
    """Whether the best model of a run can be read."""
    return subprocess.run([visage, "info", run], cwd=work, capture_output=True).returncode == 0


def full_disk(visage, work, data):
    """Trains into a file system on which the best model has room, but no checkpoint."""
    disk = work / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", disk], capture_output=True).returncode:
        print("full disk: skipped, this user may not mount a tmpfs")
        return 0
    try:
        done = subprocess.run([visage, "--device", "cpu", *TRAININGS["triplet"], "--data", data, "--out", disk / "run", "--checkpoint-every", "1"],
                              cwd=work, capture_output=True, text=True)
        warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
        good = done.returncode in (0, 2) and "panicked" not in done.stderr and is_sound(visage, work, disk / "run")
        print(f"full disk: exit code {done.returncode}, {len(warnings)} warnings, {'the best model is whole' if good else 'BROKEN'}")
        for line in [*warnings, *done.stderr.splitlines()[-1:]]:
            print(f"  {line}")
        return not good
    finally:
        subprocess.run(["umount", disk], check=True)


def two_at_one_out(visage, work, data):
    """Two trainings that start at once with the same --out."""
    both = [start(visage, work, [*TRAININGS["triplet"], "--data", data, "--out", "two", "--seed", str(seed)]) for seed in (1, 2)]
    said = [child.communicate()[1] for child in both]
    good = all(child.returncode == 0 for child in both) and all(is_sound(visage, work, run) for run in ("two", "two-2"))
    alone = []
    for seed in (1, 2):
        left_alone(visage, work, [*TRAININGS["triplet"], "--data", data, "--out", f"alone-{seed}", "--seed", str(seed)])
        alone.append(files(work / f"alone-{seed}"))
    good = good and sorted(alone) == sorted([files(work / "two"), files(work / "two-2")])
    print(f"two runs at one --out: {'each has a folder of its own and the files of a run alone' if good else 'BROKEN: ' + said[0] + said[1]}")
    return not good


def main():
    visage, data = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    wanted, seed = map(int, [*sys.argv[3:5], *("200", "0")[len(sys.argv) - 3:]])
    draw, total, bad = random.Random(seed), 0, 0
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        work, alone = pathlib.Path(folder), {}
        left_alone(visage, work, ["prepare", "strips", data, "strips", "--size", "96", "--limit", "120"])
        while total < wanted:
            for name, flags in TRAININGS.items():
                for precision in ("f32", "bf16"):
                    if precision != "f32" and name == "classifier":
                        continue  # it has none
                    source = [] if name == "strips" else ["--data", data]
                    flags_now = [*flags, *source, *([] if name == "classifier" else ["--precision", precision])]
                    key = (name, precision)
                    if key not in alone:
                        seconds = left_alone(visage, work, [*flags_now, "--out", "alone"])
                        alone[key] = (files(work / "alone"), seconds)
                        subprocess.run(["rm", "-r", work / "alone"], check=True)
                    kills = killed(visage, work, flags_now, alone[key][1], draw)
                    same = files(work / "killed") == alone[key][0] != ["-"] * len(FILES)
                    subprocess.run(["rm", "-r", work / "killed"], check=True)
                    row = table.setdefault(key, [0, 0, 0])
                    row[0], row[1], row[2] = row[0] + 1, row[1] + kills, row[2] + same
                    total, bad = total + kills, bad + (not same)
                    print(f"{name}, {precision}: {kills} kills, {'the same files' if same else 'OTHER FILES'}; {total} of {wanted}", flush=True)
                    if total >= wanted and len(table) == 2 * len(TRAININGS) - 1:
                        break
        bad += full_disk(visage, work, data) + two_at_one_out(visage, work, data)
    print("\n| training | precision | runs | kills | ended with the same files |\n|---|---|---|---|---|")
    for (name, precision), (runs, kills, same) in table.items():
        print(f"| {name} | {precision} | {runs} | {kills} | {same} |")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
