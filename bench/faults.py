"""Faults on demand, so that tests can show that nothing is lost: off unless one of two environment variables is set.

BENCH_CRASH_AT=POINT:k ends the process by SIGKILL when it comes to a named point for the k-th time. The points: step, epoch,
task (before its checkpoint), save (a file is written but not yet in place), saved, done (tables written, DONE not yet).
BENCH_FAIL_IO=k:ENOSPC (or EIO, or SHORT: half of a file, then ENOSPC) fails the k-th step of writing files, counted from 1.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

_seen: Counter[str] = Counter()


def point(name: str) -> None:
    """A place where a process may die."""
    if wanted := os.environ.get("BENCH_CRASH_AT"):
        _seen[name] += 1
        if wanted == f"{name}:{_seen[name]}":
            os.kill(os.getpid(), signal.SIGKILL)


def io_step(path: object) -> bool:
    """A step of writing a file: raises OSError if it is the one that shall fail; True if it shall write half."""
    if wanted := os.environ.get("BENCH_FAIL_IO"):
        _seen["io"] += 1
        number, kind = wanted.split(":")
        if int(number) == _seen["io"]:
            if kind == "SHORT":
                return True
            raise OSError(getattr(errno, kind), os.strerror(getattr(errno, kind)), str(path))
    return False


def steps_of_writing() -> int:
    """How many have been counted; only while BENCH_FAIL_IO is set they are."""
    return _seen["io"]


def restart() -> None:
    """Count from the beginning again."""
    _seen.clear()
