"""What the grid adds to its cells: `python tests/grid_benchmark.py [CELLS]`.

CELLS (1,000) cells that compute nothing are launched, locked, written and collected; then tables
are collected from 10 to 10 x CELLS finished runs. Milliseconds per cell are printed. It is no test:
a time depends on the machine and its disk.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import grid
from bench.config.spec import RunSpec, spec_from_json
from bench.config.suite import load_suite
from bench.launch.pool import Worker
from bench.store.collect import collect
from bench.store.rundir import FIXED_COLUMNS, RunDir, identity
from bench.store.tables import TABLES, Rows

TINY = Path(__file__).with_name("tiny_suite.py")
TASKS = 10


def main(count: int = 1000) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        Worker.command = (sys.executable, str(Path(__file__).absolute()), "worker")
        rest = f'order_seeds = list(range(1, {count} + 1))\nbenchmarks = {{"glyphs": dict()}}\n'
        only = 'methods = dict(_delete_=True, linear=dict(type="linear"))\n'
        Path("many.py").write_text(f'_base_ = ["{TINY}"]\n{rest.replace("dict()", "{}")}{only}')
        sys.argv = ["bench.grid", "many.py", "--jobs", "2", "--quiet", "--keep-stale"]
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            code = grid.main()
        took = time.perf_counter() - began
        print(
            f"{count} cells that compute nothing: {1000 * took / count:.1f} ms each (exit {code})"
        )
        first = load_suite("many.py").cells[0]
        for size in (10, 100, 1000, 10_000):
            if size <= 10 * count:
                took = _collect(first, size)
                print(f"collecting {size} runs: {1000 * took / size:.2f} ms each")


def _collect(first: RunSpec, size: int) -> float:
    """Seconds for the tables of `size` finished runs, all with the files of one."""
    cells = [replace(first, suite=f"of{size}", order_seed=1 + i) for i in range(size)]
    one = RunDir.of(Path("results"), first)
    for cell in cells:
        run = RunDir.of(Path("results"), cell)
        run.path.mkdir(parents=True)
        for file in one.path.iterdir():
            if file.is_file():
                os.link(file, run.path / file.name)
    began = time.perf_counter()
    collect(Path("results"), cells)
    return time.perf_counter() - began


def work() -> None:
    """The worker: it answers as bench.launch.worker does, and computes nothing."""
    for line in sys.stdin:
        request = json.loads(line)
        specs = [spec_from_json(json.dumps(spec)) for spec in request["specs"]]
        answer: dict[str, Any] = {"kind": "state", "status": "ok", "reason": ""}
        answer |= {"identity": dict.fromkeys(FIXED_COLUMNS, "x"), "devices": ["cpu"]}
        if request["do"] == "work":
            answer["flops"] = [1.0] * len(specs)
        if request["do"] == "run":
            answer["status"] = _run(Path(request["results"]), *specs)["status"]
        print(json.dumps(answer), flush=True)


def _run(results: Path, spec: RunSpec) -> dict[str, Any]:
    """What the engine writes for one cell."""
    run = RunDir.of(results, spec)
    resolved = dict.fromkeys(("data_sha", "manifest_sha", "weights_sha"), "x")
    state: dict[str, Any] = {"status": "done", "reason": "", **dict.fromkeys(FIXED_COLUMNS, "x")}
    state |= dict.fromkeys(("tasks", "classes", "params_trainable"), TASKS)
    tables: dict[str, Rows] = {name: [] for name in TABLES}
    counts = {"n": 9, "correct": 5}
    tables["metrics"] = [
        {**identity(spec), "scenario": one, "after_task": after, "eval_task": task, **counts}
        for one in ("class", "task", "class-aligned", "task-aligned")
        for after in range(1, TASKS + 1)
        for task in range(1, after + 1)
    ]
    with run.lock():
        run.open(spec, {"env_sha": "x"}, resolved, [])
        run.save_state(state | {"status": "running"})
        for task in range(TASKS):
            run.log(f"task {task}")
        run.finish(tables, state)
    return state


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        work()
    else:
        main(*map(int, sys.argv[1:]))
