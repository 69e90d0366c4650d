"""One function per kind of figure, from data frames, with seaborn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.frames import Results
from bench.report.look import Look, draw_matrix, legend_of_lines, looks, panels, plt
from bench.report.rows import kind_of, label
from bench.report.tables import select

GREY = "#c4c4c4"  # of rows in the background
MARKERS = {"method": "o", "reference": "s", "joint": "^"}
MIN_PARAMETERS = 300.0  # left edge of a log axis, for rows that train nothing
MAX_TASKS_WITH_NUMBERS = 10  # of an accuracy matrix whose cells say their value
DARK_CELL = 65  # accuracy below which a cell is so dark that its number is white
MAX_CHARACTERS = 24  # of one axis' labels; more of them are rotated


def accuracy_curves(results: Results, coloured: Sequence[str] = ()) -> Figure:
    """Average accuracy on the tasks seen, after each task: mean over cells, ± one deviation.

    coloured: the rows that keep their colours, drawn above the others, which are grey; none = all.
    """
    look = looks(results)
    if coloured:
        look = {m: one if m in coloured else one._replace(colour=GREY) for m, one in look.items()}
        look = {m: look[m] for m in sorted(look, key=lambda m: m in coloured)}
    figure, axes = panels(len(results.benchmarks), 3.6, 3.0)
    curve = results.curve[results.curve["scenario"] == "class"].dropna(subset=["accuracy"])
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        here = curve[curve["benchmark"] == benchmark]
        for method, one in look.items():
            if len(group := here[here["method"] == method]):
                _accuracy_curve(axis, group, one)
        axis.set(title=benchmark, xlabel="tasks learned", ylabel="average accuracy (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    legend_of_lines(figure, {m: look[m] for m in coloured or look})
    return figure


def _accuracy_curve(axis: Axes, group: pd.DataFrame, look: Look) -> None:
    """One row's line; a level for joint training, which is tested only once."""
    if look.kind == "joint":
        level = group["accuracy"].mean()
        axis.axhline(level, color=look.colour, linestyle=look.dash, linewidth=1.2)
        return
    method = look.kind == "method"
    sns.lineplot(
        group,
        x="after_task",
        y="accuracy",
        color=look.colour,
        linestyle=look.dash,
        ax=axis,
        errorbar="sd",
        marker="o" if method else None,
        markersize=4,
        legend=False,
        err_kws={"alpha": 0.12 if method else 0.05},
    )


def accuracy_matrices(results: Results, benchmark: str) -> Figure:
    """Accuracy on each task after each task, one panel a method, mean over cells."""
    cells = {
        method: select(results, benchmark, method, "class")
        for method in results.methods
        if kind_of(results.protocol, method) != "joint"
    }
    cells = {method: found for method, found in cells.items() if len(found)}
    figure, axes = panels(max(len(cells), 1), 3.1, 2.7)
    for axis, (method, found) in zip(axes, cells.items(), strict=False):
        matrices = [results.matrices[run, "class"] for run in found["run_id"]]
        mean = 100 * np.mean(matrices, axis=0)
        draw_matrix(axis, mean, range(1, len(mean) + 1), "viridis", (0, 100))
        if len(mean) <= MAX_TASKS_WITH_NUMBERS:
            _write_numbers(axis, mean)
        axis.set(title=label(method), xlabel="task tested", ylabel="after task")
    figure.suptitle(f"{benchmark}: accuracy (%)", y=1.0)
    figure.tight_layout()
    return figure


def _write_numbers(axis: Axes, matrix: np.ndarray) -> None:
    for (after, task), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            colour = "w" if value < DARK_CELL else "k"
            axis.text(task, after, f"{value:.0f}", ha="center", va="center", size=7, color=colour)


def forgetting_bars(results: Results) -> Figure:
    """Forgetting (max form) of each method, mean and one standard deviation."""
    cells = results.cells
    cells = cells[(cells["scenario"] == "class") & cells["forgetting"].notna()]
    figure, axis = plt.subplots(figsize=(max(6.0, 1.9 * len(results.benchmarks)), 3.2))
    if len(cells):
        shown = cells.assign(method=cells["method"].map(label))
        names = [label(method) for method in results.methods]
        sns.barplot(
            shown,
            x="benchmark",
            y="forgetting",
            hue="method",
            hue_order=[name for name in names if name in set(shown["method"])],
            order=results.benchmarks,
            palette={label(method): look.colour for method, look in looks(results).items()},
            errorbar="sd",
            err_kws={"linewidth": 1},
            ax=axis,
        )
        sns.move_legend(axis, "center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title=None)
    axis.set(xlabel="", ylabel="forgetting (points, max form)")
    return figure


def accuracy_against_parameters(results: Results) -> Figure:
    """Final average accuracy against trainable parameters (log scale), mean over cells."""
    done = results.runs[results.runs["status"] == "done"]
    size = pd.to_numeric(done.set_index("run_id")["params_trainable"])
    cells = results.cells[results.cells["scenario"] == "class"]
    look = looks(results)
    figure, axes = panels(len(results.benchmarks), 3.6, 3.0)
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        here = cells[cells["benchmark"] == benchmark]
        for method, group in here.groupby("method", sort=False):
            axis.errorbar(
                max(float(size.loc[group["run_id"]].mean()), MIN_PARAMETERS),
                group["faa"].mean(),
                yerr=group["faa"].std() if len(group) > 1 else None,
                fmt=MARKERS[look[method].kind],
                color=look[method].colour,
                label=label(method),
                capsize=2,
                markersize=5,
            )
        axis.set(xscale="log", title=benchmark)
        axis.set(xlabel="trainable parameters", ylabel="final average accuracy (%)")
    handles: dict[str, Any] = {}
    for axis in axes:
        found, names = axis.get_legend_handles_labels()
        handles |= dict(zip(names, found, strict=True))
    figure.tight_layout()
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
    )
    return figure


def feature_drift(results: Results) -> Figure:
    """Drift of earlier tasks' features per block, mean over tasks and cells.

    The last point is what the head reads.
    """
    look = looks(results)
    figure, axes = panels(len(results.benchmarks), 3.6, 3.0)
    drift = results.movement.dropna(subset=["feature_drift"])
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        here = drift[drift["benchmark"] == benchmark]
        for method, group in here.groupby("method", sort=False):
            mean = group.groupby("layer")["feature_drift"].mean()
            colour, dash, _ = look[method]
            axis.plot(mean.index + 1, mean, color=colour, linestyle=dash, linewidth=1.3)
        axis.set(title=benchmark, xlabel="block", ylabel="feature drift, 1 - cosine")
        axis.set(ylim=(0, None))
    drawn = set(drift["method"])
    legend_of_lines(figure, {method: look[method] for method in look if method in drawn})
    return figure


def prompt_similarity(results: Results) -> Figure:
    """Cosine between the prompts of every two layers after the last task, mean over all cells."""
    methods = [m for m in results.methods if m in set(results.similarity["method"])]
    figure, axes = panels(len(methods), 3.4, 3.0)
    for axis, method in zip(axes, methods, strict=False):
        rows = results.similarity[results.similarity["method"] == method]
        half = rows.pivot_table(index="layer", columns="other", values="cosine")
        layers = sorted(set(half.index) | set(half.columns))
        square = half.reindex(index=layers, columns=layers)
        square = square.combine_first(square.T)
        draw_matrix(axis, square.to_numpy(), layers, "vlag", (-1, 1))
        axis.set(title=label(method), xlabel="layer", ylabel="layer")
    figure.tight_layout()
    figure.colorbar(axes[0].images[0], ax=list(axes), label="cosine", shrink=0.8)
    return figure


def settings(results: Results, name: str) -> Figure:
    """Final average accuracy of the rows NAME@VALUE, mean and one standard deviation.

    Dashed: the suite's reference row, if it was run.
    """
    rows = [method for method in results.methods if method.startswith(f"{name}@")]
    values = [row.split("@", 1)[1] for row in rows]
    cells = results.cells[results.cells["scenario"] == "class"]
    figure, axes = panels(len(results.benchmarks), 1.6 + 0.5 * len(rows), 2.8)
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        here = cells[cells["benchmark"] == benchmark]
        shown = here[here["method"].isin(rows)]
        sns.pointplot(
            shown.assign(value=shown["method"].str.split("@").str[1]),
            x="value",
            y="faa",
            order=values,
            errorbar="sd",
            linestyle="none",
            ax=axis,
            err_kws={"linewidth": 1},
        )
        _reference_level(axis, here.loc[here["method"] == results.reference, "faa"])
        axis.set(title=benchmark, xlabel=name, ylabel="final average accuracy (%)")
        crowded = len(rows) * max(map(len, values)) > MAX_CHARACTERS
        axis.tick_params(axis="x", rotation=45 if crowded else 0)
    figure.tight_layout()
    return figure


def _reference_level(axis: Axes, values: pd.Series) -> None:
    if not len(values):
        return
    mean, std = values.mean(), values.std()
    axis.axhline(mean, color="#111111", linestyle=(0, (5, 2)), linewidth=1)
    if len(values) > 1:
        axis.axhspan(mean - std, mean + std, color="#111111", alpha=0.08)
