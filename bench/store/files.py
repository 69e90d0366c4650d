"""Files that a later run reads: written completely or not at all, and read only if intact."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bench import faults
from bench.errors import DISK_FAILURES, CannotWrite

READ_BYTES = 1 << 20  # of a file at a time
CLOCK_SECONDS = 60  # by which the clocks of two machines may differ without a word
UMASK = os.umask(0)  # it can only be read by setting it
os.umask(UMASK)


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is the old one or the new one, never half of it.

    A temporary file in the same folder is written, synced and renamed; then the folder is synced.
    Raises UsageError where the folder cannot be written, and OSError for a full or broken disk.
    The old file stays then.
    """
    try:
        faults.io_step(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        if error.errno in DISK_FAILURES:
            raise
        raise CannotWrite(f"{path.parent}: cannot be written ({error.strerror})") from error
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
        os.chmod(name, 0o666 & ~UMASK)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # write and fsync do not say it
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


# --- sealed files: a digest of name and content at the end ------------------------------------


class _DigestingStream:
    """A stream that hashes what is written through it."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.stream, self.digest = stream, _digest_of_name(name)

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.stream.write(content)


def _digest_of_name(name: str) -> Any:
    """The digest before any content: a file under another file's name is then not accepted."""
    return hashlib.sha256(name.encode() + b"\n")


def write_sealed(path: Path, write: Callable[[Any], object]) -> None:
    """write_atomic, with a digest of the file's name and content at its end."""

    def sealed(stream: BinaryIO) -> None:
        digesting = _DigestingStream(stream, path.name)
        write(digesting)
        stream.write(digesting.digest.digest())

    write_atomic(path, sealed)


def check_seal(path: Path) -> int:
    """Length of the content before the digest, in bytes.

    Raises ValueError for a file that is torn, altered or was written under another name.
    """
    digest = _digest_of_name(path.name)
    length = left = path.stat().st_size - digest.digest_size
    with path.open("rb") as stream:
        while left > 0 and (block := stream.read(min(left, READ_BYTES))):
            digest.update(block)
            left -= len(block)
        if left or stream.read() != digest.digest():
            raise ValueError("torn or altered (its digest differs)")
    return length


# --- arrays -----------------------------------------------------------------------------------


def save_array(path: Path, array: np.ndarray) -> None:
    """A sealed .npy file. numpy ignores what follows the array."""
    write_sealed(path, lambda stream: np.save(stream, array, allow_pickle=False))


def save_pieces(path: Path, shape: tuple[int, ...], pieces: Iterable[np.ndarray]) -> None:
    """A sealed .npy file of bytes that come in pieces, so that it need not fit into memory."""

    def write(stream: Any) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for piece in pieces:
            stream.write(piece.tobytes())

    write_sealed(path, write)


def load_array(path: Path) -> np.ndarray | None:
    """The memory-mapped array, or None where there is no intact file. A broken one is named."""
    if not os.path.exists(path):
        return None
    try:
        check_seal(path)
        with contextlib.suppress(OSError):  # another user's file, or a disk that is only read
            os.utime(path)  # the cache drops what was not used for longest
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        print(f"{path}: not used, made again: {error}", file=sys.stderr)
        return None


def file_time(folder: Path) -> float:
    """Seconds, by the clock that dates the files of a folder. Raises as writing there does."""
    file = folder / f".writable-{uuid.uuid4().hex}"
    write_text(file, "")
    try:
        return file.stat().st_mtime
    finally:
        file.unlink()


def check_writable(folders: Iterable[Path]) -> None:
    """Raises UsageError now for a folder that cannot be written, and not after the first cell.

    Says so where the file server has another time: no number depends on it, but people read it.
    """
    for folder in folders:
        apart = file_time(folder) - time.time()
        if abs(apart) > CLOCK_SECONDS:
            said = f"{folder}: its file server's clock and this machine's are {apart:+.0f} s apart"
            print(said, file=sys.stderr)
