"""Any folder of images as arrays: listed, checked, decoded once, and kept in the cache by digest.

The parts are the train and test folders, a seeded split, or those of a manifest (manifest.py).

Whatever Pillow decodes is an image; a file without an ending is looked into. Passed over are hidden
files and folders, and folders that systems leave behind. Other files are counted on stderr. Linked
folders are entered.

Unusual files: grey, palette, CMYK and transparent images become RGB. Of an animation the first
frame is taken. EXIF orientation is applied. These are refused by name: more than 8 bits a channel,
more pixels than Pillow accepts (as stored, or after the shorter side is resized), links that lead
nowhere, anything but regular files, and files that cannot be decoded. Files that are in both train
and test are counted on stderr.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
import time
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from bench import stopping
from bench.data import manifest
from bench.data.keyed import derive
from bench.data.views import RaggedImages
from bench.errors import UsageError
from bench.paths import what_it_is
from bench.store import formats
from bench.store.cache import cached, cached_pieces

Array = np.ndarray
Classes = dict[str, list[Path]]  # files of each class
Decoded = tuple[Array | RaggedImages, Array]  # images and labels
# What Pillow only recognises, or renders with another program.
NO_IMAGES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}
SYSTEM_FOLDERS = {"@eadir", "__macosx", "__pycache__", "$recycle.bin"}  # in small letters
PARTS = {"train": ("train", "training"), "test": ("test", "testing")}  # in any letters
JOINERS = "\u200c\u200d"  # parts of names in some scripts, and of emoji
MANY_BROKEN = 5  # broken images are named up to this number
MAX_SEARCH_SECONDS = 20.0  # for further broken images, once one is found
TEST_SHARE = 0.2  # of a flat folder
MAX_BITS = 8  # a channel
MAX_PIXELS = 89_478_485  # of a resized image; Pillow has the same limit for an image as stored


@dataclass
class FilesOfPart:
    """files: of each class. digests: sha256 by the name below the root, class after class."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def labels(self) -> Array:
        counts = [len(self.files[name]) for name in sorted(self.files)]
        return np.repeat(np.arange(len(self.files)), counts)


def load_folder(
    root: Path, side: int, shorter_side: int | None = None
) -> tuple[tuple[str, ...], Decoded, Decoded]:
    """Class names and the two parts of a folder: images (n, side, side, 3) uint8, labels (n,).

    A label is the position of the class folder's name in sorted order.
    shorter_side: training images are not cut to squares; they are resized to this shorter side
    (0: not resized) and returned as RaggedImages.
    Raises UsageError for a missing folder, a class without images, a class in one part only, an
    unreadable image.
    """
    train, test = parts_of(root)
    if len(train) < 2:
        raise UsageError(
            f"data.root={root}: at least two class folders are expected, found {len(train)}"
        )
    parts = [FilesOfPart(files, _digests(root, files)) for files in (train, test)]
    return tuple(sorted(train)), *_decoded_parts(root, side, shorter_side, *parts)


def parts_of(root: Path) -> tuple[Classes, Classes]:
    """Training and test files of each class: of two folders, or a seeded split of one.

    Files that are no images are counted on stderr. Raises UsageError as load_folder does.
    """
    names = _entries(root)
    found = {
        part: [name for name in names if name.lower() in accepted and (root / name).is_dir()]
        for part, accepted in PARTS.items()
    }
    left_out: list[Path] = []
    if any(found.values()):
        train, test = _two_folders(root, found, left_out)
    else:
        train, test = divide(list_classes(root, left_out=left_out))
    if left_out:
        print(
            f"data.root={root}: {len(left_out)} file(s) are no images and were left out "
            f"(e.g. {left_out[0].relative_to(root)})",
            file=sys.stderr,
        )
    return train, test


def _two_folders(
    root: Path, found: dict[str, list[str]], left_out: list[Path]
) -> tuple[Classes, Classes]:
    """The classes of the training folder and of the test folder, which have to be the same."""
    other = {"train": "test", "test": "train"}
    for part, folders in found.items():
        if not folders:
            beside = found[other[part]][0]
            raise UsageError(f"data.root={root}: '{part}' is missing beside '{beside}'")
        if len(folders) > 1:
            raise UsageError(f"data.root={root}: which is '{part}': {' or '.join(folders)}?")
    train, test = (list_classes(root / found[part][0], left_out=left_out) for part in PARTS)
    alone = sorted(train.keys() ^ test.keys())
    if alone:
        part = "train" if alone[0] in train else "test"
        twin = next((name for name in alone[1:] if _nfc(name) == _nfc(alone[0])), None)
        forms = "; the names there differ in their Unicode form (NFC, NFD)" if twin else ""
        raise UsageError(
            f"data.root={root}: class '{alone[0]}' is in {part} but not in {other[part]}{forms}"
        )
    return train, test


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def load_split(
    root: Path, split: str, side: int, shorter_side: int | None = None
) -> tuple[tuple[str, ...], Decoded, Decoded, str]:
    """load_folder by ROOT/split-SPLIT.csv, and the sha256 of that manifest.

    The images of a class are in the order of their paths.
    Raises UsageError for an unknown split, and for files that are missing or not those of the
    manifest.
    """
    file = manifest.find(root, split)
    rows = manifest.read(file)
    if lines := manifest.compare(root, rows, progress=False).lines():
        raise UsageError(
            f"data.split={split}: {root} is not what {file.name} says: {'; '.join(lines)}"
        )
    parts = {part: FilesOfPart() for part in manifest.PARTS}
    for row in sorted(rows, key=lambda row: (row.label, row.path)):
        part = parts[row.part]
        part.files.setdefault(row.label, []).append(root / row.path)
        part.digests[row.path] = row.sha256
    train, test = _decoded_parts(root, side, shorter_side, parts["train"], parts["test"])
    return tuple(sorted(parts["train"].files)), train, test, manifest.digest_of(rows)


def _decoded_parts(
    root: Path, side: int, shorter_side: int | None, train: FilesOfPart, test: FilesOfPart
) -> tuple[Decoded, Decoded]:
    """Arrays of the two parts. Images that are in both are counted on stderr."""
    known = set(train.digests.values())
    twice = [name for name, digest in test.digests.items() if digest in known]
    if twice:
        print(
            f"data.root={root}: {len(twice)} test images are in train too, byte for byte "
            f"(first: {twice[0]})",
            file=sys.stderr,
        )
    train_images: Array | RaggedImages
    if shorter_side is None:
        train_images = _squares(root, train.digests, side)
    else:
        train_images = _ragged(root, train.digests, shorter_side)
    test_images = _squares(root, test.digests, side)
    return (train_images, train.labels()), (test_images, test.labels())


# --- files ------------------------------------------------------------------------------------


def list_classes(
    folder: Path, leave: Iterable[str] = (), left_out: list[Path] | None = None
) -> Classes:
    """Image files of each class folder, by the folder's name.

    Passed over: folders named in `leave`, and hidden folders and files (macOS writes ._* files).
    left_out: gets the files that are no images.
    Raises UsageError for a class without images or without a printable name, for two names that
    look the same, for a folder that cannot be read, and for links that lead nowhere.
    """
    classes: Classes = {}
    for name in _entries(folder):
        entry = folder / name
        if name in leave:
            continue
        if not os.path.exists(entry):  # perhaps a class: it must not disappear
            raise UsageError(f"{entry}: a link that leads nowhere")
        if entry.is_dir():
            classes[name] = _images_of_class(entry, left_out)
    for name in classes:
        if name != _nfc(name) and _nfc(name) in classes:
            raise UsageError(
                f"{folder}: two classes look like '{name}', in Unicode's forms NFC and NFD"
            )
    return classes


def _entries(folder: Path) -> list[str]:
    """Names in a folder, sorted, without hidden ones. Raises UsageError where it cannot be read."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror})") from error
    return sorted(name for name in names if not _passed_over(name))


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _images_of_class(folder: Path, left_out: list[Path] | None) -> list[Path]:
    name = folder.name
    # Names go into digests and tables.
    if not all(char.isprintable() or char in JOINERS for char in name):
        raise UsageError(f"{folder.parent}: class folder {name!a} has no printable UTF-8 name")
    files = []
    for file in sorted(_files_below(folder, frozenset())):
        if _is_image(file):
            files.append(file)
        elif left_out is not None:
            left_out.append(file)
    if not files:
        raise UsageError(f"{folder.parent}: class '{name}' has no images")
    for file in files:
        if os.path.exists(file) and not file.is_file():  # reading a pipe would wait for ever
            raise UsageError(f"{file}: not a regular file")
    return files


def _files_below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """All files, also of linked folders. above: folders on the way, to which a link may lead."""
    here = os.path.realpath(folder)
    if here in above:
        return
    for name in _entries(folder):
        if (folder / name).is_dir():
            yield from _files_below(folder / name, above | {here})
        else:
            yield folder / name


@functools.cache
def _suffixes() -> frozenset[str]:
    """Endings of the formats that Pillow decodes, in small letters."""
    known = Image.registered_extensions()
    formats_read = Image.OPEN.keys() - NO_IMAGES
    return frozenset(suffix for suffix, kind in known.items() if kind in formats_read)


def _is_image(file: Path) -> bool:
    """By its ending; a file without one by its first bytes."""
    if file.suffix:
        return file.suffix.lower() in _suffixes()
    try:
        with Image.open(file) as opened:
            return opened.format not in NO_IMAGES
    except Exception:  # a decoder may fail in many ways
        return False


def divide(classes: Classes) -> tuple[Classes, Classes]:
    """A seeded 80/20 split of a flat folder, with at least one image of each class in each part."""
    train: Classes = {}
    test: Classes = {}
    for name, files in classes.items():
        if len(files) < 2:
            raise UsageError(f"class '{name}' has one image: two are needed to split a flat folder")
        order = np.random.default_rng(derive(0, "split", name)).permutation(len(files))
        cut = max(1, round(TEST_SHARE * len(files)))
        test[name] = [files[i] for i in sorted(order[:cut])]
        train[name] = [files[i] for i in sorted(order[cut:])]
    return train, test


def _digests(root: Path, classes: Classes) -> dict[str, str]:
    """sha256 of each file by its name below the root, in the order of classes and files."""
    digests = {}
    for name in sorted(classes):
        for file in classes[name]:
            try:
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError as error:
                raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
            digests[str(file.relative_to(root))] = digest
    return digests


# --- pixels, from the cache -------------------------------------------------------------------


def _squares(root: Path, digests: dict[str, str], side: int) -> Array:
    """(n, side, side, 3), decoded once, then memory-mapped by the digest of all files."""
    key = _key(f"decode-{formats.DECODED_IMAGES}", side, digests)
    shape = (len(digests), side, side, 3)
    return cached_pieces("images", key, shape, lambda: _decoded(root, digests, side, True))


def _ragged(root: Path, digests: dict[str, str], shorter_side: int) -> RaggedImages:
    """Images of this shorter side (0: as stored), decoded once and memory-mapped too."""
    key = _key(f"whole-{formats.DECODED_IMAGES}", shorter_side, digests)
    sizes = cached(
        "images",
        f"{key}-sizes",
        lambda: np.array([_decoded_size(root / name, shorter_side) for name in digests]),
    )
    lengths = 3 * sizes.prod(1)

    def pieces() -> Iterator[Array]:
        images = _decoded(root, digests, shorter_side, False)
        for name, image, size in zip(digests, images, sizes, strict=True):
            if image.shape[:2] != tuple(size):
                raise UsageError(
                    f"{root / name}: decoded to {image.shape[:2]} pixels, not the {tuple(size)} "
                    "that its header says"
                )
            yield image

    pixels = cached_pieces("images", key, (int(lengths.sum()),), pieces)
    return RaggedImages(pixels, np.array(sizes), np.cumsum(lengths) - lengths)


def _key(kind: str, side: int, digests: dict[str, str]) -> str:
    listing = [list(item) for item in digests.items()]
    return hashlib.sha256(json.dumps([kind, side, listing]).encode()).hexdigest()


# --- decoding ---------------------------------------------------------------------------------


def _decoded(root: Path, names: Iterable[str], side: int, square: bool) -> Iterator[Array]:
    waiting = iter(names)
    for name in waiting:
        stopping.check()  # a stop here loses this folder's array only
        try:
            yield decode_image(root / name, side, square)
        except UsageError as error:
            raise _with_others(root, error, waiting) from error


def _with_others(root: Path, first: UsageError, rest: Iterable[str]) -> UsageError:
    """The error of a broken image, with those of others, as far as they are soon found."""
    found, end = [str(first)], time.monotonic() + MAX_SEARCH_SECONDS
    complete = True
    for error in broken_images(root / name for name in rest):
        stopping.check()
        found += [error] if error else []
        if len(found) >= MANY_BROKEN or time.monotonic() > end:
            complete = False
            break
    if len(found) == 1:
        return first
    counted = f"{len(found)} files" if complete else f"{len(found)} files or more"
    listed = "".join(f"\n  {line}" for line in found)
    return UsageError(
        f"{counted} cannot be used (python -m bench.data verify DIR names all):{listed}"
    )


def broken_images(files: Iterable[Path]) -> Iterator[str]:
    """For each file the reason why it cannot be used, or ""."""
    for file in files:
        try:
            decode_image(file, 0, square=False)
            yield ""
        except UsageError as error:
            yield str(error)


def decode_image(file: Path, side: int, square: bool = True) -> Array:
    """One image as RGB (height, width, 3), with its EXIF orientation applied.

    side: the shorter side is resized to it; 0: not resized. square: the centre is cut out.
    Raises UsageError for a file that cannot be, or must not be, decoded.
    """
    with _opened(file) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
        width, height = _resized(image.size, side)
        # One direction after the other: in one call, newer versions of Pillow resize the columns
        # first where that is cheaper.
        image = image.resize((width, image.height), Image.Resampling.BILINEAR)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        if not square:
            return np.asarray(image)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return np.asarray(image.crop((left, top, left + side, top + side)))


def _decoded_size(file: Path, shorter_side: int) -> tuple[int, int]:
    """Height and width that decode_image(square=False) gives, without decoding the file."""
    with _opened(file) as opened:
        turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        turned = turned and opened.format != "TIFF"  # Pillow gives the upright size of a TIFF
        width, height = _resized(opened.size[::-1] if turned else opened.size, shorter_side)
        return height, width


def _resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    if not side:
        return size
    scale = side / min(size)
    width, height = max(side, round(size[0] * scale)), max(side, round(size[1] * scale))
    if width * height > MAX_PIXELS:  # before the cut to a square
        raise ValueError(
            f"{size[0]} x {size[1]} pixels would be resized to {width} x {height}; crop it"
        )
    return width, height


def _bits(file: Path, opened: Any) -> int:
    """Bits a channel as stored. Pillow silently keeps the upper 8 of colours with more."""
    if opened.mode.startswith("I") or opened.mode == "F":
        return 16
    if opened.format == "PNG":
        with file.open("rb") as stream:
            return stream.read(25)[24]  # the file starts with its header
    if opened.format == "TIFF":
        return max(opened.tag_v2.get(ExifTags.Base.BitsPerSample, (1,)))
    if opened.format == "PPM":
        arguments = opened.tile[0][3]
        if isinstance(arguments, tuple):  # the mode and the largest value
            return arguments[1].bit_length()
    return MAX_BITS


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Raises UsageError for a file that cannot be, or must not be, decoded."""
    try:
        bombs = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
        with bombs, Image.open(file) as opened:
            if _bits(file, opened) > MAX_BITS:
                raise ValueError(f"mode {opened.mode} with more than 8 bits a channel; convert it")
            yield opened
    except Exception as error:  # a decoder may fail in many ways; the user needs the file's name
        with contextlib.suppress(OSError):
            if what := what_it_is(file):
                raise UsageError(f"{file}: not a readable image ({what})") from error
        raise UsageError(
            f"{file}: not a readable image ({type(error).__name__}: {error})"
        ) from error
