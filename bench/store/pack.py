"""Packing finished runs into an archive: `python -m bench.grid SUITE --archive`."""

from __future__ import annotations

import contextlib
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from bench.config.spec import RunSpec
from bench.errors import Busy
from bench.store.archive import FOLDER, archives, find, number_of
from bench.store.collect import is_held, rows_of_done
from bench.store.files import write_atomic
from bench.store.locks import locked
from bench.store.rundir import SEALED_FILES, RunDir


def pack(results: Path, cells: Iterable[RunSpec]) -> str:
    """Move the finished runs of cells of one suite into a new archive; returns what to say.

    Only those whose rows are in the suite's tables: another grid may have finished one since they
    were written. A run goes when the archive is on disk; one that another process holds stays.
    """
    cells = list(cells)
    folder = results / cells[0].suite
    with locked(folder / ".lock"):  # nobody collects meanwhile
        in_tables = rows_of_done(folder, cells)
        here = [RunDir.of(results, cell) for cell in cells if cell.run_id in in_tables]
        here = [run for run in here if run.path.is_dir() and run.done() and not is_held(run)]
        new = [run for run in here if not _is_packed(folder, run)]
        before = archives(folder)
        file = folder / FOLDER / f"{number_of(before[-1]) + 1 if before else 1}.zip"
        if new:
            write_atomic(file, lambda stream: _write(stream, new))
        for run in here:
            with contextlib.suppress(Busy), run.lock():
                # Another grid may have run it again meanwhile, with other code.
                if _is_packed(folder, run):
                    _remove(run, folder / FOLDER / f".{run.path.name}")
    if new:
        return f"{file}: {len(new)} finished runs are packed"
    return "nothing to pack" if not here else f"{folder / FOLDER}: all runs were packed before"


def _is_packed(folder: Path, run: RunDir) -> bool:
    """True if the newest archive that has a run of this name holds this very run.

    Also where only a lock is left in its folder, of a process that found it packed.
    """
    packed = find(folder, run.path.name)
    # Read back, so that nothing is removed for an archive that is damaged.
    return packed is not None and all(
        packed.read(name) == run.read(name) for name in ("DONE", *SEALED_FILES)
    )


def _remove(run: RunDir, aside: Path) -> None:
    """Out of the way at once: a grid that starts meanwhile must not see half of a run."""
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed here
    run.path.rename(aside)
    shutil.rmtree(aside)


def _write(stream: BinaryIO, runs: Iterable[RunDir]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for run in runs:
            with contextlib.suppress(Busy), run.lock():  # nobody moves its files meanwhile
                for name in run.names():
                    archive.write(run.path / name, f"{run.path.name}/{name}")
