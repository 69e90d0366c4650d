"""Which figures a report has, with captions, and their files: equal input gives equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from bench.report import plots
from bench.report.frames import Results
from bench.report.look import plt, style
from bench.report.rows import label
from bench.store.files import write_bytes

MAX_ROWS, MAX_PANELS = 16, 24  # more of them in one figure cannot be read
FORMATS = {"svg": {"Date": None}, "png": {"Software": None}}  # without what differs between runs

ACCURACY = (
    "Average accuracy on the tasks seen so far. Bands: one standard deviation over class orders "
    "and seeds. Dotted levels: all classes trained at once."
)
FORGETTING = (
    "Forgetting (max form), one standard deviation. Low forgetting alone is no merit: a method "
    "that learns nothing forgets nothing."
)
PARAMETERS = "Final average accuracy against trainable parameters."
DRIFT = (
    "How far the features of earlier tasks' test images drift while a later task is learned, by "
    "block (mean over tasks). The last point is what the head reads."
)
SIMILARITY = "Cosine between the prompts of every two layers after the last task."


class DrawnFigure(NamedTuple):
    """A figure, the name of its files and its caption."""

    name: str
    caption: str
    figure: Figure


def all_figures(results: Results) -> Iterator[DrawnFigure]:
    """The figures in the order of the report; rows NAME@VALUE of a search get one per name."""
    if not len(results.cells):
        return
    style()
    names = list(dict.fromkeys(m.split("@")[0] for m in results.methods if "@" in m))
    for name in names:
        caption = (
            f"{label(name)}: final average accuracy by value. "
            "Dashed, with one standard deviation: the reference row."
        )
        yield DrawnFigure(f"setting-{name}", caption, plots.settings(results, name))
    if names or len(results.methods) > MAX_ROWS:
        yield from _of_chosen_rows(results)
    else:
        yield from _of_all_rows(results)
    if 0 < results.similarity["method"].nunique() <= MAX_PANELS:
        yield DrawnFigure("similarity", SIMILARITY, plots.prompt_similarity(results))


def _of_all_rows(results: Results) -> Iterator[DrawnFigure]:
    yield DrawnFigure("accuracy", ACCURACY, plots.accuracy_curves(results))
    yield DrawnFigure("forgetting", FORGETTING, plots.forgetting_bars(results))
    yield from _parameters_and_drift(results)
    for benchmark in results.benchmarks:
        caption = f"Accuracy matrices on {benchmark}."
        matrices = plots.accuracy_matrices(results, benchmark)
        yield DrawnFigure(f"matrix-{benchmark}", caption, matrices)


def _of_chosen_rows(results: Results) -> Iterator[DrawnFigure]:
    """The figures of the suite's figure_rows, if at least two of them were run."""
    patterns = results.figure_rows
    chosen = [m for m in results.methods if any(fnmatchcase(m, pattern) for pattern in patterns)]
    if len(chosen) < 2:
        return
    frames = {name: getattr(results, name) for name in ("runs", "cells", "movement")}
    frames = {name: frame[frame["method"].isin(chosen)] for name, frame in frames.items()}
    yield from _parameters_and_drift(
        replace(results, **frames), "The rows that the suite names for its figures. "
    )


def _parameters_and_drift(results: Results, which: str = "") -> Iterator[DrawnFigure]:
    figure = plots.accuracy_against_parameters(results)
    yield DrawnFigure("parameters", which + PARAMETERS, figure)
    if results.movement["feature_drift"].notna().any():
        yield DrawnFigure("drift", which + DRIFT, plots.feature_drift(results))


def what_is_left_out(results: Results) -> str:
    """Says so if there are too many rows for figures of all of them."""
    if len(results.methods) <= MAX_ROWS or any("@" in method for method in results.methods):
        return ""
    return (
        f"{len(results.methods)} rows cannot be told apart in one figure: "
        "those of all rows are left out."
    )


def save(drawn: DrawnFigure, folder: Path, tracked: bool = False) -> dict[Path, bytes]:
    """Write folder/NAME.svg and .png, or a small PNG alone; return the contents by file."""
    contents = {}
    for kind in ("png",) if tracked else FORMATS:
        buffer = io.BytesIO()
        drawn.figure.savefig(buffer, format=kind, metadata=FORMATS[kind])
        file = folder / f"{drawn.name}.{kind}"
        contents[file] = _of_few_colours(buffer) if tracked else buffer.getvalue()
        write_bytes(file, contents[file])
    plt.close(drawn.figure)
    return contents


def _of_few_colours(png: io.BytesIO) -> bytes:
    """A PNG with at most 256 colours: a third of the size, and no difference that one sees."""
    small = io.BytesIO()
    image = Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()
