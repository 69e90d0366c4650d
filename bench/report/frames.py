"""From the CSV files to data frames: accuracy matrices and metrics of every finished cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import metrics
from bench.errors import UsageError
from bench.report import checks
from bench.report.beside import in_order, joined, kinds_of
from bench.report.codes import of_other_code
from bench.store.codes import Codes
from bench.store.facts import read_facts
from bench.store.tables import (
    ENVIRONMENTS,
    KEYS,
    LATER_COLUMNS,
    METRICS,
    NOT_RECORDED,
    PROTOCOL,
    RUNS,
    TABLES,
    read_columns,
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
    prompts and features (bench/engine/movement.py). selection: which prompts the test images got.
    protocol: what each row was run with. environments: what each env_sha of runs stands for. A
    table that was not recorded is empty.
    reference, figure_rows: as in bench/store/facts.py.
    notes: a line for each other suite or row that was asked for and is not shown, with the reason.
    folders: where the tables of each suite lie. asked: the other suites whose rows were asked for
    by name.
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
    selection: pd.DataFrame
    protocol: pd.DataFrame
    environments: pd.DataFrame
    matrices: dict[tuple[str, str], np.ndarray]
    notes: tuple[str, ...] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)
    asked: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.runs["method"]))

    @property
    def title(self) -> str:
        """Of the pages: the suite, and the others whose rows were asked for."""
        return f"Results: {' + '.join((self.suite, *self.asked))}"

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(self.runs["benchmark"]))

    @cached_property
    def by_row(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """(benchmark, method, scenario) -> its rows of cells, by order and seed."""
        if not len(self.cells):
            return {}
        cells = self.cells.sort_values(["order_seed", "seed"], kind="stable")
        return dict(list(cells.groupby(["benchmark", "method", "scenario"], sort=False)))

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Each row's kind: method, reference or joint."""
        return kinds_of(self.methods, self.protocol)

    @cached_property
    def of_other_code(self) -> dict[tuple[str, str], str]:
        """What is to be said of a row (benchmark, method) made by another code than the others."""
        return of_other_code(self.runs, self.protocol, Codes.of(self.folders[self.suite].parent))

    def types(self) -> dict[str, str]:
        """The method's file of each row: l2p_plus for l2p++."""
        rows = self.protocol[self.protocol["key"] == "type"]
        return dict(zip(rows["method"], rows["value"], strict=True))

    def missing(self) -> pd.DataFrame:
        """Cells without a result, with suite, status, reason, and run_id where that is listed.

        Those of rows from other suites too which their runs.csv does not list, though another cell
        of the same benchmark, order and seed is finished: `bench.run` lists what it ran alone.
        """
        columns = [*CELL_COLUMNS[1:], "suite", "status", "reason", "run_id"]
        listed = self.runs.loc[self.runs["status"] != "done", columns]
        places = CELL_COLUMNS[1:2] + CELL_COLUMNS[3:]
        own = (self.runs["suite"] == self.suite) & (self.runs["status"] == "done")
        rows = self.runs.loc[self.runs["suite"] != self.suite, ["method", "suite"]]
        grid = self.runs.loc[own, places].drop_duplicates().merge(rows.drop_duplicates(), "cross")
        known = self.runs.set_index(CELL_COLUMNS[1:]).index
        lost = grid[~grid.set_index(CELL_COLUMNS[1:]).index.isin(known)]
        if not len(lost):
            return listed
        lost = lost.assign(status="missing", reason="not in the runs.csv of its suite", run_id="")
        return pd.concat([listed, lost[columns]], ignore_index=True)


def load(
    folder: Path,
    beside: Sequence[Path] = (),
    if_comparable: Sequence[Path] = (),
    whole: bool = True,
) -> Results:
    """Read a suite's results, and rows of other suites that were run on the same (beside.py).

    Raises UsageError if the tables are absent, malformed or contradict each other, or if rows of a
    suite in `beside` cannot be compared. A suite in `if_comparable` is then left out, with a note.
    whole: False for what a Comparison needs alone: without curves, metrics other than FAA, and what
    else was measured.
    """
    tables, notes, asked = _read(folder, whole), [], []
    facts = read_facts(folder)
    first = tables["runs"]["method"].iloc[0]
    reference = first if facts.reference is None else facts.reference
    for other in (*beside, *if_comparable):
        try:
            before = set(tables["runs"]["method"])
            tables, unshown = joined(folder, tables, other, _read(other, whole))
            notes += unshown
            if other in beside:  # whoever names a suite wants to see its rows
                asked += [m for m in tables["runs"]["method"].unique() if m not in before]
        except UsageError as error:
            if other in beside:
                raise
            notes.append(str(error))
    tables = in_order(tables)
    runs, frame = tables.pop("runs"), tables.pop("metrics")
    return Results(
        folder.name,
        reference,
        (*facts.figure_rows, *asked) if facts.figure_rows else (),
        runs,
        **tables,
        **_numbers(frame, whole),
        notes=tuple(notes),
        folders={one.name: one for one in (*beside, *if_comparable, folder)},
        asked=tuple(one.name for one in beside),
    )


def _numbers(frame: pd.DataFrame, whole: bool) -> dict[str, Any]:
    """cells, curve and matrices of Results, from the rows of metrics.csv."""
    wanted = metrics.METRICS if whole else {"faa": metrics.final_average_accuracy}
    cells, curves, matrices = [], [], {}
    columns = {name: frame[name].to_numpy() for name in frame}
    groups = frame.groupby(["run_id", "scenario"], sort=False).indices
    for key in dict.fromkeys(zip(frame["run_id"], frame["scenario"], strict=True)):
        rows = groups[key]
        after, task, n, correct = (
            columns[name][rows].astype(int) for name in ("after_task", "eval_task", "n", "correct")
        )
        matrix = metrics.check(_square(after, task, correct / n, np.nan))
        matrices[key] = matrix
        name = {column: columns[column][rows[0]] for column in CELL_COLUMNS}
        name |= {"scenario": key[1], "tasks": len(matrix)}
        values = {metric: 100 * compute(matrix) for metric, compute in wanted.items()}
        if not whole:
            cells.append(name | values)
            continue
        cells.append(name | values | _pooled(after, task, n, correct))
        for step, value in enumerate(metrics.average_accuracy_curve(matrix), start=1):
            curves.append(name | {"after_task": step, "accuracy": 100 * value})
    return {"cells": _frame(cells), "curve": _frame(curves), "matrices": matrices}


def _pooled(
    after: np.ndarray, task: np.ndarray, n: np.ndarray, correct: np.ndarray
) -> dict[str, float | int]:
    """Accuracies over all test images seen, in percent, and the number of images at the end."""
    curve = 100 * metrics.pooled_accuracy_curve(
        _square(after, task, n, 0), _square(after, task, correct, 0)
    )
    images = int(n[after == after.max()].sum())
    return {"pooled_last": curve[-1], "pooled_mean": curve.mean(), "test_images": images}


def _read(folder: Path, whole: bool) -> dict[str, pd.DataFrame]:
    """The tables of one suite by name, checked; those of `_measured` are empty unless `whole`."""
    runs = _frame(read_runs(folder / "runs.csv"), RUNS)
    if not len(runs):
        raise UsageError(f"{folder}/runs.csv: no cells")
    metric_rows = read_metrics(folder / "metrics.csv")
    protocol = _optional(folder, "protocol", PROTOCOL)
    checks.refuse_foreign(folder, runs, metric_rows)
    checks.refuse_mixed(str(folder), runs[runs["status"] == "done"], protocol)
    names = ("timing", "losses", "movement", "similarity", "selection")
    frame = _frame(metric_rows, METRICS)
    measured = {name: _measured(folder, name, runs, whole) for name in names}
    runs["suite"] = folder.name  # tells rows of several suites apart, also of renamed folders
    environments = _optional(folder, "environments", ENVIRONMENTS)
    tables = {"runs": runs, "metrics": frame, "protocol": protocol, "environments": environments}
    return tables | measured


def _optional(folder: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table as text; empty if there is none."""
    file = folder / f"{name}.csv"
    return _frame(read_columns(file, columns) if file.is_file() else {}, columns)


def _frame(
    rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Its texts are Python's own: they are read one by one, which takes long with pandas' own."""
    frame = pd.DataFrame(rows, columns=None if columns is None else list(columns))
    if not len(frame):
        return frame.astype(object)
    texts = [name for name in frame if pd.api.types.is_string_dtype(frame[name])]
    return frame.astype(dict.fromkeys(texts, object))


def _measured(folder: Path, name: str, runs: pd.DataFrame, wanted: bool) -> pd.DataFrame:
    """A table of numbers, with benchmark and method of each row; empty without such a file."""
    columns = TABLES[name]
    file = folder / f"{name}.csv"
    later = LATER_COLUMNS.get(name, ())
    read = read_columns(file, columns, later) if wanted and file.is_file() else {}
    frame = _frame(read, columns)
    frame[list(later)] = frame[list(later)].replace(NOT_RECORDED, "")
    numbers = [column for column in columns if column not in ("run_id", "part")]
    try:
        frame[numbers] = frame[numbers].apply(pd.to_numeric)
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from error
    twice = frame[frame.duplicated(KEYS[name])]
    if len(twice):
        raise UsageError(f"{file}: two rows of {', '.join(map(str, twice.iloc[0][KEYS[name]]))}")
    return frame.merge(runs[["run_id", "benchmark", "method"]], on="run_id")


def _square(after: np.ndarray, task: np.ndarray, values: np.ndarray, empty: float) -> np.ndarray:
    """(tasks, tasks): a run's values by after_task and eval_task, else `empty`."""
    square = np.full((after.max(), after.max()), float(empty))
    square[after - 1, task - 1] = values
    return square
