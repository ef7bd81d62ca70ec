"""`visage serve` and a server of FastAPI, facenet-pytorch and numpy: from a photo to names.

    make bench-serve      (python benches/serve.py --photos DIR)

The peer is benches/serve_peer.py, one process of uvicorn. Three servers: Visage with its default trunk
(dlib-resnet, 5.6 M parameters, 128 numbers a face), Visage with FaceNet's InceptionResnetV1 (23.5 M, 512
numbers), and the peer with the same network and the same weights, which are random unless --weights names
facenet-pytorch's. All find faces with MTCNN (20 pixels and up), on the same photos. The
galleries hold random embeddings of length 1 of 1,000 people. `visage gallery import` makes Visage's with the first face; the
others are written into its tables, since an import compares each face with all others (minutes for 200,000).
Visage's answer comes from the nearest five faces of each person, with a limit that strangers chose; the peer's is the
largest cosine.

For each size of the gallery all servers run; each number of clients asks them in turns, in --rounds rounds of
--seconds. A client sends the next photo when the answer has come, over a connection that stays open. Percentiles
are over all requests, the throughput is the median of the rounds. Memory: resident, the peak after all that less
what the same server held after one photo with one face enrolled. Server and clients share the machine's cores;
everything is on the loopback interface.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
PEOPLE = 1000
PHOTOS = 48

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--photos", type=pathlib.Path, default=ROOT / "tests/golden/detect", help="photos, also in sub-folders")
parser.add_argument("--visage", type=pathlib.Path, default=ROOT / "target/release/visage")
parser.add_argument("--weights", type=pathlib.Path, help="facenet-pytorch's weights, without classifier")
parser.add_argument("--faces", default="1000,50000,200000")
parser.add_argument("--clients", default="1,4,16")
parser.add_argument("--seconds", type=float, default=4)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--out", type=pathlib.Path, help="JSON file of all figures")
options = parser.parse_args()


def chosen_photos():
    """Every n-th of the photos."""
    endings = {".jpg", ".jpeg", ".png"}
    files = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in endings)
    if not files:
        raise SystemExit(f"--photos {options.photos}: there are no photos in it")
    return [path.read_bytes() for path in files[:: max(1, len(files) // PHOTOS)][:PHOTOS]]


def form(photo):
    """A multipart body, and its type."""
    head = b'--photo\r\nContent-Disposition: form-data; name="file"; filename="photo"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head + photo + b"\r\n--photo--\r\n"


PHOTOS_READ = chosen_photos()
BODIES = [form(photo) for photo in PHOTOS_READ]
HEADERS = {"Content-Type": "multipart/form-data; boundary=photo"}


def facenet(folder):
    import torch
    from facenet_pytorch import InceptionResnetV1

    path = folder / "facenet.pt"
    torch.manual_seed(0)
    net = InceptionResnetV1()
    if options.weights:
        stored = torch.load(options.weights, weights_only=True)
        net.load_state_dict({key: value for key, value in stored.items() if not key.startswith("logits.")})
    torch.save(net.state_dict(), path)
    return path


def embeddings(folder, faces, dim):
    """Random embeddings in an .npy, a .csv for the import of one, and their names."""
    rng = np.random.default_rng(faces)
    rows = rng.standard_normal((faces, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    path = folder / f"{faces}-{dim}.npy"
    np.save(path, rows)
    names = [f"person {row % PEOPLE}" for row in range(faces)]
    path.with_suffix(".csv").write_text("path,label\n0.jpg,person 0\n")
    path.with_suffix(".txt").write_text("\n".join(names) + "\n")
    return path


# Python's libraries are not Visage's.
PLAIN = {key: value for key, value in os.environ.items() if key not in ("LD_LIBRARY_PATH", "PYTHONPATH")}


class Server:
    def __init__(self, name, command, env, port, log):
        self.name, self.port = name, port
        self.process = subprocess.Popen(list(map(str, command)), env=env, stdout=log, stderr=log)
        deadline = time.time() + 120
        while True:
            if self.process.poll() is not None or time.time() > deadline:
                raise SystemExit(f"{name}: the server did not start; see {log.name}")
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.1)

    def memory(self, line):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{line}:\s+(\d+)", status, re.MULTILINE)[1]) / 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, clients, seconds, first=0):
    """Seconds of each request of so many clients, and the number of faces in the answers per photo."""
    taken, faces, trouble = [[] for _ in range(clients)], {}, []
    end = time.perf_counter() + seconds

    def client(own):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        at = first + own * len(BODIES) // clients
        while time.perf_counter() < end and not trouble:
            start = time.perf_counter()
            connection.request("POST", "/identify", BODIES[at % len(BODIES)], HEADERS)
            response = connection.getresponse()
            content = response.read()
            taken[own].append(time.perf_counter() - start)
            if response.status != 200:
                trouble.append(f"status {response.status}: {content[:300]!r}")
                return
            faces[at % len(BODIES)] = len(json.loads(content)["faces"])
            at += 1

    start = time.perf_counter()
    threads = [threading.Thread(target=client, args=(own,)) for own in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if trouble:
        raise SystemExit(trouble[0])
    all_taken = [value for one in taken for value in one]
    return all_taken, len(all_taken) / (time.perf_counter() - start), faces


def main(folder):
    sizes = [int(size) for size in options.faces.split(",")]
    clients = [int(number) for number in options.clients.split(",")]
    weights = facenet(folder)
    log = open(folder / "servers.log", "w")
    strangers = folder / "strangers"  # Visage has none of this FaceNet
    for number, photo in enumerate(PHOTOS_READ):
        (strangers / str(number)).mkdir(parents=True)
        (strangers / str(number) / "photo.jpg").write_bytes(photo)
    flags = ["--backbone", "facenet", "--weights", weights, "--strangers", strangers]
    trunks = {"Visage, dlib-resnet": (128, []), "Visage, FaceNet": (512, flags)}
    peer = "FastAPI, FaceNet"

    def visage(*arguments):
        command = [options.visage, *map(str, arguments), "--device", "cpu", "--quiet"]
        done = subprocess.run(command, env=PLAIN, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"visage {' '.join(map(str, arguments[:2]))}: {done.stderr}")

    def gallery(name, faces):
        dim, flags = trunks[name]
        one, db = folder / f"1-{dim}.db", folder / f"{faces}-{dim}.db"
        path = embeddings(folder, faces, dim)
        if not one.exists():
            visage("gallery", "import", embeddings(folder, 1, dim), "--db", one, *flags)
        if faces == 1:
            return one
        shutil.copy(one, db)
        rows = np.load(path)
        with contextlib.closing(sqlite3.connect(db)) as file, file:
            people = ((person + 1, f"person {person}") for person in range(1, min(PEOPLE, faces)))
            file.executemany("INSERT INTO people (id, name, added) VALUES (?, ?, 0)", people)
            file.executemany(
                "INSERT INTO faces (id, person, path, sha256, x1, y1, x2, y2, added) VALUES (?, ?, ?, ?, 0, 0, 0, 0, 0)",
                ((row + 1, row % PEOPLE + 1, f"{row}.jpg", f"{row:064x}") for row in range(1, faces)),
            )
            vectors = ((row + 1, rows[row].tobytes()) for row in range(1, faces))
            file.executemany("INSERT INTO vectors (face, vector) VALUES (?, ?)", vectors)
            file.execute("UPDATE gallery SET revision = revision + 1")
        return db

    def started(faces):
        for name in trunks:
            port = free_port()
            db = gallery(name, faces)
            yield Server(name, [options.visage, "serve", "--db", db, "--port", port, "--device", "cpu"], PLAIN, port, log)
        path, port = folder / f"{faces}-512.npy", free_port()
        env = {**os.environ, "GALLERY": str(path), "NAMES": str(path.with_suffix(".txt")), "WEIGHTS": str(weights)}
        # Uvicorn runs in the folder of the peer.
        command = [sys.executable, "-m", "uvicorn", "serve_peer:app", "--port", port, "--no-access-log",
                   "--app-dir", ROOT / "benches"]
        yield Server(peer, command, env, port, log)

    base, figures, found = {}, [], {}
    for server in started(1):
        ask(server.port, 1, 0.001)
        base[server.name] = server.memory("VmRSS")
        server.stop()
    for size in sizes:
        servers = list(started(size))
        for server in servers:  # every photo once, before the clock runs
            at = 0
            while len(found.get((size, server.name), {})) < len(BODIES):
                _, _, faces = ask(server.port, 1, 0.001, at)
                found.setdefault((size, server.name), {}).update(faces)
                at += 1
        for number in clients:
            taken, rates = {}, {}
            for _ in range(options.rounds):
                for server in servers:
                    times, rate, _ = ask(server.port, number, options.seconds)
                    taken.setdefault(server.name, []).extend(times)
                    rates.setdefault(server.name, []).append(rate)
            for server in servers:
                p50, p95, p99 = (1000 * np.percentile(taken[server.name], [50, 95, 99])).tolist()
                figures.append({
                    "faces": size, "clients": number, "server": server.name, "requests": len(taken[server.name]),
                    "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "photos_per_s": statistics.median(rates[server.name]),
                    "ratio_to_peer": statistics.median(a / b for a, b in zip(rates[server.name], rates[peer])),
                })
                print(json.dumps(figures[-1]), file=sys.stderr, flush=True)
        for server in servers:
            above = server.memory("VmHWM") - base[server.name]
            for row in figures:
                if (row["faces"], row["server"]) == (size, server.name):
                    row["model_mib"], row["above_model_mib"] = base[server.name], above
            server.stop()

    counts = {name: sum(found[sizes[0], name].values()) for name in [*trunks, peer]}
    print(f"{len(BODIES)} photos; faces found: {counts}; FaceNet's weights: {options.weights or 'random'}\n")
    print("| faces | clients | server | p50, ms | p95, ms | p99, ms | photos/s | photos/s, peer = 1 | MiB above the model |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in figures:
        print(f"| {row['faces']:,} | {row['clients']} | {row['server']} | {row['p50_ms']:.0f} | {row['p95_ms']:.0f} | "
              f"{row['p99_ms']:.0f} | {row['photos_per_s']:.1f} | {row['ratio_to_peer']:.2f} | {row['above_model_mib']:.0f} |")
    if options.out:
        options.out.write_text(json.dumps({"photos": len(BODIES), "faces_found": counts, "rows": figures}, indent=1) + "\n")


with tempfile.TemporaryDirectory(prefix="serve-") as folder:
    main(pathlib.Path(folder))
