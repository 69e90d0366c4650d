"""The claims of HLGP's abstract (expected/claims.csv), tested over pairs of cells.

A pair has the same class order and seed. The claims are tested on the four benchmarks that the
abstract likely means, each in full.
"""

from __future__ import annotations

import pandas as pd

from bench.check.protocol import FULL_DATASET, Protocol
from bench.check.published import (
    MARGIN,
    Verdict,
    cells_of,
    dataset_of,
    decided,
    needed_runs,
    not_comparable,
    partial_test,
)
from bench.paths import EXPECTED
from bench.report.frames import Results
from bench.stats import superiority

# Drift is compared only if one row's prompts move at most this many times as far as the other's.
MAX_MOVEMENT_RATIO = 1.5
MIN_PAIRS = 3
# The abstract says four benchmarks; these are likely.
CLAIMED_ON = ("cifar100", "imagenet-r", "imagenet-a", "vtab")


def claimed(protocol: Protocol, results: Results | None) -> list[Verdict]:
    """A verdict for each claim on each benchmark whose dataset it is about."""
    rows = []
    for claim in pd.read_csv(EXPECTED / "claims.csv").to_dict("records"):
        for benchmark in dict.fromkeys(name for name, _ in protocol):
            if dataset_of(benchmark) in CLAIMED_ON:
                rows.append(_claimed(claim, benchmark, protocol, results))
    return rows


def _claimed(
    claim: dict[str, str], benchmark: str, protocol: Protocol, results: Results | None
) -> Verdict:
    pair, metric = (claim["method"], claim["other"]), claim["metric"]
    row: Verdict = {
        "what": claim["claim"],
        "benchmark": benchmark,
        "method": " against ".join(pair),
        "metric": metric,
    }
    for method in pair:
        if (benchmark, method) not in protocol:
            return row | {"verdict": "missing", "detail": f"no row '{method}' in this suite"}
        cells = cells_of(results, benchmark, method)
        if other := _other_scale(benchmark, protocol[benchmark, method], cells):
            return row | not_comparable("; ".join(other))
    return row | _decided(pair, benchmark, metric, results)


def _other_scale(benchmark: str, run: dict[str, str], cells: pd.DataFrame) -> list[str]:
    """In which way a row was run on less than the abstract's benchmark."""
    wanted = {**FULL_DATASET, "data.classes": "0", "train.joint": "False"}
    other = [f"{key}: {run[key]}" for key, value in wanted.items() if run.get(key, value) != value]
    if not run["backbone.name"].startswith("vit_base_patch16_224"):
        other.append(f"backbone.name: {run['backbone.name']}, the papers' is a ViT-B/16")
    if partial := partial_test(cells, dataset_of(benchmark), run.get("data.split", "")):
        other.append(partial)
    return other


def _decided(
    pair: tuple[str, str], benchmark: str, metric: str, results: Results | None
) -> Verdict:
    """The verdict on the first row's superiority over the second, from their cells."""
    ours, theirs = (_values(results, benchmark, method, metric) for method in pair)
    both = ours.merge(theirs, on=["order_seed", "seed"]).dropna()
    if not len(both):
        return {"verdict": "missing", "detail": ""}
    drift = metric == "feature_drift"  # less is better; no margin is known for it
    moved = [_moved(results, benchmark, method) for method in pair]
    if drift and max(moved) > MAX_MOVEMENT_RATIO * min(moved):
        said = " and ".join(f"{value:.3g}" for value in moved)
        return not_comparable(f"prompts moved unlike distances a task: {said} (RMS)")
    if len(both) < MIN_PAIRS:
        detail = f"at least {MIN_PAIRS} pairs are needed"
        return {"verdict": "inconclusive", "n": len(both), "detail": detail}
    first, second = both["value_x"].to_numpy(), both["value_y"].to_numpy()
    decision = superiority(second, first, 0.0) if drift else superiority(first, second, MARGIN)
    shown = decided(decision, first.mean(), len(both), 4 if drift else 2)
    return shown | {"detail": needed_runs(decision)}


def _moved(results: Results | None, benchmark: str, method: str) -> float:
    """Mean change of a row's prompts in a task, root mean square.

    Drift depends on how far the prompts move.
    """
    if results is None:
        return float("nan")
    movement = results.movement
    rows = movement[(movement["benchmark"] == benchmark) & (movement["method"] == method)]
    return float(rows["prompt_change"].mean())


def _values(results: Results | None, benchmark: str, method: str, metric: str) -> pd.DataFrame:
    """order_seed, seed and value of one row's finished cells.

    The value of feature_drift is that of the features that the head reads, mean over tasks.
    """
    cells = cells_of(results, benchmark, method)
    if results is None or not len(cells):
        return pd.DataFrame(columns=["order_seed", "seed", "value"])
    if metric == "feature_drift":
        moved = results.movement
        read = moved[moved["layer"] == moved.groupby("run_id")["layer"].transform("max")]
        drift = read.groupby("run_id")["feature_drift"].mean().rename(metric)
        cells = cells.join(drift, on="run_id")
    return cells[["order_seed", "seed", metric]].rename(columns={metric: "value"})
