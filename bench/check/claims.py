"""The claims of HLGP's abstract (expected/claims.csv), tested over pairs of the same class order and seed.

They are tested on the four benchmarks that the abstract likely means, each in full.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.check.protocol import WHOLE, Protocol
from bench.check.published import (
    EXPECTED,
    MARGIN,
    cells_of,
    dataset_of,
    decided,
    needed_runs,
    partial_test,
)
from bench.report.frames import Results
from bench.stats import superiority

MAX_MOVEMENT_RATIO = 1.5  # drift is compared where one row's prompts move at most this many times as far as the other's
MIN_PAIRS = 3
CLAIMED_ON = (
    "cifar100",
    "imagenet-r",
    "imagenet-a",
    "vtab",
)  # the abstract says four; these are likely


def claimed(protocol: Protocol, results: Results | None) -> list[dict[str, Any]]:
    """A verdict for each claim on each benchmark whose dataset it is about."""
    rows = []
    for claim in pd.read_csv(EXPECTED / "claims.csv").to_dict("records"):
        for benchmark in dict.fromkeys(name for name, _ in protocol):
            if dataset_of(benchmark) in CLAIMED_ON:
                rows.append(_claimed(claim, benchmark, protocol, results))
    return rows


def _claimed(
    claim: dict[str, str], benchmark: str, protocol: Protocol, results: Results | None
) -> dict[str, Any]:
    pair, metric = (claim["method"], claim["other"]), claim["metric"]
    row: dict[str, Any] = {
        "what": claim["claim"],
        "benchmark": benchmark,
        "method": " against ".join(pair),
        "metric": metric,
    }
    for method in pair:
        run = protocol.get((benchmark, method))
        if run is None:
            return row | {"verdict": "missing", "detail": f"no row '{method}' in this suite"}
        wanted = {**WHOLE, "data.classes": "0", "train.joint": "False"}
        other = [
            f"{key}: {run[key]}" for key, value in wanted.items() if run.get(key, value) != value
        ]
        if not run["backbone.name"].startswith("vit_base_patch16_224"):
            other.append(f"backbone.name: {run['backbone.name']}, the papers' is a ViT-B/16")
        if partial := partial_test(
            cells_of(results, benchmark, method), dataset_of(benchmark), run.get("data.split", "")
        ):
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
    if drift and max(moved) > MAX_MOVEMENT_RATIO * min(moved):
        said = " and ".join(f"{value:.3g}" for value in moved)
        return row | {
            "verdict": "not comparable",
            "detail": f"prompts moved unlike distances a task: {said} (RMS)",
        }
    if len(both) < MIN_PAIRS:
        return row | {
            "verdict": "inconclusive",
            "n": len(both),
            "detail": f"at least {MIN_PAIRS} pairs are needed",
        }
    decision = superiority(second, first, 0.0) if drift else superiority(first, second, MARGIN)
    return (
        row
        | decided(decision, first.mean(), len(both), 4 if drift else 2)
        | {"detail": needed_runs(decision)}
    )


def _moved(results: Results | None, benchmark: str, method: str) -> float:
    """Mean change of a row's prompts in a task, root mean square: drift follows how far prompts move."""
    if results is None:
        return float("nan")
    rows = results.movement[
        (results.movement["benchmark"] == benchmark) & (results.movement["method"] == method)
    ]
    return float(rows["prompt_change"].mean())


def _values(results: Results | None, benchmark: str, method: str, metric: str) -> pd.DataFrame:
    """order_seed, seed, value of one row's finished cells. Drift: of what the head reads, mean over tasks."""
    cells = cells_of(results, benchmark, method)
    if results is None or not len(cells):
        return pd.DataFrame(columns=["order_seed", "seed", "value"])
    if metric == "feature_drift":
        moved = results.movement
        read = moved[moved["layer"] == moved.groupby("run_id")["layer"].transform("max")]
        drift = read.groupby("run_id")["feature_drift"].mean().rename(metric)
        cells = cells.join(drift, on="run_id")
    return cells[["order_seed", "seed", metric]].rename(columns={metric: "value"})
