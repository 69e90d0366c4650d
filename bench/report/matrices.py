"""Figures made of matrices: accuracy on each task, likeness of layers, selection of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from bench.report.frames import Results
from bench.report.look import (
    CHARACTER,
    LOWEST_MATRIX,
    NARROWEST,
    NARROWEST_MATRIX,
    fitting,
    looks,
    panels,
    plt,
    spaced,
)
from bench.report.rows import row_of
from bench.report.tables import select

MAX_TASKS_WITH_NUMBERS, MAX_MATRICES_WITH_NUMBERS = 10, 12  # of accuracy matrices that say values
INCHES_OF_A_NUMBER = 0.15  # of a matrix and the names around it
MAX_MATRICES = 4  # of a benchmark
DARK_CELL = 65  # accuracy below which a cell is so dark that its number is white
MAX_TICKS = 6  # more labels than that run into each other
NO_VALUE = "#c4c4c4"
MATRIX_SHARE = 0.58  # of the width that one has: the rest are marks, gaps and the scale
MIN_POINTS = 5
GAP = 0.15  # between two matrices of a line, of a matrix's width


class Matrix(NamedTuple):
    """values: (rows, columns), NaN where there is none; limits: of the colours.

    said: what a cell says on hover, with places for its row, column and value. A zero and a cell
    without a value say nothing.
    """

    title: str
    values: np.ndarray
    said: str
    limits: tuple[float, float]


class Line(NamedTuple):
    """Matrices side by side, and what they have in common."""

    name: str
    matrices: list[Matrix]


def accuracy_matrices(results: Results) -> Figure:
    """Accuracy on each task after each task, mean over cells: a line of matrices a benchmark.

    Of the rows in front alone; those of every row are on its page.
    """
    tested = {method for _, method, scenario in results.by_row if scenario == "class"}
    look = {m: one for m, one in looks(results).items() if one.kind != "joint" and m in tested}
    methods = ([m for m, one in look.items() if one.front] or [*look])[:MAX_MATRICES]
    said = "after task {}, task {}: {:.1f}"
    lines = [
        Line(benchmark, [
            Matrix(row_of(method).short, mean, said, (0, 100))
            for method in methods
            if (mean := mean_matrix(results, benchmark, method)) is not None
        ])
        for benchmark in results.benchmarks
    ]  # fmt: skip
    lines = [line for line in lines if line.matrices]
    few = sum(len(line.matrices) for line in lines) <= MAX_MATRICES_WITH_NUMBERS
    figure = _draw_lines(lines, (2.5, 2.0), "viridis", "task tested", "after task", numbers=few)
    return _with_scale(figure, "accuracy (%)")


def mean_matrix(results: Results, benchmark: str, method: str) -> np.ndarray | None:
    """(tasks, tasks) in percent, mean over the cells of a row; None without any."""
    cells = select(results, benchmark, method, "class")
    matrices = [results.matrices[run, "class"] for run in cells["run_id"]] if len(cells) else []
    return 100 * np.mean(matrices, axis=0) if matrices else None


def prompt_similarity(results: Results) -> Figure:
    """Cosine between the prompts of every two layers after the last task, mean over all cells."""
    means = results.similarity.groupby(["method", "layer", "other"])["cosine"].mean()
    matrices = []
    for method in [m for m in results.methods if m in means.index.levels[0]]:
        mean = means[method]
        layers = 1 + max(max(place) for place in mean.index)
        square = np.full((layers, layers), np.nan)
        for (layer, other), cosine in mean.items():
            square[layer, other] = square[other, layer] = cosine
        said = "layers {} and {}: {:.2f}"
        matrices.append(Matrix(row_of(method).short, square, said, (-1, 1)))
    lines = [Line("", matrices[i : i + 4]) for i in range(0, len(matrices), 4)]
    figure = _draw_lines(lines, (2.4, 2.1), "vlag", "layer", "layer", narrowest=NARROWEST)
    return _with_scale(figure, "cosine")


def _with_scale(figure: Figure, name: str) -> Figure:
    """With a bar of the colours, which all matrices share."""
    bar = figure.colorbar(figure.axes[0].images[0], ax=list(figure.axes), label=name, shrink=0.8)
    bar.outline.set_visible(False)
    return figure


def prompt_selection(results: Results) -> Figure:
    """How often each prompt was chosen for each task's test images after the last task.

    Mean over cells: a line of matrices a row, one for each benchmark.
    """
    groups = dict(list(results.selection.groupby(["method", "benchmark"], sort=False)))
    lines = []
    for method in [m for m in results.methods if any(m == row for row, _ in groups)]:
        matrices = []
        for benchmark in results.benchmarks:
            if (group := groups.get((method, benchmark))) is None:
                continue
            values = np.zeros((group["eval_task"].max(), group["prompt"].max()))
            np.add.at(values, (group["eval_task"] - 1, group["prompt"] - 1), group["share"])
            values /= group["run_id"].nunique()
            said = "task {}, prompt {}: {:.3f}"
            even = 1 / values.shape[1]  # at most half dark: nothing stands out
            limits = (0, max(values.max(), 2 * even))
            matrices.append(Matrix(benchmark, values, said, limits))
        lines.append(Line(row_of(method).short, matrices))
    return _draw_lines(lines, (2.3, 1.7), "mako_r", "prompt", "task tested")


def _draw_lines(
    lines: Sequence[Line],
    size: tuple[float, float],
    colours: str,
    x: str,
    y: str,
    numbers: bool = False,
    narrowest: float = NARROWEST_MATRIX,
) -> Figure:
    """Matrices as colours, those of a line in one axes: with one each the figure would take twice
    as long, and a heatmap of seaborn draws the whole figure anew.

    size: inches of a matrix; x, y: what columns and rows are, counted from 1. The names of a
    matrix' rows are beside it where they differ from those before.
    """
    fit = fitting(max(len(line.matrices) for line in lines), narrowest)
    lines = [
        Line(line.name, line.matrices[i : i + fit])
        for line in lines
        for i in range(0, len(line.matrices), fit)
    ]
    figure, axes = panels(len(lines), fit * size[0], size[1], 1, lowest=LOWEST_MATRIX)
    inches = figure.get_figwidth() / fit, figure.get_figheight() / len(lines)
    ticks_x, ticks_y = (max(2, min(MAX_TICKS, int(4 * side))) for side in inches)
    longest = max(len(one.title) for line in lines for one in line.matrices)
    fits = 72 * MATRIX_SHARE * inches[0] / CHARACTER / (longest + 1)  # points
    points = max(MIN_POINTS, min(FontProperties(size="small").get_size_in_points(), fits))
    cmap = plt.get_cmap(colours).with_extremes(bad=NO_VALUE if colours == "vlag" else "white")
    for axis, line in zip(axes, lines, strict=True):
        columns: dict[float, str] = {}  # names by place
        height = 0  # of the matrix before
        for place, one in enumerate(line.matrices):
            left = place * (1 + GAP)
            _draw_matrix(axis, one, left, cmap, points)
            rows, count = one.values.shape
            room = min(inches) / rows > INCHES_OF_A_NUMBER
            if numbers and room and rows <= MAX_TASKS_WITH_NUMBERS:
                _write_numbers(axis, one.values, left)
            columns |= {left + at: name for at, name in _names(count, ticks_x).items()}
            if place and rows != height and GAP * inches[0] > 0.15:
                for at, name in _names(rows, ticks_y).items():
                    _write(axis, name, (left, at), (-3, 0), ha="right", va="center")
            elif not place:
                axis.set_yticks([*_names(rows, ticks_y)], [*_names(rows, ticks_y).values()])
            height = rows
        axis.set_xticks([*columns], [*columns.values()])
        axis.set(xlim=(0, fit * (1 + GAP) - GAP), ylim=(1, 0))
        axis.set_ylabel(f"{line.name}\n{y}" if line.name else y)
        axis.spines[:].set_visible(False)
        axis.grid(visible=False)
    axes[-1].set_xlabel(x)
    spaced(figure)
    return figure


def _draw_matrix(axis: Axes, one: Matrix, left: float, cmap: Colormap, points: float) -> None:
    """A matrix, one unit wide and high, its title, and what its cells say on hover.

    points: the size of the title.
    """
    image = axis.imshow(
        one.values,
        cmap=cmap,
        vmin=one.limits[0],
        vmax=one.limits[1],
        aspect="auto",
        extent=(left, left + 1, 1, 0),
    )
    said = [
        one.said.format(row + 1, column + 1, value) if abs(value) > 0 else ""
        for (row, column), value in np.ndenumerate(one.values)
    ]
    image.set_gid(f"cells|{one.values.shape[1]}|{'|'.join(said)}")
    _write(axis, one.title, (left + 0.5, 0), (0, 3), ha="center", va="bottom", size=points)


def _write(
    axis: Axes,
    text: str,
    at: tuple[float, float],
    points: tuple[int, int],
    size: float | str = "small",
    **place: Any,
) -> None:
    axis.annotate(text, at, points, textcoords="offset points", size=size, **place)


def _names(count: int, ticks: int) -> dict[float, str]:
    """Of rows or columns, by their places between 0 and 1: at most so many, from 1."""
    step = -(-count // ticks)
    return {(k + 0.5) / count: str(k + 1) for k in range(0, count, step)}


def _write_numbers(axis: Axes, matrix: np.ndarray, left: float) -> None:
    rows, columns = matrix.shape
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            colour = "w" if value < DARK_CELL else "k"
            x, y = left + (column + 0.5) / columns, (row + 0.5) / rows
            axis.text(x, y, f"{value:.0f}", ha="center", va="center", size=6, color=colour)
