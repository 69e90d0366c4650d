"""Faults on demand, so that tests can show that nothing is lost. Off by default.

BENCH_CRASH_AT=POINT:k ends the process by SIGKILL when it reaches a named point for the k-th time.
The points: step, epoch, align (an epoch of the aligned head), task (before its checkpoint), save (a
file is written but not yet in place), saved, done (tables written, DONE not yet).
BENCH_FAIL_IO=k:ENOSPC (or EIO, or SHORT: half of a file, then ENOSPC) fails the k-th step of
writing files, counted from 1.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

_seen: Counter[str] = Counter()


def point(name: str) -> None:
    """A point at which a test may end the process."""
    if wanted := os.environ.get("BENCH_CRASH_AT"):
        _seen[name] += 1
        if wanted == f"{name}:{_seen[name]}":
            os.kill(os.getpid(), signal.SIGKILL)


def io_step(path: object) -> bool:
    """A step of writing a file. Raises OSError if it is to fail; True if half is to be written."""
    if wanted := os.environ.get("BENCH_FAIL_IO"):
        _seen["io"] += 1
        number, kind = wanted.split(":")
        if int(number) == _seen["io"]:
            if kind == "SHORT":
                return True
            code = getattr(errno, kind)
            raise OSError(code, os.strerror(code), str(path))
    return False


def steps_of_writing() -> int:
    """How many steps were counted. They are counted only while BENCH_FAIL_IO is set."""
    return _seen["io"]


def restart() -> None:
    """Count from the beginning again."""
    _seen.clear()
