"""Arrays that are computed once and kept: decoded images and frozen query features.

All runs and processes share them. The name of an entry is a digest of everything it depends on.
When all entries together pass the limit, those that were not used for longest are dropped.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.errors import DISK_FAILURES, CannotWrite, UsageError
from bench.paths import cache_dir
from bench.store.files import load_array, save_array, save_pieces
from bench.store.locks import locked

KINDS = ("images", "queries")
NOT_WRITABLE = (*DISK_FAILURES, errno.EROFS, errno.EACCES, errno.EPERM)
GIB = 1 << 30
DEFAULT_LIMIT_GIB = "50"
MAX_WRITING_SECONDS = 86_400  # an older temporary file is of a process that was killed


class Entry(NamedTuple):
    """One array on disk: its file, its bytes, and when it was last used."""

    file: Path
    size: int
    used: float


def limit() -> int:
    """The limit in bytes: $BENCH_CACHE_LIMIT in GiB, 50 by default. Raises UsageError."""
    text = os.environ.get("BENCH_CACHE_LIMIT", DEFAULT_LIMIT_GIB)
    try:
        value = float(text)
        if not 0 <= value < float("inf"):
            raise ValueError
    except ValueError:
        message = f"BENCH_CACHE_LIMIT={text}: a number of GiB from 0 is expected"
        raise UsageError(message) from None
    return int(value * GIB)


def cached(kind: str, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of this kind and key; it is made and kept where there is no intact one."""
    max_bytes = limit()
    path = cache_dir() / kind / f"{key}.npy"

    def fresh() -> np.ndarray:
        array = make()
        if array.nbytes > max_bytes:  # it would be dropped at once
            return array
        if not _kept(lambda: save_array(path, array)):
            return array
        trim(max_bytes)
        kept = load_array(path)  # mapped: it takes no memory of this process
        return array if kept is None else kept

    return _stored(path, fresh)


def cached_pieces(
    kind: str, key: str, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]]
) -> np.ndarray:
    """Like `cached`, for bytes that are made in pieces and need not fit into memory.

    Raises UsageError where they do not fit into the cache's limit. With the limit 0, and where the
    cache cannot be written, they are in memory.
    """
    max_bytes = limit()
    path = cache_dir() / kind / f"{key}.npy"

    def fresh() -> np.ndarray:
        size = math.prod(shape)
        if not max_bytes:  # nothing is to be kept
            return _in_memory(make(), shape)
        if size > max_bytes:  # it would be dropped at once, and made again by every process
            raise UsageError(
                f"BENCH_CACHE_LIMIT={max_bytes / GIB:g}: images that take {size / GIB:.2g} GiB "
                "are to be kept"
            )
        if not _kept(lambda: save_pieces(path, shape, make())):
            return _in_memory(make(), shape)
        array = load_array(path)
        trim(max_bytes)
        # None: another process, with a smaller limit, has dropped it already.
        return _in_memory(make(), shape) if array is None else array

    return _stored(path, fresh)


def _kept(save: Callable[[], None]) -> bool:
    """Save an entry; False, said once, where the cache's disk is full or cannot be written.

    Raises what concerns the entry and not the disk.
    """
    try:
        save()
    except (CannotWrite, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NOT_WRITABLE:
            raise
        # Without the entry's name, so that all of them have the same line.
        why = getattr(error.__cause__ or error, "strerror", None) or error
        _say_once(f"{cache_dir()}: nothing more is kept there ({why}), so it takes longer")
        return False
    return True


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def _in_memory(pieces: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([piece.ravel() for piece in pieces]).reshape(shape)


def _stored(path: Path, fresh: Callable[[], np.ndarray]) -> np.ndarray:
    """The entry where it is intact, else a fresh one.

    Where several processes want the same entry at once, one makes it and the others wait.
    """
    before = _identity_of(path)
    array = load_array(path)
    if array is None:
        with _alone(path):
            if _identity_of(path) != before:  # another process has made it meanwhile
                array = load_array(path)
            if array is None:
                array = fresh()
    return array


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Tells a file from another one that was written under the same name; None = no file."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Others that want this entry wait. Without locks each makes its own, and the last stays."""
    lock = path.with_name(f".{path.stem}.lock")
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(lock))
            held.callback(lock.unlink, missing_ok=True)
        yield


def entries() -> list[Entry]:
    """All entries, those that were not used for longest first."""
    found = []
    for kind in KINDS:
        for file in (cache_dir() / kind).glob("*.npy"):
            try:
                facts = file.stat()
            except OSError:  # another process has just dropped it
                continue
            found.append(Entry(file, facts.st_size, facts.st_mtime))
    return sorted(found, key=lambda entry: entry.used)


def trim(max_bytes: int) -> int:
    """Drop entries, longest unused first, until the rest fits; returns how many were dropped.

    A process that has mapped an entry keeps its pages until it lets go of them.
    """
    for kind in KINDS:
        for torn in (cache_dir() / kind).glob(".*.npy.*"):
            with contextlib.suppress(OSError):
                if time.time() - torn.stat().st_mtime > MAX_WRITING_SECONDS:
                    torn.unlink()
    kept = entries()
    total, dropped = sum(entry.size for entry in kept), 0
    for entry in kept:
        if total <= max_bytes:
            break
        entry.file.unlink(missing_ok=True)
        total, dropped = total - entry.size, dropped + 1
    return dropped
