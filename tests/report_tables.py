"""The CSV files of a small suite, and what its rows are called."""

from __future__ import annotations

from pathlib import Path

from bench.store.tables import METRICS, PROTOCOL, RUNS, TIMING, write_csv

SPEC = "f" * 64


def run_of(method, order):
    return f"{method}--b<script>--o{order}--s1--{SPEC[:12]}"


def identity(method, order):
    return {
        "run_id": run_of(method, order),
        "suite": "s",
        "benchmark": "b<script>",
        "method": method,
        "order_seed": order,
        "seed": 1,
    }


def write_suite(folder: Path, change=lambda metrics, runs: None) -> Path:
    """Two methods, two orders, two tasks; hlgp 80/60 then better by ten points each than
    `other_row`.
    """
    metrics, runs, timing = [], [], []
    for method, bonus in (("hlgp", 10), ("other_row", 0)):
        for order in (1, 2):
            name = identity(method, order)
            runs.append(
                {
                    **name,
                    "status": "done",
                    "spec_sha": SPEC,
                    "stream_sha": order,
                    "tasks": 2,
                    "classes": 4,
                    "params_trainable": 100,
                    "gflops_train": 1,
                    "gflops_infer": 1,
                }
            )
            timing += [
                {"run_id": name["run_id"], "task": t, "train_seconds": 1, "eval_seconds": 1}
                for t in (1, 2)
            ]
            for scenario in ("class", "task"):
                for after, eval_task, correct in ((1, 1, 80), (2, 1, 50 + order), (2, 2, 70)):
                    metrics.append(
                        {
                            **name,
                            "scenario": scenario,
                            "after_task": after,
                            "eval_task": eval_task,
                            "n": 100,
                            "correct": correct + bonus,
                        }
                    )
    change(metrics, runs)
    write_csv(folder / "metrics.csv", METRICS, metrics)
    write_csv(folder / "runs.csv", RUNS, runs)
    write_csv(folder / "timing.csv", TIMING, timing)
    return folder


def write_protocol(folder: Path, **rows: dict) -> None:
    """protocol.csv with what rows are compared by, and each row's own values over it."""
    usual = {"data.tasks": 2, "train.epochs": 2, "train.batch_size": 8, "train.joint": False}
    lines = [
        {"benchmark": "b<script>", "method": method, "key": key, "value": value}
        for method, own in rows.items()
        for key, value in (usual | own).items()
    ]
    write_csv(folder / "protocol.csv", PROTOCOL, lines)
