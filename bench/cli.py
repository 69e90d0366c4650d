"""What all commands share: one clear line and exit code 2 for a mistake, never a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bench.config.spec import UsageError

FINE, CHECK_FAILED, WRONG_USAGE, UNFINISHED = 0, 1, 2, 3


def positive(text: str) -> int:
    """argparse type of a count."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': a whole number from 1 is expected")
    return int(text)


def run(main: Callable[[], int]) -> None:
    """Call a command's main and exit with its code; 2 and one line for a UsageError, 130 for Ctrl-C."""
    try:
        code = main()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_USAGE
    except KeyboardInterrupt:
        print("interrupted: the same command continues", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = FINE
    sys.exit(code)
