"""Finished runs packed into one file: results/SUITE/archive/1.zip, 2.zip ... hold RUN_ID/FILE.

A thousand cells are else fifteen thousand files, and clusters count them. A packed run counts as
finished everywhere, by RunDir; what lies in runs/ under the same name is newer and wins.
"""

from __future__ import annotations

import contextlib
import functools
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError

FOLDER = "archive"
DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


def archives(folder: Path) -> list[Path]:
    """The archives of a suite's folder of results, the newest last; other names count as older.

    Raises UsageError for a folder that may not be read.
    """
    try:
        names = os.listdir(folder / FOLDER)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder / FOLDER}: cannot be read ({error.strerror})") from error
    files = [folder / FOLDER / name for name in names if name.endswith(".zip") and name[0] != "."]
    return sorted(files, key=lambda file: (number_of(file), file.name))


def number_of(file: Path) -> int:
    """1 of 1.zip; 0 of a name that is not ours."""
    return int(file.stem) if file.stem.isdecimal() else 0


@dataclass(frozen=True)
class Packed:
    """A finished run in an archive."""

    file: Path
    run_id: str

    def names(self) -> list[str]:
        """Its files, as they are named in the folder of the run."""
        return sorted(_open(self.file).runs[self.run_id])

    def read(self, name: str) -> bytes | None:
        """What a file holds; None where the run has no such file. Raises UsageError."""
        opened = _open(self.file)
        if name not in opened.runs[self.run_id]:
            return None
        with _named(self.file):
            return opened.archive.read(f"{self.run_id}/{name}")


def find(folder: Path, run_id: str) -> Packed | None:
    """A run in the newest archive that holds it. Raises UsageError for a broken archive."""
    for file in reversed(archives(folder)):
        if run_id in _open(file).runs:
            return Packed(file, run_id)
    return None


def packed(folder: Path) -> set[str]:
    """The run_id of each run in an archive. Raises UsageError for a broken one."""
    return {run_id for file in archives(folder) for run_id in _open(file).runs}


@dataclass(frozen=True)
class _Opened:
    archive: zipfile.ZipFile
    runs: dict[str, frozenset[str]]  # the files of each run that has a DONE


def _open(file: Path) -> _Opened:
    with _named(file):
        written = file.stat()
        # Processes that share an open file would move each other's place in it.
        return _opened(file, written.st_mtime_ns, written.st_size, os.getpid())


@functools.lru_cache(maxsize=32)
def _opened(file: Path, _written: int, _size: int, _process: int) -> _Opened:
    """What is in an archive is read once, until it is written anew."""
    archive = zipfile.ZipFile(file)
    runs: dict[str, set[str]] = {}
    for entry in archive.namelist():
        run_id, _, name = entry.partition("/")
        # An archive may come from elsewhere: nothing in it may lead out of the folder of its run.
        if not {"", ".", ".."} & {run_id, *name.split("/")} and "\\" not in entry:
            runs.setdefault(run_id, set()).add(name)
    whole = {run_id: frozenset(names) for run_id, names in runs.items() if "DONE" in names}
    return _Opened(archive, whole)


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        raise UsageError(f"{file}: cannot be read ({error})") from None
