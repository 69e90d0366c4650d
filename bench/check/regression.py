"""Measured against expected values: `python -m bench.check smoke`.

A suite with a bench/check/expected/SUITE.csv is run afresh, since the code may have changed since
any earlier run of it, and each row is compared with it. A margin is the half width of the 99.5%
prediction interval for the mean of the suite's runs, from the spread over the seeds with which it
was measured (`--measure`). A row outside its margin is a regression: exit code 1 and a table.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from bench.config.suite import load_suite
from bench.launch.display import make_display
from bench.launch.pool import Pool, run_local
from bench.report.frames import Results, load
from bench.store.collect import collect

VALUE_KEYS = ["benchmark", "method", "metric"]
COLUMNS = [*VALUE_KEYS, "expected", "margin", "std", "seeds"]
CONFIDENCE = 0.995
# Rows that do not depend on the seed have no spread, and still differ between processors.
MIN_MARGIN = {"faa": 1.0, "task_accuracy": 1.0, "last_loss": 0.01}


def measure(results: Results) -> pd.DataFrame:
    """Per cell: FAA, accuracy with the task known, last epoch's cross-entropy (mean over tasks).

    The loss varies far less between seeds than an accuracy on few images. So it shows best a method
    whose prompts are not inserted any more: it cannot fit better than the linear head.
    """
    names = ["benchmark", "order_seed", "seed", "method"]
    if not len(results.cells):
        return pd.DataFrame(columns=[*names, "metric", "value"])
    entropy = results.losses[results.losses["part"] == "ce"]
    last = entropy.groupby(["run_id", "task"])["value"].last()
    loss = last.groupby("run_id").mean().rename("last_loss")
    cells = results.cells.set_index(["run_id", *names, "scenario"])["faa"].unstack("scenario")
    table = cells.reset_index().join(loss, on="run_id")
    table = table.rename(columns={"class": "faa", "task": "task_accuracy"})
    return table.melt(names, ["faa", "task_accuracy", "last_loss"], "metric").dropna()


def expect(measured: pd.DataFrame, repeats: int) -> pd.DataFrame:
    """Expected values and margins from many seeds, for the mean over `repeats` runs."""
    rows = []
    for (benchmark, method, metric), group in measured.groupby(VALUE_KEYS, sort=False):
        values = group["value"].to_numpy()
        n, std = len(values), values.std(ddof=1)
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
        margin = quantile * std * np.sqrt(1 / repeats + 1 / n)
        margin = max(MIN_MARGIN.get(metric, 0.0), margin)
        rows.append([benchmark, method, metric, values.mean(), margin, std, n])
    return pd.DataFrame(rows, columns=COLUMNS)


def verdicts(measured: pd.DataFrame, expected: pd.DataFrame) -> pd.DataFrame:
    """One row per expected value: ok, differs, or missing."""
    mean = measured.groupby(VALUE_KEYS)["value"].mean().rename("measured")
    table = expected.join(mean, on=VALUE_KEYS)
    inside = (table["measured"] - table["expected"]).abs() <= table["margin"]
    table["verdict"] = np.select([table["measured"].isna(), inside], ["missing", "ok"], "DIFFERS")
    return table[[*VALUE_KEYS, "expected", "margin", "measured", "verdict"]]


def run_suite(name: str, folder: Path, seeds: list[int], jobs: int) -> Results:
    """Run all cells of the suite, with these seeds if any are given.

    Raises UsageError if a cell cannot be run.
    """
    suite = load_suite(name)
    cells = list(suite.cells)
    if seeds:
        first = cells[0].seed
        cells = [replace(cell, seed=seed) for cell in cells if cell.seed == first for seed in seeds]
    run_local(Pool(folder, cells, make_display("auto")), jobs, "cpu")
    collect(folder, cells)
    return load(folder / suite.name)
