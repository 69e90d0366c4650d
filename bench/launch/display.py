"""What a grid says while it runs: bars on a terminal, a line per finished cell elsewhere, or JSON.

How much is done is counted in FLOPs, which are known beforehand and differ tenfold between cells.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench.config.spec import RunSpec

KINDS = ("auto", "bars", "lines", "json", "quiet")
Event = dict[str, Any]  # as in bench/engine/task.py; docs/running.md lists the fields


@dataclass(frozen=True)
class Outcome:
    """How a cell ended. seconds: since it began here."""

    status: str
    reason: str
    seconds: float


@dataclass
class Clock:
    """How much of the work is done. work: FLOPs of each cell, by run_id."""

    work: dict[str, float]
    began: float = field(default_factory=time.monotonic)
    # Shares of each cell, 0 to 1: what is done, and what was done before this grid began.
    shares: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.work.values())

    @property
    def done(self) -> float:
        return sum(self.work[run_id] * share for run_id, share in self.shares.items())

    def set_share(self, run_id: str, share: float) -> None:
        self.before.setdefault(run_id, share if share < 1 else 0.0)
        self.shares[run_id] = share

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the work that was done since the start; None before any was."""
        here = self.done - sum(self.work[run_id] * share for run_id, share in self.before.items())
        if here <= 0:
            return None
        return (time.monotonic() - self.began) * (self.total - self.done) / here


def share_done(event: Event) -> float | None:
    """How much of a cell is done, 0 to 1, where each epoch counts the same; None for a note."""
    if "task" not in event:
        return None
    within = event.get("epoch", 0) / event.get("epochs", 1)
    tasks = event["task"] if "average_accuracy" in event else event["task"] - 1 + within
    return min(tasks / event["tasks"], 1.0)


def describe(cell: RunSpec) -> str:
    return f"{cell.method}, {cell.benchmark}, order {cell.order_seed}, seed {cell.seed}"


def line_of(cell: RunSpec, outcome: Outcome, accuracy: float | None) -> str:
    """One line about a cell that has ended."""
    if outcome.status != "done":
        return f"{cell.run_id}: {outcome.status}: {outcome.reason}"
    known = "" if accuracy is None else f"FAA {accuracy:.1f}, "
    return f"{describe(cell)}: {known}{outcome.seconds:.0f} s"


class Display:
    """Says only what went wrong; the base of the others. Not called by two threads at once."""

    def start(self, cells: list[RunSpec], work: dict[str, float], workers: int) -> None:
        """Called once, when the cells that are left and the FLOPs of each are known."""
        self.count, self.number = len(cells), 0
        smallest = max(sum(work.values()) / max(len(work), 1) / 100, 1.0)
        self.clock = Clock({run_id: max(flops, smallest) for run_id, flops in work.items()})
        self.accuracies: dict[str, float] = {}

    def event(self, worker: int, cell: RunSpec, event: Event) -> None:
        """Called when a cell's task begins, after each epoch and task, and with notes."""
        if (share := share_done(event)) is not None:
            self.clock.set_share(cell.run_id, share)
        if "average_accuracy" in event:
            self.accuracies[cell.run_id] = event["average_accuracy"]

    def finished(self, worker: int, cell: RunSpec, outcome: Outcome) -> None:
        """Called when a cell has ended, in whatever way."""
        self.number += 1
        self.clock.set_share(cell.run_id, 1.0)
        if outcome.status != "done":
            self.warn(line_of(cell, outcome, None))

    def say(self, text: str) -> None:
        """A line about the grid as a whole."""

    def warn(self, text: str) -> None:
        """A line about something that went wrong."""
        print(text, file=sys.stderr, flush=True)

    def end(self, counts: dict[str, int], tables: str, report: str) -> None:
        """Called once where the tables were written: cells by status, and where the files are."""
        said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"{tables}: {said}", flush=True)

    def close(self) -> None:
        """Called once, whatever happened."""


class Lines(Display):
    """One line per finished cell on stderr, for logs."""

    def event(self, worker: int, cell: RunSpec, event: Event) -> None:
        super().event(worker, cell, event)
        if "note" in event:
            self.say(f"{cell.run_id}: {event['note']}")

    def finished(self, worker: int, cell: RunSpec, outcome: Outcome) -> None:
        super().finished(worker, cell, outcome)
        if outcome.status != "done":
            return
        now, left = datetime.now(), self.clock.seconds_left
        line = line_of(cell, outcome, self.accuracies.get(cell.run_id))
        end = "" if left is None else f", all done about {now + timedelta(seconds=left):%H:%M}"
        self.say(f"{now:%H:%M:%S} {self.number}/{self.count} {line}{end}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bars(Display):
    """A line per worker and a bar over all FLOPs, on a terminal."""

    bars: Progress | None = None

    def start(self, cells: list[RunSpec], work: dict[str, float], workers: int) -> None:
        super().start(cells, work, workers)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True, highlight=False),
        )
        self.lines: list[TaskID] = [
            self.bars.add_task("starting", total=1.0, note="") for _ in range(workers)
        ]
        self.all = self.bars.add_task("all cells", total=self.clock.total, note="")
        self.shown = [""] * workers  # the cell of each worker
        self.bars.start()

    def event(self, worker: int, cell: RunSpec, event: Event) -> None:
        super().event(worker, cell, event)
        assert self.bars is not None
        if "note" in event:
            self.say(f"{cell.run_id}: {event['note']}")
            return
        line = self.lines[worker]
        if self.shown[worker] != cell.run_id:
            self.shown[worker] = cell.run_id
            self.bars.reset(line, description=describe(cell), note="")
        self.bars.update(line, completed=share_done(event), note=note_of(event))
        self._update_all()

    def finished(self, worker: int, cell: RunSpec, outcome: Outcome) -> None:
        super().finished(worker, cell, outcome)
        assert self.bars is not None
        self.bars.update(self.lines[worker], completed=1.0)
        self._update_all()

    def _update_all(self) -> None:
        assert self.bars is not None
        left = self.clock.seconds_left
        rest = "" if left is None else f", {timedelta(seconds=round(left))} left"
        note = f"{self.number} of {self.count} cells{rest}"
        self.bars.update(self.all, completed=self.clock.done, note=note)

    def say(self, text: str) -> None:
        if self.bars is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self.bars.console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.say(text)

    def close(self) -> None:
        if self.bars is not None:
            for line in self.lines:
                self.bars.update(line, visible=False)
            self.bars.stop()
            self.bars = None


def note_of(event: Event) -> str:
    """A note, or task, epoch, losses and speed, as far as they are known."""
    if "note" in event:
        return str(event["note"])
    words = [f"task {event['task']} of {event['tasks']}"]
    if "epoch" in event:
        words.append(f"epoch {event['epoch']} of {event['epochs']}")
    words += [f"{name} {value:.3f}" for name, value in event.get("losses", {}).items()]
    if event.get("images_per_second"):
        words.append(f"{event['images_per_second']:.0f} images/s")
    if "average_accuracy" in event:
        words.append(f"accuracy {event['average_accuracy']:.1f}")
    return ", ".join(words)


class JsonLines(Display):
    """One JSON object a line on stdout, for machines. docs/running.md lists the events."""

    def start(self, cells: list[RunSpec], work: dict[str, float], workers: int) -> None:
        super().start(cells, work, workers)
        self._write("start", cells=len(cells), workers=workers, flops=self.clock.total)

    def event(self, worker: int, cell: RunSpec, event: Event) -> None:
        super().event(worker, cell, event)
        self._write("progress", worker=worker, run_id=cell.run_id, **event)

    def finished(self, worker: int, cell: RunSpec, outcome: Outcome) -> None:
        super().finished(worker, cell, outcome)
        names = ("run_id", "benchmark", "method", "order_seed", "seed")
        self._write(
            "cell",
            worker=worker,
            **{name: getattr(cell, name) for name in names},
            **vars(outcome),
            faa=self.accuracies.get(cell.run_id),
            number=self.number,
            of=self.count,
            seconds_left=self.clock.seconds_left,
        )

    def say(self, text: str) -> None:
        self._write("message", text=text)

    def end(self, counts: dict[str, int], tables: str, report: str) -> None:
        self._write("end", counts=counts, tables=tables, report=report)

    @staticmethod
    def _write(event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, "time": time.time(), **fields}), flush=True)


def make_display(kind: str) -> Display:
    """kind: one of KINDS; auto = bars on a terminal, lines elsewhere."""
    if kind == "auto":
        kind = "bars" if _terminal() else "lines"
    classes: dict[str, type[Display]] = {"bars": Bars, "lines": Lines, "json": JsonLines}
    return classes.get(kind, Display)()


def _terminal() -> bool:
    """True where bars can be drawn on stderr."""
    with contextlib.suppress(ValueError):  # closed
        return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    return False
