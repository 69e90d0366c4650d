"""Codes that are known to give the same bytes: same_code.csv beside the suites' folders.

`python -m bench.check same SUITE` runs a sample of a suite's cells again and writes a row where all
of them are the same. Then numbers made by either code stand together.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

from bench.paths import same_code_files
from bench.store.tables import NOT_RECORDED, Rows, read_csv, write_csv

COLUMNS = ("suite", "method", "old_code", "new_code", "cells", "date")


class Codes:
    """Which codes are the same.

    A code_sha is the same in every suite. That a suite's code was not recorded says nothing of
    another suite's.
    """

    def __init__(self, rows: Iterable[dict[str, str]]) -> None:
        self._class_of: dict[str, frozenset[str]] = {}
        for row in rows:
            names = [_name(row["suite"], row["method"], row[key]) for key in COLUMNS[2:4]]
            together = frozenset().union(*(self._all(name) for name in names))
            self._class_of |= dict.fromkeys(together, together)

    @classmethod
    def of(cls, results: Path) -> Codes:
        """All that is known beside these results, and by the project itself."""
        return cls(row for file in same_code_files(results) for row in read_csv(file, COLUMNS))

    def _all(self, name: str) -> frozenset[str]:
        return self._class_of.get(name, frozenset([name]))

    def known(self, suite: str, method: str, code: str) -> frozenset[str]:
        """All codes that give the bytes of this one, itself among them.

        method: the file in methods/, e.g. l2p_plus.
        """
        return self._all(_name(suite, method, code))

    def same(self, suite: str, method: str, old: str, new: str) -> bool:
        """True if both give the same bytes for a suite's cells of a method."""
        return _name(suite, method, new) in self.known(suite, method, old)


def _name(suite: str, method: str, code: str) -> str:
    return f"{code} ({method}, {suite})" if code == NOT_RECORDED else code


def record_same(file: Path, rows: Rows) -> None:
    """Add rows without a date, of today, to a same_code.csv."""
    before = read_csv(file, COLUMNS) if file.is_file() else []
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    write_csv(file, COLUMNS, [*before, *(row | {"date": today} for row in rows)])
