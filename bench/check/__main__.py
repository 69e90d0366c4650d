"""Say whether a run reproduced what is published, or whether the code still does the same.

`bench.check smoke` runs a small suite and compares it with expected values (regression.py).
`bench.check mini`: your run against the published one (reproduction.py). `bench.check same mini`:
a sample of cells run again, compared byte for byte (same.py). Suites of papers, as in
`bench.check paper`: each published value gets a verdict (published.py), and so does each claim of
the abstract (claims.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd

from bench import cli
from bench.check.claims import claimed
from bench.check.protocol import gather
from bench.check.published import MARGIN, compare
from bench.check.regression import expect, measure, run_suite, verdicts
from bench.check.reproduction import expected_of, published, verdict
from bench.check.same import check_same
from bench.config.suite import REGRESSION, load_suite
from bench.errors import UsageError
from bench.hardware import cores
from bench.paths import EXPECTED, REFERENCE, find_results, results_names
from bench.report.frames import load
from bench.report.table_files import markdown
from bench.store.files import write_text
from bench.store.tables import COMPARED_COLUMNS as COLUMNS
from bench.store.tables import PUBLISHED, write_csv

VERDICTS = ("differs", "reproduced", "inconclusive", "missing", "not comparable")
RESULTS = Path("results")
MIN_SEEDS = 10  # for a margin
FIRST_SEED = 101  # of those that a margin is measured with: no suite uses them


def report(suite: str, folder: Path) -> int:
    """Print a verdict per published value and per claim.

    Returns 1 if anything differs, else 0 if anything was reproduced, else 3.
    """
    protocol, results = gather(suite, folder)
    rows = compare(protocol, results)
    if results is None and all(row["method"] == "all" for row in rows):
        raise UsageError(
            f"no expected values for suite '{suite}' (bench/check/expected: no {suite}.csv, "
            "none of its datasets published)"
        )
    rows = [dict.fromkeys(COLUMNS, "") | row for row in rows + claimed(protocol, results)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if results is not None and folder.parent.name != REFERENCE:
        write_csv(folder / PUBLISHED, COLUMNS, rows)  # for the suite's page
    by_verdict = table.sort_values("verdict", key=lambda v: v.map(VERDICTS.index), kind="stable")
    print(markdown(by_verdict))
    counts = table["verdict"].value_counts()
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    print(f"{suite}: {said}")
    print(
        f"reproduced: the same within {MARGIN:g} points, by two one-sided tests at 5%; "
        "no correction for the number of rows"
    )
    if "differs" in counts:
        return cli.CHECK_FAILED
    return cli.FINE if "reproduced" in counts else cli.UNFINISHED


def folder_of(results: Path, suite: str) -> Path:
    """The suite's results, the user's own or else the published ones; it may have none."""
    if results != RESULTS and not results.is_dir():
        raise UsageError(f"--results {results}: no such folder")
    if suite not in results_names(results):
        return results / suite
    folder = find_results(results, suite)
    if folder.parent.name == REFERENCE:
        print(f"{suite}: the published results ({folder})", file=sys.stderr)
    return folder


def parse() -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m bench.check",
        description=__doc__.split("\n\n")[0],
        epilog="Exit code: 0 all within the margins, or something reproduced and nothing that "
        "differs; 1 something differs; 3 nothing is decided yet (missing, inconclusive or not "
        "comparable).",
    )
    parser.add_argument(
        "suite",
        nargs="+",
        type=cli.results_name,
        metavar="SUITE",
        help="name of a suite; `same SUITE`: run a sample of it again and compare bytes",
    )
    parser.add_argument(
        "--results",
        type=cli.folder,
        default=RESULTS,
        help="of your runs",
    )
    parser.add_argument(
        "--expect",
        nargs="*",
        type=cli.folder,
        metavar="FOLDER",
        help="write expected/SUITE.csv from the published results; the spread also from these "
        "folders, which hold the suite with other seeds",
    )
    parser.add_argument(
        "--cells", type=cli.positive, default=1, help="same: at least so many cells"
    )
    parser.add_argument("--seed", type=cli.seed, default=1, help="same: that draws the cells")
    parser.add_argument("--device", default="auto", help="same: cpu, cuda, or auto")
    parser.add_argument("--jobs", type=cli.positive, default=cores())
    parser.add_argument(
        "--measure",
        type=int,
        metavar="SEEDS",
        help=f"run this many seeds (at least {MIN_SEEDS}) and write the expected values anew "
        "instead of comparing",
    )
    args = parser.parse_args()
    args.same = args.suite[0] == "same"
    names = args.suite[args.same :]
    if len(names) != 1:
        parser.error("one suite is expected")
    args.suite = names[0]
    if args.measure is not None and args.measure < MIN_SEEDS:
        raise UsageError(
            f"--measure {args.measure}: at least {MIN_SEEDS} seeds are needed for a margin"
        )
    return args


def main() -> int:
    args = parse()
    name: str = Path(args.suite).stem
    file: Path = EXPECTED / f"{name}.csv"
    if args.same:
        folder, cells = folder_of(args.results, name), load_suite(args.suite).cells
        return check_same(folder, cells, args.cells, args.seed, args.jobs, args.device)
    if args.expect is not None:
        further = [load(each) for each in args.expect]
        return write_table(file, expected_of(published(args.results, name), further))
    if args.measure is None and not file.is_file():
        return report(args.suite, folder_of(args.results, name))
    if args.measure is None and name != REGRESSION:
        if not (args.results / name / "runs.csv").is_file():
            raise UsageError(
                f"{name}: no results of your own in {args.results} (./run_all.sh {name})"
            )
        ours, theirs = load(args.results / name), published(args.results, name)
        return verdict(ours, theirs, pd.read_csv(file), args.results)
    seeds = list(range(FIRST_SEED, FIRST_SEED + (args.measure or 0)))
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure(run_suite(args.suite, Path(scratch), seeds, args.jobs))
    if args.measure:
        return write_expected(args.suite, file, measured)
    return compare_with_expected(args.suite, file, measured)


def write_expected(suite: str, file: Path, measured: pd.DataFrame) -> int:
    """Write expected/SUITE.csv from many seeds, for the runs that the suite itself has."""
    repeats = len({(cell.order_seed, cell.seed) for cell in load_suite(suite).cells})
    return write_table(file, expect(measured, repeats))


def write_table(file: Path, table: pd.DataFrame) -> int:
    write_text(file, table.to_csv(index=False, float_format="%.3f", lineterminator="\n"))
    print(markdown(table.round(2)))
    return cli.FINE


def compare_with_expected(suite: str, file: Path, measured: pd.DataFrame) -> int:
    """Print a verdict per expected value; 1 if any is outside its margin, else 0."""
    table = verdicts(measured, pd.read_csv(file))
    print(markdown(table.round(2)))
    outside = int((table["verdict"] != "ok").sum())
    print(f"{suite}: {len(table) - outside} of {len(table)} values within their margins")
    return cli.CHECK_FAILED if outside else cli.FINE


if __name__ == "__main__":
    cli.run(main)
