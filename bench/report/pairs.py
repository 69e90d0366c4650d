"""Who is better than whom: differences between every two rows of a benchmark, over pairs of cells.

A pair has the same class order and seed. Each difference is row minus column, in points, with its
95% t interval, the p of the sign-flip test, and the share of pairs in which the row is above.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from bench.report.frames import Results
from bench.report.page import HtmlTable
from bench.report.rows import row_of
from bench.report.tables import select
from bench.stats import Paired, paired

CELL = Markup('<span title="{}">{}</span>')


class Difference(NamedTuple):
    """Row minus column, and the share of pairs in which the row is above; a tie counts half."""

    value: Paired
    above: float


def differences(results: Results, benchmark: str) -> dict[tuple[str, str], Difference]:
    """By row and column; rows without finished cells are left out."""
    cells = {m: select(results, benchmark, m, "class") for m in results.methods}
    known = [method for method, rows in cells.items() if len(rows)]
    found = {}
    for first, second in itertools.combinations(known, 2):
        both = cells[first].merge(cells[second], on=["order_seed", "seed"])
        if not len(both):
            continue
        ours, theirs = both["faa_x"].to_numpy(), both["faa_y"].to_numpy()
        above = float(np.mean((ours > theirs) + 0.5 * (ours == theirs)))
        value = paired(ours, theirs)
        found[first, second] = Difference(value, above)
        other = replace(value, difference=-value.difference)
        found[second, first] = Difference(other, 1 - above)
    return found


def html(results: Results, benchmark: str) -> HtmlTable:
    """The matrix of one benchmark: a difference in each cell, its interval and p on hover."""
    found = differences(results, benchmark)
    names = [m for m in results.methods if any(m in pair for pair in found)]
    rows = [
        (row_of(first).short, *(_cell(found.get((first, second))) for second in names))
        for first in names
    ]
    return HtmlTable([benchmark, *(row_of(m).short for m in names)], rows, frozenset())


def _cell(difference: Difference | None) -> Markup | str:
    if difference is None:
        return ""
    value = difference.value
    said = f"above in {100 * difference.above:.0f}% of {value.n} pairs"
    if value.n > 1:
        low, high = value.difference - value.half_width, value.difference + value.half_width
        said = f"95% interval {low:+.1f} to {high:+.1f}, p = {value.p:.3g}, {said}"
    return CELL.format(said, f"{value.difference:+.1f}")
