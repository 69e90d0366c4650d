"""What all figures share: theme, colours, panels, legends, and what is said on hover."""

from __future__ import annotations

import html
import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import Bbox, ScaledTranslation

from bench.report.frames import Results
from bench.report.rows import FRONT, Row, label, row_of

MAX_ROWS = 16  # more lines in one figure cannot be read
MAX_STEPS = 6  # between the values of an axis: each tick takes as long to draw as a line
MAX_NAMES_IN_A_PANEL = 6  # a longer legend stands beside the panels
NEAR = 0.005  # inches that nobody sees
NARROWEST, NARROWEST_MATRIX = 1.6, 0.6  # inches of a panel on paper, at 8 points
LOWEST, LOWEST_MATRIX = 1.4, 0.9
CHARACTER = 0.55  # of the font size: its width, on average
MAX_DECADES, LOWEST_POWER = 3, -4  # of an axis that starts at 0; less than 0.0001 is hard to read
MARKERS = "osP^vD<>XpH*"  # of rows that rows.csv does not list, told apart in grey too
TIP = re.compile(r'<g id="(tip|later)\|([^|"]*)\|([^|"]*)">')  # each quoted, as in an address
CELLS = re.compile(
    r' id="cells\|(\d+)\|([^"]*)"[^>]* x="(.+?)" y="-(.+?)" width="(.+?)" height="(.+?)"/>'
)


@dataclass(frozen=True)
class Paper:
    """Figures for a page of paper. width in inches, font_size in points."""

    width: float
    font_size: float


class Look(NamedTuple):
    """How a row is drawn in every figure. kind: method, reference or joint (see rows.py).

    front: one of the rows that the suite is about, drawn above the others and thicker. later: a row
    whose lines are seen only after it is chosen on the page.
    """

    colour: tuple[float, float, float] | str
    dash: Any  # matplotlib's linestyle
    kind: str
    marker: str = ""
    front: bool = True
    later: bool = False


_paper: Paper | None = None  # like matplotlib's own settings: set by style() for all figures


def style(paper: Paper | None = None) -> None:
    """One theme for all figures; that of a paper has its font size, and text that stays text."""
    global _paper
    _paper = paper
    sns.set_theme(context="paper", style="whitegrid", font="DejaVu Sans")
    plt.rcParams.update(
        {
            "svg.hashsalt": "bench",
            "figure.dpi": 100,
            "text.hinting": "none",  # it takes a sixth of a picture's time
            "text.parse_math": False,  # a dollar in a name is a dollar
            "image.composite_image": False,  # each matrix says its own values on hover
            "savefig.bbox": "tight",
            "axes.titlesize": 10,
            "axes.titley": 1.0,  # no ticks are above: a place that has to be found takes long
        }
    )
    if paper:
        size, small = paper.font_size, paper.font_size - 1
        plt.rcParams.update(
            {
                "font.size": size,
                "axes.titlesize": size,
                "axes.labelsize": size,
                "xtick.labelsize": small,
                "ytick.labelsize": small,
                "legend.fontsize": small,
                "pdf.fonttype": 42,  # text as text, as publishers want it
            }
        )


def looks(results: Results) -> dict[str, Look]:
    """The look of each row: its own in rows.csv, else a plain line in the palette's next colour."""
    rows = {method: row_of(method) for method in results.methods}
    plain = [method for method, row in rows.items() if not row.colour]
    palette = dict(zip(plain, sns.color_palette("husl", len(plain)), strict=True))
    markers = dict(zip(plain, itertools.cycle(MARKERS)))
    some = len(set(rows) & set(FRONT)) > 1
    later = rows_shown_later(results)
    return {
        method: Look(
            row.colour or palette[method],
            _linestyle(row),
            results.kinds[method],
            row.marker or markers.get(method, ""),
            method in FRONT if some else results.kinds[method] == "method",
            method in later,
        )
        for method, row in rows.items()
    }


def named_rows(results: Results) -> list[str]:
    """The rows that the suite names for its figures (figure_rows)."""
    return [
        method
        for method in results.methods
        if any(fnmatchcase(method, pattern) for pattern in results.figure_rows)
    ]


def rows_shown_later(results: Results) -> set[str]:
    """What there are too many of for one figure: all but the rows that the suite names, or but the
    first ones where it names fewer than two that were run.
    """
    if len(results.methods) <= MAX_ROWS:
        return set()
    named = named_rows(results)
    return set(results.methods) - set(named if len(named) > 1 else results.methods[:MAX_ROWS])


def marker_path(marker: str) -> str:
    """A marker as the path of an SVG, one unit wide and up being positive."""
    if not marker:
        return ""
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    lines = [np.asarray(line) for line in path.to_polygons(closed_only=False)]
    return " ".join("M" + " L".join(f"{x:.3f} {y:.3f}" for x, y in line) for line in lines)


def _linestyle(row: Row) -> Any:
    return (0, tuple(float(length) for length in row.dash.split())) if row.dash else "-"


def fitting(count: int, inches: float) -> int:
    """How many stand side by side; inches: what each needs on paper at least."""
    return min(count, max(1, int(_paper.width / inches))) if _paper else count


def panels(
    count: int,
    width: float,
    height: float,
    columns: int = 3,
    lines: int = 0,
    lowest: float = LOWEST,
) -> tuple[Figure, list[Axes]]:
    """A figure of panels, at most `columns` in a row; width and height (inches) of one panel.

    On paper a panel is as high as `lines` of text where they are given, else at least `lowest`.
    """
    if _paper:
        columns = fitting(columns, NARROWEST)
        inches = _paper.width / min(count, columns)
        lowest *= _paper.font_size / 8
        of_text = 0.6 + lines * 1.3 * _paper.font_size / 72
        width, height = inches, of_text if lines else max(height * inches / width, lowest)
    columns = min(count, columns)
    rows = -(-count // columns)
    below = 0.05 * _paper.font_size if _paper else 0  # the names below the last line
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows + below), squeeze=False
    )
    if not _paper:  # there it depends on how small a panel becomes
        for axis in axes.flat[:count]:
            axis.locator_params(nbins=MAX_STEPS)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat)


def few_ticks(axis: Axes) -> None:
    """So few values along x that long ones do not run into each other."""
    axis.locator_params(axis="x", nbins=max(1, characters(axis) // 9))


def characters(axis: Axes) -> int:
    """How many stand side by side below a panel."""
    figure: Any = axis.figure
    inches = figure.get_figwidth() * axis.get_position().width
    size = FontProperties(size=plt.rcParams["xtick.labelsize"]).get_size_in_points()
    return max(1, int(72 * inches / (CHARACTER * size)))


def decades(axes: Axes, direction: str, values: pd.Series) -> None:
    """A log axis that goes on linearly down to 0, where values span more than two decades."""
    known = values[values > 0]
    if not len(known) or known.max() <= 100 * known.min():
        return
    top = math.floor(math.log10(known.max()))
    lowest = max(top - MAX_DECADES, math.floor(math.log10(known.min())), LOWEST_POWER)
    marks = [0.0, *(10.0**power for power in range(min(lowest, top), top + 1))]
    scale = {"linthresh": marks[1], "linscale": 0.6}
    if direction == "x":
        axes.set_xscale("symlog", **scale)
        axes.set_xlim(-0.4 * marks[1], 1.5 * known.max())
    else:
        axes.set_yscale("symlog", **scale)
        axes.set_ylim(0, 1.3 * known.max())
    axis = axes.xaxis if direction == "x" else axes.yaxis
    room = characters(axes) // 7 if direction == "x" else len(marks)
    step = -(-(len(marks) - 1) // max(1, room - 1))
    unnamed = 0 if step == 1 else 1  # the first mark is close to 0
    axis.set_major_locator(FixedLocator([0.0, *marks[:unnamed:-step]]))
    axis.set_major_formatter(lambda value, place: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def first_those_shown(axis: Axes, look: dict[str, Look]) -> Iterator[tuple[str, Look]]:
    """The rows to draw; those that are shown later come last, and do not widen the panel."""
    first = {method: one for method, one in look.items() if not one.later}
    yield from first.items()
    if axis.has_data():
        axis.get_xlim(), axis.get_ylim()  # what is drawn up to here counts
        axis.autoscale(False)
    yield from ((method, one) for method, one in look.items() if one.later)


def legend_of_lines(figure: Figure, look: dict[str, Look]) -> None:
    """Name the rows' lines: in the empty panel where there is one, else right of the panels."""
    look = {method: one for method, one in look.items() if not one.later}
    handles = [
        plt.Line2D(
            [],
            [],
            color=one.colour,
            label=label(method),
            linestyle=one.dash,
            marker=one.marker,
            markersize=4,
        )
        for method, one in look.items()
    ]
    made = legend(figure, handles, len(handles) <= MAX_NAMES_IN_A_PANEL)
    for method, *parts in zip(look, made.legend_handles, made.get_texts(), strict=True):
        for part in filter(None, parts):
            tip(part, method, "its line")


def legend(figure: Figure, handles: list[Any], small: bool = False) -> Legend:
    """Right of the panels, or in the empty one where the legend is small; on paper below them."""
    spaced(figure)
    empty = [axis for axis in figure.axes if not axis.get_visible()]
    where: dict[str, Any] = {"bbox_to_anchor": (1.0, 0.5), "loc": "center left"}
    if _paper:
        for axis in figure.axes:  # said once, at the left
            if axis.get_subplotspec().colspan.start:  # type: ignore[union-attr]
                axis.set_ylabel("")
        _break_names(figure)
        spaced(figure)
        inches = _paper.font_size / 72 * (5 + 0.6 * max(len(one.get_label()) for one in handles))
        columns = max(1, int(_paper.width / inches))
        where = {"bbox_to_anchor": (0.5, 0.0), "loc": "upper center", "ncols": columns}
    elif empty and small:
        where = {"bbox_to_anchor": empty[0].get_position().get_points()[0], "loc": "lower left"}
    return figure.legend(handles=handles, frameon=False, handlelength=3, **where)


def _break_names(figure: Figure) -> None:
    """Two names side by side below panels do not run into each other; their lines have room."""
    more: dict[int, int] = {}  # lines, by line of panels
    for axis in figure.axes:
        name = axis.get_xlabel().replace(" - ", "\xa0-\xa0")  # no line ends there
        lines = textwrap.wrap(name, characters(axis), break_long_words=False)
        axis.set_xlabel("\n".join(lines))
        row = axis.get_subplotspec().rowspan.start  # type: ignore[union-attr]
        more[row] = max(more.get(row, 0), len(lines) - 1)
    points = 1.3 * plt.rcParams["axes.labelsize"] * sum(more.values())
    figure.set_figheight(figure.get_figheight() + points / 72)


def tip(artist: Artist, method: str, text: str, stays: bool = False, later: bool = False) -> None:
    """Say on hover what an artist shows, in the SVG. With the page's choice of rows it goes, unless
    it stays; with `later` it is seen only once its row is chosen.
    """
    row = "" if stays and not later else method
    kind = "later" if later else "tip"
    artist.set_gid("|".join([kind, quote(row), quote(f"{label(method)}: {text}")]))


def spaced(figure: Figure) -> None:
    """Give panels the space that their ticks and names need. On a page the names of axes then keep
    their distance: else it is looked for in each format again, which takes as long as drawing.
    """
    places = [(axes, axes.bbox.frozen()) for axes in figure.axes]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tight layout", UserWarning)  # too long names: drawn_in
        figure.tight_layout()
    figure.set_layout_engine(None)  # what is left of it would draw everything twice
    if _paper:  # one format, and panels are still made wider
        return
    for axes, place in places:
        x, y = axes.xaxis, axes.yaxis
        _hold(figure, axes, x, (0.5, 0), (0, x.label.get_position()[1] - place.y0))
        _hold(figure, axes, y, (0, 0.5), (y.label.get_position()[0] - place.x0, 0))


def _hold(
    figure: Figure, axes: Axes, axis: Any, at: tuple[float, float], pixels: tuple[float, float]
) -> None:
    """Keep an axis' name at a place of its panel, so many pixels away."""
    inches = [length / figure.dpi for length in pixels]
    away = ScaledTranslation(inches[0], inches[1], figure.dpi_scale_trans)
    axis.set_label_coords(*at, axes.transAxes + away)


def as_wide_as(figure: Figure, inches: float) -> None:
    """With its margins; what stands beside the panels keeps its size."""
    for _ in range(8):
        more = inches - drawn_in(figure).width
        if abs(more) < NEAR:
            break
        figure.set_figwidth(max(figure.get_figwidth() + more, 1.0))


def drawn_in(figure: Figure) -> Bbox:
    """Where a figure is drawn, in inches."""
    return figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])


def shown_later(figure: Figure) -> list[Artist]:
    """What is seen only once its row is chosen: a part of the page's SVG, of no other picture."""
    drawn = (artist for axes in figure.axes for artist in axes.get_children())
    return [artist for artist in drawn if (artist.get_gid() or "").startswith("later|")]


def with_tips(svg: str) -> str:
    """An SVG whose marked groups have a <title>, which browsers show on hover."""

    def group(found: re.Match[str]) -> str:
        kind, row, text = (html.escape(unquote(part)) for part in found.groups())
        hidden = ' display="none"' if kind == "later" else ""
        return f'<g data-row="{row}"{hidden}><title>{text}</title>'

    return CELLS.sub(_with_cells, TIP.sub(group, svg))


def _with_cells(image: re.Match[str]) -> str:
    """The end of a matrix's image, and over it a rectangle that is not seen for each cell.

    matplotlib writes images upside down, turned back about their own height, so -y is their top.
    """
    columns, texts = int(image[1]), image[2].split("|")
    left, top, width, height = map(float, image.group(3, 4, 5, 6))
    scale = f"scale({width / columns:.4f} {height * columns / len(texts):.4f})"
    cells = "".join(
        f'<rect x="{place % columns}" y="{place // columns}" width="1" height="1">'
        f"<title>{text}</title></rect>"
        for place, text in enumerate(texts)
        if text
    )
    end = image[0].replace(f' id="cells|{image[1]}|{image[2]}"', "")
    return f'{end}<g transform="translate({left} {top}) {scale}" fill-opacity="0">{cells}</g>'
