"""What all commands share: a mistake gets one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Callable

from bench.config.spec import SEED_LIMIT
from bench.errors import DISK_FAILURES, UsageError

FINE, CHECK_FAILED, WRONG_USAGE, UNFINISHED = 0, 1, 2, 3  # exit codes
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def above_zero(text: str) -> float:
    """argparse type of an amount."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}': a number above 0 is expected")
    return value


def positive(text: str) -> int:
    """argparse type of a count."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': a whole number from 1 is expected")
    return int(text)


def seed(text: str) -> int:
    """argparse type of a seed."""
    if not text.isdecimal() or int(text) >= SEED_LIMIT:
        message = f"'{text}': a whole number from 0, below {SEED_LIMIT}, is expected"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def run(main: Callable[[], int]) -> None:
    """Call a command's main and exit with its code.

    2 and one line for a UsageError, 3 for a full or broken disk, 130 or 143 for a signal.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        code = main()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_USAGE
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as stop:
        if stop.code not in STOPPED:  # argparse's own
            raise
        code = int(stop.code)
    except BrokenPipeError:
        sys.stderr.close()
        code = FINE
    except OSError as error:
        if error.errno not in (*DISK_FAILURES, errno.EROFS):
            raise
        what = "what was finished is safe, the same command continues"
        print(f"error: {error.filename}: {error.strerror}; {what}", file=sys.stderr)
        code = UNFINISHED
    if code in STOPPED:
        print("interrupted: the same command continues", file=sys.stderr)
    sys.exit(code)
