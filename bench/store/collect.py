"""From the run directories of many cells to the CSV tables of a suite."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.spec import RunSpec
from bench.store.protocol import protocol
from bench.store.rundir import RunDir, identity
from bench.store.tables import (
    PROTOCOL,
    RUNS,
    TABLES,
    Rows,
    read_csv,
    read_metrics,
    read_runs,
    write_csv,
)


@dataclass(frozen=True)
class Kept:
    """A finished cell of which only the rows in a suite's tables are there, as in a fresh clone."""

    state: dict[str, Any]
    tables: dict[str, Rows]


def tabled(folder: Path, cells: Iterable[RunSpec]) -> dict[str, Kept]:
    """The cells that are done by a suite's tables, by run_id. Raises UsageError for tables that cannot be read."""
    if not (folder / "runs.csv").exists():
        return {}
    rows: dict[str, dict[str, Rows]] = {}
    for name, columns in TABLES.items():
        for row in (
            read_metrics(folder / f"{name}.csv")
            if name == "metrics"
            else read_csv(folder / f"{name}.csv", columns)
        ):
            rows.setdefault(row["run_id"], {table: [] for table in TABLES})[name].append(row)
    model: dict[tuple[str, str], dict[str, str]] = {}
    for row in read_csv(folder / "protocol.csv", PROTOCOL):
        if row["key"].startswith("model."):
            model.setdefault((row["benchmark"], row["method"]), {})[
                row["key"].removeprefix("model.")
            ] = row["value"]
    states = {row["run_id"]: row for row in read_runs(folder / "runs.csv")}
    kept = {}
    for spec in cells:
        state = states.get(spec.run_id, {})
        if state.get("status") == "done" and state["spec_sha"] == spec.sha and spec.run_id in rows:
            state = {**state, "model": model.get((spec.benchmark, spec.method), spec.model)}
            kept[spec.run_id] = Kept(state, rows[spec.run_id])
    return kept


def collect(results: Path, cells: Iterable[RunSpec], keep: bool = False) -> dict[str, int]:
    """Write a suite's runs.csv and the tables of its cells from its cells' directories; count cells by status.

    A cell that is not done gets a row in runs.csv with its status and reason, and none anywhere else. keep: one that is done
    by the tables as they are keeps its rows.
    """
    cells = list(cells)
    tables: dict[str, Rows] = {name: [] for name in TABLES}
    runs: Rows = []
    states = []
    folder = results / cells[0].suite
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open(
        "w"
    ) as lock:  # of two grids that end together the later one has read what both finished
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        before = tabled(folder, cells) if keep else {}
        for spec in cells:
            run = RunDir.of(results, spec)
            done, state = (
                run.done(),
                run.state(),
            )  # in this order: before DONE is seen it may still say "running"
            if done:
                tables["metrics"] += read_metrics(run.path / "metrics.csv")
                for name in TABLES.keys() - {"metrics"}:
                    tables[name] += read_csv(run.path / f"{name}.csv", TABLES[name])
            elif spec.run_id in before:
                state = before[spec.run_id].state
                for name, rows in before[spec.run_id].tables.items():
                    tables[name] += rows
            elif state["status"] in ("done", "running"):  # killed before it could say so
                state = {
                    **state,
                    "status": "interrupted",
                    "reason": state.get("reason") or "the process ended",
                }
            states.append(state)
            runs.append(
                {
                    **identity(spec),
                    "spec_sha": spec.sha,
                    **{k: v for k, v in state.items() if k in RUNS},
                }
            )
        write_csv(folder / "runs.csv", RUNS, runs)
        write_csv(folder / "protocol.csv", PROTOCOL, protocol(cells, states))
        for name, columns in TABLES.items():
            write_csv(folder / f"{name}.csv", columns, tables[name])
    counts: dict[str, int] = {}
    for row in runs:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    return counts
