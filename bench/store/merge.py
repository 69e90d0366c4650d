"""Finished runs from other machines into one folder: `python -m bench.grid merge DIR...`."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from bench import cli
from bench.config.suite import SUITES
from bench.errors import Busy, UsageError
from bench.store.archive import packed
from bench.store.facts import SuiteFacts, common_facts, write_facts
from bench.store.files import write_bytes
from bench.store.rundir import RunDir
from bench.store.tables import TABLES

MEASURED = ("timing",)  # tables that no two runs have alike
LISTED = 10  # cells with two results that are named
RESULTS = Path("results")


def merge(folders: list[Path], results: Path) -> str:
    """Copy what these folders of one suite have finished, packed or not; returns what to say.

    Raises UsageError before anything is copied: for a folder without runs, for folders of several
    suites, and for runs of one cell with other numbers.
    """
    found: dict[str, RunDir] = {}
    suites: dict[str, Path] = {}
    differing: dict[str, str] = {}  # what differs, by run_id
    unfinished = 0
    for folder in folders:
        for run in _runs_in(folder):
            suites.setdefault(_suite_of(run), folder)
            if not run.done():
                unfinished += 1
                continue
            differing |= _differing(run, found.setdefault(run.path.name, run))
    if len(suites) > 1:
        said = ", ".join(f"{suite} in {folder}" for suite, folder in suites.items())
        raise UsageError(f"runs of several suites: {said}")
    (suite,) = suites
    facts = common_facts([*folders, results / suite])
    new = []
    for name, run in found.items():
        here = RunDir(results / suite / "runs" / name)
        if here.done():
            differing |= _differing(run, here)
        else:
            new.append((run, here))
    _refuse(differing)
    if facts and not (results / suite / "suite.json").exists():
        write_facts(results / suite, facts)
    for run, here in new:
        try:
            with here.lock():
                _copy(run, here)
        except Busy as error:
            raise UsageError(f"{error}; what was copied before it is safe") from None
    left = f", {unfinished} unfinished left alone" if unfinished else ""
    return (
        f"{results / suite}: {len(new)} finished cells added, {len(found) - len(new)} were there"
        f"{left}; {_how_to_collect(suite, facts, results)}"
    )


def _runs_in(folder: Path) -> list[RunDir]:
    """The begun and the finished runs of a folder. Raises UsageError where there are none."""
    try:
        names = {entry.name for entry in os.scandir(folder / "runs") if entry.is_dir()}
    except (FileNotFoundError, NotADirectoryError):
        names = set()
    except OSError as error:
        raise UsageError(f"{folder / 'runs'}: cannot be read ({error.strerror})") from error
    runs = [RunDir(folder / "runs" / name) for name in sorted(names | packed(folder))]
    runs = [run for run in runs if run.read("spec.json") is not None or run.done()]
    if not runs:
        raise UsageError(f"{folder}: no runs here (results/SUITE of another machine is expected)")
    return runs


def _suite_of(run: RunDir) -> str:
    """The suite that a run's spec.json names."""
    content, where = run.read("spec.json"), run.where("spec.json")
    if content is None:
        raise UsageError(f"{where}: not there, though the run has finished; delete {run.path}")
    try:
        suite = json.loads(content)["suite"]
    except (ValueError, KeyError, TypeError):
        suite = None
    # It becomes a folder's name here.
    if not isinstance(suite, str) or Path(suite).name != suite:
        raise UsageError(f"{where}: no spec of a run; delete the folder {run.path}")
    return suite


def _copy(run: RunDir, here: RunDir) -> None:
    """Checkpoints stay: nobody reads those of a finished run."""
    for name in run.names():
        content = None if name.startswith("ckpt/") else run.read(name)
        if content is not None:
            write_bytes(here.path / name, content)


def _differing(one: RunDir, other: RunDir) -> dict[str, str]:
    """The files in which two finished runs of one cell have other numbers, by run_id."""
    for name in sorted(f"{table}.csv" for table in TABLES.keys() - set(MEASURED)):
        if (one.read(name) or b"") != (other.read(name) or b""):
            return {one.path.name: f"{one.where(name)} and {other.where(name)}"}
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


def _how_to_collect(suite: str, facts: SuiteFacts | None, results: Path) -> str:
    """The command that writes the tables; in words where only the user knows it."""
    where = "" if results == RESULTS else f" --results {shlex.quote(str(results))}"
    if facts and facts.suite == suite and (SUITES / f"{suite}.py").is_file():
        return f"python -m bench.grid {suite}{where} --collect writes the tables"
    return (
        "the command that made these runs (with its suite or file, --set and --name), with"
        f"{where} --collect, writes the tables"
    )


def words_of(words: list[str]) -> list[str] | None:
    """The words for `merge`, where it is the first that is no --results; None else.

    A container has --results in front of all that its user gives.
    """
    at = 0
    while at < len(words) and words[at].partition("=")[0] == "--results":
        at += 1 if "=" in words[at] else 2
    return [*words[:at], *words[at + 1 :]] if words[at : at + 1] == ["merge"] else None


def main(words: list[str]) -> int:
    parser = cli.Parser(prog="python -m bench.grid merge", description=__doc__)
    parser.add_argument("folders", nargs="+", type=cli.folder, metavar="DIR")
    parser.add_argument("--results", type=cli.folder, default=RESULTS, metavar="DIR")
    args = parser.parse_args(words)
    print(merge(args.folders, args.results))
    return cli.FINE
