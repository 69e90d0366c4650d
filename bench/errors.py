"""Errors that users see: a mistake of theirs, a busy cell, a diverged one, a full disk."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

LISTED_NAMES = 24  # accepted names are listed up to this many: more of them nobody reads
# Full, limited or broken: nothing the user wrote is wrong, and the same command can go on later.
DISK_FAILURES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EMFILE, errno.ENFILE, errno.ESTALE),
)


class UsageError(Exception):
    """A mistake in what the user gave: one line (what, where, accepted values, nearest name).

    Every command prints it and ends with exit code 2.
    """

    @classmethod
    def unknown(cls, where: str, name: str, accepted: Iterable[str]) -> UsageError:
        """An unknown name, with the nearest accepted one, and all of them where they are few."""
        options = list(dict.fromkeys(accepted))
        near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.5)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        shown = f" (accepted: {', '.join(options)})" if len(options) <= LISTED_NAMES else ""
        return cls(f"{where}: unknown '{name}'{hint}{shown}")


class CannotWrite(UsageError):
    """A folder in which nothing can be written."""


class Busy(Exception):
    """Another process runs this cell now."""


class Diverged(Exception):
    """A loss, gradient or logit is not finite, so the cell has no result."""
