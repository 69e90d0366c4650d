"""For the tests of stopping and of broken files: a cell in a process of its own, and its files."""

from __future__ import annotations

import os
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch
import warm

from bench import faults
from bench.config.spec import RunSpec
from bench.engine import run as engine
from bench.errors import UsageError
from bench.store.rundir import RunDir
from bench.store.tables import TABLES


def run(spec: RunSpec, results: Path, ready: Event | None = None, **environment: str) -> None:
    """Run a cell in this process, and exit.

    Exit code 0: done. 3: another status. 4: refused, or the disk failed. ready: is set when
    everything is loaded and the cell's own work begins.
    """
    os.environ.update(environment)
    torch.set_num_threads(1)
    faults.restart()
    build = engine.build_cell

    def built(*words: Any) -> Any:
        cell = build(*words)
        if ready is not None:
            ready.set()
        return cell

    engine.build_cell = built  # type: ignore[assignment]
    try:
        state = engine.run_cell(spec, results)
    except (UsageError, OSError):
        raise SystemExit(4) from None
    raise SystemExit(0 if state["status"] == "done" else 3)


def process(spec: RunSpec, results: Path, **environment: str) -> int | None:
    """Run a cell in a process of its own. Returns its exit code, negative for a signal."""
    child = warm.process(run, spec, results, **environment)
    child.join()
    return child.exitcode


def files_of(results: Path, spec: RunSpec) -> dict[str, bytes]:
    """The files of a run that must not depend on where it was stopped."""
    folder = RunDir.of(results, spec).path
    return {name: (folder / f"{name}.csv").read_bytes() for name in TABLES.keys() - {"timing"}}
