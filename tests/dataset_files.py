"""Small datasets in the formats in which the real ones are distributed, and a server to fetch them
from.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tarfile
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import yaml
from PIL import Image


def picture(number, kind="JPEG", side=24):
    """Bytes of one small image, another for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def pictures(names):
    return {name: picture(number) for number, name in enumerate(names)}


def write(folder, files):
    """Files by relative name, text or bytes."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def tar_of(files, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zip_of(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


# --- the formats ----------------------------------------------------------------------------------
# --------------------


def imagenet_r(classes=("n03", "n01", "n02"), each=5):
    """Images below the archive's folder, and the two lists, which number the classes in an order of
    their own.
    """
    names = [
        f"{name}/{kind}_{i}.jpg"
        for name in classes
        for i, kind in enumerate(["art", "toy"] * each)
        if i < each
    ]
    numbers = {name: number for number, name in enumerate(classes)}
    test = names[::each]
    lists = {
        f"imagenet-r_{part}.yaml": yaml.dump(
            {
                "data": [f"data/imagenet-r/{n}" for n in chosen],
                "targets": [numbers[n.split("/")[0]] for n in chosen],
            }
        )
        for part, chosen in (("train", [n for n in names if n not in test]), ("test", test))
    }
    return pictures(names), lists


def pilot(classes=("10", "11", "20", "21")):
    return pictures(
        f"{part}/{name}/{i}.jpg" for part in ("train", "test") for name in classes for i in range(2)
    )


def cub():
    classes = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    names = [f"{name}/{name[4:]}_{i:04d}.jpg" for name in classes for i in range(4)]
    return {
        **pictures(f"images/{name}" for name in names),
        "images.txt": "".join(f"{i} {name}\n" for i, name in enumerate(names, 1)),
        "train_test_split.txt": "".join(f"{i} {int(i % 4 != 0)}\n" for i, _ in enumerate(names, 1)),
        "image_class_labels.txt": "".join(
            f"{i} {int(name[:3])}\n" for i, name in enumerate(names, 1)
        ),
        "classes.txt": "".join(f"{i} {name}\n" for i, name in enumerate(classes, 1)),
    }


def domainnet(domains):
    """Two classes in each domain; capitals sort before small letters, the official numbers do not
    care.
    """
    numbers = {"airplane": 0, "The_Mona_Lisa": 1}
    files = pictures(
        f"{domain}/{name}/{domain}_{i}.jpg"
        for domain in domains
        for name in numbers
        for i in range(3)
    )
    for domain in domains:
        here = [name for name in files if name.startswith(f"{domain}/")]
        for part, chosen in (("train", here[:2] + here[3:5]), ("test", [here[2], here[5]])):
            files |= {
                f"{domain}_{part}.txt": "".join(
                    f"{name} {numbers[name.split('/')[1]]}\n" for name in chosen
                )
            }
    return files


def tiny():
    wnids = ("n02", "n01")
    train = pictures(f"train/{name}/images/{name}_{i}.JPEG" for name in wnids for i in range(3))
    val = {f"val/images/val_{i}.JPEG": picture(100 + i) for i in range(4)}
    notes = "".join(f"val_{i}.JPEG\t{wnids[i % 2]}\t0\t0\t62\t62\n" for i in range(4))
    hidden = {"test/images/test_0.JPEG": picture(200)}
    return {
        **train,
        **val,
        **hidden,
        "val/val_annotations.txt": notes,
        "wnids.txt": "\n".join(wnids),
    }


def rows_of(root, split):
    with (root / f"split-{split}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def parts_of(root, split):
    rows = rows_of(root, split)
    return {
        part: {row["path"]: row["label"] for row in rows if row["part"] == part}
        for part in ("train", "test")
    }


# --- the server -----------------------------------------------------------------------------------
# --------------------


CONTENT = bytes(range(256)) * 4000  # of /x.tar: 1 MB


class Site:
    """Files by path; faults to be met in turn, one per request; and the requests that came, as
    (path, Range).
    """

    def __init__(self):
        self.files, self.faults, self.asked, self.ranges = {}, [], [], True
        self.tags = self.conditions = True  # ETag is sent, If-Range is understood
        self.url = ""


@contextmanager
def serving():
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            site.asked.append((self.path, wanted))
            fault = site.faults.pop(0) if site.faults else None
            content = site.files.get(self.path)
            if isinstance(fault, int) or content is None:
                self.send_error(fault or 404)
                return
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            asked = self.headers.get("If-Range", "") if site.conditions else ""
            start = int(wanted[6:-1]) if wanted and site.ranges and asked in ("", tag) else 0
            if start >= len(content) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            if site.tags:
                self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault in ("cut", "stall") else body)
            self.wfile.flush()
            if fault == "stall":
                time.sleep(20)  # longer than any test waits

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # A client may hang up, as ours does on a wrong length.
    server.handle_error = lambda *words: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
