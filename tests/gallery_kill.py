"""Kills what writes into a gallery with SIGKILL, over and over, and looks at the file: for `make torture-gallery`.

    python3 tests/gallery_kill.py VISAGE PHOTOS [KILLS] [SEED]

PHOTOS has one folder of pictures per person. KILLS (200) `visage gallery enroll` processes are killed, half of them at
a random moment of their lives, half within 60 ms after SQLite's journal appeared (one in four is left alone); then KILLS / 4 `visage serve`, while
people are enrolled over HTTP. After each kill `gallery check` must find the file sound, whoever was confirmed (exit
code 0, or 200) must be in it with every picture, and each face must have its person, its embedding and its thumbnail.
At the end all are enrolled once more, and the file must hold each picture exactly once.
"""

import collections
import hashlib
import http.client
import itertools
import pathlib
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse


def digest(picture):
    return hashlib.sha256(picture.read_bytes()).hexdigest()


class Torture:
    def __init__(self, visage, photos, work, seed):
        self.visage, self.db, self.draw = visage, work / "gallery.db", random.Random(seed)
        folders = sorted(folder for folder in photos.iterdir() if folder.is_dir())
        self.draw.shuffle(folders)
        self.groups = ((f"{folder.name} {count}", sorted(folder.iterdir())[:4]) for count in itertools.count(1) for folder in folders)
        self.tried, self.confirmed, self.bad = {}, {}, 0
        self.by_http = set()  # who may have no thumbnails
        self.counts = collections.Counter()

    def command(self, *arguments):
        quiet = [] if arguments[0] == "serve" else ["--quiet"]  # which would hide the port
        return [self.visage, "--device", "cpu", *quiet, *arguments, "--db", self.db]

    def enroll(self, name, pictures):
        return self.command("gallery", "enroll", "--detect", "never", "--thumbnails", "--name", name, *pictures)

    def next(self):
        """A person who was not tried yet."""
        name, pictures = next(self.groups)
        self.tried[name] = pictures
        return name, pictures

    def wrong(self, text):
        self.bad += 1
        print(f"BROKEN: {text}", flush=True)

    def look(self):
        """What `gallery check` says, and what the file holds; the tables are read without Visage."""
        if not self.db.exists():
            return
        check = subprocess.run(self.command("gallery", "check"), capture_output=True, text=True)
        if check.returncode:
            self.wrong(f"gallery check: {check.stdout}{check.stderr}")
        with sqlite3.connect(self.db) as file:
            if not file.execute("SELECT 1 FROM sqlite_master WHERE name = 'faces'").fetchone():
                return
            rows = file.execute("SELECT name, sha256, length(vector), length(png) FROM faces LEFT JOIN people ON people.id = person "
                                "LEFT JOIN vectors ON vectors.face = faces.id LEFT JOIN thumbnails ON thumbnails.face = faces.id").fetchall()
            [people] = file.execute("SELECT count(*) FROM people").fetchone()
        held = collections.Counter((name, sha256) for name, sha256, _, _ in rows)
        if any(None in row[:3] or (row[3] is None and row[0] not in self.by_http) for row in rows):
            self.wrong("a face without person, embedding or thumbnail")
        if any(count > 1 for count in held.values()) or people != len({name for name, _ in held}):
            self.wrong("a picture twice, or a person without a face")
        for name, pictures in self.confirmed.items():
            if any((name, digest(picture)) not in held for picture in pictures):
                self.wrong(f"{name} was confirmed and is not there, or not whole")
        whole = {name for name, pictures in self.tried.items() if all((name, digest(picture)) in held for picture in pictures)}
        part = {name for name, _ in held} - whole
        if part:
            self.wrong(f"only some pictures of {', '.join(part)}")
        self.counts["there without a confirmation"] = len(whole - set(self.confirmed))

    def kill_enroll(self, seconds):
        name, pictures = self.next()
        journal = pathlib.Path(f"{self.db}-journal")
        late, spared = self.draw.random() < 0.5, self.draw.random() < 0.25
        child = subprocess.Popen(self.enroll(name, pictures), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if spared:
            child.wait()
        elif late:
            while child.poll() is None and not journal.exists():
                time.sleep(0.0001)
            time.sleep(self.draw.uniform(0, 0.06))
        else:
            time.sleep(self.draw.uniform(0, 1.1) * seconds)
        child.kill()
        code = child.wait()
        if code == 0:
            self.confirmed[name] = pictures
        elif code != -signal.SIGKILL:
            self.wrong(f"enroll ended with {code}")
        self.counts["enroll killed" if code else "enroll left alone, or ended before its kill"] += 1
        self.counts["journal left by enroll"] += journal.exists()
        self.look()
        return code != 0

    def kill_serve(self):
        child = subprocess.Popen(self.command("serve", "--port", "0", "--detect", "never", "--log", "off"), text=True,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        port = next((int(found[1]) for line in child.stderr if (found := re.search(r"listening on .*:(\d+)", line))), None)
        if port is None:
            return self.wrong("the server did not start")
        threading.Thread(target=child.stderr.read, daemon=True).start()
        killer = threading.Timer(self.draw.uniform(0, 6), child.kill)
        killer.start()
        answered = 0
        try:
            while True:
                name, pictures = self.next()
                self.by_http.add(name)
                edge = "visage-torture"
                body = b"".join(b"--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\"\r\n\r\n%s\r\n" % (
                    edge.encode(), picture.name.encode(), picture.read_bytes()) for picture in pictures) + b"--%s--\r\n" % edge.encode()
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("POST", f"/people/{urllib.parse.quote(name)}", body, {"Content-Type": f"multipart/form-data; boundary={edge}"})
                answer = connection.getresponse()
                said = answer.read()
                if answer.status == 200:
                    self.confirmed[name], answered = pictures, answered + 1
                elif answer.status != 503:
                    self.wrong(f"{answer.status}: {said[:200]}")
                    break
                else:  # it is still starting
                    del self.tried[name]
                    time.sleep(0.1)
        except (OSError, http.client.HTTPException):
            pass
        killer.join()
        child.wait()
        self.counts["serve killed"] += 1
        self.counts["enrolments answered with 200"] += answered
        self.counts["journal left by serve"] += pathlib.Path(f"{self.db}-journal").exists()
        self.look()


def main():
    visage, photos = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    kills, seed = map(int, [*sys.argv[3:5], *("200", "0")[len(sys.argv) - 3:]])
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(visage, photos, pathlib.Path(folder), seed)
        name, pictures = torture.next()
        begun = time.time()
        subprocess.run(torture.enroll(name, pictures), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.time() - begun
        torture.db.unlink()
        done = 0
        while done < kills:
            done += (killed := torture.kill_enroll(seconds))
            if killed and done % 20 == 0:
                print(f"{done} enroll killed, {len(torture.confirmed)} people confirmed", flush=True)
        for _ in range(kills // 4):
            torture.kill_serve()
        print(f"{kills // 4} serve killed, {len(torture.confirmed)} people confirmed", flush=True)
        for name, pictures in torture.tried.items():
            if name not in torture.confirmed:
                subprocess.run(torture.enroll(name, pictures), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                torture.confirmed[name] = pictures
        torture.look()
    for what, count in torture.counts.items():
        print(f"{what}: {count}")
    print(f"people at the end: {len(torture.confirmed)}, pictures: {sum(map(len, torture.confirmed.values()))}; broken: {torture.bad}")
    sys.exit(torture.bad > 0)


if __name__ == "__main__":
    main()
