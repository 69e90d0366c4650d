"""Checkpoints: the state after each finished task, and within a task after each epoch or where a signal stopped it.

Each is one file sealed with its digest. The last two finished tasks are kept, so that a broken file costs a task, not the
cell; a state within a task stands on the state before that task. No pickle is executed on reading.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.config.spec import RunSpec
from bench.method import Method
from bench.store.files import check_seal, write_sealed
from bench.store.rundir import RunDir

FORMAT = 4
KEPT = 2  # finished tasks


class Checkpoints:
    """The checkpoints of one cell. same: digests that must be those of the run that wrote them. say: names unusable files."""

    def __init__(
        self, run: RunDir, spec: RunSpec, same: dict[str, str], say: Callable[[str], None]
    ) -> None:
        self.folder, self.say = run.path / "ckpt", say
        self.same = {"spec_sha": spec.sha, **same}
        for torn in self.folder.glob(".*.pt.*"):  # of a process that was killed while it wrote
            torn.unlink(missing_ok=True)

    def save_task(self, finished: int, content: dict[str, Any]) -> None:
        """State after `finished` tasks: tensors and plain values only."""
        self._write(f"task-{finished}.pt", content)
        for old in self._tasks()[KEPT:]:
            self._file(old).unlink()
        self._within.unlink(missing_ok=True)

    def save_within(self, finished: int, content: dict[str, Any]) -> None:
        """State somewhere in the task that follows `finished` tasks."""
        self._write(self._within.name, {**content, "finished": finished})

    def tasks(self) -> Iterator[dict[str, Any]]:
        """States after finished tasks that can be read, newest first."""
        for finished in self._tasks():
            content = self._read(self._file(finished))
            if content is not None:
                yield content

    def within(self, finished: int) -> dict[str, Any] | None:
        """The state within the task that follows `finished` tasks, if there is one."""
        content = self._read(self._within) if self._within.exists() else None
        return content if content and content["finished"] == finished else None

    def restore(
        self,
        content: dict[str, Any],
        method: Method,
        optimiser: torch.optim.Optimizer | None = None,
    ) -> bool:
        """Load a state that was read; one that does not fit (the method was changed) is named and leaves nothing behind."""
        before = copy.deepcopy(method.state_dict())
        try:
            method.load_state_dict(content["method"])
            if optimiser is not None:
                optimiser.load_state_dict(content["optimiser"])
        except Exception as error:  # torch raises many kinds
            method.load_state_dict(before)
            self.say(f"{self.folder}: not used: {str(error).splitlines()[0]}")
            return False
        return True

    @property
    def _within(self) -> Path:
        return self.folder / "within.pt"

    def _file(self, finished: int) -> Path:
        return self.folder / f"task-{finished}.pt"

    def _tasks(self) -> list[int]:
        numbers = [f.stem.removeprefix("task-") for f in self.folder.glob("task-*.pt")]
        return sorted((int(n) for n in numbers if n.isdigit()), reverse=True)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save({**content, "format": FORMAT, **self.same}, buffer)
        write_sealed(self.folder / name, lambda stream: stream.write(buffer.getvalue()))

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            whole = path.read_bytes()[: check_seal(path)]
            content = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=True)
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
            for key, value in self.same.items():
                if content[key] != value:
                    raise ValueError(f"it was written with another {key}")
        except (
            Exception
        ) as error:  # whatever is wrong with it, there is an earlier state to continue from
            self.say(f"{path}: not used: {str(error).splitlines()[0]}")
            return None
        return content
