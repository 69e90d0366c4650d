"""The options of `python -m bench.grid`."""

from __future__ import annotations

import argparse
import re
import sys

from bench import cli
from bench.config.arguments import add_suite_arguments
from bench.errors import UsageError
from bench.launch.track import TRACKERS
from bench.paths import REFERENCE

EXAMPLES = """examples:
  python -m bench.grid mini --methods hlgp l2p --benchmarks glyphs-v
  python -m bench.grid mini --set data.root=DIR data.tasks=5 --name mine
  python -m bench.grid paper --dry-run --rate 145
  python -m bench.grid merge DIR...   (results/SUITE of other machines)
"""
NOTHING_RUNS = ("list", "status", "dry_run", "collect")
OF_CELLS = ("time_limit", "track", "launcher", "slurm_jobs", "sbatch")
CHOICE = ("methods", "benchmarks", "order_seeds", "seeds", "shard", "overrides", "name")
# What each of these would ignore. --report is let pass: run_all.sh always gives it.
READS_STATES = (*OF_CELLS, "quiet", "json", "archive", "scratch")
IGNORES = {
    "list": (*READS_STATES, *CHOICE, "jobs", "device", "keep", "keep_stale", "reference"),
    "status": (*READS_STATES, "jobs", "device", "keep", "keep_stale"),
    "dry_run": READS_STATES,
    "collect": (*OF_CELLS, "jobs", "device", "scratch"),
    "launcher print": ("jobs", "time_limit", "archive", "track", "quiet", "json"),
    "launcher slurm": ("json",),
}


def _shard(text: str) -> tuple[int, int]:
    try:
        index, count = (int(number) for number in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': i/n is expected, e.g. 1/4") from None
    if not 1 <= index <= count:
        last = max(count, 1)
        raise argparse.ArgumentTypeError(f"'{text}': 1/{last} to {last}/{last} are expected")
    return index, count


def _scratch(text: str) -> str:
    """A folder of the node; one that begins with a variable is known there alone."""
    return text if not text or text.startswith("$") else str(cli.folder(text).absolute())


def _whole_options(words: list[str]) -> list[str]:
    """--sbatch OPTIONS as one word: argparse would take `--partition=x` for its own option."""
    out: list[str] = []
    for word in words:
        if out and out[-1] == "--sbatch":
            out[-1] = f"--sbatch={word}"
        else:
            out.append(word)
    return out


def _what(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to run (default: all cells that are not done)")
    what.add_argument("--methods", nargs="+", default=[], metavar="ROW", help="Only these rows.")
    what.add_argument(
        "--benchmarks", nargs="+", default=[], metavar="B", help="Only these benchmarks."
    )
    what.add_argument(
        "--order-seeds", nargs="+", type=int, default=[], metavar="N", help="Only these orders."
    )
    what.add_argument(
        "--seeds", nargs="+", type=int, default=[], metavar="N", help="Only these seeds."
    )
    what.add_argument(
        "--shard",
        type=_shard,
        default=(1, 1),
        metavar="i/n",
        help="Only the i-th of n shares of the cells; a cell is always in the same one.",
    )
    what.add_argument(
        "--keep",
        action="store_true",
        help="Do not run cells that the tables, here or of the reference, list as done.",
    )
    what.add_argument(
        "--keep-stale",
        action="store_true",
        help="Do not run finished cells again whose code is not today's.",
    )
    what.add_argument(
        "--status",
        action="store_true",
        help="Say how the cells stand, also those in Slurm's queue, and run nothing.",
    )
    what.add_argument(
        "--collect",
        action="store_true",
        help="Write tables and report from what is finished, and run nothing.",
    )
    what.add_argument(
        "--list", action="store_true", help="List the suites, with cells and time, and run nothing."
    )
    what.add_argument(
        "--dry-run", action="store_true", help="List the cells and their cost, and run nothing."
    )
    what.add_argument(
        "--rate",
        type=cli.above_zero,
        metavar="TFLOPS",
        help="Dry run: show hours too, at so many 10^12 FLOP/s (see bench.speed) for each job.",
    )


def _where(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("where")
    where.add_argument(
        "--report",
        type=cli.folder,
        metavar="DIR",
        help="Draw the report there, after each class order.",
    )
    where.add_argument(
        "--archive",
        action="store_true",
        help="Pack the finished runs into one file when the tables are written.",
    )
    where.add_argument(
        "--reference",
        action="store_true",
        help="Write what the project publishes: results/reference/SUITE.",
    )


def _how(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how")
    how.add_argument(
        "--jobs",
        type=cli.positive,
        metavar="N",
        help="Run N cells side by side (default: one on each core or GPU).",
    )
    how.add_argument("--device", default="auto", help="Use cpu, cuda, or auto (default).")
    how.add_argument(
        "--launcher",
        choices=("local", "slurm", "print"),
        default="local",
        help="Run here (default), submit a Slurm array, or print the commands.",
    )
    how.add_argument(
        "--slurm-jobs",
        type=cli.positive,
        metavar="N",
        help="Slurm: split into N elements (default: as many as run at once, with minutes to do).",
    )
    how.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTIONS",
        help="Slurm: passed on, e.g. '--partition=gpu --time=240 --gpus=1 --account=lab'.",
    )
    # One element of a Slurm array: the file of what was submitted, and its number.
    how.add_argument("--share", nargs=2, metavar=("FILE", "INDEX"), help=argparse.SUPPRESS)
    how.add_argument(
        "--scratch",
        type=_scratch,
        default="",
        metavar="DIR",
        help="Keep decoded images and query features there: a disk of the node's own. $NAME in it "
        "is read on the node.",
    )
    how.add_argument(
        "--time-limit",
        type=cli.above_zero,
        metavar="MINUTES",
        help="Stop a cell that takes longer; it can be continued.",
    )
    how.add_argument(
        "--quiet", action="store_true", help="Say nothing while cells run, except what went wrong."
    )
    how.add_argument(
        "--json", action="store_true", help="Write one JSON object per event to standard output."
    )
    how.add_argument(
        "--track",
        choices=TRACKERS,
        default="",
        help="Send losses and accuracies to a tracker too (pip install hlgp-bench[NAME]).",
    )


def _refuse_what_does_not_go_together(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    """An option that would be ignored is an error."""
    asked = [name for name in NOTHING_RUNS if getattr(args, name)]
    if len(asked) > 1:
        parser.error(f"{', '.join(map(_option, asked))}: give one of them")
    for mode in (*asked, f"launcher {args.launcher}"):
        names = [name for name in IGNORES.get(mode, ()) if _is_given(parser, args, name)]
        if names:
            parser.error(f"{', '.join(map(_option, names))}: not with {_option(mode)}")
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", args.device):
        raise UsageError.unknown("--device", args.device, ["auto", "cpu", "cuda"])


def _is_given(parser: argparse.ArgumentParser, args: argparse.Namespace, name: str) -> bool:
    return bool(getattr(args, name) != parser.get_default(name))


def _option(name: str) -> str:
    return f"--{'set' if name == 'overrides' else name.replace('_', '-')}"


def parse(description: str) -> argparse.Namespace:
    """The words of the command line. Bad ones end the process with one line and exit code 2."""
    parser = cli.Parser(
        prog="python -m bench.grid",
        description=description,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_suite_arguments(parser)
    _what(parser)
    _where(parser)
    _how(parser)
    args, stray = parser.parse_known_args(_whole_options(sys.argv[1:]))
    if stray:
        quoted = "; what is for --sbatch stands in one pair of quotes" if args.sbatch else ""
        parser.error(f"unrecognized arguments: {' '.join(stray)}{quoted}")
    if args.quiet and args.json:
        parser.error("--quiet and --json: give one of them")
    _refuse_what_does_not_go_together(parser, args)
    if args.launcher != "slurm" and (args.slurm_jobs or args.sbatch):
        parser.error("--slurm-jobs, --sbatch: for --launcher slurm")
    args.sbatch = " ".join(args.sbatch)  # those of a second one come after
    args.published = args.results / REFERENCE if args.reference else None
    args.results = args.published or args.results
    return args
