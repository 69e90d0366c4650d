"""Who is better than whom: differences between every two rows of a benchmark, over pairs of cells.

A pair has the same class order and seed. Each difference is row minus column, in points, with its
95% t interval, the p of the sign-flip test, between two methods that of the t test as the answer
has it, and the share of pairs in which the row is above. The table as a file has the interval of a
BCa bootstrap too.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from bench.report.answer import LEVEL, Answer
from bench.report.frames import Results
from bench.report.page import HtmlTable
from bench.report.rows import row_of
from bench.report.tables import by_order_and_seed, in_common, select
from bench.stats import Paired, above, bca_intervals, paired

CELL = Markup('<span class="{}" style="--share:{:.2f}" title="{}">{}</span>')
FULL_SHADE = 10.0  # points of difference from which a cell of the matrix is as dark as it gets


class Difference(NamedTuple):
    """Row minus column, the share of pairs in which the row is above (a tie counts half), and the
    single differences. corrected: p of the t test, corrected for all pairs of methods; NaN where a
    row is no method.
    """

    value: Paired
    above: float
    single: np.ndarray
    corrected: float


Differences = dict[tuple[str, str], Difference]


def all_differences(results: Results, answer: Answer | None) -> dict[str, Differences]:
    """By benchmark; none for a suite of settings, which has no methods, and so no answer."""
    if answer is None:
        return {}
    return {
        benchmark: differences(results, benchmark, answer.ps.get(benchmark, {}))
        for benchmark in results.benchmarks
    }


def differences(
    results: Results, benchmark: str, corrected: Mapping[frozenset[str], float]
) -> Differences:
    """By row and column; rows without finished cells are left out. corrected: as in Difference."""
    cells = {
        m: by_order_and_seed(of, "faa")
        for m in results.methods
        if len(of := select(results, benchmark, m, "class"))
    }
    found = {}
    for first, second in itertools.combinations(cells, 2):
        ours, theirs = in_common(cells[first], cells[second]).T
        if not len(ours):
            continue
        value, share = paired(ours, theirs), above(ours, theirs)
        p = corrected.get(frozenset((first, second)), float("nan"))
        found[first, second] = Difference(value, share, ours - theirs, p)
        other = replace(value, difference=-value.difference)
        found[second, first] = Difference(other, 1 - share, theirs - ours, p)
    return found


def exact(whom: dict[str, Differences]) -> pd.DataFrame:
    """A line for each benchmark and two rows; the second minus the first is the same, negated."""
    lines, single = [], []
    for benchmark, found in whom.items():
        for row, column in list(found)[::2]:
            one = found[row, column]
            value = one.value
            lines.append(
                {
                    "benchmark": benchmark,
                    "row": row,
                    "column": column,
                    "n": value.n,
                    "difference": value.difference,
                    "t_low": value.difference - value.half_width,
                    "t_high": value.difference + value.half_width,
                    "p_sign_flip": value.p,
                    "p_holm": one.corrected,
                    "share_above": one.above,
                }
            )
            single.append(one.single)
    table = pd.DataFrame(lines)
    if len(table):
        table[["bca_low", "bca_high"]] = bca_intervals(single)
    return table


def html(methods: list[str], found: Differences) -> HtmlTable:
    """The matrix of one benchmark: a difference in each cell, its interval and p on hover."""
    compared = {row for row, _ in found}
    names = [method for method in methods if method in compared]
    rows = [
        (row_of(first).short, *(_cell(found.get((first, second))) for second in names))
        for first in names
    ]
    heads = ["row minus column", *(row_of(m).short for m in names)]
    return HtmlTable(heads, rows, frozenset(), turned=True)


def _cell(difference: Difference | None) -> Markup | str:
    if difference is None:
        return ""
    value = difference.value
    said = f"above in {100 * difference.above:.0f}% of {value.n} pairs"
    decided = False
    if value.n > 1:
        low, high = value.difference - value.half_width, value.difference + value.half_width
        decided = low > 0 or high < 0
        ps = f"p = {value.p:.3g} (sign flips)"
        if not np.isnan(difference.corrected):
            ps += f", {difference.corrected:.3g} (t test, corrected)"
        said = f"95% interval {low:+.1f} to {high:+.1f}, {ps}, {said}"
    shade = min(abs(value.difference) / FULL_SHADE, 1) if decided else 0.0
    kind = "worse" if value.difference < 0 else "better"
    shown = round(value.difference, 1) + 0.0  # no -0.0
    text: str = f"{shown:+.1f}"
    if difference.corrected < LEVEL:
        text = Markup("<b>{}</b>").format(text)
    return CELL.format(kind, shade, said, text)


def explanation(whom: dict[str, Differences]) -> str:
    """What a cell of the matrix says, and the smallest p that so many pairs allow."""
    counts = sorted({one.value.n for found in whom.values() for one in found.values()})
    return (
        "Final average accuracy, row minus column, in points, over pairs of one order and seed. "
        "Shaded: the 95% t interval does not hold 0 (blue: the row is above). In bold: told at 5% "
        "by the answer's t test too, corrected for all pairs of methods; a pair that is shaded "
        "alone can count as level there. On hover: interval, p of both tests, and how often the "
        "row is above (probability of improvement). Wide tables scroll sideways."
        + _smallest(counts)
    )


def _smallest(counts: list[int]) -> str:
    """The smallest p of the fewest and of the most pairs."""
    ends = dict.fromkeys((*counts[:1], *counts[-1:]))
    said = [f"{min(1, 2 ** (1 - n)):.4g} with {n} pair{'s' if n > 1 else ''}" for n in ends]
    text = f" The smallest p of the sign-flip test: {', '.join(said)}"
    return f"{text}; a t test knows no such limit." if said else ""
