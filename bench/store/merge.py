"""Finished runs from other machines into one folder: `python -m bench.grid merge DIR...`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from bench import cli
from bench.errors import Busy, UsageError
from bench.store.archive import archives, packed, text_of
from bench.store.rundir import LOCK, RunDir
from bench.store.tables import TABLES

MEASURED = ("timing",)  # tables that no two runs have alike
LISTED = 10  # cells with two results that are named


def merge(folders: list[Path], results: Path) -> str:
    """Copy what these folders of one suite have finished; returns what to say.

    Raises UsageError before anything is copied: for a folder without runs, for folders of several
    suites, and for runs of one cell with other numbers.
    """
    found: dict[str, RunDir] = {}
    suites: dict[str, Path] = {}
    differing: dict[str, str] = {}  # what differs, by run_id
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
            suites.setdefault(_suite_of(file), folder)
            run = RunDir(file.parent)
            if not run.done():
                unfinished += 1
                continue
            differing |= _differing(found.setdefault(run.path.name, run), run)
    if len(suites) > 1:
        said = ", ".join(f"{suite} in {folder}" for suite, folder in suites.items())
        raise UsageError(f"runs of several suites: {said}")
    (suite,) = suites
    new = []
    in_archive = packed(results / suite)
    for name, run in found.items():
        here = RunDir(results / suite / "runs" / name)
        if here.done():
            differing |= _differing(here, run)
        elif name in in_archive:
            differing |= _other_than_packed(results / suite, in_archive[name], run)
        else:
            new.append((run, here))
    _refuse(differing)
    for run, here in new:
        try:
            with here.lock():
                _copy(run.path, here.path)
        except Busy as error:
            raise UsageError(f"{error}; what was copied before it is safe") from None
    left = f", {unfinished} unfinished left alone" if unfinished else ""
    return (
        f"{results / suite}: {len(new)} finished cells added, {len(found) - len(new)} were there"
        f"{left}; python -m bench.grid {suite} --collect writes the tables"
    )


def _suite_of(file: Path) -> str:
    """The suite that a run's spec.json names."""
    try:
        suite = json.loads(file.read_text("utf-8"))["suite"]
    except (ValueError, KeyError, TypeError):
        suite = None
    if not isinstance(suite, str):
        raise UsageError(f"{file}: no spec of a run; delete the folder {file.parent}")
    return suite


def _copy(run: Path, here: Path) -> None:
    """DONE goes last: before it the run is not finished."""
    files = [file for file in run.rglob("*") if file.is_file() and file.name != LOCK]
    for file in sorted(files, key=lambda file: file == run / "DONE"):
        (here / file.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, here / file.relative_to(run))


def _other_than_packed(folder: Path, archive: Path, run: RunDir) -> dict[str, str]:
    """As _differing, where the run that is there lies in an archive."""
    for name in sorted(TABLES.keys() - set(MEASURED)):
        file = run.path / f"{name}.csv"
        text = file.read_bytes().decode("utf-8", "replace") if file.is_file() else ""
        if text != text_of(folder, run.path.name, file.name):
            return {run.path.name: f"{file} and {run.path.name}/{file.name} in {archive}"}
    return {}


def _differing(one: RunDir, other: RunDir) -> dict[str, str]:
    """The files in which two finished runs of one cell have other numbers, by run_id."""
    for name in sorted(TABLES.keys() - set(MEASURED)):
        files = [run.path / f"{name}.csv" for run in (one, other)]
        contents = [file.read_bytes() if file.is_file() else b"" for file in files]
        if contents[0] != contents[1]:
            return {one.path.name: f"{files[0]} and {files[1]}"}
    return {}


def _refuse(differing: dict[str, str]) -> None:
    """Raises UsageError where cells have two results, and names them."""
    if differing:
        named = ", ".join([*differing.values()][:LISTED])
        more = f", and {len(differing) - LISTED} more" if len(differing) > LISTED else ""
        raise UsageError(
            f"{len(differing)} cell(s) with two results (other processors, or other code; keep one "
            f"of the folders): {named}{more} differ"
        )


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.grid merge", description=__doc__)
    parser.add_argument("folders", nargs="+", type=cli.folder, metavar="DIR")
    parser.add_argument("--results", type=cli.folder, default=Path("results"), metavar="DIR")
    args = parser.parse_args(words)
    print(merge(args.folders, args.results))
    return cli.FINE
