"""CIFAR-100 from the official python archive: ROOT/cifar-100-python/{train,test,meta}."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import ClassVar

import numpy as np

from bench.config.spec import DataSpec
from bench.data.catalogue import CATALOGUE
from bench.data.prepare.obtain import Access, obtain_archives
from bench.data.registry import Raw
from bench.errors import UsageError
from bench.paths import dataset_folder, find_data

ENTRY = CATALOGUE["cifar100"]
FOLDER = "cifar-100-python"


class _ArraysOnly(pickle.Unpickler):
    """The archive is a pickle. Only a dict of numpy arrays can be read: no code can run."""

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


def read(root: Path) -> Raw:
    """The archive in a root. Raises UsageError for a file that is missing or damaged."""
    folder = _folder(root)
    names = _unpickled(folder / "meta").get("fine_label_names")
    if not isinstance(names, list):
        raise UsageError(f"data.root: {folder / 'meta'}: 'fine_label_names' expected")
    return Raw(tuple(names), _arrays(folder / "train"), _arrays(folder / "test"))


def require(root: Path, spec: DataSpec) -> None:
    """Raises UsageError if a root has no training file."""
    _folder(root)


def obtain() -> Path:
    """The folder of CIFAR-100. The archive is downloaded there if it is missing."""
    try:
        return find_data(ENTRY.name)
    except UsageError as missing:
        root = dataset_folder(ENTRY.name)
        try:
            obtain_archives(ENTRY, root, Access())
        except UsageError as error:
            raise UsageError(f"{missing}; {' '.join(str(error).split())}") from error
        return root


def _folder(root: Path) -> Path:
    for folder in (root, root / FOLDER):
        if (folder / "train").is_file():
            return folder
    raise UsageError(
        f"data.root: {root} has no {FOLDER}/train (the official python archive, unpacked)"
    )


def _unpickled(file: Path) -> dict:
    try:
        return _ArraysOnly(io.BytesIO(file.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged pickle fails in many ways
        raise UsageError(f"data.root: {file} is not a readable CIFAR-100 file ({error})") from error


def _arrays(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) uint8 and labels (n,)."""
    content = _unpickled(file)
    try:
        planes = np.asarray(content["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(content["fine_labels"], dtype=np.int64)
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"data.root: {file}: 'data' (n, 3072) and 'fine_labels' expected ({error})"
        ) from error
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
