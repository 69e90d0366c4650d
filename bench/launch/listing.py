"""What `bench.grid` says without running anything: the suites, and a suite's cells and cost."""

from __future__ import annotations

import argparse
import re

from tabulate import tabulate

from bench.config.spec import RunSpec
from bench.config.suite import SUITES, load_suite, suite_names
from bench.paths import PROJECT, REFERENCE
from bench.store.rundir import RunDir
from bench.store.tables import LATER_COLUMNS, TABLES, read_csv


def suite_list() -> str:
    """The suites, each with its first sentence, its number of cells and its time."""
    rows = []
    for name in suite_names():
        suite = load_suite(name)
        rows.append([name, len(suite.cells), _time_of(name), suite.doc])
    note = "minutes: of the published cells, on two cores; PFLOP: what it costs, not run yet"
    return f"{tabulate(rows, ['suite', 'cells', 'time', ''], disable_numparse=True)}\n{note}"


def _time_of(suite: str) -> str:
    """Measured minutes of a published suite on two cores, else the cost in its docstring."""
    file = PROJECT / "results" / REFERENCE / suite / "timing.csv"
    if file.is_file():
        rows = read_csv(file, TABLES["timing"], LATER_COLUMNS["timing"])
        seconds = sum(float(row["train_seconds"]) + float(row["eval_seconds"]) for row in rows)
        return f"{seconds / 60 / 2:.0f} min"
    found = re.search(r"^Cost: ([^,]|,(?=[0-9]))*PFLOP", (SUITES / f"{suite}.py").read_text(), re.M)
    return found[0].removeprefix("Cost: ").replace("at least", ">=") if found else ""


def _gpu_memory(cells: list[RunSpec]) -> str:
    """The cell that takes most of a GPU, in a line; and those of which that is not known."""
    from bench.cost.memory import predictions

    sizes, unknown = predictions(cells)
    size, cell = max(zip(sizes, cells, strict=True), key=lambda pair: pair[0])
    left = "".join(f"; not known: {method} ({reason})" for method, reason in unknown.items())
    return (
        f"a cell takes at most {size / 2**30:.1f} GiB of a GPU, and its images where they stay "
        f"there (predicted; the largest: {cell.method} on {cell.benchmark}{left})"
    )


def plan(
    chosen: list[RunSpec], left: list[RunSpec], stale: list[str], args: argparse.Namespace
) -> str:
    """Each cell with its state, and the cost of those that are left."""
    lines = []
    for cell in chosen:
        state = RunDir.of(args.results, cell).state()["status"] if cell in left else "done"
        state = "stale" if cell.run_id in stale else state
        lines.append(f"{state:12} {cell.run_id}")
    if left:
        from bench.cost import suite as cost  # imports torch, which nothing else here needs

        lines += ["", f"left to run: {len(left)} of {len(chosen)} cells"]
        lines.append(cost.table(left, args.rate, args.jobs or 1))
        if args.device.startswith("cuda"):
            lines.append(_gpu_memory(left))
    return "\n".join(lines)
