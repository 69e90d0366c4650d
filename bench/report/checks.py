"""What a report refuses: tables that contradict themselves, their runs, or each other."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.errors import UsageError
from bench.store.rundir import RunDir
from bench.store.tables import LATER_SCENARIOS, METRICS, SCENARIOS, Rows, to_csv

ROW_KEYS = ["benchmark", "method"]
IDENTITY_COLUMNS = ["suite", *ROW_KEYS, "order_seed", "seed"]
SHARED_PREFIXES = ("data.", "backbone.")  # of settings that rows of one benchmark have in common
# Besides data and seeds, the batches served depend on these settings.
STREAM_KEYS = ["train.epochs", "train.batch_size", "train.joint"]
# Cells that are equal in the second item's columns need one value in the first item's column.
EQUAL_COLUMNS = {
    ("data_sha", "images"): ["benchmark"],
    ("weights_sha", "weights"): ["benchmark"],
    ("precision", "precision"): ["benchmark", "wanted"],
    ("tasks", "number of tasks"): ["benchmark"],
    ("stream_sha", "class order, batches or views"): [
        "benchmark",
        "order_seed",
        "seed",
        *STREAM_KEYS,
    ],
}


def refuse_foreign(folder: Path, runs: pd.DataFrame, metrics: Rows) -> None:
    """Raises UsageError if runs.csv and metrics.csv disagree on the cells, or one is incomplete.

    A run_id says method, benchmark, order, seed and the spec's digest. A finished cell has, in each
    of its scenarios, every pair of tasks, or the last row only (joint training). A task has as many
    images whenever and with whichever method it is tested. If the runs are there too
    (results/SUITE/runs), the rows must be those with which each run ended.
    """
    _refuse_names(f"{folder}/runs.csv", runs)
    where = f"{folder}/metrics.csv"
    done = {run["run_id"]: run for run in runs[runs["status"] == "done"].to_dict("records")}
    of_run: dict[str, Rows] = {}
    for line in metrics:  # of plain values: a frame per run would be slow
        of_run.setdefault(line["run_id"], []).append(line)
    for run_id, rows in of_run.items():
        if run_id not in done:
            raise UsageError(f"{where}: rows of '{run_id}', which runs.csv does not list as done")
        _refuse_identity(where, rows, done[run_id])
        _refuse_incomplete(where, run_id, rows, int(done[run_id]["tasks"]))
        _refuse_altered(where, run_id, rows, folder)
    silent = [run_id for run_id in done if run_id not in of_run]
    if silent:
        raise UsageError(
            f"{folder}/runs.csv: '{silent[0]}' is done but metrics.csv has no rows of it"
        )
    _refuse_image_counts(where, metrics)


def _refuse_names(where: str, runs: pd.DataFrame) -> None:
    """Raises UsageError for a cell with two rows, or a run_id that its row contradicts."""
    twice = runs[runs.duplicated(IDENTITY_COLUMNS[1:], keep=False)]
    if len(twice):
        raise UsageError(f"{where}: two runs of one cell: {', '.join(twice['run_id'][:2])}")
    for run in runs.itertuples():
        said = f"{run.method}--{run.benchmark}--o{run.order_seed}--s{run.seed}--{run.spec_sha[:12]}"
        if run.run_id != said:
            raise UsageError(f"{where}: '{run.run_id}' is not what its row says ('{said}')")


def _refuse_identity(where: str, rows: Rows, run: dict[str, str]) -> None:
    for name in IDENTITY_COLUMNS:
        if any(str(row[name]) != run[name] for row in rows):
            raise UsageError(
                f"{where}: {name} of rows of '{run['run_id']}' is not the one in runs.csv "
                f"('{run[name]}')"
            )


def _refuse_incomplete(where: str, run_id: str, rows: Rows, tasks: int) -> None:
    last = {(tasks, i) for i in range(1, tasks + 1)}
    every = {(t, i) for t in range(1, tasks + 1) for i in range(1, t + 1)}
    scenarios = [*SCENARIOS]
    if any(row["scenario"] in LATER_SCENARIOS for row in rows):  # both of them, or none
        scenarios += LATER_SCENARIOS
    for scenario in scenarios:
        chosen = (row for row in rows if row["scenario"] == scenario)
        if {(row["after_task"], row["eval_task"]) for row in chosen} not in (every, last):
            raise UsageError(
                f"{where}: rows of '{run_id}' are not whole (scenario {scenario}, {tasks} tasks)"
            )


def _refuse_altered(where: str, run_id: str, rows: Rows, folder: Path) -> None:
    run = RunDir(folder / "runs" / run_id)
    # One that is run again, and not done yet, has its older rows in the tables.
    if run.done() and not run.ended_with("metrics.csv", to_csv(METRICS, rows)):
        raise UsageError(
            f"{where}: rows of '{run_id}' are not those of {run.path}; "
            "run the suite again to collect them"
        )


def _refuse_image_counts(where: str, metrics: Rows) -> None:
    first: dict[tuple, dict] = {}
    for row in metrics:
        key = (row["benchmark"], row["order_seed"], row["eval_task"])
        other = first.setdefault(key, row)
        if other["n"] != row["n"]:
            benchmark, order, task = key
            raise UsageError(
                f"{where}: task {task} of {benchmark}, order {order}, has different numbers of "
                f"images: {other['n']} ('{other['run_id']}') and {row['n']} ('{row['run_id']}')"
            )


def _two_values(group: pd.DataFrame, column: str, name: str) -> str:
    """Two different values of a column, each with the name of a row that has it."""
    two = group.drop_duplicates(column)[:2]
    pairs = zip(two[column], two[name], strict=True)
    return " and ".join(f"{value} ('{owner}')" for value, owner in pairs)


def training(protocol: pd.DataFrame) -> pd.DataFrame:
    """STREAM_KEYS as columns, by benchmark and method."""
    keys = protocol[protocol["key"].isin(STREAM_KEYS)]
    table = keys.pivot(index=ROW_KEYS, columns="key", values="value")
    return table.reindex(columns=STREAM_KEYS)


def refuse_mixed(where: str, done: pd.DataFrame, protocol: pd.DataFrame) -> None:
    """Raises UsageError if cells of one table were not run on the same images, weights and views.

    Rows of one benchmark must share data and backbone. Cells of one order, seed and training length
    must share the digest of every batch.
    """
    _refuse_gaps(where, done, protocol)
    shared = protocol[protocol["key"].str.startswith(SHARED_PREFIXES)]
    values = shared.groupby(["benchmark", "key"], sort=False)["value"].nunique()
    for benchmark, key in values.index[values > 1]:
        group = shared[(shared["benchmark"] == benchmark) & (shared["key"] == key)]
        both = _two_values(group, "value", "method")
        raise UsageError(f"{where}: {key} differs between rows of {benchmark}: {both}")
    precision = protocol[protocol["key"] == "train.precision"].set_index(ROW_KEYS)["value"]
    done = done.join(training(protocol), on=ROW_KEYS)
    done = done.join(precision.rename("wanted"), on=ROW_KEYS).fillna({"wanted": ""})
    for (column, noun), keys in EQUAL_COLUMNS.items():
        counts = done.groupby(keys, sort=False)[column].transform("nunique")
        if (counts > 1).any():
            _, group = next(iter(done[counts > 1].groupby(keys, sort=False)))
            first, second = group.drop_duplicates(column)["run_id"][:2]
            raise UsageError(
                f"{where}: {column} of '{first}' and '{second}' differ: rows of one table need "
                f"the same {noun} (make them equal by --set, and run under another --name)"
            )


def _refuse_gaps(where: str, done: pd.DataFrame, protocol: pd.DataFrame) -> None:
    """Raises UsageError for a compared setting of a finished row that has two values or none."""
    if not len(protocol):
        return  # the report says that nothing could be checked
    twice = protocol[protocol.duplicated([*ROW_KEYS, "key"])]
    if len(twice):
        row = twice.iloc[0]
        raise UsageError(
            f"{where}: two values of {row['key']} for {row['method']} on {row['benchmark']} "
            "in protocol.csv"
        )
    shared = protocol[protocol["key"].str.startswith(SHARED_PREFIXES)]
    of_benchmark = shared.groupby("benchmark")["key"].agg(set).to_dict()
    known = protocol.groupby(ROW_KEYS)["key"].agg(set).to_dict()
    for benchmark, method in done[ROW_KEYS].drop_duplicates().itertuples(index=False):
        needed = {*STREAM_KEYS, *of_benchmark.get(benchmark, ())}
        lacking = sorted(needed - known.get((benchmark, method), set()))
        if lacking:
            raise UsageError(f"{where}: no {lacking[0]} of {method} on {benchmark} in protocol.csv")
