"""One run directory per cell: what is in it, and the collection of many into a suite's CSV files.

    spec.json  env.json  log.txt  ckpt/  {metrics,timing,losses,movement,similarity}.csv  state.json  DONE

DONE is written last and holds the digests of the tables and of state.json: a cell counts only if all agree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import faults
from bench.config.spec import SECTIONS, RunSpec, UsageError, plain
from bench.store.files import sha256_of, write_text
from bench.store.tables import PROTOCOL, RUNS, TABLES, Rows, read_csv, read_metrics, read_runs, write_csv

# What one cell is run with from beginning to end: column of runs.csv, and its name for people.
SAME = {"data_sha": "images", "weights_sha": "weights", "precision": "precision"}
VOUCHED = (*(f"{name}.csv" for name in TABLES), "state.json")  # files whose digests stand in DONE


class Busy(Exception):
    """Another process runs this cell now."""


def refuse_other(where: str, before: dict[str, Any], identity: dict[str, Any], cure: str) -> None:
    """Raises UsageError if a cell's state says other images, weights or precision than this identity."""
    for key, what in SAME.items():
        old, new = before.get(key, identity[key]), identity[key]
        if old != new:
            raise UsageError(f"{where}: begun with other {what} ({old[:12]}, now {new[:12]}); {cure}")


@dataclass(frozen=True)
class RunDir:
    """The directory of one cell under results/<suite>/runs."""

    path: Path

    @classmethod
    def of(cls, results: Path, spec: RunSpec) -> RunDir:
        return cls(results / spec.suite / "runs" / spec.run_id)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process runs a cell; the lock of a process that died is free. Raises Busy."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stream = (self.path / ".lock").open("w")
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written ({error.strerror})") from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"{self.path}: another process is running this cell") from None
            except OSError as error:  # a file system without locks
                self.log(f"not locked: {error.strerror}")
            yield

    def open(self, spec: RunSpec, environment: dict[str, Any], resolved: dict[str, Any]) -> None:
        """Create the directory and record what is run where: the spec, and its protocol as it turned out (digests, precision,
        every setting of the method). Raises UsageError where it cannot be written."""
        digests = {key: resolved[key] for key in ("data_sha", "manifest_sha", "weights_sha")}
        written = {**plain(spec), "resolved": protocol_of(spec, resolved) | digests}
        write_text(self.path / "spec.json", json.dumps(written, indent=1, sort_keys=True) + "\n")
        write_text(self.path / "env.json", json.dumps(environment, indent=1, sort_keys=True) + "\n")

    def log(self, line: str) -> None:
        with (self.path / "log.txt").open("a") as stream:
            stream.write(line + "\n")

    def save_state(self, state: dict[str, Any]) -> None:
        """Status, reason and the facts that go into runs.csv."""
        write_text(self.path / "state.json", json.dumps(state, indent=1, sort_keys=True) + "\n")

    def give_up(self, state: dict[str, Any]) -> None:
        """Status and reason of a run that stopped; one whose DONE is there has finished, whatever failed after that."""
        if not (self.path / "DONE").exists():
            self.save_state(state)

    def state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.path / "state.json").read_text())
        except (OSError, ValueError):
            state = None
        whole = isinstance(state, dict) and isinstance(state.get("status"), str)
        return state if whole else {"status": "missing", "reason": "not run"}

    def refuse_other(self, identity: dict[str, Any]) -> None:
        """Raises UsageError if this cell was begun or finished with other images, weights or precision."""
        refuse_other(str(self.path), self.state(), identity, "give --name, or delete it")

    def finish(self, tables: dict[str, Rows], state: dict[str, Any]) -> None:
        """Write the results, and DONE after everything else is on disk."""
        for name, columns in TABLES.items():
            write_csv(self.path / f"{name}.csv", columns, tables[name])
        self.save_state(state)
        faults.point("done")
        write_text(self.path / "DONE", "".join(f"{self._line(name)}\n" for name in VOUCHED))

    def _line(self, name: str) -> str:
        return f"{sha256_of(self.path / name)}  {name}"

    def _vouched(self) -> set[str]:
        return set((self.path / "DONE").read_text(errors="replace").splitlines())

    def vouches(self, name: str, text: str) -> bool:
        """True if the run has ended with this text in the file of that name."""
        return self.done() and f"{hashlib.sha256(text.encode()).hexdigest()}  {name}" in self._vouched()

    def done(self) -> bool:
        """True if finished and intact. Raises UsageError if a file is not the one that DONE vouches for."""
        if not (self.path / "DONE").is_file():
            return False
        vouched = self._vouched()
        for name in VOUCHED:
            file = self.path / name
            if not file.exists() or self._line(name) not in vouched:
                raise UsageError(f"{file}: altered since the run ended (DONE holds another digest); delete {self.path}")
        return True


def environment_digest(environment: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:16]


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
        for row in read_metrics(folder / f"{name}.csv") if name == "metrics" else read_csv(folder / f"{name}.csv", columns):
            rows.setdefault(row["run_id"], {table: [] for table in TABLES})[name].append(row)
    model: dict[tuple[str, str], dict[str, str]] = {}
    for row in read_csv(folder / "protocol.csv", PROTOCOL):
        if row["key"].startswith("model."):
            model.setdefault((row["benchmark"], row["method"]), {})[row["key"].removeprefix("model.")] = row["value"]
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
    with (folder / ".lock").open("w") as lock:  # of two grids that end together the later one has read what both finished
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        before = tabled(folder, cells) if keep else {}
        for spec in cells:
            run = RunDir.of(results, spec)
            done, state = run.done(), run.state()  # in this order: before DONE is seen it may still say "running"
            if done:
                tables["metrics"] += read_metrics(run.path / "metrics.csv")
                for name in TABLES.keys() - {"metrics"}:
                    tables[name] += read_csv(run.path / f"{name}.csv", TABLES[name])
            elif spec.run_id in before:
                state = before[spec.run_id].state
                for name, rows in before[spec.run_id].tables.items():
                    tables[name] += rows
            elif state["status"] in ("done", "running"):  # killed before it could say so
                state = {**state, "status": "interrupted", "reason": state.get("reason") or "the process ended"}
            states.append(state)
            runs.append({**identity(spec), "spec_sha": spec.sha, **{k: v for k, v in state.items() if k in RUNS}})
        write_csv(folder / "runs.csv", RUNS, runs)
        write_csv(folder / "protocol.csv", PROTOCOL, protocol(cells, states))
        for name, columns in TABLES.items():
            write_csv(folder / f"{name}.csv", columns, tables[name])
    counts: dict[str, int] = {}
    for row in runs:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    return counts


def protocol(cells: Iterable[RunSpec], states: list[dict[str, Any]]) -> Rows:
    """What each row of the tables was run with, resolved: one line per benchmark, method and key (the same for all seeds)."""
    rows: Rows = []
    seen = set()
    for spec, run in zip(cells, states, strict=True):
        if (spec.benchmark, spec.method) in seen:
            continue
        seen.add((spec.benchmark, spec.method))
        rows += [
            {"benchmark": spec.benchmark, "method": spec.method, "key": k, "value": v}
            for k, v in protocol_of(spec, run).items()
        ]
    return rows


def protocol_of(spec: RunSpec, run: dict[str, Any]) -> dict[str, Any]:
    """Every setting of a cell by its name. run: what its files turned out to be, as far as that is known."""
    source = {"": "embedded" if spec.backbone.name == "vit_glyphs" else "timm", "random": "random"}
    values = {"type": spec.type, "precision used": run.get("precision", ""), "weights": run.get("weights_sha", "")[:12]}
    values["weights from"] = source.get(spec.backbone.checkpoint, "a file")
    for section in SECTIONS:
        values |= {f"{section}.{key}": value for key, value in dataclasses.asdict(getattr(spec, section)).items()}
    del values["data.root"], values["backbone.checkpoint"]  # where files lie is no part of a protocol; their digests are
    if spec.backbone.name not in ("vit", "vit_glyphs"):  # a network of timm's has its own sizes
        for key in ("patch", "width", "depth", "heads"):
            del values[f"backbone.{key}"]
    model = run.get("model", spec.model)
    values |= {f"model.{key}": value for key, value in model.items()}
    mixed = str(model.get("reference_bug")) == "True" and spec.type == "dualprompt"
    values["selection of prompts at test"] = "prompts of different images mixed" if mixed else "per image, task unknown"
    return values


def identity(spec: RunSpec) -> dict[str, Any]:
    """The columns that name a cell in every table."""
    names = ("run_id", "suite", "benchmark", "method", "order_seed", "seed")
    return {name: getattr(spec, name) for name in names}
