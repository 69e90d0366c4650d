"""Draw tables, figures and the HTML page of a suite: `python -m bench.report SUITE`."""

from __future__ import annotations

import argparse
import atexit
import gc
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench import cli
from bench.errors import UsageError
from bench.paths import REFERENCE, find_results, results_names
from bench.report.build import build, build_figures, other_suites, warnings
from bench.report.compare import PAIR_KEYS, Comparison, accuracies, shown, spread
from bench.report.frames import load
from bench.report.look import Paper
from bench.store.facts import read_facts

COLUMN_WIDTHS = {1: 3.25, 2: 6.75}  # inches, by the columns of a page that a figure takes
MAX_POINTS = {1: 8, 2: 10}  # of text there


class Sources(NamedTuple):
    """Folders of results: the suite's own, those asked for by --with, those beside by default."""

    suite: Path
    asked: list[Path]
    by_default: list[Path]


def find_sources(args: argparse.Namespace) -> Sources:
    """Where the results lie. Raises UsageError for a suite without any."""
    results = args.results / REFERENCE if args.reference else args.results
    folder = find_results(results, args.suite)
    names = [name for name in results_names(results) if name != args.suite]
    for name in args.beside:
        if name not in names or args.beside.count(name) > 1:
            raise UsageError.unknown("--with, other results", name, names)
    asked = [find_results(results, name) for name in args.beside]
    more = [] if args.alone else read_facts(folder).beside
    by_default = [name for name in more if name in names and name not in args.beside]
    return Sources(folder, asked, [find_results(results, name) for name in by_default])


def published(folders: Iterable[Path]) -> list[str]:
    """A line for each folder that holds published results, not the user's own."""
    return [
        f"'{folder.name}': the results that the repository holds ({folder}), no run of your own"
        for folder in folders
        if folder.parent.name == REFERENCE
    ]


def parse() -> argparse.Namespace:
    parser = cli.Parser(prog="python -m bench.report", description=__doc__)
    parser.add_argument(
        "suite",
        nargs="?",
        type=cli.results_name,
        default="mini",
        help="name of a folder in --results",
    )
    parser.add_argument(
        "--with",
        action="append",
        type=cli.results_name,
        default=[],
        dest="beside",
        metavar="SUITE",
        help="show rows of this one too, if they were run on the same images, orders, batches and "
        "views; may be repeated",
    )
    parser.add_argument(
        "--alone",
        action="store_true",
        help="without rows of the suites that the suite itself names (its field `beside`)",
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="draw nothing; say which rows of two results (names or folders) differ",
    )
    parser.add_argument("--results", type=cli.folder, default=Path("results"))
    parser.add_argument(
        "--out",
        type=cli.folder,
        default=Path("reports"),
        help="folder of reports; rows of others: SUITE+OTHER in it",
    )
    parser.add_argument(
        "--tracked",
        action="store_true",
        help="only what is kept under version control: Markdown tables and PNG figures",
    )
    parser.add_argument(
        "--reference",
        action="store_true",
        help=f"the published results, in OUT/{REFERENCE}/SUITE; implies --tracked",
    )
    parser.add_argument(
        "--format",
        choices=("page", "pdf"),
        default="page",
        help="pdf: the figures of a paper alone, OUT/SUITE/figures/*.pdf",
    )
    parser.add_argument(
        "--columns",
        type=int,
        choices=sorted(COLUMN_WIDTHS),
        help="pdf: of the page that a figure is as wide as (3.25 or 6.75 inches; default: 2)",
    )
    parser.add_argument(
        "--font-size",
        type=font_size,
        metavar="POINTS",
        help="pdf: 4 to 8 in one column, 4 to 10 in two; default: 8",
    )
    args = parser.parse_args()
    if args.format == "pdf" and (args.tracked or args.reference):
        parser.error("--format pdf draws what is not tracked: not with --tracked or --reference")
    if args.format != "pdf" and (args.columns or args.font_size):
        parser.error("--columns and --font-size are those of --format pdf")
    if args.columns == 1 and (args.font_size or 0) > MAX_POINTS[1]:
        parser.error(f"--font-size in one column: a number from 4 to {MAX_POINTS[1]}")
    return args


def font_size(text: str) -> float:
    """Points that can be read. Raises ArgumentTypeError for others."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 4 <= value <= MAX_POINTS[2]:
        raise argparse.ArgumentTypeError(f"'{text}': a number from 4 to {MAX_POINTS[2]}")
    return value


def compare(args: argparse.Namespace) -> int:
    """Print how two results differ; returns 1 if a row differs beyond its spread."""
    ours, theirs = (
        load(
            Path(name) if (Path(name) / "runs.csv").is_file() else find_results(args.results, name)
        )
        for name in args.compare
    )
    both = Comparison(ours, theirs, spread(accuracies([ours, theirs]).drop_duplicates(PAIR_KEYS)))
    print(shown(both, args.results))
    return cli.FINE if both.rows["ok"].all() else cli.CHECK_FAILED


def main() -> int:
    args = parse()
    gc.disable()  # a twentieth of the time: nearly all that a report makes lives till its end,
    atexit.register(gc.freeze)  # and it is not searched once more then
    if args.compare:
        return compare(args)
    sources = find_sources(args)
    results = load(*sources)
    if not args.reference:
        folders = [sources.suite, *sources.asked, *sources.by_default]
        results = replace(results, notes=(*published(folders), *results.notes))
    for line in warnings(results):
        print(line, file=sys.stderr)
    out = args.out / REFERENCE if args.reference else args.out
    out /= "+".join([sources.suite.resolve().name, *args.beside])
    if args.format == "pdf":
        paper = Paper(COLUMN_WIDTHS[args.columns or 2], args.font_size or 8.0)
        for file in build_figures(results, out, paper):
            print(file)
        return cli.FINE
    print(build(results, out, args.tracked or args.reference))
    if note := other_suites(results):
        print(f"\n{note}")
    if len(results.missing()):
        print(f"\n{len(results.missing())} cell(s) missing: see the report")
    print(f"\n{out / ('tables' if args.tracked or args.reference else 'index.html')}")
    return cli.FINE


if __name__ == "__main__":
    cli.run(main)
