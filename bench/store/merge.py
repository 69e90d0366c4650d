"""Finished runs from other machines into one folder: `python -m bench.grid merge DIR...`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from bench import cli
from bench.errors import UsageError
from bench.store.archive import archives
from bench.store.rundir import RunDir
from bench.store.tables import TABLES

MEASURED = ("timing",)  # tables that no two runs have alike


def merge(folders: list[Path], results: Path) -> str:
    """Copy what these folders of one suite have finished; returns what to say.

    Raises UsageError before anything is copied: for a folder without runs, for folders of several
    suites, and for runs of one cell with other numbers.
    """
    found: dict[str, RunDir] = {}
    suites: dict[str, Path] = {}
    unfinished = 0
    for folder in folders:
        runs = sorted((folder / "runs").glob("*/spec.json"))
        for file in archives(folder):
            cure = f"unpack it first: python -m zipfile -e {file} {folder / 'runs'}; rm {file}"
            raise UsageError(f"{file}: holds packed runs; {cure}")
        if not runs:
            raise UsageError(
                f"{folder}: no runs here (results/SUITE of another machine is expected)"
            )
        for file in runs:
            suites.setdefault(json.loads(file.read_text("utf-8"))["suite"], folder)
            run = RunDir(file.parent)
            if not run.done():
                unfinished += 1
                continue
            _refuse_differing(found.setdefault(run.path.name, run), run)
    if len(suites) > 1:
        said = ", ".join(f"{suite} in {folder}" for suite, folder in suites.items())
        raise UsageError(f"runs of several suites: {said}")
    (suite,) = suites
    new = []
    for name, run in found.items():
        here = RunDir(results / suite / "runs" / name)
        if here.done():
            _refuse_differing(here, run)
        else:
            new.append((run, here))
    for run, here in new:
        with here.lock():
            shutil.copytree(run.path, here.path, dirs_exist_ok=True, ignore=_but_done)
            shutil.copy2(run.path / "DONE", here.path)  # last: before it the run is not finished
    left = f", {unfinished} unfinished left alone" if unfinished else ""
    return (
        f"{results / suite}: {len(new)} finished cells added, {len(found) - len(new)} were there"
        f"{left}; python -m bench.grid {suite} --collect writes the tables"
    )


def _but_done(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("DONE", ".lock")]


def _refuse_differing(one: RunDir, other: RunDir) -> None:
    """Raises UsageError if two finished runs of one cell have other numbers."""
    for name in TABLES.keys() - set(MEASURED):
        files = [run.path / f"{name}.csv" for run in (one, other)]
        contents = [file.read_bytes() if file.is_file() else b"" for file in files]
        if contents[0] != contents[1]:
            raise UsageError(
                f"{files[0]} and {files[1]} differ: one cell with two results (other processors, "
                "or other code); keep one of the folders"
            )


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.grid merge", description=__doc__)
    parser.add_argument("folders", nargs="+", type=cli.folder, metavar="DIR")
    parser.add_argument("--results", type=cli.folder, default=Path("results"), metavar="DIR")
    args = parser.parse_args(words)
    print(merge(args.folders, args.results))
    return cli.FINE
