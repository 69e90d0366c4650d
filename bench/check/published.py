"""Measured against published values: a verdict for each.

expected/published.csv holds every published number with what it was measured with. An empty field is unknown and is not
compared. A result stands beside a published number only if it was run with the same: otherwise the first fields that differ are
named and no number is shown. Two one-sided tests then say whether both are the same within MARGIN (bench/stats.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.check.protocol import FIELDS, Protocol, differing
from bench.data.catalogue import CATALOGUE
from bench.report.frames import Results
from bench.report.tables import select
from bench.stats import Decision, equivalence

EXPECTED = Path(__file__).parent / "expected"
# Points. Neighbours in the CODA table stand two points apart on ImageNet-R (L2P++ and DualPrompt): half of that, so that a
# reproduced value cannot be its neighbour's.
MARGIN = 1.0


def published() -> pd.DataFrame:
    """published.csv as text."""
    return pd.read_csv(EXPECTED / "published.csv", dtype=str, keep_default_na=False)


def dataset_of(benchmark: str) -> str:
    """'imagenet-r-10' is ImageNet-R in ten tasks."""
    return re.sub(r"-\d+$", "", benchmark)


def compare(protocol: Protocol, results: Results | None) -> list[dict[str, Any]]:
    """A verdict for each published value of the datasets that the suite holds, and a line for each dataset without any."""
    table = published()
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in protocol))
    rows = []
    for entry in table.to_dict("records"):
        there = [name for name in benchmarks if dataset_of(name) == entry["dataset"]]
        if there:
            rows.append(_compared(entry, there, protocol, results))
    names = ", ".join(dict.fromkeys(table["dataset"]))
    for benchmark in benchmarks:
        if dataset_of(benchmark) not in set(table["dataset"]):
            detail = f"dataset: {dataset_of(benchmark)}, published for {names}"
            rows.append(
                {
                    "what": "published",
                    "benchmark": benchmark,
                    "method": "all",
                    "verdict": "not comparable",
                    "detail": detail,
                }
            )
    return rows


def _compared(
    entry: dict[str, str], benchmarks: list[str], protocol: Protocol, results: Results | None
) -> dict[str, Any]:
    """One published value against the benchmark that was run most like it."""
    method = entry["method"]
    row: dict[str, Any] = {
        "what": f"published ({entry['line']})",
        "method": method,
        "metric": entry["metric"],
    }
    row |= {"benchmark": f"{entry['dataset']}-{entry['tasks']}", "published": _shown(entry)}
    with_row = [name for name in benchmarks if (name, method) in protocol]
    if not entry["value"]:
        return row | {"verdict": "not comparable", "detail": "no published value"}
    if not with_row:
        return row | {
            "published": "",
            "verdict": "not comparable",
            "detail": f"method: no row '{method}' in this suite",
        }
    others = {name: differing(protocol[name, method], entry) for name in with_row}
    nearest = min(others, key=lambda name: len(others[name]))
    if others[nearest]:
        return row | {
            "published": "",
            "verdict": "not comparable",
            "detail": "; ".join(others[nearest][:3]),
        }
    cells = cells_of(results, nearest, method)
    values = cells[entry["metric"]].dropna().to_numpy() if len(cells) else np.array([])
    if not len(values):
        return row | {"verdict": "missing", "detail": ""}
    if partial := partial_test(
        cells, entry["dataset"], protocol[nearest, method].get("data.split", "")
    ):
        return row | {"published": "", "verdict": "not comparable", "detail": partial}
    std = float(entry["std"] or "nan")
    decision = equivalence(values, float(entry["value"]), MARGIN, std, int(entry["n"] or 1))
    unknown = sorted(
        {column for column in FIELDS.values() if not entry[column]} - {"form", "selection"}
    )
    notes = [
        needed_runs(decision),
        f"not known of the published: {', '.join(unknown)}" if unknown else "",
    ]
    if protocol[nearest, method].get("weights from") == "a file":
        notes.append(f"weights from a file, taken for those of {entry['backbone']}")
    return (
        row
        | decided(decision, values.mean(), len(values), 2)
        | {"detail": "; ".join(note for note in notes if note)}
    )


def cells_of(results: Results | None, benchmark: str, method: str) -> pd.DataFrame:
    return select(results, benchmark, method, "class") if results else pd.DataFrame()


def partial_test(cells: pd.DataFrame, dataset: str, split: str) -> str:
    """Says so where the test images were not all of a known split's: a part of a dataset keeps the split's name."""
    if not len(cells):
        return ""
    known = next((one.test for one in CATALOGUE[dataset].splits if split in ("", one.name)), None)
    tested = int(cells["test_images"].iloc[0])
    return f"test images: {tested}, the dataset has {known}" if known not in (None, tested) else ""


def _shown(entry: dict[str, str]) -> str:
    n = entry["n"] or "?"
    return (
        f"{entry['value']}{' ± ' + entry['std'] if entry['std'] else ''} (n={n})"
        if entry["value"]
        else ""
    )


def needed_runs(decision: Decision) -> str:
    if decision.verdict != "inconclusive":
        return ""
    return (
        f"needs n={decision.needed}"
        if decision.needed
        else "no number of runs that can be named would decide"
    )


def decided(decision: Decision, measured: float, n: int, digits: int) -> dict[str, Any]:
    half = "" if np.isnan(decision.half_width) else f" ± {decision.half_width:.{digits}f}"
    return {
        "measured": f"{measured:.{digits}f}",
        "n": n,
        "difference": f"{decision.difference:+.{digits}f}{half}",
        "verdict": decision.verdict,
    }
