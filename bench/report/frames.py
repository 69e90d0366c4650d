"""From the CSV files to data frames: accuracy matrices and metrics of every finished cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import metrics
from bench.errors import UsageError
from bench.report import checks
from bench.report.beside import joined
from bench.report.codes import of_other_code
from bench.store.codes import Codes
from bench.store.facts import read_facts
from bench.store.tables import (
    ENVIRONMENTS,
    KEYS,
    METRICS,
    PROTOCOL,
    RUNS,
    TABLES,
    read_csv,
    read_metrics,
    read_runs,
)

CELL_COLUMNS = ["run_id", "benchmark", "method", "order_seed", "seed"]


@dataclass(frozen=True)
class Results:
    """What the CSV files hold, as frames that all have the columns benchmark and method.

    runs: a row per cell (text). cells: a row per finished cell and scenario, every metric in
    percent; matrices: its accuracy matrix. curve: average accuracy after each task, in percent.
    losses: mean of each term of the loss in each epoch. movement, similarity: what training did to
    prompts and features (bench/engine/movement.py). protocol: what each row was run with.
    environments: what each env_sha of runs stands for. A table that was not recorded is empty.
    reference, figure_rows: as in bench/store/facts.py.
    notes: a line for each other suite or row that was asked for and is not shown, with the reason.
    of_other_code: what is to be said of a row (benchmark, method) whose code is another one than
    that of the benchmark's other rows.
    """

    suite: str
    reference: str
    figure_rows: tuple[str, ...]
    runs: pd.DataFrame
    timing: pd.DataFrame
    cells: pd.DataFrame
    curve: pd.DataFrame
    losses: pd.DataFrame
    movement: pd.DataFrame
    similarity: pd.DataFrame
    protocol: pd.DataFrame
    environments: pd.DataFrame
    matrices: dict[tuple[str, str], np.ndarray]
    notes: tuple[str, ...] = ()
    of_other_code: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.runs["method"]))

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(self.runs["benchmark"]))

    def types(self) -> dict[str, str]:
        """The method's file of each row: l2p_plus for l2p++."""
        rows = self.protocol[self.protocol["key"] == "type"]
        return dict(zip(rows["method"], rows["value"], strict=True))

    def missing(self) -> pd.DataFrame:
        """Cells without a result, with status and reason."""
        columns = [*CELL_COLUMNS[1:], "status", "reason"]
        return self.runs.loc[self.runs["status"] != "done", columns]


def load(folder: Path, beside: Sequence[Path] = (), if_comparable: Sequence[Path] = ()) -> Results:
    """Read a suite's results, and rows of other suites that were run on the same (beside.py).

    Raises UsageError if the tables are absent, malformed or contradict each other, or if rows of a
    suite in `beside` cannot be compared. A suite in `if_comparable` is then left out, with a note.
    """
    tables, notes = _read(folder), []
    facts = read_facts(folder)
    first = tables["runs"]["method"].iloc[0]
    reference = first if facts.reference is None else facts.reference
    for other in (*beside, *if_comparable):
        try:
            tables, unshown = joined(folder, tables, other, _read(other))
            notes += unshown
        except UsageError as error:
            if other in beside:
                raise
            notes.append(str(error))
    runs, frame = tables.pop("runs"), tables.pop("metrics")
    return Results(
        folder.name,
        reference,
        facts.figure_rows,
        runs,
        **tables,
        **_numbers(frame),
        notes=tuple(notes),
        of_other_code=of_other_code(runs, tables["protocol"], Codes.of(folder.parent)),
    )


def _numbers(frame: pd.DataFrame) -> dict[str, Any]:
    """cells, curve and matrices of Results, from the rows of metrics.csv."""
    cells, curves, matrices = [], [], {}
    for (run_id, scenario), group in frame.groupby(["run_id", "scenario"], sort=False):
        matrix = metrics.check(_square(group, group["correct"] / group["n"], np.nan))
        matrices[run_id, scenario] = matrix
        first = group.iloc[0]
        name = {key: first[key] for key in CELL_COLUMNS}
        name |= {"scenario": scenario, "tasks": len(matrix)}
        values = {key: 100 * compute(matrix) for key, compute in metrics.METRICS.items()}
        cells.append(name | values | _pooled(group, len(matrix)))
        for task, value in enumerate(metrics.average_accuracy_curve(matrix), start=1):
            curves.append(name | {"after_task": task, "accuracy": 100 * value})
    return {"cells": pd.DataFrame(cells), "curve": pd.DataFrame(curves), "matrices": matrices}


def _pooled(group: pd.DataFrame, tasks: int) -> dict[str, float | int]:
    """Accuracies over all test images seen, in percent, and the number of images at the end."""
    curve = 100 * metrics.pooled_accuracy_curve(
        _square(group, group["n"], 0), _square(group, group["correct"], 0)
    )
    images = int(group.loc[group["after_task"] == tasks, "n"].sum())
    return {"pooled_last": curve[-1], "pooled_mean": curve.mean(), "test_images": images}


def _read(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of one suite by name, checked."""
    runs = pd.DataFrame(read_runs(folder / "runs.csv"), columns=list(RUNS))
    if not len(runs):
        raise UsageError(f"{folder}/runs.csv: no cells")
    frame = pd.DataFrame(read_metrics(folder / "metrics.csv"), columns=list(METRICS))
    protocol = _optional(folder, "protocol", PROTOCOL)
    checks.refuse_foreign(folder, runs, frame)
    checks.refuse_mixed(str(folder), runs[runs["status"] == "done"], protocol)
    names = ("timing", "losses", "movement", "similarity")
    measured = {name: _measured(folder, name, runs) for name in names}
    runs["suite"] = folder.name  # tells rows of several suites apart, also of renamed folders
    environments = _optional(folder, "environments", ENVIRONMENTS)
    tables = {"runs": runs, "metrics": frame, "protocol": protocol, "environments": environments}
    return tables | measured


def _optional(folder: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table as text; empty if there is none."""
    file = folder / f"{name}.csv"
    return pd.DataFrame(read_csv(file, columns) if file.is_file() else [], columns=list(columns))


def _measured(folder: Path, name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """A table of numbers, with benchmark and method of each row; empty without such a file."""
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


def _square(group: pd.DataFrame, values: pd.Series, empty: float) -> np.ndarray:
    """(tasks, tasks): the values of a run's rows by after_task and eval_task, else `empty`."""
    tasks = int(group["after_task"].max())
    square = np.full((tasks, tasks), float(empty))
    square[group["after_task"] - 1, group["eval_task"] - 1] = values
    return square
