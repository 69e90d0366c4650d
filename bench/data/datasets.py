"""Datasets: square uint8 images with labels in three parts. A new one is one function with the decorator.

Validation images exist for every choice ever made. Glyphs have their own; elsewhere a fifth of each class's training
images is held out when a cell evaluates on validation, by a hash of the image's position, and nowhere else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from bench.config.spec import DataSpec
from bench.data import glyphs
from bench.data.catalogue import CATALOGUE
from bench.data.folder import load_folder, load_split
from bench.data.keyed import derive
from bench.data.views import Whole
from bench.errors import UsageError
from bench.paths import data_place, find_data

Array = np.ndarray
TRAIN_IMAGES, VALIDATION_IMAGES, TEST_IMAGES = 32, 50, 25  # glyphs per class
HELD_OUT = 5  # one training image in five is the validation image of datasets without their own


@dataclass(frozen=True)
class Part:
    """Images (n, S, S, 3) uint8 (possibly memory-mapped) or of any size, labels (n,), each image's number for keyed views."""

    images: Array | Whole
    labels: Array
    numbers: Array

    def sizes(self, rows: Array) -> Array:
        """(len(rows), 2): height and width in pixels."""
        if isinstance(self.images, Whole):
            return self.images.sizes[rows]
        return np.tile(np.array(self.images.shape[1:3]), (len(rows), 1))

    def select(self, rows: Array) -> Part:
        return Part(self.images[rows], self.labels[rows], self.numbers[rows])


@dataclass(frozen=True)
class Dataset:
    """Parts of one dataset, class names, the domain of each class (all 0 where there is one), and a digest of all."""

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part
    domains: tuple[int, ...]
    side: int  # pixels of an image's shorter side for the test view, whose middle is cut out
    sha256: str
    manifest: str = ""  # digest of the split's manifest, where it was prepared


Loader = Callable[[DataSpec, int], "Raw"]
LOADERS: dict[str, Loader] = {}


@dataclass(frozen=True)
class Raw:
    """What a loader returns: class names, train and test arrays, optional validation arrays, domains, digest of a manifest.

    side: as in Dataset, where training images are of any size; else they are squares of it.
    """

    classes: tuple[str, ...]
    train: tuple[Array | Whole, Array]
    test: tuple[Array | Whole, Array]
    validation: tuple[Array, Array] | None = None
    domains: tuple[int, ...] | None = None
    side: int = 0
    manifest: str = ""


def dataset(name: str) -> Callable[[Loader], Loader]:
    """Register a loader (spec, network's image size) -> Raw."""

    def register(loader: Loader) -> Loader:
        LOADERS[name] = loader
        return loader

    return register


def load_dataset(spec: DataSpec, image_size: int) -> Dataset:
    """Load, check, limit and digest a dataset. Raises UsageError in one line."""
    if spec.name not in LOADERS:
        raise UsageError.unknown("data.name", spec.name, LOADERS)
    if spec.split and spec.name != "folder":
        raise UsageError(f"data.split={spec.split}: for data.name=folder, not '{spec.name}'")
    if spec.crops_of == "whole" and spec.name != "folder":
        raise UsageError(
            f"data.crops_of=whole: for data.name=folder, not '{spec.name}', whose images are squares"
        )
    raw = LOADERS[spec.name](spec, image_size)
    names = raw.classes
    count = spec.classes or len(names)
    if count > len(names):
        raise UsageError(f"data.classes={count}: {spec.name} has {len(names)}")
    train = _part(*raw.train)
    if spec.evaluate == "test":
        test = _part(*raw.test)
    elif raw.validation is not None:
        test = _part(*raw.validation)
    else:
        held = _held_out(train.labels)
        train, test = train.select(np.flatnonzero(~held)), train.select(np.flatnonzero(held))
    train = _limit(train, count, spec.train_per_class)
    test = _limit(test, count, spec.test_per_class)
    for part, label in ((train, "training"), (test, spec.evaluate)):
        empty = np.flatnonzero(np.bincount(part.labels, minlength=count)[:count] == 0)
        if len(empty):
            raise UsageError(f"{spec.name}: class '{names[empty[0]]}' has no {label} images")
    domains = (raw.domains or (0,) * len(names))[:count]
    side = raw.side or int(train.sizes(np.array([0]))[0, 0])
    sha = _digest(names[:count], train, test, raw.manifest)
    return Dataset(spec.name, names[:count], train, test, domains, side, sha, raw.manifest)


def _part(images: Array | Whole, labels: Array) -> Part:
    return Part(images, labels.astype(np.int64), np.arange(len(labels)))


def _held_out(labels: Array) -> Array:
    """True for one image in HELD_OUT of each class, at least one where a class has two or more."""
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = np.random.default_rng(derive(0, "validation", int(label))).permutation(len(rows))
        held[rows[order[: max(len(rows) // HELD_OUT, int(len(rows) > 1))]]] = True
    return held


def _limit(part: Part, classes: int, per_class: int) -> Part:
    keep = part.labels < classes
    if per_class:
        rank = np.empty(len(part.labels), dtype=np.int64)
        for label in np.unique(part.labels):
            rows = np.flatnonzero(part.labels == label)
            rank[rows] = np.arange(len(rows))
        keep &= rank < per_class
    return part if keep.all() else part.select(np.flatnonzero(keep))


def _digest(names: tuple[str, ...], train: Part, test: Part, manifest: str) -> str:
    digest = hashlib.sha256("\n".join(names).encode() + manifest.encode())
    for part in (train, test):
        digest.update(part.labels.astype("<i8").tobytes() + part.numbers.astype("<i8").tobytes())
        if isinstance(part.images, Whole):
            digest.update(part.images.sizes.astype("<i8").tobytes())
            for row in range(len(part.images)):
                digest.update(np.ascontiguousarray(part.images.image(row)).data)
        else:
            digest.update(np.ascontiguousarray(part.images).data)
    return digest.hexdigest()


# --- glyphs -------------------------------------------------------------------------------------------------------

GLYPH_SETS: dict[str, tuple[int, tuple[str, ...], int]] = {
    # name: (part of the asset, styles, number of domains: 1 = styles mixed in every class)
    "glyphs": (1, ("plain",), 1),
    "glyphs-r": (2, glyphs.RENDITIONS, 1),
    "glyphs-a": (3, ("faint",), 1),
    "glyphs-v": (4, ("shadow", "faint", "halo"), 3),
    "glyphs-tune": (glyphs.TUNE, (*glyphs.RENDITIONS, "faint", "plain"), 1),
    "glyphs-relief": (
        glyphs.TUNE,
        ("shadow",),
        1,
    ),  # one style that prompts learn fast: the regression check's
}
DATA_SEED = 1  # the images of the benchmark are one fixed set; a run's seed changes views and initialisation only


def _glyph_loader(name: str) -> Loader:
    part, styles, domains = GLYPH_SETS[name]

    def load(spec: DataSpec, image_size: int) -> Raw:
        rows = glyphs.classes_of(part)
        domain = np.arange(len(rows)) % domains

        def draw(first: int, count: int) -> tuple[Array, Array]:
            label = np.repeat(np.arange(len(rows)), count)
            index = np.tile(np.arange(first, first + count), len(rows))
            chosen = domain[label] if domains > 1 else index % len(styles)
            return glyphs.render(DATA_SEED, rows[label], index, np.array(styles)[chosen]), label

        names = tuple(f"U+{code:04X}" for code in glyphs.asset()["codes"][rows])
        return Raw(
            names,
            draw(0, TRAIN_IMAGES),
            draw(2000, TEST_IMAGES),
            draw(1000, VALIDATION_IMAGES),
            tuple(domain),
        )

    return load


for _name in GLYPH_SETS:
    dataset(_name)(_glyph_loader(_name))


# --- real images ---------------------------------------------------------------------------------------------------


@dataset("digits")
def load_digits(spec: DataSpec, image_size: int) -> Raw:
    """scikit-learn's 1,797 handwritten digits (UCI Optical Recognition), 8x8 enlarged to 32x32, 30% to test."""
    from sklearn.datasets import load_digits as read

    bunch = read()
    grey = (bunch.images * (255 / 16)).round().astype(np.uint8)
    images = np.repeat(np.kron(grey, np.ones((1, 4, 4), dtype=np.uint8))[..., None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    test = np.random.default_rng(derive(0, "digits")).permutation(len(labels)) < round(
        0.3 * len(labels)
    )
    return Raw(
        tuple(str(d) for d in range(10)),
        (images[~test], labels[~test]),
        (images[test], labels[test]),
    )


class _ArraysOnly(pickle.Unpickler):
    """CIFAR's archive is a pickle: only what a dict of numpy arrays needs may be constructed, nothing can run."""

    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a dataset")
        return super().find_class(module, name)


@dataset("cifar100")
def load_cifar100(spec: DataSpec, image_size: int) -> Raw:
    """CIFAR-100 in torchvision's layout (ROOT/cifar-100-python/{train,test,meta}); downloaded there if absent."""
    root = _cifar_folder(spec)

    def read(name: str) -> dict:
        file = root / name
        try:
            return _ArraysOnly(io.BytesIO(file.read_bytes()), encoding="latin1").load()
        except Exception as error:  # a damaged pickle fails in many ways
            raise UsageError(
                f"data.root: {file} is not a readable CIFAR-100 file ({error})"
            ) from error

    def arrays(name: str) -> tuple[Array, Array]:
        content = read(name)
        try:
            data = (
                np.asarray(content["data"], dtype=np.uint8)
                .reshape(-1, 3, 32, 32)
                .transpose(0, 2, 3, 1)
            )
            return np.ascontiguousarray(data), np.asarray(content["fine_labels"], dtype=np.int64)
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"data.root: {root / name}: 'data' (n, 3072) and 'fine_labels' expected ({error})"
            ) from error

    names = read("meta").get("fine_label_names")
    if not isinstance(names, list):
        raise UsageError(f"data.root: {root / 'meta'}: 'fine_label_names' expected")
    return Raw(tuple(names), arrays("train"), arrays("test"))


def _cifar_folder(spec: DataSpec) -> Path:
    name = "cifar-100-python"
    try:
        base = find_data(spec.root or "cifar100")
    except UsageError as missing:
        if spec.root:
            raise
        from bench.data.prepare import steps as prepare

        base = data_place("cifar100")
        try:
            prepare.obtain(CATALOGUE["cifar100"], base, prepare.Options())
        except UsageError as error:
            raise UsageError(f"{missing}; {' '.join(str(error).split())}") from error
    root = base if base.name == name else base / name
    if not (root / "train").is_file():
        raise UsageError(
            f"data.root: {root} has no 'train' file (the official CIFAR-100 python archive is expected)"
        )
    return root


@dataset("folder")
def load_image_folder(spec: DataSpec, image_size: int) -> Raw:
    """ROOT/train/CLASS/*.jpg with ROOT/test/CLASS/*.jpg, a flat ROOT/CLASS/*.jpg with a seeded 80/20 split, or a manifest."""
    if not spec.root:
        raise UsageError("data.root: a folder of images is needed (--set data.root=DIR)")
    root, usual = find_data(spec.root), round(image_size / 0.875)
    whole = spec.decode if spec.crops_of == "whole" else None
    side = (
        usual if whole is not None else spec.decode or usual
    )  # of the test view; `decode` is about training crops there
    if spec.split:
        classes, train, test, sha = load_split(root, spec.split, side, whole)
        return Raw(classes, train, test, side=side, manifest=sha)
    return Raw(*load_folder(root, side, whole), side=side)


def with_root(spec: DataSpec, root: str) -> DataSpec:
    """The same cell on a user's folder."""
    return replace(spec, name="folder", root=root)
