"""Measured against published: `python -m bench.check paper`, or any suite of which there are published values or results.

bench/expected/published.csv holds every published number with what it was measured with; an empty field is not known and not
compared. A result stands beside a published number only if it was run with the same: else the first fields that differ are
named and no number is shown. Then two one-sided tests say whether it is the same within MARGIN (bench/stats.py). The claims
of HLGP's abstract (claims.csv) are tested over pairs of the same order and seed, on its likely four benchmarks in full.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import cli
from bench.config.spec import UsageError
from bench.config.suite import load_suite, suite_names
from bench.data.catalogue import CATALOGUE
from bench.method import defaults, method_class, method_names
from bench.report.frames import Results, load
from bench.report.tables import markdown, select
from bench.stats import Decision, equivalence, superiority
from bench.store.rundir import protocol as protocol_of

EXPECTED = Path(__file__).parent / "expected"
# Points. Neighbours in the CODA table stand two points apart on ImageNet-R (L2P++ and DualPrompt): half of that, so that a
# reproduced value cannot be its neighbour's.
MARGIN = 1.0
ALIKE = 1.5  # times as far one row's prompts may move as another's for their drift to be compared
LEAST = 3  # pairs
VERDICTS = ("differs", "reproduced", "inconclusive", "missing", "not comparable")
COLUMNS = ["what", "benchmark", "method", "metric", "published", "measured", "n", "difference", "verdict", "detail"]
CLAIMED_ON = ("cifar100", "imagenet-r", "imagenet-a", "vtab")  # the abstract says four; these are likely
FIELDS = {  # columns of published.csv by the protocol's keys
    "data.tasks": "tasks", "data.order": "order", "data.split": "split", "data.crop_low": "crop_low",
    "backbone.name": "backbone", "backbone.image_size": "image_size", "backbone.normalise": "normalise",
    "train.epochs": "epochs", "train.batch_size": "batch_size", "train.optimiser": "optimiser", "train.schedule": "schedule",
    "train.prompt_lr": "lr", "train.head_lr": "lr", "model.form": "form", "selection of prompts at test": "selection",
}  # fmt: skip
WHOLE = {"data.evaluate": "test", "data.train_per_class": "0", "data.test_per_class": "0"}
TYPES = {"l2p++": "l2p_plus", "deep-l2p++": "deep_l2p"}  # of rows that are not named like their file
FREE = ("precision used", "weights", "train.precision", "train.threads")  # what may differ: hardware, and what it recorded
SOURCES = ("timm", "a file")  # of weights that can be those of the published row
Protocol = dict[tuple[str, str], dict[str, str]]


def published() -> pd.DataFrame:
    """published.csv as text."""
    return pd.read_csv(EXPECTED / "published.csv", dtype=str, keep_default_na=False)


def dataset_of(benchmark: str) -> str:
    """'imagenet-r-10' is ImageNet-R in ten tasks."""
    return re.sub(r"-\d+$", "", benchmark)


def differing(run: dict[str, str], row: dict[str, str]) -> list[str]:
    """What a row of the results was run with that the published one was not: 'field: ours, published theirs'.

    Beside the fields that published.csv names, all others must be those of this project's suite for that line, if it has one,
    on the same dataset: in the same number of tasks, or else in any.
    """
    run = _completed(run)
    wanted = {key: row[column] for key, column in FIELDS.items() if row[column]}
    wanted |= WHOLE | {"type": TYPES.get(row["method"], row["method"].replace("-", "_"))}
    if run.get("data.classes", "0") != "0":
        wanted["data.classes"] = row["classes"]
    suite = f"{row['dataset'].replace('-', '_')}_{row['line']}"
    known = {name: of for (name, method), of in _of_suite(suite).items() if method == row["method"]}
    ours = _completed(known.get(f"{row['dataset']}-{row['tasks']}", next(iter(known.values()), {})))
    if run.get("weights from", "") not in ("", *SOURCES):
        wanted["weights from"] = " or ".join(SOURCES)
    free = (*FREE, "weights from", "data.tasks")  # tasks: wanted already
    others = {key for key in ours.keys() | run.keys() if ours and key not in wanted and key not in free}
    pairs = [(key, value, "published") for key, value in wanted.items()]
    pairs += [(key, ours.get(key, ""), f"in suite {suite}") for key in sorted(others)]
    return [
        f"{key}: {run.get(key) or 'none'}, {who} {value or 'none'}"
        for key, value, who in pairs
        if not _same(run.get(key, ""), value)
    ]


def _completed(run: dict[str, str]) -> dict[str, str]:
    """With the defaults of its method where it names no value of its own: a row that was run has them all."""
    if run.get("type") not in method_names():
        return run
    return {f"model.{key}": str(value) for key, value in defaults(method_class(run["type"])).items()} | run


@functools.lru_cache
def _of_suite(name: str) -> Protocol:
    """What the rows of a suite of this project would be run with; nothing for a name that no suite has."""
    if name not in suite_names():
        return {}
    cells = load_suite(name).cells
    return protocol_by_row(protocol_of(cells, [{}] * len(cells)))


def _same(ours: str, theirs: str) -> bool:
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return ours == theirs


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
                {"what": "published", "benchmark": benchmark, "method": "all", "verdict": "not comparable", "detail": detail}
            )
    return rows


def _compared(entry: dict[str, str], benchmarks: list[str], protocol: Protocol, results: Results | None) -> dict[str, Any]:
    """One published value against the benchmark that was run most like it."""
    method = entry["method"]
    row: dict[str, Any] = {"what": f"published ({entry['line']})", "method": method, "metric": entry["metric"]}
    row |= {"benchmark": f"{entry['dataset']}-{entry['tasks']}", "published": _shown(entry)}
    with_row = [name for name in benchmarks if (name, method) in protocol]
    if not entry["value"]:
        return row | {"verdict": "not comparable", "detail": "no published value"}
    if not with_row:
        return row | {"published": "", "verdict": "not comparable", "detail": f"method: no row '{method}' in this suite"}
    others = {name: differing(protocol[name, method], entry) for name in with_row}
    nearest = min(others, key=lambda name: len(others[name]))
    if others[nearest]:
        return row | {"published": "", "verdict": "not comparable", "detail": "; ".join(others[nearest][:3])}
    cells = _cells(results, nearest, method)
    values = cells[entry["metric"]].dropna().to_numpy() if len(cells) else np.array([])
    if not len(values):
        return row | {"verdict": "missing", "detail": ""}
    if partial := _partial(cells, entry["dataset"], protocol[nearest, method].get("data.split", "")):
        return row | {"published": "", "verdict": "not comparable", "detail": partial}
    std = float(entry["std"] or "nan")
    decision = equivalence(values, float(entry["value"]), MARGIN, std, int(entry["n"] or 1))
    unknown = sorted({column for column in FIELDS.values() if not entry[column]} - {"form", "selection"})
    notes = [_needs(decision), f"not known of the published: {', '.join(unknown)}" if unknown else ""]
    if protocol[nearest, method].get("weights from") == "a file":
        notes.append(f"weights from a file, taken for those of {entry['backbone']}")
    return row | _decided(decision, values.mean(), len(values), 2) | {"detail": "; ".join(note for note in notes if note)}


def _cells(results: Results | None, benchmark: str, method: str) -> pd.DataFrame:
    return select(results, benchmark, method, "class") if results else pd.DataFrame()


def _partial(cells: pd.DataFrame, dataset: str, split: str) -> str:
    """Says so where the test images were not all of a known split's: a part of a dataset keeps the split's name."""
    if not len(cells):
        return ""
    known = next((one.test for one in CATALOGUE[dataset].splits if split in ("", one.name)), None)
    tested = int(cells["test_images"].iloc[0])
    return f"test images: {tested}, the dataset has {known}" if known not in (None, tested) else ""


def _shown(entry: dict[str, str]) -> str:
    n = entry["n"] or "?"
    return f"{entry['value']}{' ± ' + entry['std'] if entry['std'] else ''} (n={n})" if entry["value"] else ""


def _needs(decision: Decision) -> str:
    if decision.verdict != "inconclusive":
        return ""
    return f"needs n={decision.needed}" if decision.needed else "no number of runs that can be named would decide"


def _decided(decision: Decision, measured: float, n: int, digits: int) -> dict[str, Any]:
    half = "" if np.isnan(decision.half_width) else f" ± {decision.half_width:.{digits}f}"
    return {
        "measured": f"{measured:.{digits}f}",
        "n": n,
        "difference": f"{decision.difference:+.{digits}f}{half}",
        "verdict": decision.verdict,
    }


# --- the abstract's claims ------------------------------------------------------------------------------------------


def claimed(protocol: Protocol, results: Results | None) -> list[dict[str, Any]]:
    """A verdict for each claim on each benchmark whose dataset it is about."""
    rows = []
    for claim in pd.read_csv(EXPECTED / "claims.csv").to_dict("records"):
        for benchmark in dict.fromkeys(name for name, _ in protocol):
            if dataset_of(benchmark) in CLAIMED_ON:
                rows.append(_claimed(claim, benchmark, protocol, results))
    return rows


def _claimed(claim: dict[str, str], benchmark: str, protocol: Protocol, results: Results | None) -> dict[str, Any]:
    pair, metric = (claim["method"], claim["other"]), claim["metric"]
    row: dict[str, Any] = {"what": claim["claim"], "benchmark": benchmark, "method": " against ".join(pair), "metric": metric}
    for method in pair:
        run = protocol.get((benchmark, method))
        if run is None:
            return row | {"verdict": "missing", "detail": f"no row '{method}' in this suite"}
        wanted = {**WHOLE, "data.classes": "0", "train.joint": "False"}
        other = [f"{key}: {run[key]}" for key, value in wanted.items() if run.get(key, value) != value]
        if not run["backbone.name"].startswith("vit_base_patch16_224"):
            other.append(f"backbone.name: {run['backbone.name']}, the papers' is a ViT-B/16")
        if partial := _partial(_cells(results, benchmark, method), dataset_of(benchmark), run.get("data.split", "")):
            other.append(partial)
        if other:
            return row | {"verdict": "not comparable", "detail": "; ".join(other)}
    ours, theirs = (_values(results, benchmark, method, metric) for method in pair)
    both = ours.merge(theirs, on=["order_seed", "seed"]).dropna()
    if not len(both):
        return row | {"verdict": "missing", "detail": ""}
    first, second = both["value_x"].to_numpy(), both["value_y"].to_numpy()
    drift = metric == "feature_drift"  # the less the better; no margin is known for it
    moved = [_moved(results, benchmark, method) for method in pair]
    if drift and max(moved) > ALIKE * min(moved):
        said = " and ".join(f"{value:.3g}" for value in moved)
        return row | {"verdict": "not comparable", "detail": f"prompts moved unlike distances a task: {said} (RMS)"}
    if len(both) < LEAST:
        return row | {"verdict": "inconclusive", "n": len(both), "detail": f"at least {LEAST} pairs are needed"}
    decision = superiority(second, first, 0.0) if drift else superiority(first, second, MARGIN)
    return row | _decided(decision, first.mean(), len(both), 4 if drift else 2) | {"detail": _needs(decision)}


def _moved(results: Results | None, benchmark: str, method: str) -> float:
    """Mean change of a row's prompts in a task, root mean square: drift follows how far prompts move."""
    if results is None:
        return float("nan")
    rows = results.movement[(results.movement["benchmark"] == benchmark) & (results.movement["method"] == method)]
    return float(rows["prompt_change"].mean())


def _values(results: Results | None, benchmark: str, method: str, metric: str) -> pd.DataFrame:
    """order_seed, seed, value of one row's finished cells. Drift: of what the head reads, mean over tasks."""
    cells = _cells(results, benchmark, method)
    if results is None or not len(cells):
        return pd.DataFrame(columns=["order_seed", "seed", "value"])
    if metric == "feature_drift":
        moved = results.movement
        read = moved[moved["layer"] == moved.groupby("run_id")["layer"].transform("max")]
        drift = read.groupby("run_id")["feature_drift"].mean().rename(metric)
        cells = cells.join(drift, on="run_id")
    return cells[["order_seed", "seed", metric]].rename(columns={metric: "value"})


# --- the command ----------------------------------------------------------------------------------------------------


def protocol_by_row(rows: Iterable[dict[str, Any]]) -> Protocol:
    """protocol.csv's lines by benchmark and method."""
    found: Protocol = {}
    for line in rows:
        found.setdefault((line["benchmark"], line["method"]), {})[line["key"]] = str(line["value"])
    return found


def gather(suite: str, folder: Path) -> tuple[Protocol, Results | None]:
    """What a suite's rows were, or would be, run with, and its results. Raises UsageError where there is neither."""
    results = load(folder) if (folder / "runs.csv").is_file() else None
    if results is not None and len(results.protocol):
        return protocol_by_row(results.protocol.to_dict("records")), results
    if results is None:
        cells = load_suite(suite).cells
        return protocol_by_row(protocol_of(cells, [{}] * len(cells))), results
    raise UsageError(f"{folder}/protocol.csv: not there, so nobody can say what these results may be compared with")


def report(suite: str, folder: Path) -> int:
    """Print a verdict per published value and per claim; 1 if anything differs, 0 if anything was reproduced, else 3."""
    protocol, results = gather(suite, folder)
    rows = compare(protocol, results)
    if results is None and all(row["method"] == "all" for row in rows):
        raise UsageError(
            f"no expected values for suite '{suite}' (bench/expected: no {suite}.csv, none of its datasets published)"
        )
    table = pd.DataFrame([dict.fromkeys(COLUMNS, "") | row for row in rows + claimed(protocol, results)], columns=COLUMNS)
    table = table.sort_values("verdict", key=lambda column: column.map(VERDICTS.index), kind="stable")
    print(markdown(table))
    counts = table["verdict"].value_counts()
    print(f"{suite}: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts))
    print(f"reproduced: the same within {MARGIN:g} points, by two one-sided tests at 5%; no correction for the number of rows")
    if "differs" in counts:
        return cli.CHECK_FAILED
    return cli.FINE if "reproduced" in counts else cli.UNFINISHED
