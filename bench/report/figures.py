"""Which figures a report has, with captions, and their files: equal input gives equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from bench.report import alignment, plots
from bench.report.frames import Results
from bench.report.look import Paper, plt, style, with_tips
from bench.report.rows import kind_of, label
from bench.report.table_files import csv_text
from bench.report.tables import cost_of_rows, scores
from bench.store.files import write_bytes, write_text

MAX_ROWS, MAX_PANELS = 16, 24  # more of them in one figure cannot be read
MIN_BENCHMARKS = 5  # of a critical-difference diagram; with fewer the test can hardly reject
METADATA = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}

ACCURACY = (
    "Average accuracy on the tasks seen so far. Thin lines: single cells of the rows in front; "
    "bands: one standard deviation. Dotted levels: all classes trained at once."
)
ORDERS = "Final average accuracy of each cell (dots), and the mean with its 95% t interval."
FORGETTING = (
    "Forgetting of each task: its best accuracy so far minus its final one, mean over cells. Low "
    "forgetting alone is no merit: a method that learns nothing forgets nothing."
)
MATRICES = "Accuracy on each task after each task in percent, mean over cells."
COST = (
    "Final average accuracy against five costs, each the mean over the benchmarks. Grey line: "
    "Pareto front, the rows than which no other is as accurate for less; joint rows take no part."
)
RANKS = (
    "Mean ranks of the methods over the benchmarks. A bar joins those that Nemenyi's test at 5% "
    "cannot tell apart."
)
DRIFT = (
    "How far the features of earlier tasks' test images drift while a later task is learned, by "
    "block (mean over tasks). The last point is what the head reads."
)
SIMILARITY = "Cosine between the prompts of every two layers after the last task."
SELECTION = (
    "How often each prompt was chosen for the test images of each task, after the last task: dark "
    "is often, on a scale of each panel. A column that is dark from top to bottom is a prompt that "
    "all tasks share. CODA-Prompt's weights are soft: their sizes as shares."
)
CURVES, COSTS, PROMPTS, WHOM = "curves", "cost", "prompts", "whom"  # sections that figures stand in


class DrawnFigure(NamedTuple):
    """A figure, the name of its files, its caption, what it shows (CSV), and its section."""

    name: str
    caption: str
    figure: Figure
    data: pd.DataFrame
    section: str = CURVES


def all_figures(results: Results, paper: Paper | None = None) -> Iterator[DrawnFigure]:
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
        yield DrawnFigure(f"setting-{name}", caption, plots.settings(results, name), faa)
    few = len(results.methods) <= MAX_ROWS and not names
    shown = results if few else _chosen_rows(results)
    if shown is not None and names:
        yield from _cost_and_drift(shown, "The rows that the suite names for its figures. ")
    elif shown is not None:
        yield from _of_all_rows(shown, faa[faa["method"].isin(shown.methods)])
    for name, caption, draw in (
        ("similarity", SIMILARITY, plots.prompt_similarity),
        ("selection", SELECTION, plots.prompt_selection),
    ):
        data = getattr(results, name)
        if 0 < data["method"].nunique() <= MAX_PANELS:
            yield DrawnFigure(name, caption, draw(results), data, PROMPTS)


def _of_cells(results: Results, frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return frame[["run_id", "benchmark", "method", "order_seed", "seed", *columns]]


def _of_all_rows(results: Results, faa: pd.DataFrame) -> Iterator[DrawnFigure]:
    curve = results.curve[results.curve["scenario"] == "class"].dropna(subset=["accuracy"])
    data = _of_cells(results, curve, "after_task", "accuracy")
    yield DrawnFigure("accuracy", ACCURACY, plots.accuracy_curves(results), data)
    yield DrawnFigure("orders", ORDERS, plots.orders(results), faa)
    data = plots.forgetting_data(results)
    if len(data):
        yield DrawnFigure("forgetting", FORGETTING, plots.forgetting_per_task(results), data)
    if any(kind_of(results.protocol, method) != "joint" for method in results.methods):
        data = matrix_data(results)
        yield DrawnFigure("matrices", MATRICES, plots.accuracy_matrices(results), data)
    table = scores(results)
    if results.reference and not why_no_ranks(table):
        data = table.rename_axis("benchmark").reset_index()
        yield DrawnFigure("ranks", RANKS, plots.ranks(results, table), data, WHOM)
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
            mean = plots.mean_matrix(results, benchmark, method)
            for after in range(0 if mean is None else len(mean)):
                for task in range(after + 1):
                    if mean[after, task] == mean[after, task]:  # type: ignore[index]
                        value = mean[after, task]  # type: ignore[index]
                        rows.append([benchmark, method, after + 1, task + 1, value])
    columns = ["benchmark", "method", "after_task", "eval_task", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def _chosen_rows(results: Results) -> Results | None:
    """The suite's figure_rows alone; None unless at least two of them were run."""
    patterns = results.figure_rows
    chosen = [m for m in results.methods if any(fnmatchcase(m, pattern) for pattern in patterns)]
    if len(chosen) < 2:
        return None
    names = ("runs", "cells", "curve", "movement", "timing")
    frames = {name: getattr(results, name) for name in names}
    frames = {name: frame[frame["method"].isin(chosen)] for name, frame in frames.items()}
    return replace(results, **frames)


def _cost_and_drift(results: Results, which: str = "") -> Iterator[DrawnFigure]:
    data = cost_of_rows(results)
    if len(data):
        figure = plots.accuracy_against_cost(results)
        yield DrawnFigure("cost", which + COST, figure, data, COSTS)
    if results.movement["feature_drift"].notna().any():
        data = results.movement.dropna(subset=["feature_drift"])
        yield DrawnFigure("drift", which + DRIFT, plots.feature_drift(results), data, PROMPTS)
    data = alignment.gains(results)
    if len(data):
        figure = alignment.gain_against_drift(results, data)
        yield DrawnFigure("gain", which + alignment.CAPTION, figure, data, PROMPTS)


def what_is_left_out(results: Results) -> str:
    """Says so if there are too many rows for figures of all of them."""
    if len(results.methods) <= MAX_ROWS or any("@" in method for method in results.methods):
        return ""
    which = (
        "the suite names the rows that are shown" if results.figure_rows else "they are left out"
    )
    return f"{len(results.methods)} rows cannot be told apart in one figure: {which}."


def save(drawn: DrawnFigure, folder: Path, tracked: bool = False) -> dict[Path, str]:
    """Write folder/NAME.svg, .png and .csv, or a small PNG alone; return the SVG by its file."""
    written = {folder / f"{drawn.name}.png": ""}
    box = _laid_out(drawn.figure)
    png = _bytes_of(drawn.figure, "png", box)
    write_bytes(folder / f"{drawn.name}.png", _of_few_colours(png) if tracked else png)
    if not tracked:
        file = folder / f"{drawn.name}.svg"
        written[file] = with_tips(_bytes_of(drawn.figure, "svg", box).decode())
        write_text(file, written[file])
        write_text(folder / f"{drawn.name}.csv", csv_text(drawn.data))
        written[folder / f"{drawn.name}.csv"] = ""
    plt.close(drawn.figure)
    return written


def save_for_paper(drawn: DrawnFigure, folder: Path, paper: Paper) -> Path:
    """Write folder/NAME.pdf, as wide as the paper's columns."""
    figure = drawn.figure
    for _ in range(3):  # what stands beside the panels keeps its size
        box = figure.get_tightbbox()
        margin = 2 * plt.rcParams["savefig.pad_inches"]
        figure.set_figwidth(max(figure.get_figwidth() + paper.width - margin - box.width, 1.0))
    file = folder / f"{drawn.name}.pdf"
    write_bytes(file, _bytes_of(drawn.figure, "pdf"))
    plt.close(drawn.figure)
    return file


def _laid_out(figure: Figure) -> Bbox:
    """Lay a figure out, once for all formats; the box of what is drawn, in inches."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # nothing is left to lay out
    return figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])


def _bytes_of(figure: Figure, kind: str, box: Bbox | None = None) -> bytes:
    """box: of what is drawn, in inches; None: it is found anew."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=METADATA[kind], bbox_inches=box)
    return buffer.getvalue()


def _of_few_colours(png: bytes) -> bytes:
    """A PNG with at most 256 colours: a third of the size, and no difference that one sees."""
    small = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()
