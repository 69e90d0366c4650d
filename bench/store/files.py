"""Files that a later run reads: written whole or not at all, and read back only if their digest agrees."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bench.config.spec import UsageError


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Temp file in the same directory, flush, fsync, rename, fsync of the directory: old or new, never torn.

    Raises UsageError where the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UsageError(f"{path.parent}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_bytes(path: Path, content: bytes) -> None:
    write_atomic(path, lambda stream: stream.write(content))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save_array(path: Path, array: np.ndarray) -> None:
    """A .npy with its digest beside it; the array first, so that a digest never precedes what it vouches for."""
    write_atomic(path, lambda stream: np.save(stream, array, allow_pickle=False))
    write_text(path.with_suffix(".sha256"), sha256_of(path) + "\n")


def load_array(path: Path) -> np.ndarray | None:
    """The memory-mapped array, or None where it is absent, torn or altered: the caller makes it again."""
    digest = path.with_suffix(".sha256")
    try:
        if sha256_of(path) != digest.read_text().strip():
            return None
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
