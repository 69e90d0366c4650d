"""From the run directories of many cells to the CSV tables of a suite."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.spec import RunSpec
from bench.errors import Busy
from bench.store.archive import packed
from bench.store.locks import locked
from bench.store.protocol import SELECTION, protocol
from bench.store.rundir import LOCK, RunDir, identity
from bench.store.tables import (
    CLASSES,
    DIGESTS,
    ENVIRONMENTS,
    FAILED,
    LATER_COLUMNS,
    LATER_TABLES,
    NOT_RECORDED,
    ORIGIN,
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
    """The rows of one cell: its state (as in runs.csv) and its rows of every other table.

    environment: its row of environments.csv, classes: those of its class order in classes.csv.
    """

    state: dict[str, Any]
    tables: dict[str, Rows] = field(default_factory=_empty_tables)
    environment: dict[str, Any] = field(default_factory=dict)
    classes: Rows = field(default_factory=list)

    @property
    def code(self) -> str:
        return self.state.get("code_sha", NOT_RECORDED)


def rows_of_done(folder: Path, cells: Iterable[RunSpec]) -> dict[str, TableRows]:
    """Those of these cells that a suite's tables list as done, by run_id.

    A clone has tables and no runs. Raises UsageError for tables that cannot be read.
    """
    if not (folder / "runs.csv").exists():
        return {}
    found: dict[str, TableRows] = {}
    settings = _settings(folder)
    states = {row["run_id"]: row for row in read_runs(folder / "runs.csv")}
    environments = {row["env_sha"]: row for row in _optional(folder, "environments", ENVIRONMENTS)}
    classes = _optional(folder, "classes", CLASSES)
    for spec in cells:
        state = states.get(spec.run_id, {})
        if state.get("status") == "done" and state["spec_sha"] == spec.sha:
            unknown = {"model": spec.model, "align": {}}
            known = settings.get((spec.benchmark, spec.method), unknown)
            if known["align"] and known["align"] != _as_text(spec):
                continue
            order = (spec.benchmark, str(spec.order_seed))
            found[spec.run_id] = TableRows(
                state | known,
                environment=environments.get(state["env_sha"], {}),
                classes=[row for row in classes if (row["benchmark"], row["order_seed"]) == order],
            )
    for name in TABLES:
        for row in _read(folder, name):
            if row["run_id"] in found:
                found[row["run_id"]].tables[name].append(row)
    return {run_id: rows for run_id, rows in found.items() if rows.tables["metrics"]}


def _read(folder: Path, name: str) -> Rows:
    file = folder / f"{name}.csv"
    if name in LATER_TABLES:
        return _optional(folder, name, TABLES[name])
    if name == "metrics":
        return read_metrics(file)
    return read_csv(file, TABLES[name], LATER_COLUMNS.get(name, ()))


def _optional(folder: Path, name: str, columns: tuple[str, ...]) -> Rows:
    """A table that older results do not have."""
    file = folder / f"{name}.csv"
    return list(read_csv(file, columns)) if file.is_file() else []


def _settings(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What only protocol.csv still knows of a run: its selection, settings of model and head."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in read_csv(folder / "protocol.csv", PROTOCOL):
        of_row = found.setdefault((row["benchmark"], row["method"]), {"model": {}, "align": {}})
        section, _, key = row["key"].partition(".")
        if section in ("model", "align"):
            of_row[section][key] = row["value"]
        elif row["key"] == SELECTION:
            of_row["selection"] = row["value"]
    return found


def _as_text(spec: RunSpec) -> dict[str, str]:
    """The settings of the aligned head as protocol.csv has them."""
    return {key: str(value) for key, value in dataclasses.asdict(spec.align).items()}


def known_before(results: Path, suite: str) -> set[str]:
    """The run_id of each cell that a suite's folder has a row in runs.csv or a run of."""
    folder = results / suite
    rows = read_runs(folder / "runs.csv") if (folder / "runs.csv").exists() else []
    runs = {run.name for run in folder.glob("runs/*/")} | packed(folder)
    return {row["run_id"] for row in rows} | runs


def collect(
    results: Path,
    cells: Iterable[RunSpec],
    keep: Sequence[Path] = (),
    rerun: Collection[str] = (),
) -> dict[str, int]:
    """Write a suite's tables from the directories of its cells; count the cells by status.

    A cell that is not done has a row in runs.csv, with its status and reason, and no other row.
    keep: folders with tables of this suite; a cell that is done there, and has no finished run of
    its own here, keeps its rows. Where several have it the first one counts. rerun: the run_id of
    each cell that was run now: where one failed, older rows of it do not count.
    """
    cells = list(cells)
    folder = results / cells[0].suite
    folder.mkdir(parents=True, exist_ok=True)
    # Of two grids that end together, the later one has read what both finished.
    with locked(folder / ".lock"):
        kept: dict[str, TableRows] = {}
        for source in keep:
            kept = rows_of_done(source, cells) | kept
        # While one is run again, by whomever, its finished rows stay.
        failed = [
            name for name in rerun if RunDir(folder / "runs" / name).state()["status"] in FAILED
        ]
        kept = {run_id: rows for run_id, rows in kept.items() if run_id not in failed}
        found = [rows_of_run(RunDir.of(results, spec), kept.get(spec.run_id)) for spec in cells]
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
        write_csv(folder / "environments.csv", ENVIRONMENTS, _environments(found))
        write_csv(folder / "classes.csv", CLASSES, _classes(cells, found))
    return dict(Counter(row["status"] for row in runs))


def _environments(found: Iterable[TableRows]) -> Rows:
    """A row for each env_sha of these cells."""
    rows: dict[str, dict[str, Any]] = {}
    for cell in found:
        sha = cell.state.get("env_sha")
        if sha and (cell.environment or sha not in rows):
            rows[sha] = dict.fromkeys(ENVIRONMENTS, NOT_RECORDED) | cell.environment
            rows[sha]["env_sha"] = sha
    return list(rows.values())


def _classes(cells: Iterable[RunSpec], found: Iterable[TableRows]) -> Rows:
    """The classes of each class order of each benchmark, from the first cell that has them."""
    orders: dict[tuple[str, int], Rows] = {}
    for spec, cell in zip(cells, found, strict=True):
        if not orders.get((spec.benchmark, spec.order_seed)):
            orders[spec.benchmark, spec.order_seed] = cell.classes
    return [row for rows in orders.values() for row in rows]


def is_held(run: RunDir) -> bool:
    """True while another process runs this cell. What cannot be asked is as its state says."""
    if not (run.path / LOCK).exists():
        return False
    try:
        with locked(run.path / LOCK, busy="held"):
            return False
    except Busy:
        return True
    except OSError:  # another user's
        return run.state()["status"] == "running"


def _are_of(rows: TableRows, state: dict[str, Any]) -> bool:
    """True if these rows of the tables are those of the run that ended in this state."""
    return all(str(state.get(name, "")) == rows.state[name] for name in (*DIGESTS[1:], *ORIGIN))


def _rows_in(folder: Path, state: dict[str, Any]) -> TableRows:
    """The rows of a finished run, from its own tables."""
    tables = {name: _read(folder, name) for name in TABLES}
    environment = json.loads((folder / "env.json").read_text("utf-8"))
    environment = {name: environment[name] for name in ENVIRONMENTS if name in environment}
    return TableRows(state, tables, environment, _optional(folder, "classes", CLASSES))


def rows_of_run(run: RunDir, kept: TableRows | None = None) -> TableRows:
    """The rows of a run that is done; else those kept of it, if any, or its state alone."""
    # done() first: until DONE is there the state may still say "running".
    done, state = run.done(), run.state()
    if done and kept is not None and run.packed() and _are_of(kept, state):
        return kept  # what the archive holds: it need not be unpacked for them
    if done:
        with run.unpacked() as files:
            return _rows_in(files.path, state)
    if kept is not None:
        return kept
    if is_held(run):
        state = state | {"status": "running", "reason": "another process runs it"}
    elif state["status"] in ("done", "running"):  # killed before it could say so
        reason = state.get("reason") or "the process ended"
        state = state | {"status": "interrupted", "reason": reason}
    return TableRows(state)
