"""How the cells of a suite stand: queued, running, done, failed. Nothing is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tabulate import tabulate

from bench.config.spec import RunSpec
from bench.errors import Busy, UsageError
from bench.launch.slurm import Element, in_queue
from bench.store.archive import packed
from bench.store.locks import locked
from bench.store.rundir import LOCK, RunDir

LOST = "running without a process"


def status(results: Path, suite: str, cells: Iterable[RunSpec]) -> str:
    """A line with the counts, and a table of the cells that are not done."""
    note = ""
    try:
        queued = in_queue(results / suite)
    except UsageError as error:  # the state files say most of it
        queued, note = {}, f"\n{error}"
    rows, counts = [], Counter[str]()
    in_archive = packed(results / suite)
    for cell in cells:
        run = RunDir.of(results, cell)
        state, why = _state(run, queued.get(cell.run_id))
        if state == "missing" and cell.run_id in in_archive:
            state = "done"
        counts[state] += 1
        if state not in ("done", "missing"):
            element = queued.get(cell.run_id)
            job = f"{element.job}_{element.number} {element.node}" if element else ""
            rows.append([cell.run_id, state, job.strip(), why])
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    table = f"\n{tabulate(rows, ['cell', 'state', 'job, node', ''])}" if rows else ""
    return f"suite {suite}: {said}{table}{note}"


def _state(run: RunDir, element: Element | None) -> tuple[str, str]:
    """The state of a cell, and the reason or the log where it failed."""
    if run.done():
        return "done", ""
    if _is_held(run):
        return "running", ""
    saved = run.state()
    if element is not None:
        return ("queued" if element.state == "PENDING" else "in a running job"), ""
    if saved["status"] == "running":
        return LOST, "the same command continues it"
    if saved["status"] == "missing":
        return "missing", ""
    return saved["status"], f"{saved.get('reason', '')} ({run.path / 'log.txt'})"


def _is_held(run: RunDir) -> bool:
    """True while another process runs this cell."""
    if not (run.path / LOCK).exists():
        return False
    try:
        with locked(run.path / LOCK, busy="held"):
            return False
    except Busy:
        return True
