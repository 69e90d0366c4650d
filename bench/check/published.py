"""Measured against published values: a verdict for each.

expected/published.csv holds every published number with what it was measured with. An empty field
is unknown and is not compared; `type` is the registered method that a row is compared with. `head`
is empty for the trained head, slca for one aligned as ours are, and "own stage" for one that a
stage of its own aligned, which is not compared. A result is shown beside a published number only if
it was run with the same: otherwise the first fields that differ are named and no number is shown.
Two one-sided tests then say whether both are the same within MARGIN (bench/stats.py).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from bench.check.protocol import FIELDS, Protocol, differing
from bench.data.catalogue import CATALOGUE
from bench.paths import EXPECTED
from bench.report.frames import Results
from bench.report.tables import select
from bench.stats import Decision, equivalence

# In points. Neighbours in the CODA table are two points apart on ImageNet-R (L2P++ and DualPrompt):
# half of that, so that a reproduced value cannot be its neighbour's.
MARGIN = 1.0
OPTIONAL_COLUMNS = {"type", "form", "selection"}  # empty if a row has no such thing
SCENARIOS = {"": "class", "slca": "class-aligned"}  # by the published head
Verdict = dict[str, Any]  # a row of the table of verdicts, without its empty columns


def published() -> pd.DataFrame:
    """published.csv as text."""
    return pd.read_csv(EXPECTED / "published.csv", dtype=str, keep_default_na=False)


def dataset_of(benchmark: str) -> str:
    """'imagenet-r-10' is ImageNet-R in ten tasks."""
    return re.sub(r"-\d+$", "", benchmark)


def not_comparable(reason: str) -> Verdict:
    return {"verdict": "not comparable", "detail": reason}


def compare(protocol: Protocol, results: Results | None) -> list[Verdict]:
    """A verdict for each published value of the suite's datasets.

    And one for each benchmark whose dataset has no published values.
    """
    table = published()
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in protocol))
    rows = []
    for entry in table.to_dict("records"):
        candidates = [name for name in benchmarks if dataset_of(name) == entry["dataset"]]
        if candidates:
            rows.append(_compared(entry, candidates, protocol, results))
    names = ", ".join(dict.fromkeys(table["dataset"]))
    for benchmark in benchmarks:
        if dataset_of(benchmark) not in set(table["dataset"]):
            row = {"what": "published", "benchmark": benchmark, "method": "all"}
            reason = f"dataset: {dataset_of(benchmark)}, published for {names}"
            rows.append(row | not_comparable(reason))
    return rows


def _compared(
    entry: dict[str, str], benchmarks: list[str], protocol: Protocol, results: Results | None
) -> Verdict:
    """One published value against the benchmark that was run most like it."""
    method = entry["method"]
    row: Verdict = {
        "what": f"published ({entry['line']})",
        "benchmark": f"{entry['dataset']}-{entry['tasks']}",
        "method": method,
        "metric": entry["metric"],
    }
    if not entry["value"]:
        return row | not_comparable("no published value")
    others = {
        name: differing(protocol[name, method], entry)
        for name in benchmarks
        if (name, method) in protocol
    }
    if not others:
        return row | not_comparable(f"method: no row '{method}' in this suite")
    if entry["head"] not in SCENARIOS:
        return row | not_comparable("head: aligned by a stage of its own")
    nearest = min(others, key=lambda name: len(others[name]))
    if others[nearest]:
        return row | not_comparable("; ".join(others[nearest][:3]))
    run = protocol[nearest, method]
    cells = cells_of(results, nearest, method, SCENARIOS[entry["head"]])
    values = cells[entry["metric"]].dropna().to_numpy() if len(cells) else np.array([])
    if len(values) and (
        partial := partial_test(cells, entry["dataset"], run.get("data.split", ""))
    ):
        return row | not_comparable(partial)
    row["published"] = _shown(entry)
    if not len(values):
        return row | {"verdict": "missing", "detail": ""}
    std = float(entry["std"] or "nan")
    decision = equivalence(values, float(entry["value"]), MARGIN, std, int(entry["n"] or 1))
    detail = "; ".join(filter(None, [needed_runs(decision), *_notes(entry, run)]))
    return row | decided(decision, values.mean(), len(values), 2) | {"detail": detail}


def _notes(entry: dict[str, str], run: dict[str, str]) -> list[str]:
    """What a comparison takes for granted."""
    unknown = sorted({name for name in FIELDS.values() if not entry[name]} - OPTIONAL_COLUMNS)
    notes = [f"not known of the published: {', '.join(unknown)}"] if unknown else []
    if run.get("weights from") == "a file":
        notes.append(f"weights from a file, taken for those of {entry['backbone']}")
    return notes


def cells_of(
    results: Results | None, benchmark: str, method: str, scenario: str = "class"
) -> pd.DataFrame:
    """A row's finished cells, class-incremental; an empty frame without results."""
    return select(results, benchmark, method, scenario) if results else pd.DataFrame()


def partial_test(cells: pd.DataFrame, dataset: str, split: str) -> str:
    """Says so if only a part of a known split's test images was tested on.

    A part of a dataset keeps the split's name, so their number is all that tells.
    """
    if not len(cells):
        return ""
    known = next((one.test for one in CATALOGUE[dataset].splits if split in ("", one.name)), None)
    tested = int(cells["test_images"].iloc[0])
    return f"test images: {tested}, the dataset has {known}" if known not in (None, tested) else ""


def _shown(entry: dict[str, str]) -> str:
    spread = f" ± {entry['std']}" if entry["std"] else ""
    return f"{entry['value']}{spread} (n={entry['n'] or '?'})"


def needed_runs(decision: Decision) -> str:
    """How many runs would decide an inconclusive comparison."""
    if decision.verdict != "inconclusive":
        return ""
    if decision.needed:
        return f"needs n={decision.needed}"
    return "no number of runs that can be named would decide"


def decided(decision: Decision, measured: float, n: int, digits: int) -> Verdict:
    """A decision as columns of the table."""
    half = "" if np.isnan(decision.half_width) else f" ± {decision.half_width:.{digits}f}"
    return {
        "measured": f"{measured:.{digits}f}",
        "n": n,
        "difference": f"{decision.difference:+.{digits}f}{half}",
        "verdict": decision.verdict,
    }
