"""Arrays that are made once and kept: decoded images and frozen features, shared by all runs and processes.

An entry's name is a digest of everything it depends on. It is written whole or not at all and used only if the digest at its
end agrees. Where all entries together pass the limit, those not used for longest go.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from bench import stopping
from bench.errors import UsageError
from bench.paths import cache_dir
from bench.store.files import load_array, save_array, save_pieces

KINDS = ("images", "queries")
GIB = 1 << 30
DAY = 86_400  # seconds


def limit() -> int:
    """Bytes: $BENCH_CACHE_LIMIT in GiB, 50 where it is not set. Raises UsageError for what is no number."""
    text = os.environ.get("BENCH_CACHE_LIMIT", "50")
    try:
        value = float(text)
        if not 0 <= value < float("inf"):
            raise ValueError
    except ValueError:
        raise UsageError(f"BENCH_CACHE_LIMIT={text}: a number of GiB from 0 is expected") from None
    return int(value * GIB)


def cached(kind: str, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of this kind and key, made and kept where there is none that is intact."""
    most = limit()
    path = cache_dir() / kind / f"{key}.npy"

    def fresh() -> np.ndarray:
        array = make()
        if array.nbytes > most:  # it would be dropped at once
            return array
        save_array(path, array)
        trim(most)
        kept = load_array(path)  # mapped: it takes no memory of this process
        return array if kept is None else kept

    return _stored(path, fresh)


def cached_pieces(
    kind: str, key: str, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]]
) -> np.ndarray:
    """The same for bytes that are made piece by piece and need not fit into memory."""
    most = limit()
    path = cache_dir() / kind / f"{key}.npy"

    def fresh() -> np.ndarray:
        if math.prod(shape) > most:  # it would be dropped at once, and made again by every process
            raise UsageError(
                f"BENCH_CACHE_LIMIT={most / GIB:g}: images that take {math.prod(shape) / GIB:.2g} GiB are to be kept"
            )
        save_pieces(path, shape, make())
        array = load_array(path)
        trim(most)
        if array is None:  # another process, with a smaller limit, has dropped it already
            array = np.concatenate([piece.ravel() for piece in make()]).reshape(shape)
        return array

    return _stored(path, fresh)


def _stored(path: Path, fresh: Callable[[], np.ndarray]) -> np.ndarray:
    """The entry where it is intact, else a fresh one; of processes that want it at once one makes it and the others wait."""
    before = _stamp(path)
    array = load_array(path)
    if array is None:
        with _alone(path):
            if _stamp(path) != before:  # another process has made it meanwhile
                array = load_array(path)
            if array is None:
                array = fresh()
    return array


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one that was written in its place."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While others that want the same entry wait; where there are no locks each makes its own, and the last one stays."""
    lock = path.with_name(f".{path.stem}.lock")
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            stream = held.enter_context(lock.open("w"))
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    stopping.check()
                    time.sleep(0.05)
            held.callback(lock.unlink, missing_ok=True)
        yield


def entries() -> list[tuple[Path, int, float]]:
    """File, bytes and time of last use, longest unused first."""
    found = []
    for kind in KINDS:
        for file in (cache_dir() / kind).glob("*.npy"):
            try:
                facts = file.stat()
            except OSError:  # another process has just dropped it
                continue
            found.append((file, facts.st_size, facts.st_mtime))
    return sorted(found, key=lambda entry: entry[2])


def trim(most: int) -> int:
    """Drop entries, longest unused first, until the rest fits into `most` bytes; how many went.

    A process that has mapped an entry keeps its pages until it lets go.
    """
    for kind in KINDS:
        for torn in (cache_dir() / kind).glob(".*.npy.*"):
            with contextlib.suppress(OSError):
                if (
                    time.time() - torn.stat().st_mtime > DAY
                ):  # of a process that was killed; a young one is being written
                    torn.unlink()
    kept = entries()
    total, dropped = sum(size for _, size, _ in kept), 0
    for file, size, _ in kept:
        if total <= most:
            break
        file.unlink(missing_ok=True)
        total, dropped = total - size, dropped + 1
    return dropped
