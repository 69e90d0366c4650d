"""Checkpoints of a cell: their format on disk, and the one place that writes and reads them.

task-N.pt holds the state after N finished tasks (AfterTask). The newest MAX_TASKS of them are kept,
so that a broken file costs one task and not the cell. within.pt holds a state within the task that
follows (WithinTask). It continues from the state after the task before it. statistics-N.pt holds
mean and spread of the classes of task N, for the aligned head, until the run is done.

A file is what torch.save makes of one dict, sealed with the file's digest: the format's number, the
digests that must match the run (`same`), and the fields of the state. Tensors lie in it as they
are. Everything else is JSON text, so that reading needs plain tensors alone and runs no pickle.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.config.spec import RunSpec
from bench.engine.align import TaskStatistics
from bench.method import Method
from bench.store import formats
from bench.store.files import check_seal, write_sealed
from bench.store.rundir import RunDir
from bench.store.tables import Rows

MAX_TASKS = 2  # states after finished tasks that are kept
# Every other field of a state is JSON text.
TENSOR_FIELDS = ("method", "optimiser", "random", "means", "spread")


@dataclass(frozen=True)
class Position:
    """How far training has come within a task."""

    epoch: int  # counted from 0
    step: int  # steps done in this epoch
    served: int  # image views trained on in this task
    seconds: float  # spent on this task so far, by all processes together
    sums: dict[str, float]  # each term of the loss, summed over this epoch's steps


@dataclass(frozen=True)
class AfterTask:
    """The state of a cell after a finished task, before the next one begins."""

    finished: int  # tasks
    method: dict[str, Any]  # the method's state_dict
    stream: str  # digest of everything served so far
    tables: dict[str, Rows]  # rows of results, by the name of the table
    facts: dict[str, Any]


@dataclass(frozen=True)
class WithinTask:
    """The state of a cell within the task that follows `finished` tasks."""

    finished: int
    method: dict[str, Any]
    optimiser: dict[str, Any]  # the optimiser's state_dict
    random: list[Tensor]  # states of torch's generators: the CPU's, then the GPU's if one is used
    stream: str
    position: Position
    losses: Rows
    facts: dict[str, Any]


State = TypeVar("State", AfterTask, WithinTask, TaskStatistics)


class Checkpoints:
    """The checkpoints of one cell.

    same: digests that must equal those of the run that wrote a file. say: is told of each file
    that cannot be used, and why.
    """

    def __init__(
        self, run: RunDir, spec: RunSpec, same: dict[str, str], say: Callable[[str], None]
    ) -> None:
        self.folder, self.say = run.path / "ckpt", say
        self.same = {"spec_sha": spec.sha, **same}
        for torn in self.folder.glob(".*.pt.*"):  # left by a process that was killed while it wrote
            torn.unlink(missing_ok=True)

    def save_after(self, state: AfterTask) -> None:
        """Keep this state, and drop those that are no longer needed."""
        self._write(self._after_file(state.finished), state)
        for old in self._finished()[MAX_TASKS:]:
            self._after_file(old).unlink()
        self._within_file.unlink(missing_ok=True)

    def save_within(self, state: WithinTask) -> None:
        """Keep this state instead of the one before it in the same task."""
        self._write(self._within_file, state)

    def save_statistics(self, number: int, of_task: TaskStatistics) -> None:
        """Keep what is known of the classes of a task, counted from 1.

        It never changes, and is the largest thing that a cell keeps, so it has a file of its own.
        """
        self._write(self._statistics_file(number), of_task)

    def statistics(self, finished: int) -> list[TaskStatistics] | None:
        """Of the first `finished` tasks; None if a file cannot be used."""
        found = [
            self._read(self._statistics_file(number + 1), TaskStatistics)
            for number in range(finished)
        ]
        usable = [one for one in found if one is not None]
        return usable if len(usable) == finished else None

    @staticmethod
    def forget_statistics(run: RunDir) -> None:
        """Remove them once a run is done."""
        for file in (run.path / "ckpt").glob("statistics-*.pt"):
            file.unlink()

    def after(self) -> Iterator[AfterTask]:
        """States after finished tasks, newest first; files that cannot be used are left out."""
        for finished in self._finished():
            state = self._read(self._after_file(finished), AfterTask)
            if state is not None:
                yield state

    def within(self, finished: int) -> WithinTask | None:
        """The state within the task that follows `finished` tasks, or None."""
        if not self._within_file.exists():
            return None
        state = self._read(self._within_file, WithinTask)
        return state if state is not None and state.finished == finished else None

    def restore(
        self,
        state: AfterTask | WithinTask,
        method: Method,
        optimiser: torch.optim.Optimizer | None = None,
    ) -> bool:
        """Load the tensors of a state. False if they do not fit, as after a change of the method.

        A state that does not fit is named and leaves the method as it was.
        """
        before = copy.deepcopy(method.state_dict())
        try:
            method.load_state_dict(state.method)
            if isinstance(state, WithinTask) and optimiser is not None:
                optimiser.load_state_dict(state.optimiser)
        except Exception as error:  # torch raises many kinds
            method.load_state_dict(before)
            self.say(f"{self.folder}: not used: {str(error).splitlines()[0]}")
            return False
        return True

    @property
    def _within_file(self) -> Path:
        return self.folder / "within.pt"

    def _after_file(self, finished: int) -> Path:
        return self.folder / f"task-{finished}.pt"

    def _statistics_file(self, number: int) -> Path:
        return self.folder / f"statistics-{number}.pt"

    def _finished(self) -> list[int]:
        """The numbers of tasks after which a state is kept, newest first."""
        numbers = [file.stem.removeprefix("task-") for file in self.folder.glob("task-*.pt")]
        return sorted((int(number) for number in numbers if number.isdigit()), reverse=True)

    def _write(self, file: Path, state: AfterTask | WithinTask | TaskStatistics) -> None:
        buffer = io.BytesIO()
        torch.save({"format": formats.CHECKPOINT, **self.same, **_encoded(state)}, buffer)
        write_sealed(file, lambda stream: stream.write(buffer.getvalue()))

    def _read(self, file: Path, kind: type[State]) -> State | None:
        try:
            sealed = file.read_bytes()[: check_seal(file)]
            content = torch.load(io.BytesIO(sealed), map_location="cpu", weights_only=True)
            self._check(content)
            return _decoded(content, kind)
        except Exception as error:  # whatever is wrong, an earlier state takes its place
            self.say(f"{file}: not used: {str(error).splitlines()[0]}")
            return None

    def _check(self, content: dict[str, Any]) -> None:
        if content["format"] != formats.CHECKPOINT:
            raise ValueError(f"format {content['format']}, this version reads {formats.CHECKPOINT}")
        for key, value in self.same.items():
            if content[key] != value:
                raise ValueError(f"it was written with another {key}")


def _encoded(state: AfterTask | WithinTask | TaskStatistics) -> dict[str, Any]:
    """The fields of a state as they lie in the file."""
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {
        name: value if name in TENSOR_FIELDS else json.dumps(value, default=dataclasses.asdict)
        for name, value in values.items()
    }


def _decoded(content: dict[str, Any], kind: type[State]) -> State:
    values = {
        field.name: content[field.name]
        if field.name in TENSOR_FIELDS
        else json.loads(content[field.name])
        for field in dataclasses.fields(kind)
    }
    if "position" in values:
        values["position"] = Position(**values["position"])
    return kind(**values)
