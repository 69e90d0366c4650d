"""The section Protocol of a suite's page: what differs between rows, and what they share."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.report.frames import Results
from bench.report.page import Files, HtmlTable, Items, More, Text, html_table, long
from bench.report.rows import row_of

DIFFERENCES = "differences"  # the name of the files
HEADS = ["setting", "value", "rows", "benchmarks"]


def protocol(results: Results) -> list[Any]:
    """What differs, as two small tables; what rows share, as a list; the environments."""
    shared, by_benchmark, by_row = differences(results.protocol)
    blocks: list[Any] = []
    if by_row:
        lines = [(key, value, long(rows)) for key, value, rows in by_row]
        blocks.append(Text("What differs between rows of one benchmark:"))
        blocks.append(HtmlTable(HEADS[:3], lines, files=Files("tables", DIFFERENCES)))
    if by_benchmark:
        blocks.append(Text("What differs between benchmarks alone:"))
        files = None if by_row else Files("tables", DIFFERENCES)
        blocks.append(HtmlTable([*HEADS[:2], HEADS[3]], by_benchmark, files=files))
    if shared:
        said = "What all rows share that have the setting; those of one row are on its page"
        items = [f"{key}: {value}" for key, value in shared]
        blocks.append(More(f"{said} ({len(items)})", [Items(items)]))
    if len(results.protocol):
        every = Files("tables", "protocol", ("csv", "md"))
        blocks.append(More("Every setting of every row, as files", [every]))
    files = Files("tables", "environments", ("csv",))
    blocks.append(More("Environments", [html_table(environments(results), files)]))
    return [*blocks, More("Digests of images, weights and code", _digests(results.runs))]


def environments(results: Results) -> pd.DataFrame:
    """What each env_sha of the cells stands for."""
    known = results.environments
    return known[known["env_sha"].isin(results.runs["env_sha"])]


def differences_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What differs between rows, then between benchmarks alone: HEADS."""
    _, by_benchmark, by_row = differences(frame)
    lines = [(*one, "") for one in by_row] + [(k, v, "", on) for k, v, on in by_benchmark]
    return pd.DataFrame(lines, columns=HEADS)


def _digests(runs: pd.DataFrame) -> list[Any]:
    """Images and weights of each benchmark, and which cells ran with which code."""
    inputs = runs[["benchmark", "data_sha", "weights_sha"]].drop_duplicates()
    lines = []
    for key, cells in runs.groupby(["code_sha", "commit", "precision"], sort=False):
        rows = [row_of(str(method)).short for method in cells["method"].unique()]
        lines.append((*key, long(", ".join(cells["benchmark"].unique())), long(", ".join(rows))))
    heads = ["code", "commit", "precision", "benchmarks", "rows"]
    return [html_table(inputs), HtmlTable(heads, lines)]


def differences(
    frame: pd.DataFrame,
) -> tuple[list[tuple], list[tuple], list[tuple]]:
    """(key, value) that rows share; (key, value, benchmarks); (key, value, rows).

    A value that a row has on some benchmarks alone names them. Left out is what says no more than a
    name does (a row's type, a benchmark's data of its name), and what one row alone has.
    """
    shared, by_benchmark, by_row = [], [], []
    benchmarks = frame["benchmark"].nunique()
    named_alike = (frame["key"] == "data.name") & (frame["value"] == frame["benchmark"])
    frame = frame[~named_alike & (frame["key"] != "type")]
    rows = frame["method"].nunique()
    for key, group in frame.groupby("key", sort=False):
        if group["value"].nunique() == 1:
            if min(rows, 2) <= group["method"].nunique():
                shared.append((key, group["value"].iloc[0]))
            continue
        within = group.groupby("benchmark")["value"].nunique()
        if (within == 1).all():
            for value, of in group.groupby("value", sort=False)["benchmark"].unique().items():
                by_benchmark.append((key, value, ", ".join(of)))
            continue
        for value, of in group.groupby("value", sort=False):
            named = []
            for method, on in of.groupby("method", sort=False)["benchmark"].unique().items():
                where = "" if len(on) == benchmarks else f" ({', '.join(on)})"
                named.append(row_of(str(method)).short + where)
            by_row.append((key, value, ", ".join(named)))
    return shared, by_benchmark, by_row
