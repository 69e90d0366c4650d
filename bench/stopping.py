"""SIGINT and SIGTERM: the first asks a run to stop at its next step, a second ends it at once."""

from __future__ import annotations

import signal
from typing import Any

_asked: int | None = None


def on_signals(*numbers: int, again: bool = True) -> None:
    """From now on these signals ask the run to stop.

    again: a second signal does what it does by default; otherwise it only asks again.
    """

    def ask(number: int, frame: Any) -> None:
        global _asked
        _asked = number
        for each in numbers if again else ():
            signal.signal(each, signal.SIG_DFL)

    for number in numbers:
        signal.signal(number, ask)


def asked() -> bool:
    return _asked is not None


def check() -> None:
    """Called where stopping loses nothing. Raises SystemExit (130, 143) if a signal has asked."""
    global _asked
    if _asked is not None:
        number, _asked = _asked, None
        raise SystemExit(128 + number)
