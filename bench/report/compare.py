"""Two folders of results, cell by cell: which rows are equal, and which differ beyond their spread.

The spread of a row is how far its FAA goes when only last bits differ: over runs of the same cells
on several processors. Where these were not measured, it is that over seeds, which is wider.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from bench.report.checks import ROW_KEYS
from bench.report.frames import Results
from bench.report.rows import label
from bench.report.table_files import markdown
from bench.store.codes import Codes
from bench.store.tables import NOT_RECORDED

CONFIDENCE = 0.995  # of a margin, for one row
MIN_MARGIN = 0.5  # in points; rows that never differed on some processors may on another one
MIN_FREEDOM = 3  # degrees of freedom with which a row has a spread of its own
PAIR_KEYS = [*ROW_KEYS, "order_seed", "seed"]
CAUSES = {  # what may make two runs of one recipe differ, the most likely first: column of runs.csv
    "precision": "precision",
    "weights_sha": "weights",
    "data_sha": "images",
    "stream_sha": "class order, batches or views",
    "code_sha": "code",
}
SPREAD_COLUMNS = ["std", "freedom", "measured_over"]


def accuracies(results: Iterable[Results]) -> pd.DataFrame:
    """PAIR_KEYS and faa, of the finished cells of several folders, each as often as it was run."""
    cells = [one.cells for one in results if len(one.cells)]
    table = pd.concat([cell[cell["scenario"] == "class"] for cell in cells], ignore_index=True)
    return table[[*PAIR_KEYS, "faa"]]


def spread(cells: pd.DataFrame) -> pd.DataFrame:
    """Per row: SPREAD_COLUMNS, from `accuracies`.

    Over processors where cells were run several times, else over seeds of one class order: of the
    row itself, or of all rows of the benchmark. Where no order has two seeds: what is left of the
    differences between orders once each row and each order has its mean, pooled over the rows.
    """
    rows = []
    for benchmark, of_benchmark in cells.groupby("benchmark", sort=False):
        once = of_benchmark.drop_duplicates(PAIR_KEYS)
        sources = [
            ("processors", _within(of_benchmark, ["method", "order_seed", "seed"])),
            ("seeds", _within(once, ["method", "order_seed"])),
        ]
        pooled = [
            ("seeds, all rows", sources[1][1].sum()),
            ("orders, all rows", _over_orders(once)),
        ]
        for method in once["method"].unique():
            known = [(over, table.loc[method]) for over, table in sources] + pooled
            enough = [each for each in known if each[1]["freedom"] >= MIN_FREEDOM]
            over, found = (enough or known[-1:])[0]
            std = np.sqrt(found["squares"] / found["freedom"]) if found["freedom"] else np.nan
            rows.append([benchmark, method, std, int(found["freedom"]), over])
    return pd.DataFrame(rows, columns=[*ROW_KEYS, *SPREAD_COLUMNS])


def _within(cells: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """By method: sum of squares around the means of groups, and its degrees of freedom."""
    groups = cells.groupby(keys)["faa"]
    deviation = (cells["faa"] - groups.transform("mean")) ** 2
    freedom = groups.size().sub(1).groupby("method").sum()
    squares = deviation.groupby(cells["method"]).sum()
    return pd.DataFrame({"squares": squares, "freedom": freedom})


def _over_orders(cells: pd.DataFrame) -> pd.Series:
    """The same of what row means and order means leave."""
    table = cells.pivot(index="method", columns=["order_seed", "seed"], values="faa").dropna()
    values = table.to_numpy()
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
    return pd.Series({"squares": (rest**2).sum(), "freedom": freedom})


def margin(std: pd.Series, freedom: pd.Series, cells: pd.Series) -> pd.Series:
    """Half width of the interval in which the difference of two means of so many cells lies."""
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, freedom.clip(lower=1))
    return (quantile * std * np.sqrt(2 / cells)).fillna(0).clip(lower=MIN_MARGIN)


@dataclass(frozen=True)
class Comparison:
    """Results `ours` against `theirs`; spread as of `spread`."""

    ours: Results
    theirs: Results
    spread: pd.DataFrame

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row per cell of both: PAIR_KEYS, run_id_x, run_id_y, faa_x, faa_y, equal."""
        both = self._class(self.ours).merge(self._class(self.theirs), on=PAIR_KEYS)
        pairs = zip(both["run_id_x"], both["run_id_y"], strict=True)
        return both.assign(equal=[self._equal(*pair) for pair in pairs])

    @staticmethod
    def _class(results: Results) -> pd.DataFrame:
        if not len(results.cells):
            return pd.DataFrame(columns=["run_id", *PAIR_KEYS, "faa"])
        chosen = results.cells["scenario"] == "class"
        return results.cells.loc[chosen, ["run_id", *PAIR_KEYS, "faa"]]

    def _equal(self, ours: str, theirs: str) -> bool:
        """True if every count of both cells is the same."""
        return all(
            np.array_equal(
                self.ours.matrices[ours, scenario],
                self.theirs.matrices[theirs, scenario],
                equal_nan=True,
            )
            for scenario in ("class", "task")
        )

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row per benchmark and method of both.

        Columns: cells, expected (theirs), measured (ours), difference, margin, equal, ok.
        """
        grouped = self.cells.groupby(ROW_KEYS, sort=False)
        table = grouped.agg(
            cells=("faa_x", "size"),
            expected=("faa_y", "mean"),
            measured=("faa_x", "mean"),
            equal=("equal", "all"),
        ).reset_index()
        known = self.spread[[*ROW_KEYS, *SPREAD_COLUMNS]]
        table = table.merge(known, on=ROW_KEYS, how="left")
        table["difference"] = table["measured"] - table["expected"]
        table["margin"] = margin(table["std"], table["freedom"], table["cells"])
        table["ok"] = table["difference"].abs() <= table["margin"]
        return table

    def largest(self) -> str:
        """The largest difference of a row, and whose it is."""
        row = self.rows.loc[self.rows["difference"].abs().idxmax()]
        of = "" if row["difference"] == 0 else f" ({label(row['method'])}, {row['benchmark']})"
        return f"{abs(row['difference']):.1f} points{of}"

    def sentence(self, of: int | None = None) -> str:
        """Reproduced or not, in one line. of: the means of the whole suite, if it has more."""
        good, rows = int(self.rows["ok"].sum()), len(self.rows)
        said = "reproduced" if good == rows else "NOT reproduced"
        of_all = "" if of in (None, rows) else f" (the suite has {of})"
        return (
            f"{said}: {good} of {rows} means (row x benchmark) within their margins{of_all}; "
            f"largest difference {self.largest()}; "
            f"{int(self.cells['equal'].sum())} of {len(self.cells)} cells equal to the byte"
        )

    def outside(self) -> str:
        """The rows that differ beyond their margins, as a table in Markdown."""
        table = self.rows[~self.rows["ok"]]
        numbers = ["expected", "measured", "difference", "margin"]
        shown = table[[*ROW_KEYS, *numbers, "cells"]].copy()
        shown[numbers] = shown[numbers].map("{:.1f}".format)
        return markdown(shown)

    def causes(self, results: Path) -> list[str]:
        """In what the runs of cells that are not equal differ, the most likely cause first."""
        pairs = self.cells[~self.cells["equal"]]
        runs = [results.runs.set_index("run_id") for results in (self.ours, self.theirs)]
        ours, theirs = (
            run.loc[pairs[name]].reset_index(drop=True)
            for run, name in zip(runs, ("run_id_x", "run_id_y"), strict=True)
        )
        found = [
            f"other {what} ({', '.join(_pairs(ours[column], theirs[column]))})"
            for column, what in CAUSES.items()
            if column != "code_sha" and (ours[column] != theirs[column]).any()
        ]
        if self._other_code(ours, theirs, Codes.of(results)):
            found.append("other code (code_sha in runs.csv)")
        return found + self._other_environment(ours["env_sha"], theirs["env_sha"])

    def _other_code(self, ours: pd.DataFrame, theirs: pd.DataFrame, codes: Codes) -> bool:
        types = self.theirs.types()
        both = zip(theirs.itertuples(), ours["code_sha"], strict=True)
        return not all(
            codes.same(run.suite, types.get(run.method, ""), run.code_sha, code)
            for run, code in both
        )

    def _other_environment(self, ours: pd.Series, theirs: pd.Series) -> list[str]:
        tables = [results.environments.set_index("env_sha") for results in (self.ours, self.theirs)]
        found = []
        for column in tables[0].columns:
            values = [
                sha.map(table[column]).fillna(NOT_RECORDED)
                for sha, table in zip((ours, theirs), tables, strict=True)
            ]
            known = (values[0] != NOT_RECORDED) & (values[1] != NOT_RECORDED)
            pairs = _pairs(values[0][known], values[1][known])
            if pairs:
                found.append(f"other {column} ({', '.join(pairs)})")
        return found

    def only(self, ours: bool) -> list[str]:
        """Finished cells that one side alone has, by name."""
        mine, other = (self.ours, self.theirs) if ours else (self.theirs, self.ours)
        left = self._class(mine).merge(
            self._class(other)[PAIR_KEYS], on=PAIR_KEYS, how="left", indicator=True
        )
        return left.loc[left["_merge"] == "left_only", "run_id"].tolist()


def _pairs(ours: pd.Series, theirs: pd.Series) -> list[str]:
    """Up to three different pairs of values, as text."""
    pairs = dict.fromkeys(zip(ours, theirs, strict=True))
    return [f"{str(a)[:40]}, theirs {str(b)[:40]}" for a, b in pairs if a != b][:3]


def shown(comparison: Comparison, results: Path) -> str:
    """What `bench.report --compare A B` prints."""
    rows = comparison.rows
    names = (comparison.ours.suite, comparison.theirs.suite)
    lines = [f"{len(comparison.cells)} cells of {names[0]} and {names[1]} are compared"]
    if len(rows):
        equal = rows[rows["equal"]]
        lines.append(f"equal to the byte: {len(equal)} of {len(rows)} means (row x benchmark)")
        within = rows[rows["ok"] & ~rows["equal"]]
        lines.append(f"differ within their spread: {len(within)} means")
        lines.append(f"differ beyond their spread: {(~rows['ok']).sum()} means")
        lines.append(f"largest difference: {comparison.largest()}")
        if not rows["ok"].all():
            lines += ["", comparison.outside(), ""]
        if not rows["equal"].all():
            causes = comparison.causes(results) or ["nothing that is recorded"]
            lines.append(f"what differs between the runs: {'; '.join(causes)}")
    for side, name in ((True, names[0]), (False, names[1])):
        if only := comparison.only(side):
            more = f" and {len(only) - 5} more" if len(only) > 5 else ""
            lines.append(f"only in {name}: {', '.join(only[:5])}{more}")
    return "\n".join(lines)
