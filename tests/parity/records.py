"""Holds the record files and shards of `visage prepare pack` against the readers and writers of others.

    python tests/parity/records.py VISAGE FOLDER

FOLDER has one sub-folder of pictures per identity. Needs mxnet 1.9.1 (--no-deps, with numpy 1.23.5, which
still has the aliases that it uses, requests and graphviz) and webdataset.

1. MXIndexedRecordIO and webdataset read what Visage wrote: every picture byte for byte, in order, with its
   label.
2. Visage reads what MXIndexedRecordIO, TarWriter and Python's tarfile (pax and GNU long names) wrote: packed
   into a folder of records again by Visage, the bytes are the same. One picture is made to hold RecordIO's
   magic number at many places, so that its record comes in parts.
"""

import io
import json
import pathlib
import struct
import subprocess
import sys
import tarfile
import tempfile

import mxnet.recordio as recordio
import webdataset

MAGIC = struct.pack("<I", 0xCED7230A)


def visage(*arguments):
    subprocess.run([sys.argv[1], *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def folder(root):
    """Pictures with their labels, in the order of Visage: by folder, then by path."""
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    found = []
    for label, name in enumerate(names):
        files = sorted(path for path in (root / name).rglob("*") if path.suffix in (".jpg", ".png"))
        found += [(str(path.relative_to(root)), label, path.read_bytes()) for path in files]
    return found


def with_magic(content):
    """The same picture, with the magic number behind its end, where decoders do not look."""
    padding = -(24 + len(content)) % 4
    return content + bytes(padding) + MAGIC + b"12" + MAGIC + b"34" + 3 * MAGIC


def read_records(path):
    file = recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")
    read = []
    for key in file.keys:
        header, content = recordio.unpack(file.read_idx(key))
        read.append((int(header.label), content))
    return read


def read_shards(paths):
    read = []
    for sample in webdataset.WebDataset([str(path) for path in paths], shardshuffle=False):
        picture = next(sample[ending] for ending in ("jpg", "png") if ending in sample)
        read.append((int(sample["cls"]), picture))
    return read


def same(title, read, wanted):
    wanted = [(label, content) for _, label, content in wanted]
    assert len(read) == len(wanted), f"{title}: {len(read)} pictures of {len(wanted)}"
    wrong = [number for number, (a, b) in enumerate(zip(read, wanted)) if a != b]
    assert not wrong, f"{title}: {len(wrong)} differ, the first is number {wrong[0]}"
    print(f"{title}: {len(read)} pictures, the same bytes and labels")


def main():
    pictures = folder(pathlib.Path(sys.argv[2]))
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        changed = [(n, l, with_magic(c) if i % 10 == 0 else c) for i, (n, l, c) in enumerate(pictures)]
        for name, _, content in changed:
            path = work / "faces" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

        visage("prepare", "pack", work / "faces", work / "own.rec")
        same("mxnet reads visage's records", read_records(work / "own.rec"), changed)
        visage("prepare", "pack", work / "faces", work / "own-{000..NNN}.tar", "--shard-size", "1")
        own = sorted(work.glob("own-*.tar"))
        same(f"webdataset reads visage's {len(own)} shards", read_shards(own), changed)

        # A face set: record 0 and the records of identities, with ranges, around the pictures.
        file = recordio.MXIndexedRecordIO(str(work / "set.idx"), str(work / "set.rec"), "w")
        labels = 1 + max(label for _, label, _ in changed)
        ends = [len(changed) + 1.0, len(changed) + 1.0 + labels]
        file.write_idx(0, recordio.pack(recordio.IRHeader(0, ends, 0, 0), b""))
        for key, (_, label, content) in enumerate(changed, 1):
            # Two labels for some, as the sets with ages have.
            value = float(label) if key % 3 else [float(label), 1.0]
            file.write_idx(key, recordio.pack(recordio.IRHeader(0, value, key, 0), content))
        for label in range(labels):
            keys = [key for key, (_, own, _) in enumerate(changed, 1) if own == label]
            span = [float(keys[0]), float(keys[-1] + 1)]
            key = len(changed) + 1 + label
            file.write_idx(key, recordio.pack(recordio.IRHeader(0, span, key, 0), b""))
        file.close()
        visage("prepare", "pack", work / "set.rec", work / "again.rec")
        same("visage reads mxnet's records", read_records(work / "again.rec"), changed)
        (work / "set.idx").unlink()
        visage("prepare", "pack", work / "set.rec", work / "counted.rec")
        same("visage reads them without .idx", read_records(work / "counted.rec"), changed)

        pattern = work / "wds-%d.tar"
        with webdataset.ShardWriter(str(pattern), maxcount=50, verbose=0) as writer:
            for number, (name, label, content) in enumerate(changed):
                key, ending = name.rsplit(".", 1)
                sample = {"__key__": f"{number:06}/{key.replace('.', '_')}", ending: content}
                way = {"cls": label} if number % 2 else {"json": {"label": label, "name": name}}
                writer.write({**sample, **way})
        last = len(list(work.glob("wds-*.tar"))) - 1
        visage("prepare", "pack", work / f"wds-{{0..{last}}}.tar", work / "wds.rec")
        same("visage reads webdataset's shards", read_records(work / "wds.rec"), changed)

        for title, form in [("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("ustar", tarfile.USTAR_FORMAT)]:
            with tarfile.open(work / f"{title}.tar", "w", format=form) as archive:
                for number, (name, label, content) in enumerate(changed):
                    # Longer than the 100 bytes of a plain header.
                    key = f"./{'d' * 90}/{number:06}/{name.rsplit('.', 1)[0].replace('.', '_')}"
                    ending = name.rsplit(".", 1)[1]
                    for end, data in [(ending, content), ("json", json.dumps({"label": label}).encode())]:
                        member = tarfile.TarInfo(f"{key}.{end}")
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))
            visage("prepare", "pack", work / f"{title}.tar", work / f"{title}.rec")
            same(f"visage reads tarfile's {title}", read_records(work / f"{title}.rec"), changed)


main()
