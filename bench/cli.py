"""What all commands share: a mistake gets one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import argparse
import codecs
import difflib
import errno
import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import DISK_FAILURES, UsageError

SEED_LIMIT = 2**32  # seeds are below it: numpy, and so LAMDA-PILOT's orders, take no larger ones
FINE, CHECK_FAILED, WRONG_USAGE, UNFINISHED = 0, 1, 2, 3  # exit codes
READABLE = {"±": "+-", "–": "-", "†": "+", "…": "...", "×": "x"}  # where a terminal lacks them
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class Parser(argparse.ArgumentParser):
    """Options are never abbreviated (--time would be --time-limit); a mistake gets one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        wrong, near = [word.partition("=")[0] for word in message.split()], []
        if message.startswith("unrecognized"):
            known = [*self._option_string_actions]
            near = [difflib.get_close_matches(w, known, n=1) for w in wrong if w.startswith("--")]
        meant = next((f"did you mean {found[0]}? " for found in near if found), "")
        self.exit(WRONG_USAGE, f"error: {message} ({meant}{self.prog} --help says what it takes)\n")


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


def folder(text: str) -> Path:
    """argparse type of a path; `~` is the home folder also behind an equals sign."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"'{text}': nobody here has this home folder") from None


def results_name(text: str) -> str:
    """argparse type of a name in a folder of results; a completed name ends with a slash."""
    return text.rstrip("/") or text


def _show_everywhere() -> None:
    """A terminal that is not UTF-8 gets other characters for those that it lacks."""
    codecs.register_error("readable", _readable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="readable")


def _readable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(READABLE.get(char, "?") for char in lacking), error.end


def run(main: Callable[[], int]) -> None:
    """Call a command's main and exit with its code.

    2 and one line for a UsageError or a path that cannot be used, 3 for a full or broken disk, 130
    or 143 for a signal.
    """
    _show_everywhere()
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
        if error.filename is None and error.errno not in DISK_FAILURES:
            raise
        line = f"error: {error.filename}: {error.strerror}"
        if error.errno in (*DISK_FAILURES, errno.EROFS):
            code = UNFINISHED
            line += "; what was finished is safe, the same command continues"
        else:
            code = WRONG_USAGE
        print(line, file=sys.stderr)
    if code in STOPPED:
        print("interrupted: the same command continues", file=sys.stderr)
    sys.exit(code)
