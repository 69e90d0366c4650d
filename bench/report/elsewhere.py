"""Other results that say more of the same rows: a suite with more class orders."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.errors import UsageError
from bench.paths import find_results, results_names
from bench.report.frames import Results
from bench.store.tables import read_runs

SAME = ["benchmark", "data_sha", "weights_sha"]


def more_orders(results: Results) -> str:
    """A sentence on the results with the most class orders of these images, weights and methods.

    "" where none has more orders than these have themselves.
    """
    folder = results.folders.get(results.suite)
    done = results.runs[results.runs["status"] == "done"]
    shas = set(done["data_sha"])
    if folder is None or not len(done) or not all(shas):
        return ""
    best, found = done["order_seed"].nunique(), ""
    for name in results_names(folder.parent):
        if name not in results.folders:
            orders = _orders(find_results(folder.parent, name) / "runs.csv", done, shas)
            if orders > best:
                best, found = orders, name
    return f"Suite {found} has {best} class orders of these benchmarks." if found else ""


def _orders(file: Path, ours: pd.DataFrame, shas: set[str]) -> int:
    """How many orders another runs.csv has of every benchmark; 0 where it is of something else."""
    try:
        if not all(sha in file.read_text("utf-8") for sha in shas):
            return 0  # most are: they need not be read as tables
        rows = read_runs(file)
    except (OSError, ValueError, UsageError):
        return 0  # its own report says what is wrong with it
    table = pd.DataFrame(rows)
    table = table[(table["status"] == "done") & table["method"].isin(ours["method"])]
    both = table.merge(ours[SAME].drop_duplicates(), on=SAME)
    counts = both.groupby("benchmark")["order_seed"].nunique()
    whole = set(counts.index) == set(ours["benchmark"]) and both["method"].nunique() > 1
    return int(counts.min()) if whole else 0
