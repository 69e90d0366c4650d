"""What a report refuses: tables that contradict themselves, the runs they come from, or each other. One line each."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.errors import UsageError
from bench.store.rundir import RunDir
from bench.store.tables import METRICS, SCENARIOS, to_csv

NAMED = ["suite", "benchmark", "method", "order_seed", "seed"]
SHARED = ("data.", "backbone.")  # keys that rows of one benchmark have in common
STREAM = [
    "train.epochs",
    "train.batch_size",
    "train.joint",
]  # what the batches served depend on besides data and seeds


def refuse_foreign(folder: Path, runs: pd.DataFrame, metrics: pd.DataFrame) -> None:
    """Raises UsageError where runs.csv and metrics.csv do not tell of the same cells, or not the whole of a finished one.

    A run_id says method, benchmark, order, seed and the spec's digest. A finished cell has, in both scenarios, every pair of
    tasks, or the last row only (joint); a task has as many images whenever and with whichever method it is tested. Where the
    runs themselves are there (results/SUITE/runs) their rows must be those that each ended with.
    """
    where = f"{folder}/runs.csv"
    twice = runs[runs.duplicated(NAMED[1:], keep=False)]
    if len(twice):
        raise UsageError(f"{where}: two runs of one cell: {', '.join(twice['run_id'][:2])}")
    for run in runs.itertuples():
        said = f"{run.method}--{run.benchmark}--o{run.order_seed}--s{run.seed}--{run.spec_sha[:12]}"
        if run.run_id != said:
            raise UsageError(f"{where}: '{run.run_id}' is not what its row says ('{said}')")
    done = runs[runs["status"] == "done"].set_index("run_id")
    of_run = metrics.groupby("run_id", sort=False)
    where = f"{folder}/metrics.csv"
    for run_id, part in of_run:
        if run_id not in done.index:
            raise UsageError(f"{where}: rows of '{run_id}', which runs.csv does not list as done")
        row = done.loc[run_id]
        for name in NAMED:
            if (part[name].astype(str) != row[name]).any():
                raise UsageError(
                    f"{where}: {name} of rows of '{run_id}' is not the one in runs.csv ('{row[name]}')"
                )
        _refuse_part(where, run_id, part, int(row["tasks"]))
        _refuse_altered(where, run_id, part, folder)
    silent = [run_id for run_id in done.index if run_id not in of_run.groups]
    if silent:
        raise UsageError(
            f"{folder}/runs.csv: '{silent[0]}' is done but metrics.csv has no rows of it"
        )
    for (benchmark, order, task), part in metrics.groupby(
        ["benchmark", "order_seed", "eval_task"], sort=False
    ):
        if part["n"].nunique() > 1:
            one = part.drop_duplicates("n")
            both = " and ".join(
                f"{n} ('{run_id}')"
                for n, run_id in zip(one["n"][:2], one["run_id"][:2], strict=True)
            )
            raise UsageError(
                f"{where}: task {task} of {benchmark}, order {order}, has different numbers of images: {both}"
            )


def _refuse_part(where: str, run_id: str, part: pd.DataFrame, tasks: int) -> None:
    last = {(tasks, i) for i in range(1, tasks + 1)}
    every = {(t, i) for t in range(1, tasks + 1) for i in range(1, t + 1)}
    for scenario in SCENARIOS:
        rows = part[part["scenario"] == scenario]
        if {*zip(rows["after_task"], rows["eval_task"], strict=True)} not in (every, last):
            raise UsageError(
                f"{where}: rows of '{run_id}' are not whole (scenario {scenario}, {tasks} tasks)"
            )


def _refuse_altered(where: str, run_id: str, part: pd.DataFrame, folder: Path) -> None:
    run = RunDir(folder / "runs" / run_id)
    if run.path.is_dir() and not run.vouches(
        "metrics.csv", to_csv(METRICS, part.to_dict("records"))
    ):
        raise UsageError(
            f"{where}: rows of '{run_id}' are not those of {run.path}; run the suite again to collect them"
        )


def training(protocol: pd.DataFrame) -> pd.DataFrame:
    """What of the training decides which batches are served: STREAM's keys as columns, by benchmark and method."""
    keys = protocol[protocol["key"].isin(STREAM)]
    return keys.pivot(index=["benchmark", "method"], columns="key", values="value").reindex(
        columns=STREAM
    )


def refuse_mixed(where: str, done: pd.DataFrame, protocol: pd.DataFrame) -> None:
    """Raises UsageError where cells of one table were not run on the same images, weights and views.

    Rows of one benchmark must share data and backbone; rows of one order, seed and training length the digest of every batch.
    """
    _refuse_gaps(where, done, protocol)
    for (benchmark, key), part in protocol.groupby(["benchmark", "key"], sort=False):
        if key.startswith(SHARED) and part["value"].nunique() > 1:
            one = part.drop_duplicates("value")
            both = " and ".join(
                f"{value} ('{row}')"
                for value, row in zip(one["value"][:2], one["method"][:2], strict=True)
            )
            raise UsageError(f"{where}: {key} differs between rows of {benchmark}: {both}")
    wanted = (
        protocol[protocol["key"] == "train.precision"]
        .set_index(["benchmark", "method"])["value"]
        .rename("wanted")
    )
    done = done.join(training(protocol), on=["benchmark", "method"]).join(
        wanted, on=["benchmark", "method"]
    )
    done = done.fillna({"wanted": ""})
    groups = {
        "data_sha": ("images", ["benchmark"]),
        "weights_sha": ("weights", ["benchmark"]),
        "precision": ("precision", ["benchmark", "wanted"]),
        "tasks": ("number of tasks", ["benchmark"]),
        "stream_sha": (
            "class order, batches or views",
            ["benchmark", "order_seed", "seed", *STREAM],
        ),
    }
    for column, (what, by) in groups.items():
        for _, part in done.groupby(by, sort=False):
            if part[column].nunique() > 1:
                one = part.drop_duplicates(column)
                raise UsageError(
                    f"{where}: {column} of '{one['run_id'].iloc[0]}' and '{one['run_id'].iloc[1]}' differ: "
                    f"rows of one table need the same {what} (make them equal by --set, and run under another --name)"
                )


def _refuse_gaps(where: str, done: pd.DataFrame, protocol: pd.DataFrame) -> None:
    """Raises UsageError where a key that rows are compared by is there twice, or is missing for a row that is done."""
    if not len(protocol):
        return  # the report says that nothing could be checked
    twice = protocol[protocol.duplicated(["benchmark", "method", "key"])]
    if len(twice):
        row = twice.iloc[0]
        raise UsageError(
            f"{where}: two values of {row['key']} for {row['method']} on {row['benchmark']} in protocol.csv"
        )
    shared = protocol[protocol["key"].str.startswith(SHARED)]
    there = protocol.groupby(["benchmark", "method"])["key"].agg(set).to_dict()
    for benchmark, method in (
        done[["benchmark", "method"]].drop_duplicates().itertuples(index=False)
    ):
        needed = {*STREAM, *shared.loc[shared["benchmark"] == benchmark, "key"]}
        lacking = sorted(needed - there.get((benchmark, method), set()))
        if lacking:
            raise UsageError(f"{where}: no {lacking[0]} of {method} on {benchmark} in protocol.csv")
