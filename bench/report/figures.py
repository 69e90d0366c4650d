"""Which figures a report has, with captions, and their files: equal input gives equal bytes."""

from __future__ import annotations

import io
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from bench.hardware import cores
from bench.report import alignment, matrices, plots
from bench.report.frames import Results
from bench.report.look import (
    Paper,
    as_wide_as,
    drawn_in,
    looks,
    named_rows,
    plt,
    shown_later,
    style,
    with_tips,
)
from bench.report.rows import label, row_of
from bench.report.table_files import csv_text
from bench.report.tables import cost_of_rows, scores
from bench.store.files import write_bytes, write_text

MAX_PANELS = 24  # more of them in one figure cannot be read
MIN_BENCHMARKS = 5  # of a critical-difference diagram; with fewer the test can hardly reject
METADATA = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}

ACCURACY = (
    "Average accuracy on the tasks seen so far. Thin lines: single cells of the rows in front; "
    "bands: one standard deviation. Dotted levels: all classes trained at once."
)
ORDERS = "Final average accuracy of each cell (dots), and the mean with its 95% t interval."
FORGETTING = (
    "Forgetting of each task: its best accuracy before the last task minus its final one, mean "
    "over cells; below 0 where the last task helped. Low forgetting alone is no merit: a method "
    "that learns nothing forgets nothing."
)
MATRICES = (
    "Accuracy on each task after each task, mean over cells, of the rows in front. Those of every "
    "row are on its page."
)
COST = (
    "Final average accuracy against costs, each the mean over the benchmarks. Ringed, and joined "
    "by a line: the Pareto front, rows that no other beats in both; joint rows take no part. That "
    "of seconds and memory is dashed: it says what happened in these runs, not which row is "
    "cheaper, since both depend on what else the process ran (see below). They are of the "
    "environment that most cells share."
)
RANKS = (
    "Mean ranks of the methods over the benchmarks, without those that miss one. A bar joins those "
    "that Nemenyi's test at 5% cannot tell apart."
)
NO_RANKS = "No critical-difference diagram: the rows are settings."
DRIFT = (
    "How far the features of earlier tasks' test images drift while a later task is learned, after "
    "each block and as the head reads them (mean over tasks). Where values span more than two "
    "decades, the axis is logarithmic above its first mark and linear down to 0."
)
SIMILARITY = (
    "Cosine between the prompts of every two layers after the last task, mean over all benchmarks "
    "and cells. Grey: no value, of a layer with itself and of prompts of two sizes."
)
SELECTION = (
    "How often each prompt was chosen for the test images of each task, after the last task: dark "
    "is often, on a scale of each panel that reaches twice an even share or more. A column that is "
    "dark from top to bottom is a prompt that all tasks share. CODA-Prompt's weights are soft: "
    "their sizes as shares. Rows that select no prompts are not here."
)
CURVES, COSTS, PROMPTS, WHOM = "curves", "cost", "prompts", "whom"  # sections that figures stand in


Made = TypeVar("Made")


class PlannedFigure(NamedTuple):
    """The name of a figure's files, its caption, its function, its data (CSV), and its section."""

    name: str
    caption: str
    draw: Callable[[], Figure]
    data: pd.DataFrame
    section: str = CURVES


def all_figures(results: Results, paper: Paper | None = None) -> Iterator[PlannedFigure]:
    """The figures in the order of the report; rows NAME@VALUE of a search get one per name."""
    if not len(results.cells):
        return
    style(paper)
    faa = _of_cells(results, results.cells[results.cells["scenario"] == "class"], "faa")
    names = list(dict.fromkeys(m.split("@")[0] for m in results.methods if "@" in m))
    for name in names:
        caption = (
            f"{label(name)}: final average accuracy by value. "
            "Dashed, with one standard deviation: the reference row."
        )
        yield PlannedFigure(f"setting-{name}", caption, partial(plots.settings, results, name), faa)
    if not names:
        yield from _of_all_rows(results, faa)
    elif len(named := named_rows(results)) > 1:
        which = "The rows that the suite names for its figures. "
        yield from _cost_and_drift(_only(results, named), which)
    for name, caption, draw in (
        ("similarity", SIMILARITY, matrices.prompt_similarity),
        ("selection", SELECTION, matrices.prompt_selection),
    ):
        data = getattr(results, name)
        if 0 < data["method"].nunique() <= MAX_PANELS:
            yield PlannedFigure(name, caption, partial(draw, results), data, PROMPTS)


def _of_cells(results: Results, frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return frame[["run_id", "benchmark", "method", "order_seed", "seed", *columns]]


def _of_all_rows(results: Results, faa: pd.DataFrame) -> Iterator[PlannedFigure]:
    curve = results.curve[results.curve["scenario"] == "class"].dropna(subset=["accuracy"])
    data = _of_cells(results, curve, "after_task", "accuracy")
    yield PlannedFigure("accuracy", ACCURACY, partial(plots.accuracy_curves, results), data)
    yield PlannedFigure("orders", ORDERS, partial(plots.orders, results), faa)
    data = plots.forgetting_data(results)
    if len(data):
        yield PlannedFigure(
            "forgetting", FORGETTING, partial(plots.forgetting_per_task, results), data
        )
    data = matrix_data(results)
    if any(results.kinds[method] != "joint" for method in data["method"].unique()):
        yield PlannedFigure(
            "matrices", MATRICES, partial(matrices.accuracy_matrices, results), data
        )
    table = scores(results)
    if results.reference and not why_no_ranks(table):
        data = table.rename_axis("benchmark").reset_index()
        yield PlannedFigure("ranks", RANKS, partial(plots.ranks, results, table), data, WHOM)
    yield from _cost_and_drift(results)


def why_no_ranks(table: pd.DataFrame) -> str:
    """Why there is no critical-difference diagram of these scores (benchmarks x methods); or ""."""
    if len(table) < MIN_BENCHMARKS:
        return (
            f"No critical-difference diagram: it needs at least {MIN_BENCHMARKS} benchmarks on "
            f"which all methods have finished cells, and here are {len(table)}."
        )
    if table.shape[1] < 3:
        return "No critical-difference diagram: it needs at least three methods."
    return ""


def matrix_data(results: Results) -> pd.DataFrame:
    """benchmark, method, after_task, eval_task, accuracy (percent, mean over cells)."""
    rows = []
    for benchmark in results.benchmarks:
        for method in results.methods:
            mean = matrices.mean_matrix(results, benchmark, method)
            for after in range(0 if mean is None else len(mean)):
                for task in range(after + 1):
                    if mean[after, task] == mean[after, task]:  # type: ignore[index]
                        value = mean[after, task]  # type: ignore[index]
                        rows.append([benchmark, method, after + 1, task + 1, value])
    columns = ["benchmark", "method", "after_task", "eval_task", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def _only(results: Results, methods: list[str]) -> Results:
    """These rows alone, as far as costs and drift need them."""
    names = ("runs", "cells", "curve", "movement", "timing")
    frames = {name: getattr(results, name) for name in names}
    frames = {name: frame[frame["method"].isin(methods)] for name, frame in frames.items()}
    return replace(results, **frames)


def _cost_and_drift(results: Results, which: str = "") -> Iterator[PlannedFigure]:
    data = cost_of_rows(results)
    if len(data):
        draw = partial(plots.accuracy_against_cost, results, data)
        yield PlannedFigure("cost", which + COST, draw, data, COSTS)
    if results.movement["feature_drift"].notna().any():
        data = results.movement.dropna(subset=["feature_drift"])
        draw = partial(plots.feature_drift, results)
        yield PlannedFigure("drift", which + DRIFT, draw, data, PROMPTS)
    data = alignment.gains(results)
    if len(data):
        draw = partial(alignment.gain_against_drift, results, data)
        yield PlannedFigure("gain", which + alignment.CAPTION, draw, data, PROMPTS)


def which_rows(results: Results) -> str:
    """Which rows stand in front, and which are drawn on the page alone, or not at all."""
    if any("@" in method for method in results.methods):
        return ""
    look = looks(results)

    def named(rows: Iterable[str]) -> str:
        return ", ".join(row_of(method).short for method in rows)

    said = []
    front = [method for method, one in look.items() if one.front]
    if 0 < len(front) < len(look):
        said.append(f"In front: {named(front)}.")
    if later := [method for method, one in look.items() if one.later]:
        said.append(
            f"Pictures (PNG) of curves, forgetting, drift and gain have {len(look) - len(later)} "
            f"of the {len(look)} rows. Their CSV files also have {named(later)}."
        )
    return " ".join(said)


def save(planned: PlannedFigure, folder: Path, tracked: bool = False) -> dict[Path, str]:
    """Draw a figure; write folder/NAME.svg, .png and .csv, or a small PNG alone.

    Returns the files, and the text of the SVG.
    """
    figure, name = planned.draw(), planned.name
    written = {folder / f"{name}.png": ""}
    later = shown_later(figure)
    plt.setp(later, visible=False)
    box = drawn_in(figure)
    png = _bytes_of(figure, "png", box)
    write_bytes(folder / f"{name}.png", _of_few_colours(png) if tracked else png)
    if not tracked:
        plt.setp(later, visible=True)
        file = folder / f"{name}.svg"
        written[file] = with_tips(_bytes_of(figure, "svg", box).decode())
        write_text(file, written[file])
        write_text(folder / f"{name}.csv", csv_text(planned.data))
        written[folder / f"{name}.csv"] = ""
    plt.close(figure)
    return written


def save_for_paper(planned: PlannedFigure, folder: Path, paper: Paper) -> Path:
    """Draw a figure as wide as the paper's columns; write folder/NAME.pdf."""
    figure = planned.draw()
    plt.setp(shown_later(figure), visible=False)
    as_wide_as(figure, paper.width)
    file = folder / f"{planned.name}.pdf"
    write_bytes(file, _bytes_of(figure, "pdf"))
    plt.close(figure)
    return file


def side_by_side(
    work: Callable[[PlannedFigure], Made], figures: Iterable[PlannedFigure]
) -> list[tuple[PlannedFigure, Made]]:
    """Each figure and what `work` makes of it, in order; on all cores where processes can fork.

    Elsewhere one after the other: another kind of process would import everything anew, which
    takes longer than a figure. macOS can fork, but its libraries do not survive it.
    """
    planned = list(figures)
    processes = min(cores(), len(planned)) if sys.platform.startswith("linux") else 1
    if processes < 2:
        return [(one, work(one)) for one in planned]
    with warnings.catch_warnings():
        # Python 3.12 warns of the threads of linear algebra: no figure uses them.
        warnings.simplefilter("ignore", DeprecationWarning)
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(
            processes, context, initializer=_inherit, initargs=(work, planned)
        ) as pool:
            made: Iterator[Made] = pool.map(_made, range(len(planned)))
            return list(zip(planned, made, strict=True))


_inherited: tuple[Callable, list[PlannedFigure]]  # of a forked process: nothing is pickled


def _inherit(work: Callable, planned: list[PlannedFigure]) -> None:
    global _inherited
    _inherited = work, planned


def _made(place: int) -> Any:
    work, planned = _inherited
    return work(planned[place])


def _bytes_of(figure: Figure, kind: str, box: Bbox | None = None) -> bytes:
    """box: of what is drawn, in inches; None: it is found anew."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=METADATA[kind], bbox_inches=box)
    return buffer.getvalue()


def _of_few_colours(png: bytes) -> bytes:
    """A PNG with at most 256 colours: a third of the size, and every mark keeps its colour.

    By maximum coverage: a median cut gives a small mark in a rare colour that of another row.
    """
    small = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()
