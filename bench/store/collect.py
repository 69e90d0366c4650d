"""From the run directories of many cells to the CSV tables of a suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.spec import RunSpec
from bench.store.locks import locked
from bench.store.protocol import SELECTION, protocol
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


def _empty_tables() -> dict[str, Rows]:
    return {name: [] for name in TABLES}


@dataclass
class TableRows:
    """The rows of one cell: its state (as in runs.csv) and its rows of every other table."""

    state: dict[str, Any]
    tables: dict[str, Rows] = field(default_factory=_empty_tables)


def rows_of_done(folder: Path, cells: Iterable[RunSpec]) -> dict[str, TableRows]:
    """Those of these cells that a suite's tables list as done, by run_id.

    A clone has tables and no runs. Raises UsageError for tables that cannot be read.
    """
    if not (folder / "runs.csv").exists():
        return {}
    found: dict[str, TableRows] = {}
    settings = _settings(folder)
    states = {row["run_id"]: row for row in read_runs(folder / "runs.csv")}
    for spec in cells:
        state = states.get(spec.run_id, {})
        if state.get("status") == "done" and state["spec_sha"] == spec.sha:
            known = settings.get((spec.benchmark, spec.method), {"model": spec.model})
            found[spec.run_id] = TableRows(state | known)
    for name in TABLES:
        for row in _read(folder, name):
            if row["run_id"] in found:
                found[row["run_id"]].tables[name].append(row)
    return {run_id: rows for run_id, rows in found.items() if rows.tables["metrics"]}


def _read(folder: Path, name: str) -> Rows:
    file = folder / f"{name}.csv"
    return read_metrics(file) if name == "metrics" else read_csv(file, TABLES[name])


def _settings(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What only protocol.csv still knows of a run: its model's settings and its selection."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in read_csv(folder / "protocol.csv", PROTOCOL):
        of_row = found.setdefault((row["benchmark"], row["method"]), {"model": {}})
        if row["key"].startswith("model."):
            of_row["model"][row["key"].removeprefix("model.")] = row["value"]
        elif row["key"] == SELECTION:
            of_row["selection"] = row["value"]
    return found


def known_before(results: Path, suite: str) -> set[str]:
    """The run_id of each cell that a suite's folder has a row in runs.csv or a run of."""
    folder = results / suite
    rows = read_runs(folder / "runs.csv") if (folder / "runs.csv").exists() else []
    return {row["run_id"] for row in rows} | {run.name for run in folder.glob("runs/*/")}


def collect(
    results: Path,
    cells: Iterable[RunSpec],
    keep: Sequence[Path] = (),
    rerun: Collection[str] = (),
) -> dict[str, int]:
    """Write a suite's tables from the directories of its cells; count the cells by status.

    A cell that is not done has a row in runs.csv, with its status and reason, and no other row.
    keep: folders with tables of this suite; a cell that is done there, and has no run of its own
    here, keeps its rows. Where several have it the first one counts. rerun: the run_id of each cell
    that was run now, so that older rows of it do not count.
    """
    cells = list(cells)
    folder = results / cells[0].suite
    folder.mkdir(parents=True, exist_ok=True)
    # Of two grids that end together, the later one has read what both finished.
    with locked(folder / ".lock"):
        kept: dict[str, TableRows] = {}
        for source in keep:
            kept = rows_of_done(source, cells) | kept
        kept = {run_id: rows for run_id, rows in kept.items() if run_id not in rerun}
        found = [_rows_of(RunDir.of(results, spec), kept.get(spec.run_id)) for spec in cells]
        runs = [
            identity(spec)
            | {"spec_sha": spec.sha}
            | {name: value for name, value in cell.state.items() if name in RUNS}
            for spec, cell in zip(cells, found, strict=True)
        ]
        write_csv(folder / "runs.csv", RUNS, runs)
        rows = protocol(cells, [cell.state for cell in found])
        write_csv(folder / "protocol.csv", PROTOCOL, rows)
        for name, columns in TABLES.items():
            rows = [row for cell in found for row in cell.tables[name]]
            write_csv(folder / f"{name}.csv", columns, rows)
    return dict(Counter(row["status"] for row in runs))


def _rows_of(run: RunDir, kept: TableRows | None) -> TableRows:
    # done() first: until DONE is there the state may still say "running".
    done, state = run.done(), run.state()
    if done:
        return TableRows(state, {name: _read(run.path, name) for name in TABLES})
    if kept is not None:
        return kept
    if state["status"] in ("done", "running"):  # killed before it could say so
        reason = state.get("reason") or "the process ended"
        state = state | {"status": "interrupted", "reason": reason}
    return TableRows(state)
