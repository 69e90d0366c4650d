"""How long a large report takes: `python tests/report_benchmark.py [CELLS] [TASKS]`.

Made-up results of 1,000 cells x 20 tasks are read and drawn; CPU seconds and the peak of memory are
printed. It is no test: a time depends on the machine.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from report_tables import SPEC, write_protocol

from bench.report.build import build
from bench.report.frames import load
from bench.store.tables import METRICS, RUNS, TIMING, write_csv


def write_large(folder: Path, cells: int, tasks: int, methods: int = 10) -> None:
    """`methods` rows with cells / methods class orders each."""
    rng = np.random.default_rng(0)
    metrics, runs, timing = [], [], []
    for cell in range(cells):
        method, order = f"row{cell % methods}", 1 + cell // methods
        name = {
            "run_id": f"{method}--b<script>--o{order}--s1--{SPEC[:12]}",
            "suite": folder.name,
            "benchmark": "b<script>",
            "method": method,
            "order_seed": order,
            "seed": 1,
        }
        facts = {"status": "done", "spec_sha": SPEC, "stream_sha": order, "tasks": tasks}
        costs = {"params_trainable": 100, "gflops_train": 1, "gflops_infer": 1}
        runs.append({**name, **facts, "classes": 4, **costs})
        times = {"train_seconds": 1, "eval_seconds": 1}
        timing += [{"run_id": name["run_id"], "task": t + 1, **times} for t in range(tasks)]
        for scenario in ("class", "task"):
            for after in range(1, tasks + 1):
                for task in range(1, after + 1):
                    place = {"scenario": scenario, "after_task": after, "eval_task": task}
                    counts = {"n": 100, "correct": int(rng.integers(20, 90))}
                    metrics.append({**name, **place, **counts})
    write_csv(folder / "metrics.csv", METRICS, metrics)
    write_csv(folder / "runs.csv", RUNS, runs)
    write_csv(folder / "timing.csv", TIMING, timing)
    write_protocol(folder, **{f"row{i}": {"data.tasks": tasks} for i in range(methods)})


def main(cells: int = 1000, tasks: int = 20) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "large"
        write_large(folder, cells, tasks)
        rows = sum(1 for _ in (folder / "metrics.csv").open()) - 1
        began = time.process_time()
        results = load(folder)
        read = time.process_time()
        build(results, Path(scratch) / "report")
        drawn = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{cells} cells x {tasks} tasks, {rows:,} rows of metrics.csv")
    print(
        f"read {read - began:.1f} s, tables and figures {drawn - read:.1f} s, peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
