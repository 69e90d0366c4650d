"""Finished runs packed into one file: `python -m bench.grid SUITE --archive`.

results/SUITE/archive/1.zip, 2.zip ... hold RUN_ID/FILE. A thousand cells are else fifteen thousand
files, and clusters count them. The tables keep the numbers, so a packed cell is not run again.
`python -m zipfile -e results/SUITE/archive/1.zip results/SUITE/runs` unpacks.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from bench.config.spec import RunSpec
from bench.errors import Busy, UsageError
from bench.store.collect import rows_of_done
from bench.store.files import write_atomic
from bench.store.locks import locked
from bench.store.rundir import LOCK, RunDir

FOLDER = "archive"


def archives(folder: Path) -> list[Path]:
    """The archives of a suite's folder of results, the newest last."""
    return sorted((folder / FOLDER).glob("*.zip"), key=lambda file: (len(file.name), file.name))


def packed(folder: Path) -> dict[str, Path]:
    """The newest archive that holds a run, by run_id. Raises UsageError for a broken one."""
    found: dict[str, Path] = {}
    for file in archives(folder):
        try:
            with zipfile.ZipFile(file) as archive:
                found |= dict.fromkeys((name.split("/")[0] for name in archive.namelist()), file)
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(f"{file}: cannot be read ({error})") from None
    return found


def pack(results: Path, cells: Iterable[RunSpec]) -> str:
    """Move the finished runs of cells of one suite into a new archive; returns what to say.

    Only those whose rows are in the suite's tables: another grid may have finished one since they
    were written. A run goes when the archive is on disk; one that another process holds stays.
    """
    cells = list(cells)
    folder = results / cells[0].suite
    with locked(folder / ".lock"):  # nobody collects meanwhile
        in_tables = rows_of_done(folder, cells)
        runs = [RunDir.of(results, cell) for cell in cells if cell.run_id in in_tables]
        runs = [run for run in runs if run.done()]
        if not runs:
            return "nothing to pack"
        before = archives(folder)
        file = folder / FOLDER / f"{int(before[-1].stem) + 1 if before else 1}.zip"
        write_atomic(file, lambda stream: _write(stream, runs))
        for run in runs:
            with contextlib.suppress(Busy), run.lock():
                _remove(run, file.parent / f".{run.path.name}")
    return f"{file}: {len(runs)} finished runs are packed"


def _remove(run: RunDir, aside: Path) -> None:
    """Out of the way at once: a grid that starts meanwhile must not see half of a run."""
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed here
    run.path.rename(aside)
    shutil.rmtree(aside)


def _write(stream: BinaryIO, runs: Iterable[RunDir]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for run in runs:
            for file in sorted(run.path.rglob("*")):
                if file.is_file() and file.name != LOCK:
                    archive.write(file, f"{run.path.name}/{file.relative_to(run.path)}")


def text_of(folder: Path, run_id: str, name: str) -> str:
    """A text of a run, packed or not; "" where there is none."""
    with contextlib.suppress(OSError):
        return (folder / "runs" / run_id / name).read_text("utf-8", "replace")
    for file in reversed(archives(folder)):
        with contextlib.suppress(OSError, KeyError, zipfile.BadZipFile):
            archive = _opened(file, file.stat().st_mtime_ns)
            return archive.read(f"{run_id}/{name}").decode("utf-8", "replace")
    return ""


@functools.lru_cache(maxsize=4)
def _opened(file: Path, _written: int) -> zipfile.ZipFile:
    """An archive; the list of what is in it is read once, until it is written anew."""
    return zipfile.ZipFile(file)
