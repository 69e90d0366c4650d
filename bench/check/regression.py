"""Measured against expected (`python -m bench.check smoke`) or against published (`python -m bench.check paper`: claims.py).

Where there is a bench/expected/<suite>.csv the suite is run afresh (code may have changed since any earlier run of it) and
each row compared with it. A margin is the half width of the 99.5% prediction interval for the mean of the suite's runs,
from the spread over the seeds with which it was measured (`--measure`); a row outside it is a regression: exit code 1 and
a table.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from bench.config.suite import load_suite
from bench.launch.pool import run_local
from bench.report.frames import Results, load
from bench.store.collect import collect

COLUMNS = ["benchmark", "method", "metric", "expected", "margin", "std", "seeds"]
CONFIDENCE = 0.995
LEAST = {
    "faa": 1.0,
    "task_accuracy": 1.0,
    "last_loss": 0.01,
}  # rows that do not depend on the seed differ between processors


def measure(results: Results) -> pd.DataFrame:
    """Per cell: FAA, the accuracy with the task known, and the cross-entropy in the last epoch (mean over tasks).

    The loss varies far less between seeds than an accuracy on few images, so it is where a method whose prompts are not
    inserted any more stands out: it cannot fit better than the linear head.
    """
    if not len(results.cells):
        return pd.DataFrame(
            columns=["benchmark", "order_seed", "seed", "method", "metric", "value"]
        )
    last = (
        results.losses[results.losses["part"] == "ce"].groupby(["run_id", "task"])["value"].last()
    )
    loss = last.groupby("run_id").mean().rename("value")
    names = ["benchmark", "order_seed", "seed", "method"]
    cells = (
        results.cells.set_index(["run_id", *names, "scenario"])["faa"]
        .unstack("scenario")
        .reset_index()
    )
    table = cells.join(loss.rename("last_loss"), on="run_id").rename(
        columns={"class": "faa", "task": "task_accuracy"}
    )
    return table.melt(names, ["faa", "task_accuracy", "last_loss"], "metric").dropna()


def expect(measured: pd.DataFrame, repeats: int) -> pd.DataFrame:
    """Expected values and margins from many seeds, for the mean over `repeats` runs: the suite's own seeds."""
    rows = []
    for (benchmark, method, metric), part in measured.groupby(
        ["benchmark", "method", "metric"], sort=False
    ):
        values = part["value"].to_numpy()
        n, std = len(values), values.std(ddof=1)
        margin = max(
            LEAST.get(metric, 0.0),
            stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * std * np.sqrt(1 / repeats + 1 / n),
        )
        rows.append([benchmark, method, metric, values.mean(), margin, std, n])
    return pd.DataFrame(rows, columns=COLUMNS)


def verdicts(measured: pd.DataFrame, expected: pd.DataFrame) -> pd.DataFrame:
    """One row per expected value: ok, differs, or missing."""
    mean = measured.groupby(["benchmark", "method", "metric"])["value"].mean().rename("measured")
    table = expected.join(mean, on=["benchmark", "method", "metric"])
    difference = table["measured"] - table["expected"]
    table["verdict"] = np.where(
        table["measured"].isna(),
        "missing",
        np.where(difference.abs() <= table["margin"], "ok", "DIFFERS"),
    )
    return table[["benchmark", "method", "metric", "expected", "margin", "measured", "verdict"]]


def run_suite(name: str, folder: Path, seeds: list[int], jobs: int) -> Results:
    """All cells of the suite, with other seeds where given. Raises UsageError if a cell cannot be run."""
    suite = load_suite(name)
    cells = list(suite.cells)
    if seeds:
        first = cells[0].seed
        cells = [replace(cell, seed=seed) for cell in cells if cell.seed == first for seed in seeds]
    run_local(cells, folder, jobs, "cpu")
    collect(folder, cells)
    return load(folder / suite.name)
