"""A page for each row and each cell: settings, accuracy matrices, losses, the end of the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from markupsafe import Markup

from bench.report.frames import Results
from bench.report.matrices import mean_matrix
from bench.report.page import (
    Code,
    Files,
    HtmlTable,
    Section,
    Text,
    anchor,
    file_name,
    link,
    page,
)
from bench.report.rows import is_suite, label, row_of
from bench.report.tables import METRIC_TITLES
from bench.store.rundir import RunDir

ROWS, CELLS = "rows", "cells"  # folders of the pages
LOG_LINES = 20
OF_A_RUN = ("status", "reason", "precision", "tasks", "classes", "params_trainable", "gflops_train")
MADE_BY = ("gflops_infer", "version", "commit", "code_sha", "spec_sha", "env_sha", "weights_sha")
FACTS = (*OF_A_RUN, *MADE_BY, "data_sha", "stream_sha")

LOSSES = ("task", "epoch", "part", "value")  # columns of a cell's page
MATRICES = (  # of a cell's page
    ("class", "Accuracy"),
    ("task", "Accuracy, task known"),
    ("class-aligned", "Accuracy, aligned head"),
    ("task-aligned", "Accuracy, aligned head, task known"),
)


def link_of_row(method: str, name: str) -> Markup:
    """A link from the suite's page to the row's."""
    return anchor(link(ROWS, f"{file_name(method)}.html"), name)


def link_of_cell(run_id: str, name: str) -> Markup | str:
    """A link from the suite's page to the cell's; the name alone for a cell without a page."""
    return anchor(link(CELLS, f"{file_name(run_id)}.html"), name) if run_id else name


def cells_table(results: Results) -> HtmlTable:
    """Every finished cell with its metrics and a link to its page."""
    if not len(results.cells):
        return HtmlTable([], [])
    cells = results.cells[results.cells["scenario"] == "class"]
    rows = [
        (
            link_of_cell(cell.run_id, cell.run_id),
            *(_number(getattr(cell, metric)) for metric in METRIC_TITLES),
        )
        for cell in cells.itertuples()
    ]
    heads = ["cell", *METRIC_TITLES.values()]
    return HtmlTable(heads, rows, frozenset(), Files("tables", "cells", ("csv",)))


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1f}"


def matrix_table(matrix: np.ndarray) -> HtmlTable:
    """An accuracy matrix (tasks, tasks) in percent, each number on a shade of its own."""
    heads = ["after task", *(f"task {task + 1}" for task in range(len(matrix)))]
    rows = [
        (
            str(after + 1),
            *(_shaded(value) for value in row.tolist()),
        )
        for after, row in enumerate(matrix)
        if not np.isnan(row).all()
    ]
    return HtmlTable(heads, rows, frozenset())


def _shaded(value: float) -> Markup:
    """A number on a shade of its own; nothing for NaN."""
    if np.isnan(value):
        return Markup()
    share = min(max(value, 0), 100) / 100
    return Markup(f'<span style="--share:{share:.2f}">{value:.1f}</span>')  # numbers alone


def pages(results: Results) -> Iterator[tuple[str, str]]:
    """(file in the report's folder, text) of every page."""
    per_task = results.losses.groupby(["run_id", "task"], sort=False)["epoch"]
    last = results.losses[results.losses["epoch"] == per_task.transform("max")]
    shown = last[["run_id", *LOSSES]].astype({"task": str, "epoch": str})
    losses: dict[str, list[tuple]] = {}
    for run_id, *values in shown.itertuples(index=False):
        losses.setdefault(run_id, []).append(tuple(values))
    for method in results.methods:
        yield f"{ROWS}/{file_name(method)}.html", _row(results, method)
    for run in results.runs.to_dict("records"):
        text = _cell(results, run, losses.get(run["run_id"]))
        yield f"{CELLS}/{file_name(run['run_id'])}.html", text


def _row(results: Results, method: str) -> str:
    back = ("../index.html", results.title)
    sections = []
    for benchmark in results.benchmarks:
        matrix = mean_matrix(results, benchmark, method)
        if matrix is None:
            continue
        rows = []
        for cell in results.by_row[benchmark, method, "class"].itertuples():
            address = link("..", CELLS, f"{file_name(cell.run_id)}.html")
            name = anchor(address, f"class order {cell.order_seed}, seed {cell.seed}")
            rows.append((name, *(_number(getattr(cell, m)) for m in METRIC_TITLES)))
        cells = HtmlTable(["cell", *METRIC_TITLES.values()], rows, frozenset())
        said = Text("Accuracy on each task after each task, percent, mean over the cells:")
        sections.append(Section(benchmark, [cells, said, matrix_table(matrix)]))
    settings = results.protocol[results.protocol["method"] == method]
    values: dict[str, dict[str, None]] = {}  # in the order of the benchmarks, each once
    for key, value in zip(settings["key"], settings["value"], strict=True):
        values.setdefault(key, {})[value] = None
    table = [(key, " / ".join(found)) for key, found in values.items()]
    note = [Text(row_of(method).note)] if row_of(method).note else []
    sections.append(Section("Settings", [HtmlTable(["setting", "value"], table, frozenset())]))
    return page(label(method), sections, note, back)


def _cell(results: Results, run: dict[str, str], losses: list[tuple] | None) -> str:
    run_id = run["run_id"]
    address = link("..", "rows", f"{file_name(run['method'])}.html")
    words = (
        f"--method {run['method']} --benchmark "
        f"{run['benchmark']} --order-seed {run['order_seed']} --seed {run['seed']} --name check"
    )
    sections = []
    for scenario, said in MATRICES:
        if (run_id, scenario) in results.matrices:
            table = matrix_table(100 * results.matrices[run_id, scenario])
            sections.append(Section(said, [Text("Percent, on each task after each task."), table]))
    if losses is not None:
        text = Text(
            "Mean of each part of the loss in the last epoch of each task; losses.csv has all."
        )
        sections.append(Section("Losses", [text, HtmlTable([*LOSSES], losses)]))
    facts = [(name, str(run[name])) for name in FACTS if str(run[name])]
    sections.append(Section("The run", [HtmlTable(["fact", "value"], facts, frozenset())]))
    lines = _log(results.folders.get(run["suite"], Path()), run_id)[-LOG_LINES:]
    shown = Code("\n".join(lines)) if lines else Text("Not kept with these tables.")
    sections.append(Section("End of its log", [shown]))
    said, command = "This command runs it again:", f"python -m bench.run {run['suite']} {words}"
    if not is_suite(run["suite"]):  # a file of one's own, or --set: not known here
        said, command = "To run it again: bench.run, what made these results, and", words
    lead = [Text(said), Code(command)]
    return page(run_id, sections, lead, (address, label(run["method"])))


def _log(folder: Path, run_id: str) -> list[str]:
    """The lines of a run's log; none where it was not kept with the tables."""
    content = RunDir(folder / "runs" / run_id).read("log.txt") or b""
    return content.decode("utf-8", "replace").splitlines()
