"""Measured against expected (`python -m bench.check smoke`) or against published (`python -m bench.check paper`: claims.py).

Where there is a bench/expected/<suite>.csv the suite is run afresh (code may have changed since any earlier run of it) and
each row compared with it. A margin is the half width of the 99.5% prediction interval for the mean of the suite's runs,
from the spread over the seeds with which it was measured (`--measure`); a row outside it is a regression: exit code 1 and
a table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from bench import claims, cli
from bench.claims import EXPECTED
from bench.config.spec import UsageError
from bench.config.suite import load_suite
from bench.pool import run_local
from bench.report.frames import Results, load
from bench.report.tables import markdown
from bench.store.files import write_text
from bench.store.rundir import collect

COLUMNS = ["benchmark", "method", "metric", "expected", "margin", "std", "seeds"]
CONFIDENCE = 0.995
LEAST = {"faa": 1.0, "task_accuracy": 1.0, "last_loss": 0.01}  # rows that do not depend on the seed differ between processors


def measure(results: Results) -> pd.DataFrame:
    """Per cell: FAA, the accuracy with the task known, and the cross-entropy in the last epoch (mean over tasks).

    The loss varies far less between seeds than an accuracy on few images, so it is where a method whose prompts are not
    inserted any more stands out: it cannot fit better than the linear head.
    """
    if not len(results.cells):
        return pd.DataFrame(columns=["benchmark", "order_seed", "seed", "method", "metric", "value"])
    last = results.losses[results.losses["part"] == "ce"].groupby(["run_id", "task"])["value"].last()
    loss = last.groupby("run_id").mean().rename("value")
    names = ["benchmark", "order_seed", "seed", "method"]
    cells = results.cells.set_index(["run_id", *names, "scenario"])["faa"].unstack("scenario").reset_index()
    table = cells.join(loss.rename("last_loss"), on="run_id").rename(columns={"class": "faa", "task": "task_accuracy"})
    return table.melt(names, ["faa", "task_accuracy", "last_loss"], "metric").dropna()


def expect(measured: pd.DataFrame, repeats: int) -> pd.DataFrame:
    """Expected values and margins from many seeds, for the mean over `repeats` runs: the suite's own seeds."""
    rows = []
    for (benchmark, method, metric), part in measured.groupby(["benchmark", "method", "metric"], sort=False):
        values = part["value"].to_numpy()
        n, std = len(values), values.std(ddof=1)
        margin = max(LEAST.get(metric, 0.0), stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * std * np.sqrt(1 / repeats + 1 / n))
        rows.append([benchmark, method, metric, values.mean(), margin, std, n])
    return pd.DataFrame(rows, columns=COLUMNS)


def verdicts(measured: pd.DataFrame, expected: pd.DataFrame) -> pd.DataFrame:
    """One row per expected value: ok, differs, or missing."""
    mean = measured.groupby(["benchmark", "method", "metric"])["value"].mean().rename("measured")
    table = expected.join(mean, on=["benchmark", "method", "metric"])
    difference = table["measured"] - table["expected"]
    table["verdict"] = np.where(
        table["measured"].isna(), "missing", np.where(difference.abs() <= table["margin"], "ok", "DIFFERS")
    )
    return table[["benchmark", "method", "metric", "expected", "margin", "measured", "verdict"]]


def run_suite(name: str, folder: Path, seeds: list[int], jobs: int) -> Results:
    """All cells of the suite, with other seeds where given. Raises UsageError if a cell cannot be run."""
    suite = load_suite(name)
    cells = list(suite.cells)
    if seeds:
        first = cells[0].seed
        cells = [replace(cell, seed=seed) for cell in cells if cell.seed == first for seed in seeds]
    run_local(cells, folder, jobs, "cpu")
    collect(folder, cells)
    return load(folder / suite.name)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.check",
        description=__doc__.split("\n\n")[0],
        epilog="Exit code: 0 all within the margins, or something reproduced and nothing that differs; 1 something differs; "
        "3 nothing is decided yet (missing, inconclusive or not comparable).",
    )
    parser.add_argument("suite", nargs="?", default="smoke")
    parser.add_argument("--results", type=Path, default=Path("results"), help="of runs to compare with published values")
    parser.add_argument("--jobs", type=cli.positive, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--measure", type=int, metavar="SEEDS", help="run this many seeds (at least 10) and write the "
                        "expected values anew instead of comparing")  # fmt: skip
    args = parser.parse_args()
    file = EXPECTED / f"{args.suite}.csv"
    if args.measure is None and not file.is_file():
        if args.results != parser.get_default("results") and not args.results.is_dir():
            raise UsageError(f"--results {args.results}: no such folder")
        return claims.report(args.suite, args.results / Path(args.suite).stem)
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
