"""Datasets: images with labels in three parts. A new one is one function with `@dataset("name")`.

Every choice is made on validation images. Glyphs have their own. Elsewhere a fifth of the training
images of each class is held out when a cell evaluates on validation, and only then. Nothing here
imports torch before images of folders are loaded.
"""

from __future__ import annotations

import functools
import hashlib
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.config.spec import DataSpec
from bench.data import cifar, digits, glyphs, manifest
from bench.data.catalogue import CATALOGUE
from bench.data.keyed import derive
from bench.data.registry import SOURCES, Loader, Raw, Sizes, Source, dataset
from bench.errors import UsageError
from bench.paths import find_data, what_it_is

if TYPE_CHECKING:
    from bench.data.views import RaggedImages

Array = np.ndarray
UNREADABLE = (FileNotFoundError, NotADirectoryError, PermissionError)
HELD_OUT_EVERY = 5  # one training image in five becomes a validation image


@dataclass(frozen=True)
class Part:
    """Training or test images.

    images: (n, S, S, 3) uint8, possibly memory-mapped, or RaggedImages. labels: (n,) int64.
    numbers: (n,) positions in the whole part; the views of an image depend on its number.
    """

    images: Array | RaggedImages
    labels: Array
    numbers: Array

    def sizes(self, rows: Array) -> Array:
        """(len(rows), 2): height and width in pixels."""
        if isinstance(self.images, np.ndarray):
            return np.tile(np.array(self.images.shape[1:3]), (len(rows), 1))
        return self.images.sizes[rows]

    def select(self, rows: Array) -> Part:
        return Part(self.images[rows], self.labels[rows], self.numbers[rows])


@dataclass(frozen=True)
class Dataset:
    """A loaded dataset: its parts, class names, the domain of each class, and a digest of all."""

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part
    domains: tuple[int, ...]  # all 0 where there is one domain
    side: int  # pixels of an image's shorter side; the test view is cut from its middle
    sha256: str
    manifest: str = ""  # sha256 of the split's manifest, where it was prepared


def source_of(name: str) -> Source:
    """A registered dataset. Raises UsageError with the nearest name."""
    if name not in SOURCES:
        raise UsageError.unknown("data.name", name, SOURCES)
    return SOURCES[name]


def load_dataset(spec: DataSpec, image_size: int) -> Dataset:
    """Load, check, limit and digest a dataset. Raises UsageError in one line."""
    source = source_of(spec.name)
    source.check_options(spec)
    raw = _load(source, spec, image_size)
    names = raw.classes
    count = spec.classes or len(names)
    if count > len(names):
        raise UsageError(f"data.classes={count}: {spec.name} has {len(names)}")
    train, test = _parts(spec, raw)
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


def _load(source: Source, spec: DataSpec, image_size: int) -> Raw:
    """A missing or damaged file of a dataset on disk becomes a UsageError of one line."""
    if not source.on_disk:
        return source.load(spec, image_size)
    root = source.find_root(spec)
    try:
        return source.load(replace(spec, root=str(root)), image_size)
    except (*UNREADABLE, EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        for file in sorted(file for file in root.glob("*") if file.is_file()):
            if what := what_it_is(file):
                reason = f"{file.name}: {what}"
        raise UsageError(f"data.root={root}: {spec.name} cannot be read ({reason})") from error


def _parts(spec: DataSpec, raw: Raw) -> tuple[Part, Part]:
    """The training part and the part on which a cell is evaluated."""
    classes = len(raw.classes)
    train = _part(f"{spec.name}: train", *raw.train, classes)
    if spec.evaluate == "test":
        return train, _part(f"{spec.name}: test", *raw.test, classes)
    if raw.validation is not None:
        return train, _part(f"{spec.name}: validation", *raw.validation, classes)
    held_out = _held_out(train.labels)
    return train.select(np.flatnonzero(~held_out)), train.select(np.flatnonzero(held_out))


def _part(where: str, images: Array | RaggedImages, labels: Array, classes: int) -> Part:
    """Raises UsageError for arrays that are not as Raw says."""
    if isinstance(images, np.ndarray):
        squares = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3
        if not squares or images.dtype != np.uint8:
            raise UsageError(
                f"{where}: images (n, S, S, 3) uint8 are expected, "
                f"not {images.shape} {images.dtype}"
            )
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise UsageError(
            f"{where}: {len(images)} integer labels are expected, not {labels.shape} {labels.dtype}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise UsageError(
            f"{where}: labels 0..{classes - 1} are expected, not {labels.min()}..{labels.max()}"
        )
    return Part(images, labels.astype(np.int64), np.arange(len(labels)))


def _held_out(labels: Array) -> Array:
    """(n,) True for one image in five of each class; for at least one in a class of two or more.

    A hash of the class and the image's position decides.
    """
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = np.random.default_rng(derive(0, "validation", int(label))).permutation(len(rows))
        count = max(len(rows) // HELD_OUT_EVERY, int(len(rows) > 1))
        held_out[rows[order[:count]]] = True
    return held_out


def _limit(part: Part, classes: int, per_class: int) -> Part:
    """The first classes, and of each the first images (0: all)."""
    keep = part.labels < classes
    if per_class:
        rank = np.empty(len(part.labels), dtype=np.int64)
        for label in np.unique(part.labels):
            rows = np.flatnonzero(part.labels == label)
            rank[rows] = np.arange(len(rows))
        keep &= rank < per_class
    return part if keep.all() else part.select(np.flatnonzero(keep))


def _digest(names: tuple[str, ...], train: Part, test: Part, manifest_sha: str) -> str:
    digest = hashlib.sha256("\n".join(names).encode() + manifest_sha.encode())
    for part in (train, test):
        digest.update(part.labels.astype("<i8").tobytes() + part.numbers.astype("<i8").tobytes())
        if isinstance(part.images, np.ndarray):
            digest.update(np.ascontiguousarray(part.images).data)
        else:
            digest.update(part.images.sizes.astype("<i8").tobytes())
            for row in range(len(part.images)):
                digest.update(np.ascontiguousarray(part.images.image(row)).data)
    return digest.hexdigest()


# --- glyphs -----------------------------------------------------------------------------------


class GlyphSet(NamedTuple):
    """Classes of one part of the asset, and how they are drawn."""

    part: int
    classes: int
    styles: tuple[str, ...]
    domains: int = 1  # 1: styles are mixed in every class; else each domain has a style of its own


TRAIN_IMAGES, VALIDATION_IMAGES, TEST_IMAGES = 32, 50, 25  # glyphs per class
GLYPH_SETS: dict[str, GlyphSet] = {
    "glyphs": GlyphSet(1, 60, ("plain",)),
    "glyphs-r": GlyphSet(2, 60, glyphs.RENDITIONS),
    "glyphs-a": GlyphSet(3, 60, ("faint",)),
    "glyphs-v": GlyphSet(4, 60, ("shadow", "faint", "halo"), domains=3),
    "glyphs-tune": GlyphSet(glyphs.TUNE, 355, (*glyphs.RENDITIONS, "faint", "plain")),
    # One style that prompts learn fast: for the regression check.
    "glyphs-relief": GlyphSet(glyphs.TUNE, 355, ("shadow",)),
}
DATA_SEED = 1  # the images are one fixed set; a run's seed changes views and initialisation only


def _glyph_loader(glyph_set: GlyphSet) -> Loader:
    def load(spec: DataSpec, image_size: int) -> Raw:
        rows = glyphs.classes_of(glyph_set.part)
        domain = np.arange(len(rows)) % glyph_set.domains
        styles = np.array(glyph_set.styles)

        def draw(first: int, count: int) -> tuple[Array, Array]:
            label = np.repeat(np.arange(len(rows)), count)
            index = np.tile(np.arange(first, first + count), len(rows))
            chosen = domain[label] if glyph_set.domains > 1 else index % len(styles)
            return glyphs.render(DATA_SEED, rows[label], index, styles[chosen]), label

        names = tuple(f"U+{code:04X}" for code in glyphs.asset()["codes"][rows])
        train, test = draw(0, TRAIN_IMAGES), draw(2000, TEST_IMAGES)
        return Raw(names, train, test, draw(1000, VALIDATION_IMAGES), tuple(domain))

    return load


def _register_glyphs(name: str, glyph_set: GlyphSet) -> None:
    classes = glyph_set.classes
    per_class = (TRAIN_IMAGES, TEST_IMAGES, VALIDATION_IMAGES)
    sizes = Sizes(classes, *(classes * count for count in per_class))
    dataset(name, sizes=lambda spec: sizes)(_glyph_loader(glyph_set))


for _name, _glyph_set in GLYPH_SETS.items():
    _register_glyphs(_name, _glyph_set)


# --- real images ------------------------------------------------------------------------------


@dataset("digits", sizes=lambda spec: Sizes(10, 1_258, 539))
def load_digits(spec: DataSpec, image_size: int) -> Raw:
    """1,797 handwritten digits (see digits.py), 8x8 enlarged to 32x32, 30% for testing."""
    stored, labels = digits.asset()
    grey = (stored * (255 / digits.MAX_GREY)).round().astype(np.uint8)
    images = np.repeat(np.kron(grey, np.ones((1, 4, 4), dtype=np.uint8))[..., None], 3, axis=3)
    shuffled = np.random.default_rng(derive(0, "digits")).permutation(len(labels))
    test = shuffled < round(0.3 * len(labels))
    names = tuple(str(digit) for digit in range(10))
    return Raw(names, (images[~test], labels[~test]), (images[test], labels[test]))


def _catalogue_sizes(name: str, split: str) -> Sizes | None:
    """Sizes of a split of the catalogue; "" is the dataset's first."""
    for known in CATALOGUE[name].splits if name in CATALOGUE else ():
        if split in ("", known.name) and known.classes:
            return Sizes(known.classes, known.train, known.test)
    return None


@dataset(
    "cifar100",
    on_disk=True,
    sizes=lambda spec: _catalogue_sizes("cifar100", ""),
    require=cifar.require,
    obtain=cifar.obtain,
)
def load_cifar100(spec: DataSpec, image_size: int) -> Raw:
    """CIFAR-100 in torchvision's layout; without data.root it is downloaded if it is missing."""
    return cifar.read(Path(spec.root))


KNOWN_FOLDERS = {"grocery": Sizes(81, 2_640, 2_485)}  # Grocery Store Dataset (Klasson et al. 2019)


@functools.cache
def prepared_sizes(root: str, split: str) -> Sizes | None:
    """Sizes of a prepared split by its manifest; None where no manifest can be read."""
    try:
        rows = manifest.read(manifest.find(find_data(root), split))
    except UsageError:
        return None
    train = sum(row.part == "train" for row in rows)
    return Sizes(len({row.label for row in rows}), train, len(rows) - train)


def _folder_sizes(spec: DataSpec) -> Sizes | None:
    """A known dataset is recognised by its bare name: a path leads to a folder of the user's."""
    prepared = prepared_sizes(spec.root, spec.split) if spec.split else None
    return prepared or KNOWN_FOLDERS.get(spec.root) or _catalogue_sizes(spec.root, spec.split)


def _require_split(root: Path, spec: DataSpec) -> None:
    """Raises UsageError if data.split is not prepared in the root, or lacks images."""
    if not spec.split:
        return
    file = manifest.find(root, spec.split)
    gone = [row.path for row in manifest.read(file) if not (root / row.path).is_file()]
    if gone:
        raise UsageError(
            f"{file}: {len(gone)} of its images are not there ({manifest.shown(gone)})"
        )


@dataset(
    "folder",
    on_disk=True,
    takes_split=True,
    takes_whole_crops=True,
    sizes=_folder_sizes,
    require=_require_split,
)
def load_image_folder(spec: DataSpec, image_size: int) -> Raw:
    """ROOT/train/CLASS/*.jpg with ROOT/test/CLASS/*.jpg, or the files of a split manifest.

    A flat ROOT/CLASS/*.jpg is split 80/20 by a seed.
    """
    from bench.data.folder import load_folder, load_split  # torch

    root, usual_side = Path(spec.root), round(image_size / 0.875)
    if spec.crops_of == "whole":  # `decode` is the shorter side of the training images
        side, shorter_side = usual_side, spec.decode
    else:
        side, shorter_side = spec.decode or usual_side, None
    if spec.split:
        names, train, test, sha = load_split(root, spec.split, side, shorter_side)
        return Raw(names, train, test, side=side, manifest=sha)
    return Raw(*load_folder(root, side, shorter_side), side=side)
