"""What all figures share: theme, colours, panels, legends and matrices as colours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.frames import Results
from bench.report.rows import Row, kind_of, label, row_of

MAX_NAMES_IN_A_PANEL = 6  # a longer legend stands beside the panels
MAX_TICKS = 12  # more labels than that run into each other


class Look(NamedTuple):
    """How a row is drawn in every figure. kind: method, reference or joint (see rows.py)."""

    colour: tuple[float, float, float] | str
    dash: Any  # matplotlib's linestyle
    kind: str


def style() -> None:
    """One theme for all figures."""
    sns.set_theme(context="paper", style="whitegrid", font="DejaVu Sans")
    plt.rcParams.update(
        {"svg.hashsalt": "bench", "figure.dpi": 100, "savefig.bbox": "tight", "axes.titlesize": 10}
    )


def looks(results: Results) -> dict[str, Look]:
    """The look of each row: its own in rows.csv, else a plain line in the palette's next colour."""
    rows = {method: row_of(method) for method in results.methods}
    kinds = {method: kind_of(results.protocol, method) for method in rows}
    plain = [method for method, row in rows.items() if not row.colour]
    palette = dict(zip(plain, sns.color_palette("colorblind", len(plain)), strict=True))
    return {
        method: Look(row.colour or palette[method], _linestyle(row), kinds[method])
        for method, row in rows.items()
    }


def _linestyle(row: Row) -> Any:
    return (0, tuple(float(length) for length in row.dash.split())) if row.dash else "-"


def panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels, at most three in a row; width and height (inches) are those of one."""
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat)


def legend_of_lines(figure: Figure, look: dict[str, Look]) -> None:
    """Name the rows' lines: in the empty panel where there is one, else right of the panels."""
    handles = [
        plt.Line2D([], [], color=one.colour, label=label(method), linestyle=one.dash)
        for method, one in look.items()
    ]
    figure.tight_layout()
    empty = [axis for axis in figure.axes if not axis.get_visible()]
    few = len(handles) <= MAX_NAMES_IN_A_PANEL
    where: dict[str, Any] = {"bbox_to_anchor": (1.0, 0.5), "loc": "center left"}
    if empty and few:
        where = {"bbox_to_anchor": empty[0].get_position().get_points()[0], "loc": "lower left"}
    figure.legend(handles=handles, frameon=False, handlelength=3, **where)


def draw_matrix(
    axis: Axes, values: np.ndarray, names: Iterable[int], colours: str, limits: tuple[float, float]
) -> None:
    """A square matrix as colours. (seaborn's heatmap draws the whole figure anew per panel.)"""
    axis.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    named = list(enumerate(map(str, names)))[:: -(-len(values) // MAX_TICKS)]
    axis.set_xticks(*zip(*named, strict=True))
    axis.set_yticks(*zip(*named, strict=True))
    axis.grid(visible=False)
