"""One run directory per cell: what is in it, and the collection of many into a suite's CSV files.

    spec.json  env.json  log.txt  ckpt/  {metrics,timing,losses,movement,similarity}.csv  state.json  DONE

DONE is written last and holds the digests of the tables and of state.json: a cell counts only if all agree.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import faults
from bench.config.spec import RunSpec, plain
from bench.errors import Busy, UsageError
from bench.store.files import sha256_of, write_text
from bench.store.protocol import protocol_of
from bench.store.tables import TABLES, Rows, write_csv

# What one cell is run with from beginning to end: column of runs.csv, and its name for people.
SAME = {"data_sha": "images", "weights_sha": "weights", "precision": "precision"}
VOUCHED = (*(f"{name}.csv" for name in TABLES), "state.json")  # files whose digests stand in DONE


def refuse_other(where: str, before: dict[str, Any], identity: dict[str, Any], cure: str) -> None:
    """Raises UsageError if a cell's state says other images, weights or precision than this identity."""
    for key, what in SAME.items():
        old, new = before.get(key, identity[key]), identity[key]
        if old != new:
            raise UsageError(
                f"{where}: begun with other {what} ({old[:12]}, now {new[:12]}); {cure}"
            )


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
        return (
            self.done()
            and f"{hashlib.sha256(text.encode()).hexdigest()}  {name}" in self._vouched()
        )

    def done(self) -> bool:
        """True if finished and intact. Raises UsageError if a file is not the one that DONE vouches for."""
        if not (self.path / "DONE").is_file():
            return False
        vouched = self._vouched()
        for name in VOUCHED:
            file = self.path / name
            if not file.exists() or self._line(name) not in vouched:
                raise UsageError(
                    f"{file}: altered since the run ended (DONE holds another digest); delete {self.path}"
                )
        return True


def environment_digest(environment: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:16]


def identity(spec: RunSpec) -> dict[str, Any]:
    """The columns that name a cell in every table."""
    names = ("run_id", "suite", "benchmark", "method", "order_seed", "seed")
    return {name: getattr(spec, name) for name in names}
