"""What a dataset declares: a function with `@dataset("name")` and a few options. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.config.spec import DataSpec
from bench.errors import UsageError
from bench.paths import find_data

if TYPE_CHECKING:
    from bench.data.views import RaggedImages

Array = np.ndarray
Loader = Callable[[DataSpec, int], "Raw"]


@dataclass(frozen=True)
class Raw:
    """What a loader returns.

    Images are (n, S, S, 3) uint8, or RaggedImages where crops come from images of any size. Labels
    are (n,) integers: positions in `classes`.
    """

    classes: tuple[str, ...]
    train: tuple[Array | RaggedImages, Array]
    test: tuple[Array | RaggedImages, Array]
    validation: tuple[Array, Array] | None = None  # else training images are held out
    domains: tuple[int, ...] | None = None  # of each class; None: there is one domain
    side: int = 0  # pixels of the test view's shorter side; 0: the side of the training squares
    manifest: str = ""  # sha256 of the split's manifest


@dataclass(frozen=True)
class Sizes:
    """Numbers of classes and images as far as they are known without loading; None: unknown."""

    classes: int
    train: int | None
    test: int | None
    validation: int | None = None  # None: validation images are held out of the training images


def _unknown_sizes(spec: DataSpec) -> Sizes | None:
    return None


def _require_nothing(root: Path, spec: DataSpec) -> None:
    return None


@dataclass(frozen=True)
class Source:
    """A registered dataset. Every field after `load` is optional in `@dataset`."""

    name: str
    load: Loader
    on_disk: bool = False  # it is read from data.root, which `load` gets as a folder that exists
    takes_split: bool = False  # data.split names a manifest in the root
    takes_whole_crops: bool = False  # it can load images of any size, for data.crops_of=whole
    sizes: Callable[[DataSpec], Sizes | None] = _unknown_sizes
    # Raises UsageError if the root lacks what `load` needs. It runs before a suite starts, so it is
    # fast and needs no torch.
    require: Callable[[Path, DataSpec], None] = _require_nothing
    # Returns the root where data.root is empty, and downloads what is missing there.
    obtain: Callable[[], Path] | None = None

    def find_root(self, spec: DataSpec) -> Path:
        """The folder that data.root names. Raises UsageError where there is none."""
        if spec.root:
            return find_data(spec.root)
        if self.obtain is None:
            raise UsageError(
                f"data.root: data.name={self.name} needs a folder (--set data.root=DIR)"
            )
        return self.obtain()

    def check_options(self, spec: DataSpec) -> None:
        """Raises UsageError for an option of a cell's data that this dataset does not take."""
        other = f"not '{self.name}'"
        if spec.root and not self.on_disk:
            raise UsageError(f"data.root is for data.name={_names_with('on_disk')}, {other}")
        if spec.split and not self.takes_split:
            names = _names_with("takes_split")
            raise UsageError(f"data.split={spec.split}: for data.name={names}, {other}")
        if spec.crops_of == "whole" and not self.takes_whole_crops:
            names = _names_with("takes_whole_crops")
            raise UsageError(
                f"data.crops_of=whole: for data.name={names}, {other}, whose images are squares"
            )

    def check_files(self, spec: DataSpec) -> None:
        """Raises UsageError if files are missing that `load` would not download itself."""
        if self.on_disk and (spec.root or self.obtain is None):
            self.require(self.find_root(spec), spec)


SOURCES: dict[str, Source] = {}  # complete once bench.data.datasets is imported


def dataset(name: str, **options: Any) -> Callable[[Loader], Loader]:
    """Register a loader: (spec, image size of the network) -> Raw. Options: fields of Source."""

    def register(loader: Loader) -> Loader:
        SOURCES[name] = Source(name, loader, **options)
        return loader

    return register


def _names_with(option: str) -> str:
    return " or ".join(name for name, source in SOURCES.items() if getattr(source, option))
