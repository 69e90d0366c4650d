"""The directory of one cell's run, and what is in it.

    spec.json  env.json  classes.csv  log.txt  ckpt/  stale/
    {metrics,timing,losses,movement,similarity,selection}.csv  state.json  DONE

DONE is written last and holds the digests of the tables and of state.json. A cell counts only if
all of them agree. stale/ holds what other code left here, until the run is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import faults
from bench.config.spec import RunSpec, plain
from bench.errors import UsageError
from bench.store.files import sha256_of, write_text
from bench.store.locks import locked
from bench.store.protocol import protocol_of
from bench.store.tables import CELL, CLASSES, LATER_TABLES, NOT_RECORDED, TABLES, Rows, write_csv

# Must be the same from a cell's first step to its last: column of runs.csv, name for people.
FIXED_COLUMNS = {"data_sha": "images", "weights_sha": "weights", "precision": "precision"}
STALE, LOCK = "stale", ".lock"
SEALED_FILES = (*(f"{name}.csv" for name in TABLES), "state.json")  # their digests are in DONE


def refuse_other(where: str, before: dict[str, Any], identity: dict[str, Any], cure: str) -> None:
    """Raises UsageError if a cell's state has other images, weights or precision than identity."""
    for key, what in FIXED_COLUMNS.items():
        if key not in before or key not in identity:
            continue
        old, new = before[key], identity[key]
        if old != new:
            raise UsageError(
                f"{where}: begun with other {what} ({old[:12]}, now {new[:12]}); {cure}"
            )


@dataclass(frozen=True)
class RunDir:
    """The directory of one cell under results/SUITE/runs."""

    path: Path

    @classmethod
    def of(cls, results: Path, spec: RunSpec) -> RunDir:
        return cls(results / spec.suite / "runs" / spec.run_id)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process runs a cell. Raises Busy while another one does."""
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                busy = f"{self.path}: another process is running this cell"
                held = stack.enter_context(locked(self.path / LOCK, busy))
            except OSError as error:
                raise UsageError(f"{self.path}: cannot be written ({error.strerror})") from error
            if not held:
                self.log("not locked: the file system has no locks")
            yield

    def open(
        self,
        spec: RunSpec,
        environment: dict[str, Any],
        resolved: dict[str, Any],
        classes: Rows,
    ) -> None:
        """Record what is run where: the spec, its resolved protocol, environment and class order.

        classes: rows of classes.csv. Raises UsageError where the directory cannot be written.
        """
        digests = {key: resolved[key] for key in ("data_sha", "manifest_sha", "weights_sha")}
        written = {**plain(spec), "resolved": protocol_of(spec, resolved) | digests}
        self._write_json("spec.json", written)
        self._write_json("env.json", environment)
        write_csv(self.path / "classes.csv", CLASSES, classes)

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        write_text(self.path / name, json.dumps(content, indent=1, sort_keys=True) + "\n")

    def log(self, line: str) -> None:
        with (self.path / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    # --- the state: status, reason, and the facts that go into runs.csv ---

    def save_state(self, state: dict[str, Any]) -> None:
        self._write_json("state.json", state)

    def give_up(self, state: dict[str, Any]) -> None:
        """Save the state of a run that stopped; one with a DONE has finished and keeps its own."""
        if not (self.path / "DONE").exists():
            self.save_state(state)

    def state(self) -> dict[str, Any]:
        """The saved state; status 'missing' where there is none that can be read."""
        try:
            state = json.loads((self.path / "state.json").read_text("utf-8"))
        except (OSError, ValueError):
            state = None
        if isinstance(state, dict) and isinstance(state.get("status"), str):
            return state
        return {"status": "missing", "reason": "not run"}

    def saved_since(self, moment: float) -> bool:
        """True if a checkpoint or the end of the run was written after this time (seconds)."""
        files = [*(self.path / "ckpt").glob("*.pt"), *self.path.glob("DONE")]
        return any(file.stat().st_mtime >= moment for file in files)

    def code(self) -> str:
        """The code_sha of what is there; "" where nothing was begun."""
        state = self.state()
        return "" if state["status"] == "missing" else state.get("code_sha", NOT_RECORDED)

    def aligned_otherwise(self, spec: RunSpec) -> bool:
        """True if what is there was begun with other settings of the aligned head.

        False where none were recorded: there were no aligned heads then.
        """
        before = self.state().get("align") or {}
        return bool(before) and before != dataclasses.asdict(spec.align)

    def set_aside(self) -> None:
        """Move all that is there into stale/; what is in there already is older and stays.

        DONE goes first: a run that is half moved is not done.
        """
        aside = self.path / STALE
        aside.mkdir(exist_ok=True)
        files = [file for file in self.path.iterdir() if file.name not in (STALE, LOCK)]
        for file in sorted(files, key=lambda file: file.name != "DONE"):
            if not (aside / file.name).exists():
                file.rename(aside / file.name)
            elif file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink()

    def done_as(self, spec: RunSpec) -> bool:
        """True if done with the same settings of the aligned head too. Raises as `done` does."""
        return self.done() and not self.aligned_otherwise(spec)

    def refuse_other(self, identity: dict[str, Any]) -> None:
        """Raises UsageError if this cell was begun with other images, weights or precision."""
        refuse_other(str(self.path), self.state(), identity, "give --name, or delete it")

    # --- the end ---

    def finish(self, tables: dict[str, Rows], state: dict[str, Any]) -> None:
        """Write the results, and DONE after everything else is on disk."""
        for name, columns in TABLES.items():
            write_csv(self.path / f"{name}.csv", columns, tables[name])
        today = datetime.datetime.now(datetime.UTC).date()
        self.save_state(state | {"finished": today.isoformat()})
        faults.point("done")
        write_text(self.path / "DONE", "".join(f"{self._seal(name)}\n" for name in SEALED_FILES))
        shutil.rmtree(self.path / STALE, ignore_errors=True)

    def _seal(self, name: str) -> str:
        return f"{sha256_of(self.path / name)}  {name}"

    def _seals(self) -> set[str]:
        return set((self.path / "DONE").read_text(errors="replace").splitlines())

    def ended_with(self, name: str, text: str) -> bool:
        """True if the run has ended with this text in the file of that name."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self.done() and f"{digest}  {name}" in self._seals()

    def done(self) -> bool:
        """True if finished and intact. Raises UsageError for a file that was altered since."""
        if not (self.path / "DONE").is_file():
            return False
        seals = self._seals()
        sealed = {seal.split("  ", 1)[-1] for seal in seals}
        for name in SEALED_FILES:
            file = self.path / name
            if file.stem in LATER_TABLES and name not in sealed and not file.exists():
                continue  # of a run that ended before there was such a table
            if not file.exists() or self._seal(name) not in seals:
                raise UsageError(
                    f"{file}: altered since the run ended (DONE holds another digest); "
                    f"delete {self.path}"
                )
        return True


def environment_digest(environment: dict[str, Any]) -> str:
    """Sixteen hex digits that stand for an environment in runs.csv."""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:16]


def identity(spec: RunSpec) -> dict[str, Any]:
    """The columns that name a cell in every table."""
    return {name: getattr(spec, name) for name in CELL}
