"""Locks between processes. The lock of a process that died is free again."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bench import stopping
from bench.errors import Busy

POLL_SECONDS = 0.05
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # some network disks


@contextlib.contextmanager
def locked(file: Path, busy: str = "") -> Iterator[bool]:
    """Hold the lock of this file; yields False on a file system without locks.

    busy: the text of the Busy that is raised while another process holds it; "" = wait for it.
    Raises OSError where the file cannot be made.
    """
    lock = FileLock(file, timeout=0)
    try:
        held = _acquire(lock, busy)
    except NotImplementedError:
        held = False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        held = False
    try:
        yield held
    finally:
        lock.release()


def _acquire(lock: FileLock, busy: str) -> bool:
    while True:
        try:
            lock.acquire(timeout=0 if busy else POLL_SECONDS, poll_interval=POLL_SECONDS)
            return True
        except Timeout:
            if busy:
                raise Busy(busy) from None
            stopping.check()
