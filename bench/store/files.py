"""Files that a later run reads: written whole or not at all, and read back only if their digest agrees."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bench import faults
from bench.config.spec import UsageError

SEAL = "hlgp-bench sha256"


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Temp file in the same directory, flush, fsync, rename, fsync of the directory: old or new, never torn.

    Raises UsageError where the folder cannot be written, OSError (a full disk, ...) otherwise; the old file stays then.
    """
    try:
        faults.io_step(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
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
        if isinstance(error, OSError) and error.filename is None:  # write and fsync do not say which file
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


def seal(name: str, content: bytes) -> bytes:
    """A line with a digest of name and content, then the content: half a file, or one of another name, opens no seal."""
    return f"{SEAL} {_sealing(name, content)}\n".encode() + content


def unseal(name: str, sealed: bytes) -> bytes:
    """The content. Raises ValueError for what is torn, altered, or was sealed under another name."""
    head, _, content = sealed.partition(b"\n")
    if head.decode(errors="replace") != f"{SEAL} {_sealing(name, content)}":
        raise ValueError("torn or altered (its digest differs)")
    return content


def _sealing(name: str, content: bytes) -> str:
    return hashlib.sha256(name.encode() + b"\n" + content).hexdigest()


class _Digesting:
    """A stream that hashes what is written through it."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.stream, self.digest = stream, hashlib.sha256(name.encode() + b"\n")

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.stream.write(content)


def save_array(path: Path, array: np.ndarray) -> None:
    """A .npy with a digest of its name and bytes at its end, where numpy does not look."""

    def write(stream: BinaryIO) -> None:
        digesting = _Digesting(stream, path.name)
        np.save(digesting, array, allow_pickle=False)  # type: ignore[arg-type]
        stream.write(digesting.digest.digest())

    write_atomic(path, write)


def load_array(path: Path) -> np.ndarray | None:
    """The memory-mapped array, or None where it is absent; torn, altered or foreign entries are named and not used."""
    if not path.exists():
        return None
    try:
        digest = hashlib.sha256(path.name.encode() + b"\n")
        with path.open("rb") as stream:
            left = os.fstat(stream.fileno()).st_size - digest.digest_size
            while left > 0 and (block := stream.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
            if left or stream.read() != digest.digest():
                raise ValueError("its digest differs")
        with contextlib.suppress(PermissionError):  # another user's entry
            os.utime(path)  # the cache's limit drops what was not used for longest
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        print(f"{path}: not used, made again ({error})", file=sys.stderr)
        return None
