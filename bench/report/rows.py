"""What is known of a row by its name: bench/suites/rows.csv.

Its lines stand in the order in which a report shows rows of several suites. A row that it does not
list keeps its own name and looks like a method.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

KINDS = ("method", "reference", "joint")  # in the order of every table
FRONT = ("hlgp", "l2p", "dualprompt", "coda-prompt")  # what the project is about
SUITES = Path(__file__).parents[1] / "suites"
FILE = SUITES / "rows.csv"


@dataclass(frozen=True)
class Row:
    """One line of rows.csv.

    label, short: the name in tables and figures, and the one in "HLGP minus". kind: "method",
    "reference" (a row to compare methods with) or "joint" (all classes at once). colour, dash
    (lengths of strokes and gaps) and marker: those of its line; without a colour the row takes the
    next one of a palette. note: a sentence that every report with this row shows.
    """

    row: str
    label: str
    short: str
    kind: str = "method"
    colour: str = ""
    dash: str = ""
    marker: str = ""
    note: str = ""


def _read() -> dict[str, Row]:
    with FILE.open(newline="", encoding="utf-8") as stream:
        return {line["row"]: Row(**line) for line in csv.DictReader(stream)}


ROWS = _read()


def row_of(method: str) -> Row:
    """A row by its name in the tables."""
    return ROWS.get(method, Row(method, method, method))


def label(method: str) -> str:
    """A row's name for people."""
    return row_of(method).label


def is_suite(name: str) -> bool:
    """True if a file of bench/suites describes it."""
    return (SUITES / f"{name}.py").is_file()
