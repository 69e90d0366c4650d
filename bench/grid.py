"""Run all cells of a suite that are not done: `python -m bench.grid SUITE`.

As many cells run side by side as there are cores, or one on each GPU. Before anything is trained,
each different benchmark, backbone and method is built once, so that mistakes are found first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench import cli
from bench.config.arguments import add_suite_arguments
from bench.config.spec import RunSpec
from bench.config.suite import Suite, load_suite
from bench.data.missing import require_files
from bench.errors import UsageError
from bench.launch.pool import run_local
from bench.launch.slurm import command_of, submit_slurm
from bench.paths import REFERENCE, cache_dir, reference_folders
from bench.store.collect import TableRows, collect, rows_of_done
from bench.store.facts import SuiteFacts, write_facts
from bench.store.files import write_text
from bench.store.rundir import RunDir


def _shard(text: str) -> tuple[int, int]:
    try:
        index, count = (int(number) for number in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': i/n is expected, e.g. 1/4") from None
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"'{text}': 1/{count} to {count}/{count} are expected")
    return index, count


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.grid", description=__doc__.split("\n\n")[0]
    )
    add_suite_arguments(parser)
    parser.add_argument("--methods", nargs="+", default=[], metavar="ROW", help="only these rows")
    parser.add_argument("--benchmarks", nargs="+", default=[], metavar="B", help="only these")
    parser.add_argument("--order-seeds", nargs="+", type=int, default=[], metavar="N")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N")
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="i/n",
                        help="only the i-th of n shares of the cells")  # fmt: skip
    parser.add_argument("--jobs", type=cli.positive, metavar="N",
                        help="cells side by side (default: one a core, or one a GPU)")  # fmt: skip
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    parser.add_argument("--launcher", choices=("local", "slurm", "print"), default="local")
    parser.add_argument("--time-limit", type=cli.above_zero, metavar="MINUTES",
                        help="local: stop a cell that takes longer; it can be resumed")  # fmt: skip
    parser.add_argument("--keep", action="store_true",
                        help="do not run cells that the tables (here, or of the reference) list as "
                        "done; they keep their rows")  # fmt: skip
    parser.add_argument("--report", type=Path, metavar="DIR",
                        help="local: draw the report there at the end")  # fmt: skip
    parser.add_argument("--reference", action="store_true",
                        help="write what the project publishes: results/reference/SUITE and, with "
                        "--report, reports/reference/SUITE")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true",
                        help="run nothing: list the cells, their state, and what is left costs "
                        "(images, forward passes, FLOPs)")  # fmt: skip
    parser.add_argument("--rate", type=cli.above_zero, metavar="TFLOPS",
                        help="dry run: hours too, at so many 10^12 FLOP/s (column tflops of "
                        "bench.speed), divided by --jobs")  # fmt: skip
    args = parser.parse_args()
    args.published = args.results / REFERENCE if args.reference else None
    args.results = args.published or args.results
    return args


def main() -> int:
    args = parse()
    suite = load_suite(args.suite, args.overrides, args.name)
    if args.rate and not args.dry_run:
        raise UsageError("--rate: for --dry-run, which says what a suite costs")
    chosen = suite.select(args.methods, args.benchmarks, args.order_seeds, args.seeds)
    chosen = chosen[args.shard[0] - 1 :: args.shard[1]]
    left = [cell for cell in chosen if not RunDir.of(args.results, cell).done()]
    kept: dict[str, TableRows] = {}
    for folder in _kept_from(args, suite):
        kept = rows_of_done(folder, left) | kept
    left = [cell for cell in left if cell.run_id not in kept]
    if args.dry_run:
        print(_plan(chosen, left, args))
        return cli.FINE
    if args.launcher == "print":
        for cell in left:
            print(command_of(cell, args))
        return cli.FINE
    require_files(chosen)
    folder = args.results / suite.name
    _check_writable(_folders_written(args, folder))
    if args.launcher == "slurm":
        if left:
            submit_slurm(left, args, folder)
        return cli.FINE
    done = [cell for cell in chosen if cell not in left]
    print(f"suite {suite.name}: {len(chosen)} cells, {len(done)} done before", file=sys.stderr)
    return _run(args, suite, left, done, kept)


def _kept_from(args: argparse.Namespace, suite: Suite) -> list[Path]:
    """Folders whose tables may already list a cell as done, the user's own first."""
    if not args.keep:
        return []
    return [args.results / suite.name, *reference_folders(args.results, suite.name)]


def _plan(chosen: list[RunSpec], left: list[RunSpec], args: argparse.Namespace) -> str:
    """Each cell with its state, and the cost of those that are left."""
    lines = []
    for cell in chosen:
        state = RunDir.of(args.results, cell).state()["status"] if cell in left else "done"
        lines.append(f"{state:12} {cell.run_id}")
    if left:
        from bench.cost import suite as cost  # imports torch, which nothing else here needs

        lines += ["", f"left to run: {len(left)} of {len(chosen)} cells"]
        lines.append(cost.table(left, args.rate, args.jobs or 1))
    return "\n".join(lines)


def _folders_written(args: argparse.Namespace, folder: Path) -> list[Path]:
    """Everywhere that this grid will write."""
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    report = args.report / REFERENCE if args.report and args.published else args.report
    drawn = [report / folder.name] if report and args.launcher == "local" else []
    return [folder, runs, cache_dir(), *drawn]


def _check_writable(folders: Iterable[Path]) -> None:
    """Raises UsageError now for a folder that cannot be written, and not after the first cell."""
    for folder in folders:
        write_text(folder / ".writable", "")
        (folder / ".writable").unlink(missing_ok=True)  # another grid may have removed it


def _run(
    args: argparse.Namespace,
    suite: Suite,
    left: list[RunSpec],
    done: list[RunSpec],
    kept: dict[str, TableRows],
) -> int:
    """Run what is left, collect the tables, draw the report; returns the exit code."""
    folder = args.results / suite.name
    try:
        failed = run_local(
            left, args.results, args.jobs, args.device,
            finished=done, limit=args.time_limit, kept=kept,
        )  # fmt: skip
    except (KeyboardInterrupt, SystemExit):
        if any(RunDir.of(args.results, cell).done() for cell in left):
            # What is in the tables stays, also of cells that this grid has not come to.
            collect(args.results, suite.cells, keep=[folder, *_kept_from(args, suite)])
        raise
    counts = collect(args.results, suite.cells, keep=_kept_from(args, suite))
    write_facts(folder, SuiteFacts(suite.reference, suite.beside, suite.figure_rows))
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"{folder}/metrics.csv: {said}", flush=True)
    drawn = _draw(args, suite) if args.report else cli.FINE
    return cli.UNFINISHED if failed else drawn


def _draw(args: argparse.Namespace, suite: Suite) -> int:
    words = [sys.executable, "-m", "bench.report", suite.name, "--out", str(args.report)]
    if args.published:
        words += ["--results", str(args.published.parent), "--reference"]
    else:
        words += ["--results", str(args.results)]
    return subprocess.call(words)


if __name__ == "__main__":
    cli.run(main)
