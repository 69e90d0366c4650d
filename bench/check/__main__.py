"""Compare results with expected values (`bench.check smoke`) or with published ones (`bench.check paper`).

Where there is an expected/SUITE.csv the suite is run again and compared with it (regression.py).
For every other suite or folder of results, each published value gets a verdict (published.py), and
so does each claim of the abstract (claims.py).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from bench import cli
from bench.check.claims import claimed
from bench.check.protocol import gather
from bench.check.published import EXPECTED, MARGIN, compare
from bench.check.regression import expect, measure, run_suite, verdicts
from bench.config.suite import load_suite
from bench.errors import UsageError
from bench.hardware import cores
from bench.report.tables import markdown
from bench.store.files import write_text

VERDICTS = ("differs", "reproduced", "inconclusive", "missing", "not comparable")
COLUMNS = [
    "what",
    "benchmark",
    "method",
    "metric",
    "published",
    "measured",
    "n",
    "difference",
    "verdict",
    "detail",
]


def report(suite: str, folder: Path) -> int:
    """Print a verdict per published value and per claim; 1 if anything differs, 0 if anything was reproduced, else 3."""
    protocol, results = gather(suite, folder)
    rows = compare(protocol, results)
    if results is None and all(row["method"] == "all" for row in rows):
        raise UsageError(
            f"no expected values for suite '{suite}' (bench/expected: no {suite}.csv, none of its datasets published)"
        )
    table = pd.DataFrame(
        [dict.fromkeys(COLUMNS, "") | row for row in rows + claimed(protocol, results)],
        columns=COLUMNS,
    )
    table = table.sort_values(
        "verdict", key=lambda column: column.map(VERDICTS.index), kind="stable"
    )
    print(markdown(table))
    counts = table["verdict"].value_counts()
    print(
        f"{suite}: "
        + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    )
    print(
        f"reproduced: the same within {MARGIN:g} points, by two one-sided tests at 5%; no correction for the number of rows"
    )
    if "differs" in counts:
        return cli.CHECK_FAILED
    return cli.FINE if "reproduced" in counts else cli.UNFINISHED


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.check",
        description=__doc__.split("\n\n")[0],
        epilog="Exit code: 0 all within the margins, or something reproduced and nothing that differs; 1 something differs; "
        "3 nothing is decided yet (missing, inconclusive or not comparable).",
    )
    parser.add_argument("suite", nargs="?", default="smoke")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="of runs to compare with published values",
    )
    parser.add_argument("--jobs", type=cli.positive, default=cores())
    parser.add_argument("--measure", type=int, metavar="SEEDS", help="run this many seeds (at least 10) and write the "
                        "expected values anew instead of comparing")  # fmt: skip
    args = parser.parse_args()
    file = EXPECTED / f"{args.suite}.csv"
    if args.measure is None and not file.is_file():
        if args.results != parser.get_default("results") and not args.results.is_dir():
            raise UsageError(f"--results {args.results}: no such folder")
        return report(args.suite, args.results / Path(args.suite).stem)
    if args.measure is not None and args.measure < 10:
        raise UsageError(f"--measure {args.measure}: at least 10 seeds are needed for a margin")
    with tempfile.TemporaryDirectory() as folder:
        seeds = list(range(101, 101 + args.measure)) if args.measure else []
        results = run_suite(args.suite, Path(folder), seeds, args.jobs)
        measured = measure(results)
    if args.measure:
        suite = load_suite(args.suite)
        table = expect(measured, len({(cell.order_seed, cell.seed) for cell in suite.cells}))
        write_text(file, table.to_csv(index=False, float_format="%.3f", lineterminator="\n"))
        print(markdown(table.round(2)))
        return cli.FINE
    table = verdicts(measured, pd.read_csv(file))
    print(markdown(table.round(2)))
    bad = int((table["verdict"] != "ok").sum())
    print(f"{args.suite}: {len(table) - bad} of {len(table)} values within their margins")
    return cli.CHECK_FAILED if bad else cli.FINE


if __name__ == "__main__":
    cli.run(main)
