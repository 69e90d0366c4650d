"""Run all cells of a suite that are not done: `python -m bench.grid SUITE`.

As many cells run side by side as there are cores, or one on each GPU. Before anything is trained,
each different benchmark, backbone and method is built once, so that mistakes are found first.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zlib import crc32

from bench import cli
from bench.code import code_sha
from bench.config.spec import RunSpec
from bench.config.suite import REGRESSION, Suite, load_suite
from bench.data.missing import require_files
from bench.errors import UsageError
from bench.launch import listing, options, scripts, slurm
from bench.launch.display import make_display
from bench.launch.pool import Pool, rounds_of, run_local
from bench.launch.status import status
from bench.launch.submitted import require_slurm, share_of
from bench.launch.track import require_tracker
from bench.paths import EXPECTED, REFERENCE, cache_dir, reference_folders
from bench.store import merge
from bench.store.archive import packed
from bench.store.codes import Codes
from bench.store.collect import TableRows, collect, known_before, rows_of_done
from bench.store.facts import SuiteFacts, read_facts, refuse_other_suite, write_facts
from bench.store.files import check_writable, file_time
from bench.store.pack import pack
from bench.store.rundir import RunDir
from bench.store.tables import NOT_RECORDED, PUBLISHED, read_csv, read_runs

WORK_PER_REPORT = 5  # seconds of cells between two reports of a running grid, per second of report


def main() -> int:
    if (words := merge.words_of(sys.argv[1:])) is not None:
        return merge.main(words)
    args = options.parse(__doc__.split("\n\n")[0])
    if args.list:
        print(listing.suite_list())
        return cli.FINE
    suite = load_suite(args.suite, args.overrides, args.name)
    if args.rate and not args.dry_run:
        raise UsageError("--rate: for --dry-run, which says what a suite costs")
    folder = args.results / suite.name
    refuse_other_suite(folder, suite.file)
    asked = suite.select(args.methods, args.benchmarks, args.order_seeds, args.seeds)
    rounds = rounds_of(suite.cells)
    chosen = sorted(asked, key=lambda cell: rounds[cell.run_id])
    index, count = args.shard
    # By its name: what else is chosen, or is done, does not move a cell to another machine.
    chosen = [cell for cell in chosen if crc32(cell.run_id.encode()) % count == index - 1]
    if args.share:
        chosen = _shared(args.share, chosen)
    if args.status:
        print(status(args.results, suite.name, chosen, _stale(args.results, chosen, {})))
        return cli.FINE
    left = [cell for cell in chosen if not RunDir.of(args.results, cell).done_as(cell)]
    kept: dict[str, TableRows] = {}
    for source in _kept_from(args, suite):
        kept = rows_of_done(source, left) | kept
    stale = [] if args.keep_stale else _stale(args.results, chosen, kept)
    if stale and args.collect:
        _say_what_is_stale(stale, "in the tables", "without --collect they run again")
        stale = []
    kept = {run_id: rows for run_id, rows in kept.items() if run_id not in stale}
    left = [cell for cell in chosen if cell.run_id in stale or cell in left]
    left = [cell for cell in left if cell.run_id not in kept]
    if args.dry_run:
        print(listing.plan(chosen, left, stale, args))
        return cli.FINE
    if args.launcher == "print":
        for cell in left:
            print(scripts.command_of(cell, args))
        return cli.FINE
    submits = args.launcher == "slurm" and bool(left)
    if submits or (args.launcher == "local" and not args.collect):
        require_files(chosen)  # to collect needs none
    if stale:
        _say_what_is_stale(stale, "run again", "--keep-stale keeps them")
    if args.track:
        require_tracker(args.track)
    written, drawn = _folders_written(args, folder)
    if args.scratch and args.launcher == "local":
        os.environ["BENCH_CACHE"] = args.scratch  # the workers inherit it
        written.append(cache_dir())
    if submits:
        require_slurm()
    elif args.launcher == "slurm":
        slurm.check_options(chosen, args)
        print("nothing is left to submit: the tables are written here, and --sbatch is not used")
    check_writable(written if submits else [*written, *drawn])
    done = [cell for cell in chosen if cell not in left]
    grid = Grid(args, suite, asked, left, done, kept, rounds)
    if submits:
        return slurm.launch(args, chosen, left, folder, drawn)
    if args.share:
        return grid.run_share()
    return grid.only_collect() if args.collect or args.launcher == "slurm" else grid.run()


def _shared(share: tuple[str, str], chosen: list[RunSpec]) -> list[RunSpec]:
    """The cells of one element. Raises UsageError if the suite has others than were submitted."""
    if not share[1].isdecimal():
        raise UsageError(f"--share: '{share[1]}': the number of an element is expected")
    wanted = share_of(Path(share[0]), int(share[1]))
    known = {cell.run_id: cell for cell in chosen}
    if lost := [run_id for run_id in wanted if run_id not in known]:
        raise UsageError(f"{share[0]}: {lost[0]} is not in the suite any more; submit it again")
    return [known[run_id] for run_id in wanted]


def _kept_from(args: argparse.Namespace, suite: Suite) -> list[Path]:
    """Folders whose tables may already list a cell as done, the user's own first."""
    if not args.keep:
        return []
    return [args.results / suite.name, *reference_folders(args.results, suite.name)]


def _stale(results: Path, cells: list[RunSpec], kept: dict[str, TableRows]) -> list[str]:
    """The run_id of each finished cell whose code is not today's, nor known to be the same."""
    codes = Codes.of(results)
    stale = []
    for cell in cells:
        run = RunDir.of(results, cell)
        code = run.code() if run.done() else ""
        if cell.run_id in kept and kept[cell.run_id].code != NOT_RECORDED:  # --keep asks for it
            code = kept[cell.run_id].code
        today = code_sha(cell.type, cell.data.name)
        if code and not codes.same(cell.suite, cell.type, code, today):
            stale.append(cell.run_id)
    return stale


def _say_what_is_stale(stale: list[str], what: str, hint: str) -> None:
    print(
        f"{len(stale)} finished cell(s) are of other code than today's and are {what}, "
        f"e.g. {stale[0]} ({hint})",
        file=sys.stderr,
    )


def _folders_written(args: argparse.Namespace, folder: Path) -> tuple[list[Path], list[Path]]:
    """Everywhere that this grid will write results, and a report."""
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    report = args.report / REFERENCE if args.report and args.published else args.report
    drawn = [report / folder.name] if report else []
    return [folder, runs], drawn


@dataclass
class Grid:
    """Cells that run on this machine, and the tables and report that come of them."""

    args: argparse.Namespace
    suite: Suite
    asked: list[RunSpec]  # what the options select
    left: list[RunSpec]  # those of this shard that are not done
    done: list[RunSpec]
    kept: dict[str, TableRows]  # done by the tables alone
    rounds: dict[str, int]  # of all cells of the suite, by run_id

    def __post_init__(self) -> None:
        kind = "json" if self.args.json else "quiet" if self.args.quiet else "auto"
        self.display = make_display(kind)
        self.folder = self.args.results / self.suite.name
        self.not_before = 0.0  # the time at which a report of the running grid is worth its time
        before = known_before(self.args.results, self.suite.name)
        asked = {cell.run_id for cell in self.asked}
        # What is asked for, and what this folder had before: a selection replaces nothing.
        self.listed = [cell for cell in self.suite.cells if cell.run_id in asked | before]
        self._say_what_leaves()
        if not self.args.share:
            self._write_facts(before - {cell.run_id for cell in self.suite.cells})

    def run_share(self) -> int:
        """Run what is left of an element's share; the tables are left to a job of their own."""
        args, began = self.args, file_time(self.folder)
        pool = Pool(args.results, self.left, self.display, limit=args.time_limit, track=args.track)
        try:
            failed = run_local(pool, args.jobs, args.device)
        except (KeyboardInterrupt, SystemExit):
            if any(RunDir.of(args.results, cell).saved_since(began) for cell in self.left):
                raise
            print("error: stopped before anything was saved: more time is needed", file=sys.stderr)
            return cli.UNFINISHED  # to be started again would not help
        return cli.UNFINISHED if failed else cli.FINE

    def only_collect(self) -> int:
        """Write tables and report from what is finished; returns the exit code."""
        counts = self.collect()
        self._compare_with_papers()
        drawn = self.draw(sys.stderr if self.args.json else None) if self.args.report else cli.FINE
        self.end(counts, "")
        if not self.left:
            self.check()  # said, and no more: the tables are written, whatever they show
        return cli.UNFINISHED if self.left else drawn

    def run(self) -> int:
        """Run what is left, collect the tables, draw the report; returns the exit code."""
        args = self.args
        self.display.say(self._first_line())
        pool = Pool(
            args.results,
            self.left,
            self.display,
            limit=args.time_limit,
            track=args.track,
            round_done=self.renew,
            rounds=self.rounds,
        )
        try:
            failed = run_local(pool, args.jobs, args.device, finished=self.done, kept=self.kept)
        except (KeyboardInterrupt, SystemExit):
            if any(RunDir.of(args.results, cell).done() for cell in self.left):
                self.collect()
            raise
        counts = self.collect(rerun=[cell.run_id for cell in self.left])
        self._compare_with_papers()
        drawn = self.draw(sys.stderr if args.json else None) if args.report else cli.FINE
        page = str(self.report / "index.html") if args.report and not args.published else ""
        self.end(counts, page)
        checked = self.check()
        return cli.UNFINISHED if failed else drawn or checked

    def _write_facts(self, others: Collection[str]) -> None:
        """others: cells of other settings. Whose they are is not known where nothing is recorded:
        then no suite's name is, and the folder stays open to both.
        """
        suite = self.suite
        name = read_facts(self.folder).suite if others else suite.file
        facts = SuiteFacts(suite.reference, suite.beside, suite.figure_rows, name)
        write_facts(self.folder, facts)

    def _say_what_leaves(self) -> None:
        """Name finished cells of other settings. Raises UsageError where they would be lost."""
        file = self.folder / "runs.csv"
        rows = read_runs(file) if file.is_file() else []
        known = {cell.run_id for cell in self.listed}
        # A merge brings runs that no table here has listed yet.
        runs = packed(self.folder) | {run.parent.name for run in self.folder.glob("runs/*/DONE")}
        done = dict.fromkeys([row["run_id"] for row in rows if row["status"] == "done"])
        gone = [run_id for run_id in done | dict.fromkeys(sorted(runs)) if run_id not in known]
        if not gone:
            return
        what = f"{self.folder}: {len(gone)} finished cell(s) of other settings, e.g. {gone[0]}"
        if not runs.issuperset(gone):
            raise UsageError(f"{what}, would be lost: give another --name")
        self.display.warn(f"{what}, are not in the tables; their runs stay")

    def _first_line(self) -> str:
        asked, listed, whole = len(self.asked), len(self.listed), len(self.suite.cells)
        before = f"{len(self.done)} done before"
        if asked == whole:
            return f"suite {self.suite.name}: {whole} cells, {before}"
        added = f", beside {listed - asked} that are there" if listed > asked else ""
        return (
            f"suite {self.suite.name}: {asked} of its {whole} cells are asked for, {before}; "
            f"they go to {self.folder}{added}"
        )

    def collect(self, rerun: Collection[str] = ()) -> dict[str, int]:
        """Write the tables; cells that are there but not run now keep their rows."""
        keep = [self.folder, *_kept_from(self.args, self.suite)]
        return collect(self.args.results, self.listed, keep, rerun)

    def end(self, counts: dict[str, int], page: str) -> None:
        """After the tables are written: pack the runs where that is asked for, and say the end."""
        if self.args.archive:
            self.display.say(pack(self.args.results, self.listed))
        self.display.end(counts, f"{self.folder}/metrics.csv", page)

    def renew(self, number: int, count: int) -> None:
        """Write the tables and the report after one of several rounds, unless the last time was
        just before: of a thousand class orders that takes longer than the cells.
        """
        began = time.monotonic()
        if began < self.not_before:
            return
        self.collect()
        said = f"class order {number} of {count} has finished: {self.folder}/metrics.csv"
        if self.args.report and self.draw(subprocess.DEVNULL) == cli.FINE:
            said += f", {self.report}"
        self.display.say(said)
        ended = time.monotonic()
        self.not_before = ended + WORK_PER_REPORT * (ended - began)

    def check(self) -> int:
        """Say whether the suite reproduced its published results, where it has some.

        A share of the cells says nothing of that, and a pod that ended with 1 would be started
        again.
        """
        name = self.suite.name
        if self.args.published or self.args.shard != (1, 1):
            return cli.FINE
        if name == REGRESSION or not (EXPECTED / f"{name}.csv").is_file():
            return cli.FINE
        words = [sys.executable, "-m", "bench.check", name, "--results", str(self.args.results)]
        code = subprocess.call(words, stdout=sys.stderr if self.args.json else None)
        return cli.FINE if code == cli.UNFINISHED else code

    def _compare_with_papers(self) -> None:
        """Write published.csv for the page, where papers have values of one of its datasets.

        A suite with a published run of its own has another check.
        """
        if self.args.published or not self.args.report or not self._is_of_papers():
            return
        words = ["-m", "bench.check", self.suite.name, "--results", str(self.args.results)]
        quiet = subprocess.DEVNULL
        subprocess.call([sys.executable, *words], stdout=quiet, stderr=quiet)

    def _is_of_papers(self) -> bool:
        published = {row["dataset"] for row in read_csv(EXPECTED / PUBLISHED, ("dataset",))}
        own = {re.sub(r"-[0-9]+$", "", cell.benchmark) for cell in self.listed}
        return bool(own & published) and not (EXPECTED / f"{self.suite.name}.csv").is_file()

    @property
    def report(self) -> Path:
        folder = self.args.report / REFERENCE if self.args.published else self.args.report
        return folder / self.suite.name

    def draw(self, stdout: IO[str] | int | None) -> int:
        args = self.args
        words = [sys.executable, "-m", "bench.report", self.suite.name, "--out", str(args.report)]
        if args.published:
            words += ["--results", str(args.published.parent), "--reference"]
        else:
            words += ["--results", str(args.results)]
        return subprocess.call(words, stdout=stdout)


if __name__ == "__main__":
    cli.run(main)
