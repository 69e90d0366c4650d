"""Any folder of images as arrays: listed, checked, decoded once, and kept in the cache under its digest.

Its parts are its train and test folders, a seeded split, or those of a split manifest (manifest.py).

What happens to unusual files: grey, palette, CMYK and transparent ones become RGB, of an animation the first frame is taken,
EXIF orientation is applied. More than 8 bits a channel, more pixels than Pillow takes for sane (as it is, or once its shorter
side is resized), links that lead nowhere, what is no regular file and whatever cannot be decoded are refused by name. Files
that are both in train and in test are counted on stderr.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from bench import stopping
from bench.data import manifest
from bench.data.keyed import derive
from bench.data.views import Whole
from bench.errors import UsageError
from bench.store.cache import cached, cached_pieces

Array = np.ndarray
Decoded = tuple[Array | Whole, Array]  # images and labels
Listed = tuple[
    dict[str, list[Path]], dict[str, str]
]  # files by class; sha256 by name below the root, in that order
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"}
TEST_SHARE = 0.2  # of a flat folder
DEEPEST = 8  # bits a channel
MOST_PIXELS = 89_478_485  # of an image once it is resized: Pillow's own limit for one as it is


def load_folder(
    root: Path, side: int, whole: int | None = None
) -> tuple[tuple[str, ...], Decoded, Decoded]:
    """Class names (sorted folder names = labels), train and test as ((n, side, side, 3) uint8, (n,)).

    whole: training images are not cut to squares but kept whole, of this shorter side; 0 = of their own size.
    Raises UsageError for a missing folder, a class without images, a class in one part only, an unreadable image.
    """
    if (root / "train").is_dir() or (root / "test").is_dir():
        for part in ("train", "test"):
            if not (root / part).is_dir():
                raise UsageError(f"data.root={root}: '{part}' is missing beside '{_other(part)}'")
        train, test = list_classes(root / "train"), list_classes(root / "test")
        alone = sorted(train.keys() ^ test.keys())
        if alone:
            part = "train" if alone[0] in train else "test"
            raise UsageError(
                f"data.root={root}: class '{alone[0]}' is in {part} but not in {_other(part)}"
            )
    else:
        train, test = divide(list_classes(root))
    if len(train) < 2:
        raise UsageError(
            f"data.root={root}: at least two class folders are expected, found {len(train)}"
        )
    return tuple(sorted(train)), *_both(
        root, side, whole, (train, _digests(root, train)), (test, _digests(root, test))
    )


def load_split(
    root: Path, split: str, side: int, whole: int | None = None
) -> tuple[tuple[str, ...], Decoded, Decoded, str]:
    """The same by ROOT/split-SPLIT.csv, images of a class in the order of their paths; and the sha256 of the manifest.

    Raises UsageError for a split that is not there, and for files that are missing or not those of the manifest.
    """
    file = manifest.find(root, split)
    rows = manifest.read(file)
    if lines := manifest.compare(root, rows, progress=False).lines():
        raise UsageError(
            f"data.split={split}: {root} is not what {file.name} says: {'; '.join(lines)}"
        )
    parts: dict[str, Listed] = {part: ({}, {}) for part in manifest.PARTS}
    for row in sorted(rows, key=lambda row: (row.label, row.path)):
        files, digests = parts[row.part]
        files.setdefault(row.label, []).append(root / row.path)
        digests[row.path] = row.sha256
    return (
        tuple(sorted(parts["train"][0])),
        *_both(root, side, whole, parts["train"], parts["test"]),
        manifest.digest_of(rows),
    )


def _both(
    root: Path, side: int, whole: int | None, train: Listed, test: Listed
) -> tuple[Decoded, Decoded]:
    """Arrays of the two parts; images that are in both are counted on stderr."""
    known = set(train[1].values())
    twice = [name for name, digest in test[1].items() if digest in known]
    if twice:
        print(
            f"data.root={root}: {len(twice)} test images are in train too, byte for byte (first: {twice[0]})",
            file=sys.stderr,
        )
    kept = _squares(root, train[1], side) if whole is None else _whole(root, train[1], whole)
    return (kept, _labels(train[0])), (_squares(root, test[1], side), _labels(test[0]))


def _other(part: str) -> str:
    return {"train": "test", "test": "train"}[part]


def list_classes(folder: Path, leave: Iterable[str] = ()) -> dict[str, list[Path]]:
    """Image files of each class folder, by name; folders named in `leave` are none, nor hidden files images (macOS' ._*)."""
    found = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in leave:
            continue
        if not entry.exists():  # perhaps a class: it must not disappear
            raise UsageError(f"{entry}: a link that leads nowhere")
        if not entry.is_dir():
            continue
        if (
            not entry.name.isprintable()
        ):  # undecodable bytes, control characters: names go into digests and tables
            raise UsageError(f"{folder}: class folder {entry.name!a} has no printable UTF-8 name")
        files = sorted(
            f for f in entry.rglob("[!.]*") if f.suffix.lower() in SUFFIXES and not f.is_dir()
        )
        if not files:
            raise UsageError(
                f"{folder}: class '{entry.name}' has no images ({', '.join(sorted(SUFFIXES))})"
            )
        if odd := next(
            (f for f in files if f.exists() and not f.is_file()), None
        ):  # to read a pipe is to wait for ever
            raise UsageError(f"{odd}: not a regular file")
        found[entry.name] = files
    return found


def divide(classes: dict[str, list[Path]]) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """A seeded 80/20 split of a flat folder, at least one image of each class on each side."""
    train: dict[str, list[Path]] = {}
    test: dict[str, list[Path]] = {}
    for name, files in classes.items():
        if len(files) < 2:
            raise UsageError(f"class '{name}' has one image: two are needed to split a flat folder")
        order = np.random.default_rng(derive(0, "split", name)).permutation(len(files))
        cut = max(1, round(TEST_SHARE * len(files)))
        test[name] = [files[i] for i in sorted(order[:cut])]
        train[name] = [files[i] for i in sorted(order[cut:])]
    return train, test


def _digests(root: Path, classes: dict[str, list[Path]]) -> dict[str, str]:
    """sha256 of each file by its name below root, in the order of classes and files."""
    found = {}
    for name in sorted(classes):
        for file in classes[name]:
            try:
                found[str(file.relative_to(root))] = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError as error:
                raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
    return found


def _labels(classes: dict[str, list[Path]]) -> Array:
    return np.repeat(np.arange(len(classes)), [len(classes[name]) for name in sorted(classes)])


def _squares(root: Path, digests: dict[str, str], side: int) -> Array:
    """(n, side, side, 3), decoded once, then memory-mapped from the cache by the digest of all files."""
    key = _key("decode-2", side, digests)
    return cached_pieces(
        "images", key, (len(digests), side, side, 3), lambda: _decoded(root, digests, side, True)
    )


def _whole(root: Path, digests: dict[str, str], side: int) -> Whole:
    """Images of shorter side `side` (0: as they are), end to end, from the cache likewise."""
    key = _key("whole-2", side, digests)
    sizes = cached(
        "images", f"{key}-sizes", lambda: np.array([_size(root / name, side) for name in digests])
    )
    lengths = 3 * sizes.prod(1)

    def pieces() -> Iterator[Array]:
        for name, image, size in zip(
            digests, _decoded(root, digests, side, False), sizes, strict=True
        ):
            if image.shape[:2] != tuple(size):
                raise UsageError(
                    f"{root / name}: decoded to {image.shape[:2]} pixels, not the {tuple(size)} that its header says"
                )
            yield image

    pixels = cached_pieces("images", key, (int(lengths.sum()),), pieces)
    return Whole(pixels, np.array(sizes), np.cumsum(lengths) - lengths)


def _key(kind: str, side: int, digests: dict[str, str]) -> str:
    listing = [list(item) for item in digests.items()]
    return hashlib.sha256(json.dumps([kind, side, listing]).encode()).hexdigest()


def _decoded(root: Path, names: Iterable[str], side: int, square: bool) -> Iterator[Array]:
    for name in names:
        stopping.check()  # nothing is lost but this folder's array
        yield decode_image(root / name, side, square)


def decode_image(file: Path, side: int, square: bool = True) -> Array:
    """One image as RGB: EXIF orientation applied, shorter side resized to `side` (0: not), centre cut to a square or whole."""
    with _opened(file) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
        width, height = _resized(image.size, side)
        # one direction after the other: in one call newer versions of Pillow take the columns first where that is cheaper
        image = image.resize((width, image.height), Image.Resampling.BILINEAR).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        if not square:
            return np.asarray(image)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return np.asarray(image.crop((left, top, left + side, top + side)))


def _size(file: Path, side: int) -> tuple[int, int]:
    """Height and width of what decode_image gives of the whole image, without decoding it."""
    with _opened(file) as opened:
        turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        turned = turned and opened.format != "TIFF"  # of which Pillow tells the upright size
        width, height = _resized(opened.size[::-1] if turned else opened.size, side)
        return height, width


def _resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    if not side:
        return size
    scale = side / min(size)
    width, height = max(side, round(size[0] * scale)), max(side, round(size[1] * scale))
    if width * height > MOST_PIXELS:  # before the cut to a square
        raise ValueError(
            f"{size[0]} x {size[1]} pixels would be resized to {width} x {height}; crop it"
        )
    return width, height


def _bits(file: Path, opened: Any) -> int:
    """Bits a channel as stored: of colours with more than 8 Pillow silently keeps the upper 8."""
    if opened.mode.startswith("I") or opened.mode == "F":
        return 16
    if opened.format == "PNG":
        with file.open("rb") as stream:
            return stream.read(25)[24]  # of its header, which comes first
    if opened.format == "TIFF":
        return max(opened.tag_v2.get(ExifTags.Base.BitsPerSample, (1,)))
    if opened.format == "PPM" and isinstance(
        how := opened.tile[0][3], tuple
    ):  # mode and largest value
        return how[1].bit_length()
    return DEEPEST


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Raises UsageError for a file that cannot be, or must not be, decoded."""
    try:
        sane = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
        with sane, Image.open(file) as opened:
            if _bits(file, opened) > DEEPEST:
                raise ValueError(f"mode {opened.mode} with more than 8 bits a channel; convert it")
            yield opened
    except Exception as error:  # a decoder may fail in many ways; the user needs the file's name
        raise UsageError(
            f"{file}: not a readable image ({type(error).__name__}: {error})"
        ) from error
