"""Did a suite reproduce? A user's run against the published one: `python -m bench.check mini`.

Cells with the same run_id are compared: same recipe, class order and seed. expected/SUITE.csv holds
the spread of each row (bench/report/compare.py), from which its margin comes for as many cells as
were run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bench import cli
from bench.errors import UsageError
from bench.paths import reference_folders
from bench.report.checks import ROW_KEYS
from bench.report.compare import SPREAD_COLUMNS, Comparison, accuracies, margin, spread
from bench.report.frames import Results, load

COLUMNS = [*ROW_KEYS, "metric", "expected", "margin", "cells", *SPREAD_COLUMNS]


def published(results: Path, suite: str) -> Results:
    """The published results of a suite. Raises UsageError where there are none."""
    folders = reference_folders(results, suite)
    if not folders:
        raise UsageError(f"no published results of suite '{suite}'")
    return load(folders[0])


def expected_of(reference: Results, further: Iterable[Results] = ()) -> pd.DataFrame:
    """expected/SUITE.csv: each row's mean FAA, its spread, and its margin for a whole suite.

    further: results of the suite on other processors or with other seeds, for the spread alone.
    Raises UsageError where nothing was run twice.
    """
    own = accuracies([reference])
    means = own.groupby(ROW_KEYS, sort=False)["faa"].agg(["mean", "size"]).reset_index()
    means.columns = [*ROW_KEYS, "expected", "cells"]
    table = means.merge(spread(accuracies([reference, *further])), on=ROW_KEYS)
    if not table["freedom"].all():
        raise UsageError(f"{reference.suite}: one run of each row, so no spread can be measured")
    table["margin"] = margin(table["std"], table["freedom"], table["cells"])
    return table.assign(metric="faa")[COLUMNS]


def verdict(ours: Results, reference: Results, expected: pd.DataFrame, results: Path) -> int:
    """Print whether a run reproduced the published one; returns the exit code.

    0: every row that was run is within its margin. 1: one is not. 3: nothing could be compared.
    """
    comparison = Comparison(ours, reference, expected)
    rows = comparison.rows
    if not len(rows):
        print(f"{ours.suite}: no finished cell of the published recipe, so nothing is decided")
        return cli.UNFINISHED
    print(comparison.sentence(len(expected)))
    good, equal = int(rows["ok"].sum()), int(comparison.cells["equal"].sum())
    if good < len(rows):
        print(f"\n{comparison.outside()}\n")
    if equal < len(comparison.cells):
        causes = comparison.causes(results) or ["nothing that is recorded"]
        print(f"most likely cause of the differences: {'; '.join(causes)}")
    return cli.FINE if good == len(rows) else cli.CHECK_FAILED
