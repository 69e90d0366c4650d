"""Run all cells of a suite that are not done: `python -m bench.grid SUITE`.

As many one-thread cells run side by side as there are cores, or one on each GPU. What cannot work is found before anything
is trained: each different benchmark, backbone and method is built once first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench import cli
from bench.config.spec import RunSpec
from bench.config.suite import add_suite_arguments, load_suite
from bench.data.missing import require_files
from bench.errors import UsageError
from bench.launch.pool import run_local
from bench.launch.slurm import command_of, submit_slurm
from bench.paths import cache_dir
from bench.store.collect import collect, tabled
from bench.store.files import write_text
from bench.store.rundir import RunDir


def plan(chosen: list[RunSpec], left: list[RunSpec], args: argparse.Namespace) -> str:
    """Each cell with its state, and what those that are left cost."""
    states = [
        (RunDir.of(args.results, cell).state()["status"] if cell in left else "done", cell.run_id)
        for cell in chosen
    ]
    lines = [f"{state:12} {run_id}" for state, run_id in states]
    if left:
        from bench.cost import suite as budget  # torch: only here

        lines += [
            "",
            f"left to run: {len(left)} of {len(chosen)} cells",
            budget.table(left, args.rate, args.jobs or 1),
        ]
    return "\n".join(lines)


def _shard(text: str) -> tuple[int, int]:
    try:
        index, count = (int(part) for part in text.split("/"))
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
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--benchmarks", nargs="+", default=[])
    parser.add_argument("--order-seeds", nargs="+", type=int, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[])
    parser.add_argument(
        "--jobs", type=cli.positive, help="cells side by side (default: one a core, or one a GPU)"
    )
    parser.add_argument("--launcher", choices=("local", "slurm", "print"), default="local")
    parser.add_argument(
        "--shard", type=_shard, default=(1, 1), metavar="i/n", help="run the i-th of n parts"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    parser.add_argument("--keep", action="store_true",
                        help="cells that are done by the suite's tables (a fresh clone has no runs) keep their rows and are "
                        "not run again")  # fmt: skip
    parser.add_argument("--time-limit", type=cli.above_zero, metavar="MINUTES",
                        help="local: a cell that takes longer is stopped, resumable")  # fmt: skip
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list the cells, their state and what is left costs (images, forward passes, FLOPs); run nothing",
    )
    parser.add_argument("--rate", type=cli.above_zero, metavar="TFLOPS",
                        help="dry run: hours too, at so many 10^12 FLOP/s (bench.speed: images_per_second x gflops_per_image "
                        "/ 1000), divided by --jobs where that is given")  # fmt: skip
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="local: draw the report there at the end (bench.report --out)",
    )
    return parser.parse_args()


def main() -> int:
    args = parse()
    suite = load_suite(args.suite, args.overrides, args.name)
    if args.rate and not args.dry_run:
        raise UsageError("--rate: for --dry-run, which says what a suite costs")
    chosen = suite.select(args.methods, args.benchmarks, args.order_seeds, args.seeds)
    chosen = chosen[args.shard[0] - 1 :: args.shard[1]]
    left = [cell for cell in chosen if not RunDir.of(args.results, cell).done()]
    kept = tabled(args.results / suite.name, left) if args.keep else {}
    left = [cell for cell in left if cell.run_id not in kept]
    if args.dry_run:
        print(plan(chosen, left, args))
        return cli.FINE
    if args.launcher == "print":
        for cell in left:
            print(command_of(cell, args))
        return cli.FINE
    require_files(chosen)
    folder = args.results / suite.name
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    drawn_in = [args.report / suite.name] if args.report and args.launcher == "local" else []
    for place in (
        folder,
        runs,
        cache_dir(),
        *drawn_in,
    ):  # an unwritable folder is found now, not after the first cell
        write_text(place / ".writable", "")
        (place / ".writable").unlink(missing_ok=True)  # another grid may have
    if args.launcher == "slurm":
        if left:
            submit_slurm(left, args, folder)
        return cli.FINE
    print(
        f"suite {suite.name}: {len(chosen)} cells, {len(chosen) - len(left)} done before",
        file=sys.stderr,
    )
    finished = [cell for cell in chosen if cell not in left]
    try:
        failed = run_local(
            left, args.results, args.jobs, args.device, finished, args.time_limit, kept
        )
    except (KeyboardInterrupt, SystemExit):
        if any(
            RunDir.of(args.results, cell).done() for cell in left
        ):  # they are in the tables from now on
            collect(
                args.results, suite.cells, keep=True
            )  # which may have rows, a clone's, that this grid has not come to
        raise
    counts = collect(args.results, suite.cells, args.keep)
    print(
        f"{folder}/metrics.csv: "
        + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())),
        flush=True,
    )
    drawn = cli.FINE
    if args.report:
        words = [
            "-m",
            "bench.report",
            suite.name,
            "--results",
            str(args.results),
            "--out",
            str(args.report),
        ]
        drawn = subprocess.call([sys.executable, *words])
    return cli.UNFINISHED if failed else drawn


if __name__ == "__main__":
    cli.run(main)
