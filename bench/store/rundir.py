"""The directory of one cell's run, and what is in it.

    spec.json  env.json  classes.csv  log.txt  ckpt/  stale/
    {metrics,timing,losses,movement,similarity,selection}.csv  state.json  DONE

DONE is written last and holds the digests of the tables and of state.json. A cell counts only if
all of them agree. stale/ holds what other code left here, until the run is done. A run of which
nothing is here may lie in an archive (archive.py): it is read from there, and counts the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import faults
from bench.config.spec import RunSpec, plain
from bench.errors import UsageError
from bench.store import archive
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

    # --- its files, here or in an archive ---

    def packed(self) -> archive.Packed | None:
        """The run in an archive, where nothing was begun here since; None else.

        Raises UsageError for an archive that cannot be read.
        """
        begun = (self.path / name for name in ("state.json", STALE, "DONE"))
        if self.path.is_dir() and any(file.exists() for file in begun):
            return None
        return archive.find(self.path.parent.parent, self.path.name)

    def read(self, name: str) -> bytes | None:
        """What a file of the run holds; None where there is none."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return (self.path / name).read_bytes()
        packed = self.packed()
        return packed.read(name) if packed else None

    def names(self) -> list[str]:
        """Its files, DONE last: before it the run is not finished."""
        if packed := self.packed():
            names = packed.names()
        else:
            files = (file for file in self.path.rglob("*") if file.is_file())
            names = [file.relative_to(self.path).as_posix() for file in files if file.name != LOCK]
        return sorted(names, key=lambda name: (name == "DONE", name))

    def where(self, name: str) -> str:
        """A file of the run, for people."""
        packed = self.packed()
        return f"{packed.run_id}/{name} in {packed.file}" if packed else str(self.path / name)

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[RunDir]:
        """The run as files, for a moment; the run itself where it is not packed."""
        packed = self.packed()
        if packed is None:
            yield self
            return
        with tempfile.TemporaryDirectory() as folder:
            run = RunDir(Path(folder) / packed.run_id)
            for name in packed.names():
                if "/" not in name:  # no table lies deeper
                    run.path.mkdir(exist_ok=True)
                    (run.path / name).write_bytes(packed.read(name) or b"")
            try:
                run.done()
            except UsageError:
                what = f"{packed.run_id} was altered since the run ended"
                raise UsageError(f"{packed.file}: {what}") from None
            yield run

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
            state = json.loads(self.read("state.json") or b"")
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
        packed = self.packed()
        where = f"{packed.file}: {packed.run_id}" if packed else str(self.path)
        cure = "give --name" if packed else "give --name, or delete it"
        refuse_other(where, self.state(), identity, cure)

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
        return set((self.read("DONE") or b"").decode(errors="replace").splitlines())

    def ended_with(self, name: str, text: str) -> bool:
        """True if the run, which is done, has ended with this text in the file of that name."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        return f"{digest}  {name}" in self._seals()

    def done(self) -> bool:
        """True if finished and intact. Raises UsageError for a file that was altered since.

        A packed run is finished; whether it is intact is known when its tables are read.
        """
        if (self.path / "DONE").is_file():
            try:
                self._refuse_altered()
                return True
            except (UsageError, FileNotFoundError):
                if (self.path / "DONE").is_file():
                    raise  # else another process has packed it, or set it aside, meanwhile
        return self.packed() is not None

    def _refuse_altered(self) -> None:
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


def environment_digest(environment: dict[str, Any]) -> str:
    """Sixteen hex digits that stand for an environment in runs.csv."""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:16]


def identity(spec: RunSpec) -> dict[str, Any]:
    """The columns that name a cell in every table."""
    return {name: getattr(spec, name) for name in CELL}
