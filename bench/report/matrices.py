"""Figures made of matrices: accuracy on each task, likeness of layers, selection of prompts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.frames import Results
from bench.report.look import looks, outer_labels, panels
from bench.report.rows import row_of
from bench.report.tables import select

MAX_TASKS_WITH_NUMBERS, MAX_PANELS_WITH_NUMBERS = 10, 12  # of accuracy matrices that say values
MAX_MATRICES = 4  # of a benchmark
DARK_CELL = 65  # accuracy below which a cell is so dark that its number is white
MAX_TICKS = 6  # more labels than that run into each other
NO_VALUE = "#c4c4c4"


def accuracy_matrices(results: Results) -> Figure:
    """Accuracy on each task after each task, mean over cells: a line of panels a benchmark.

    Of the rows in front alone; those of every row are on its page.
    """
    look = {m: one for m, one in looks(results).items() if one.kind != "joint"}
    methods = ([m for m, one in look.items() if one.front] or [*look])[:MAX_MATRICES]
    figure, axes = panels(len(results.benchmarks) * len(methods), 2.5, 2.2, len(methods))
    pairs = [(benchmark, method) for benchmark in results.benchmarks for method in methods]
    for axis, (benchmark, method) in zip(axes, pairs, strict=False):
        mean = mean_matrix(results, benchmark, method)
        if mean is None:
            axis.set_visible(False)
            continue
        tasks = range(1, len(mean) + 1)
        said = "after task {}, task {}: {:.1f}"
        _draw_matrix(axis, mean, (tasks, tasks), "viridis", (0, 100), said)
        if len(mean) <= MAX_TASKS_WITH_NUMBERS and len(pairs) <= MAX_PANELS_WITH_NUMBERS:
            _write_numbers(axis, mean)
        axis.set_title(f"{row_of(method).short}, {benchmark}", size="small")
    outer_labels(axes, "task tested", "after task")
    figure.tight_layout()
    return figure


def mean_matrix(results: Results, benchmark: str, method: str) -> np.ndarray | None:
    """(tasks, tasks) in percent, mean over the cells of a row; None without any."""
    cells = select(results, benchmark, method, "class")
    matrices = [results.matrices[run, "class"] for run in cells["run_id"]] if len(cells) else []
    return 100 * np.mean(matrices, axis=0) if matrices else None


def _write_numbers(axis: Axes, matrix: np.ndarray) -> None:
    for (after, task), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            colour = "w" if value < DARK_CELL else "k"
            axis.text(task, after, f"{value:.0f}", ha="center", va="center", size=6, color=colour)


def prompt_similarity(results: Results) -> Figure:
    """Cosine between the prompts of every two layers after the last task, mean over all cells."""
    methods = [m for m in results.methods if m in set(results.similarity["method"])]
    figure, axes = panels(len(methods), 2.6, 2.3, 4)
    for axis, method in zip(axes, methods, strict=False):
        rows = results.similarity[results.similarity["method"] == method]
        half = rows.pivot_table(index="layer", columns="other", values="cosine")
        layers = sorted(set(half.index) | set(half.columns))
        square = half.reindex(index=layers, columns=layers)
        square = square.combine_first(square.T)
        said = "layers {} and {}: {:.2f}"
        names = [layer + 1 for layer in layers]  # from 1, as in every figure
        _draw_matrix(axis, square.to_numpy(), (names, names), "vlag", (-1, 1), said)
        axis.set_facecolor(NO_VALUE)
        axis.set(title=row_of(method).short, xlabel="layer", ylabel="layer")
    figure.tight_layout()
    figure.colorbar(axes[0].images[0], ax=list(axes), label="cosine", shrink=0.8)
    return figure


def prompt_selection(results: Results) -> Figure:
    """How often each prompt was chosen for each task's test images after the last task.

    Mean over cells: a line of panels a row, a panel a benchmark.
    """
    methods = [m for m in results.methods if m in set(results.selection["method"])]
    columns = len(results.benchmarks)
    figure, axes = panels(len(methods) * columns, 2.3, 2.0, columns)
    pairs = [(method, benchmark) for method in methods for benchmark in results.benchmarks]
    groups = dict(list(results.selection.groupby(["method", "benchmark"], sort=False)))
    for axis, pair in zip(axes, pairs, strict=False):
        if (group := groups.get(pair)) is None:
            axis.set_visible(False)
            continue
        tasks, rows = np.unique(group["eval_task"], return_inverse=True)
        values = np.zeros((len(tasks), group["prompt"].max()))
        np.add.at(values, (rows, group["prompt"] - 1), group["share"])
        values /= group["run_id"].nunique()
        said = "task {}, prompt {}: {:.3f}"
        names = (tasks, range(1, values.shape[1] + 1))
        _draw_matrix(axis, values, names, "mako_r", (0, values.max()), said)
        axis.set_title(f"{row_of(pair[0]).short}, {pair[1]}", size="small")
    outer_labels(axes, "prompt", "task tested")
    figure.tight_layout()
    return figure


def _draw_matrix(
    axis: Axes,
    values: np.ndarray,
    names: tuple[Iterable[Any], Iterable[Any]],
    colours: str,
    limits: tuple[float, float],
    said: str,
) -> None:
    """A matrix as colours; names of its rows, of its columns. (seaborn's heatmap draws the whole
    figure anew per panel.)

    said: what a cell says on hover, with places for its row, column and value. A zero and a cell
    without a value say nothing.
    """
    names = list(names[0]), list(names[1])
    image = axis.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    texts = [
        said.format(names[0][row], names[1][column], value) if abs(value) > 0 else ""
        for (row, column), value in np.ndenumerate(values)
    ]
    image.set_gid(f"cells|{len(names[1])}|{'|'.join(texts)}")
    for set_ticks, some in zip((axis.set_yticks, axis.set_xticks), names, strict=True):
        named = list(enumerate(map(str, some)))
        set_ticks(*zip(*named[:: max(1, round(len(named) / MAX_TICKS))], strict=True))
    axis.grid(visible=False)
