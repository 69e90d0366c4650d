"""How the cells of a suite stand: queued, running, done, failed. Nothing is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from bench.config.spec import RunSpec
from bench.errors import UsageError
from bench.launch.submitted import Element, in_queue, launches
from bench.store.collect import is_held
from bench.store.rundir import RunDir
from bench.store.tables import FAILED

LOST = "running without a process"


class Submitted(NamedTuple):
    """The array that a cell was submitted in, when that was, and the log of the cell's element."""

    job: str
    time: float
    log: Path


def status(results: Path, suite: str, cells: Iterable[RunSpec], stale: Sequence[str] = ()) -> str:
    """A line with the counts, and a table of the cells that are not done.

    stale: the run_id of each finished cell of other code than today's.
    """
    folder, note = results / suite, ""
    queued: dict[str, Element] = {}
    submitted: dict[str, Submitted] = {}
    try:
        submitted = _submitted(folder)
        queued = in_queue(folder)
    except UsageError as error:  # the state files say most of it
        note = f"\n{error}"
    rows, counts = [], Counter[str]()
    for cell in cells:
        run, element = RunDir.of(results, cell), queued.get(cell.run_id)
        before = submitted.get(cell.run_id)
        state, why = _state(run, element, before)
        counts[state] += 1
        if state == "missing" and before and not note:
            why = _why_missing(before)
        if why or state not in ("done", "missing"):
            rows.append([cell.run_id, state, _where(run, state, element), why])
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    if stale:
        said += f" ({len(stale)} of them of other code than today's, e.g. {stale[0]})"
    table = f"\n{tabulate(rows, ['cell', 'state', 'job, node', ''])}" if rows else ""
    return f"suite {suite}: {said}{table}{note}"


def _why_missing(submitted: Submitted) -> str:
    """Why a cell that was submitted is not there. Its element has a log only if it began."""
    log = f" ({submitted.log})" if submitted.log.is_file() else ""
    if not submitted.job and not log:
        return "its launcher was killed, and no job of it is in the queue"
    return f"{f'job {submitted.job}' if submitted.job else 'its job'} ended before it{log}"


def _where(run: RunDir, state: str, element: Element | None) -> str:
    """Job and node: of the element that has the cell, or of the one in which it failed."""
    if element is not None:
        return f"{element.job}_{element.number} {element.node}".strip()
    saved = run.state()
    return f"{saved.get('job', '')} {saved.get('node', '')}".strip() if state in FAILED else ""


def _submitted(folder: Path) -> dict[str, Submitted]:
    """The last launch that had a cell, by run_id."""
    found: dict[str, Submitted] = {}
    for launch in launches(folder):
        script = folder / "slurm" / f"{launch.token}.sh"
        time = script.stat().st_mtime if script.is_file() else 0.0
        for number, share in enumerate(launch.elements):
            log = script.with_name(f"{launch.token}-{number}.log")
            of_this = Submitted(launch.job, time, log)
            found |= {name: of_this for name in share if found.get(name, of_this).time <= time}
    return found


def _state(run: RunDir, element: Element | None, submitted: Submitted | None) -> tuple[str, str]:
    """The state of a cell, and the reason or the log where it failed."""
    if run.done():
        return "done", ""
    if is_held(run):
        return "running", ""
    saved = run.state()
    failed = f"{saved.get('reason', '')} ({run.path / 'log.txt'})"
    if element is not None:
        # An element goes through its cells once: what failed since it was submitted has failed.
        file = run.path / "state.json"
        new = submitted is not None and file.is_file() and file.stat().st_mtime > submitted.time
        if new and saved["status"] in FAILED:
            return saved["status"], failed
        return ("queued" if element.state == "PENDING" else "in a running job"), element.problem
    if saved["status"] == "running":
        said = ""
        if submitted is not None and submitted.log.is_file():
            said = f"; its job: {submitted.job} ({submitted.log})"
        return LOST, f"the same command continues it{said}"
    if saved["status"] == "missing":
        return "missing", ""
    return saved["status"], failed
