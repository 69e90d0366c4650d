"""From the CSV files to data frames: accuracy matrices and metrics of every finished cell. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench import metrics
from bench.errors import UsageError
from bench.report import checks
from bench.report.beside import joined
from bench.store.tables import (
    KEYS,
    METRICS,
    PROTOCOL,
    RUNS,
    TABLES,
    read_csv,
    read_metrics,
    read_runs,
)

CELL = ["run_id", "benchmark", "method", "order_seed", "seed"]


@dataclass(frozen=True)
class Results:
    """What the CSV files hold, as frames with benchmark and method in every one; those not recorded are empty.

    runs: a row per cell (text). cells: a row per finished cell and scenario, every metric in percent; matrices: its accuracy
    matrix. curve: average accuracy after each task, in percent. losses: mean of each part of the loss in each epoch.
    movement, similarity: what training did to prompts and features (bench/movement.py). protocol: what each row was run with.
    notes: what of the other suites that were asked for is not among them, and why, a line each.
    """

    suite: str
    runs: pd.DataFrame
    timing: pd.DataFrame
    cells: pd.DataFrame
    curve: pd.DataFrame
    losses: pd.DataFrame
    movement: pd.DataFrame
    similarity: pd.DataFrame
    protocol: pd.DataFrame
    matrices: dict[tuple[str, str], np.ndarray]
    notes: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.runs["method"]))

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(self.runs["benchmark"]))

    def missing(self) -> pd.DataFrame:
        """Cells without a result, with status and reason."""
        return self.runs.loc[self.runs["status"] != "done", [*CELL[1:], "status", "reason"]]


def load(folder: Path, beside: Sequence[Path] = (), if_comparable: Sequence[Path] = ()) -> Results:
    """Read results/<suite>, with rows of other suites (beside.py) where they were run on the same.

    Raises UsageError if the tables are absent, malformed or contradict each other, or rows of a suite in `beside` cannot be
    compared; those of a suite in `if_comparable` are then left out, with a note.
    """
    tables, notes = _read(folder), []
    for other in (*beside, *if_comparable):
        try:
            tables, unshown = joined(folder, tables, other, _read(other))
            notes += unshown
        except UsageError as error:
            if other in beside:
                raise
            notes.append(str(error))
    runs, frame = tables.pop("runs"), tables.pop("metrics")
    cells, curves, matrices = [], [], {}
    for (run_id, scenario), part in frame.groupby(["run_id", "scenario"], sort=False):
        matrix = metrics.check(_square(part, part["correct"] / part["n"], np.nan))
        matrices[run_id, scenario] = matrix
        first = part.iloc[0]
        name = {key: first[key] for key in CELL} | {"scenario": scenario, "tasks": len(matrix)}
        pooled = 100 * metrics.pooled_accuracy_curve(
            _square(part, part["n"], 0), _square(part, part["correct"], 0)
        )
        images = int(part.loc[part["after_task"] == len(matrix), "n"].sum())
        more = {"pooled_last": pooled[-1], "pooled_mean": pooled.mean(), "test_images": images}
        cells.append(
            name | {key: 100 * compute(matrix) for key, compute in metrics.METRICS.items()} | more
        )
        for task, value in enumerate(metrics.average_accuracy_curve(matrix), start=1):
            curves.append(name | {"after_task": task, "accuracy": 100 * value})
    numbers = {"cells": pd.DataFrame(cells), "curve": pd.DataFrame(curves), "matrices": matrices}
    return Results(folder.name, runs, **tables, **numbers, notes=tuple(notes))


def _read(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of one suite by name, checked."""
    runs = pd.DataFrame(read_runs(folder / "runs.csv"), columns=list(RUNS))
    if not len(runs):
        raise UsageError(f"{folder}/runs.csv: no cells")
    frame = pd.DataFrame(read_metrics(folder / "metrics.csv"), columns=list(METRICS))
    protocol = _protocol(folder)
    checks.refuse_foreign(folder, runs, frame)
    checks.refuse_mixed(str(folder), runs[runs["status"] == "done"], protocol)
    beside = {
        name: _beside(folder, name, runs) for name in ("timing", "losses", "movement", "similarity")
    }
    runs["suite"] = (
        folder.name
    )  # rows of several suites are told apart by the folder they come from
    return {"runs": runs, "metrics": frame, "protocol": protocol, **beside}


def _protocol(folder: Path) -> pd.DataFrame:
    """protocol.csv as text; empty where there is none."""
    file = folder / "protocol.csv"
    return pd.DataFrame(read_csv(file, PROTOCOL) if file.is_file() else [], columns=list(PROTOCOL))


def _beside(folder: Path, name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """A table of numbers, with benchmark and method of each row; empty where there is no such file."""
    columns = TABLES[name]
    file = folder / f"{name}.csv"
    frame = pd.DataFrame(read_csv(file, columns) if file.is_file() else [], columns=list(columns))
    numbers = [column for column in columns if column not in ("run_id", "part")]
    try:
        frame[numbers] = frame[numbers].apply(pd.to_numeric)
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from error
    twice = frame[frame.duplicated(KEYS[name])]
    if len(twice):
        raise UsageError(f"{file}: two rows of {', '.join(map(str, twice.iloc[0][KEYS[name]]))}")
    return frame.merge(runs[["run_id", "benchmark", "method"]], on="run_id")


def _square(part: pd.DataFrame, values: pd.Series, elsewhere: float) -> np.ndarray:
    """(tasks, tasks): the values of a run's rows by after_task and eval_task."""
    tasks = int(part["after_task"].max())
    square = np.full((tasks, tasks), float(elsewhere))
    square[part["after_task"] - 1, part["eval_task"] - 1] = values
    return square
