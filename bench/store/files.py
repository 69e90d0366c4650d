"""Files that a later run reads: written whole or not at all, and read back only if their digest agrees."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bench import faults
from bench.errors import DISK_FAILURES, UsageError


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Temp file in the same directory, flush, fsync, rename, fsync of the directory: old or new, never torn.

    Raises UsageError where the folder cannot be written, OSError (a full disk, ...) otherwise; the old file stays then.
    """
    try:
        faults.io_step(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        if error.errno in DISK_FAILURES:
            raise
        raise UsageError(f"{path.parent}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            short = faults.io_step(path)
            write(stream)
            if short:
                stream.truncate(stream.tell() // 2)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            stream.flush()
            faults.io_step(path)
            os.fsync(stream.fileno())
        faults.io_step(path)
        faults.point("save")
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if (
            isinstance(error, OSError) and error.filename is None
        ):  # write and fsync do not say which file
            error.filename = str(path)
        raise
    faults.io_step(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    faults.point("saved")


def write_bytes(path: Path, content: bytes) -> None:
    write_atomic(path, lambda stream: stream.write(content))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Digesting:
    """A stream that hashes what is written through it."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.stream, self.digest = stream, _digest_of(name)

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.stream.write(content)


def _digest_of(name: str) -> Any:
    """The digest of a file of this name, before its content: an entry under another's name does not agree."""
    return hashlib.sha256(name.encode() + b"\n")


def write_sealed(path: Path, write: Callable[[Any], object]) -> None:
    """write_atomic, with a digest of the file's name and content at its end."""

    def sealed(stream: BinaryIO) -> None:
        digesting = _Digesting(stream, path.name)
        write(digesting)
        stream.write(digesting.digest.digest())

    write_atomic(path, sealed)


def check_seal(path: Path) -> int:
    """Length of the content before the digest. Raises ValueError for a file that is torn, altered or of another name."""
    digest = _digest_of(path.name)
    length = left = path.stat().st_size - digest.digest_size
    with path.open("rb") as stream:
        while left > 0 and (block := stream.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        if left or stream.read() != digest.digest():
            raise ValueError("torn or altered (its digest differs)")
    return length


def save_array(path: Path, array: np.ndarray) -> None:
    """A .npy, sealed; numpy does not look at what follows the array."""
    write_sealed(path, lambda stream: np.save(stream, array, allow_pickle=False))


def save_pieces(path: Path, shape: tuple[int, ...], pieces: Iterable[np.ndarray]) -> None:
    """The same of bytes that come one after the other, so that the array need not fit into memory."""

    def write(stream: Any) -> None:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        for piece in pieces:
            stream.write(piece.tobytes())

    write_sealed(path, write)


def load_array(path: Path) -> np.ndarray | None:
    """The memory-mapped array, or None where it is absent; torn, altered or foreign entries are named and not used."""
    if not path.exists():
        return None
    try:
        check_seal(path)
        with contextlib.suppress(PermissionError):  # another user's entry
            os.utime(path)  # the cache's limit drops what was not used for longest
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        print(f"{path}: not used, made again: {error}", file=sys.stderr)
        return None
