"""One function per kind of figure, from data frames; what they draw is in their data (CSV)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from bench.report.frames import Results
from bench.report.look import (
    Look,
    characters,
    decades,
    few_ticks,
    first_those_shown,
    legend,
    legend_of_lines,
    looks,
    panels,
    plt,
    spaced,
    tip,
)
from bench.report.rows import label, row_of
from bench.report.tables import COUNTED_COSTS, select
from bench.stats import critical_difference, half_width, summarise

POINT = "#0173b2"  # of a setting
GREY = "#c4c4c4"  # of rows in the background
MARKERS = {"method": "o", "reference": "s", "joint": "_"}
MIN_PARAMETERS = 300.0  # where a log axis has its 0, left of a break
WIDE = 3  # costs that differ by more than this are on a log scale
COSTS = {  # columns of tables.cost_of_rows
    "parameters": "trainable parameters",
    "gflops_train": "GFLOPs per training image",
    "gflops_infer": "GFLOPs per test image",
    "train_seconds": "training seconds of a cell",
    "peak_memory_mib": "peak memory of the process so far (MiB)",
}


def accuracy_curves(results: Results, coloured: Sequence[str] = ()) -> Figure:
    """Average accuracy on the tasks seen, after each task: mean over cells, ± one deviation.

    coloured: the rows that keep their colours, drawn above the others, which are grey; without
    them all rows are in colour, and behind those in front stand their single cells.
    """
    look = looks(results)
    if coloured:
        look = {m: one if m in coloured else one._replace(colour=GREY) for m, one in look.items()}
        chosen = [m for m in look if m in coloured or not look[m].later]
        look = {m: look[m] for m in sorted(chosen, key=lambda m: m in coloured)}
    figure, axes = panels(len(results.benchmarks), 3.6, 3.0)
    curve = results.curve[results.curve["scenario"] == "class"].dropna(subset=["accuracy"])
    groups = dict(list(curve.groupby(["benchmark", "method"], sort=False)))
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        for method, one in first_those_shown(axis, look):
            if (group := groups.get((benchmark, method))) is not None:
                _accuracy_curve(axis, group, one, method, single=not coloured)
        axis.set(title=benchmark, xlabel="tasks learned", ylabel="average accuracy (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    drawn = {method for _, method in groups}
    legend_of_lines(figure, {m: look[m] for m in coloured or look if m in drawn})
    return figure


def _accuracy_curve(axis: Axes, group: pd.DataFrame, look: Look, method: str, single: bool) -> None:
    """One row's line; a level for joint training, which is tested only once."""
    if look.kind == "joint":
        level = group["accuracy"].mean()
        line = axis.axhline(level, color=look.colour, linestyle=look.dash, linewidth=1.2)
        tip(line, method, f"{level:.1f}", later=look.later)
        return
    table = group.pivot(index="after_task", columns="run_id", values="accuracy")
    mean, std = table.mean(axis=1), table.std(axis=1).fillna(0)
    front = look.kind == "method" and (look.front or not single)
    if single and look.front:
        lines = axis.plot(table.index, table, color=look.colour, alpha=0.3, linewidth=0.7)
        seeds = zip(group["order_seed"], group["seed"], strict=True)
        of_run = dict(zip(group["run_id"], seeds, strict=True))
        for name, line in zip(table, lines, strict=True):
            order, seed = of_run[name]
            said = f"order {order} seed {seed}, after task {_listed(table[name])}"
            tip(line, method, said, later=look.later)
    else:
        band = axis.fill_between(mean.index, mean - std, mean + std, color=look.colour, linewidth=0)
        band.set_alpha(0.12 if look.kind == "method" else 0.05)
        tip(band, method, "one standard deviation", later=look.later)
    _line(axis, mean, look, method, front, "after task ")


def _line(axis: Axes, values: pd.Series, look: Look, method: str, front: bool, what: str) -> None:
    """A row's values by their index, thicker and above the others if it is in front."""
    (line,) = axis.plot(
        values.index,
        values,
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker or None,
        markersize=4,
        linewidth=1.6 if front else 1.0,
        zorder=3 if front else 2,
    )
    tip(line, method, what + _listed(values), later=look.later)


def _listed(values: pd.Series, digits: str = ".1f") -> str:
    """1: 80.1, 2: 70.3 ..."""
    return ", ".join(f"{place}: {value:{digits}}" for place, value in values.items())


def orders(results: Results) -> Figure:
    """Final average accuracy of each cell, and each row's mean with its 95% t interval."""
    look = looks(results)
    names = list(look)
    height = 0.9 + 0.2 * len(names)
    figure, axes = panels(len(results.benchmarks), 3.6, height, lines=len(names))
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        for place, (method, one) in enumerate(look.items()):
            cells = select(results, benchmark, method, "class")
            if not len(cells):
                continue
            values = cells["faa"].to_numpy()
            (dots,) = axis.plot(
                values, np.full(len(values), place), "o", color=one.colour, alpha=0.45, markersize=4
            )
            named = zip(cells["order_seed"], cells["seed"], values, strict=True)
            said = ", ".join(f"order {o} seed {s}: {value:.1f}" for o, s, value in named)
            tip(dots, method, said, stays=True)
            mean, half = values.mean(), half_width(values)
            ends = [mean, mean] if np.isnan(half) else [mean - half, mean + half]
            drawn = np.clip(ends, 0, 100)  # two cells alone can have one beyond all accuracies
            (line,) = axis.plot(
                [drawn[0], mean, drawn[1]],
                [place] * 3,
                color=one.colour,
                linewidth=1.2,
                marker="|",
                markersize=11,
                markevery=[1],
            )
            said = f"mean {mean:.1f}, 95% interval {ends[0]:.1f} to {ends[1]:.1f}"
            tip(line, method, said, stays=True)
        axis.set_yticks(range(len(names)), [row_of(m).short for m in names])
        axis.set(title=benchmark, xlabel="FAA (%)")
        axis.set_ylim(len(names) - 0.4, -0.6)
        if axis.get_subplotspec().colspan.start:  # type: ignore[union-attr]
            axis.set_yticklabels([])
    spaced(figure)
    return figure


def forgetting_per_task(results: Results) -> Figure:
    """Each task's best accuracy before the last task minus its final one, mean over cells."""
    look = {m: one for m, one in looks(results).items() if one.kind != "joint"}
    figure, axes = panels(len(results.benchmarks), 3.6, 3.0)
    data = forgetting_data(results)
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        here = data[data["benchmark"] == benchmark]
        for method, one in first_those_shown(axis, look):
            mean = here[here["method"] == method].groupby("task")["forgetting"].mean()
            if not len(mean):
                continue
            _line(axis, mean, one, method, one.front, "of task ")
        axis.set(title=benchmark, xlabel="task", ylabel="forgetting (points)")
        axis.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    drawn = set(data["method"])
    legend_of_lines(figure, {m: one for m, one in look.items() if m in drawn})
    return figure


def forgetting_data(results: Results) -> pd.DataFrame:
    """run_id, benchmark, method, task, forgetting (points) of every task but the last."""
    cells = results.cells[results.cells["scenario"] == "class"]
    rows = []
    for run, benchmark, method in cells[["run_id", "benchmark", "method"]].itertuples(index=False):
        matrix = 100 * results.matrices[run, "class"]
        for task in range(len(matrix) - 1):
            if not np.isnan(before := matrix[task:-1, task]).any():
                rows.append([run, benchmark, method, task + 1, before.max() - matrix[-1, task]])
    return pd.DataFrame(rows, columns=["run_id", "benchmark", "method", "task", "forgetting"])


def accuracy_against_cost(results: Results, data: pd.DataFrame) -> Figure:
    """Final average accuracy against each cost, both the mean over benchmarks (cost_of_rows).

    Of rows that have finished cells on every benchmark. The line is the Pareto front of the rows
    that are not joint: no other such row is as accurate for less. That of what was measured is
    dashed.
    """
    look = looks(results)
    known = {column: title for column, title in COSTS.items() if data[column].notna().any()}
    figure, axes = panels(len(known), 3.6, 3.0)
    for axis, (column, title) in zip(axes, known.items(), strict=False):
        here = data.dropna(subset=[column])
        for method, cost, faa in here[["method", column, "faa"]].itertuples(index=False):
            one = look[method]
            (dot,) = axis.plot(
                max(cost, MIN_PARAMETERS) if column == "parameters" else cost,
                faa,
                one.marker or MARKERS[one.kind],
                color=one.colour,
                markersize=7 if one.front else 5,
                linestyle="none",
                label=label(method),
            )
            said = f"{cost:,.0f}" if column == "parameters" else f"{cost:.4g}"
            tip(dot, method, f"{faa:.1f}% at {said} {title}", stays=True)
        front = here[here[f"front_{column}"]].sort_values(column)
        costs = front[column].clip(lower=MIN_PARAMETERS if column == "parameters" else None)
        dash = "-" if column in COUNTED_COSTS else (0, (2, 2))
        axis.step(costs, front["faa"], where="post", color="#808080", zorder=1, linestyle=dash)
        axis.plot(costs, front["faa"], "o", markersize=11, fillstyle="none", color="#808080")
        axis.set(xlabel=title, ylabel="FAA (%)")
        if here[column].max() > WIDE * max(here[column].min(), 0):
            zero = column == "parameters" and (here[column] < MIN_PARAMETERS).any()
            _log_scale(axis, MIN_PARAMETERS if zero else None)
        else:
            few_ticks(axis)
    handles: dict[str, Any] = {}
    for axis in axes:
        found, names = axis.get_legend_handles_labels()
        handles |= dict(zip(names, found, strict=True))
    legend(figure, list(handles.values()))
    return figure


def _log_scale(axis: Axes, zero: float | None = None) -> None:
    """A log axis with plain numbers, 10k for 10,000: powers of ten take long to typeset.

    zero: the place of what costs nothing, which a log axis does not have; the axis is broken there.
    """
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    locator = LogLocator(subs=(1,) if high > 30 * low else (1, 2, 5))
    axis.xaxis.set_major_locator(locator)
    if zero is not None:
        marks = [mark for mark in locator.tick_values(low, high) if 2 * zero < mark <= high]
        axis.set_xticks([zero, *marks])
        broken: dict[str, Any] = {
            "color": "#555555",
            "ha": "center",
            "va": "center",
            "size": "small",
        }
        axis.text(1.6 * zero, 0, "//", transform=axis.get_xaxis_transform(), **broken)
    axis.xaxis.set_major_formatter(lambda value, place: "0" if value == zero else _short(value))
    axis.xaxis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
    """0.02, 500, 10k, 2M: neighbours on a narrow axis do not touch."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:,.10g}{letter}"
    return f"{value:.10g}"


def ranks(results: Results, scores: pd.DataFrame) -> Figure:
    """Critical-difference diagram (Demsar 2006). scores: benchmarks x methods, final accuracy.

    Mean rank of each method; a bar joins methods whose ranks differ by less than the critical
    difference of Nemenyi's test at 5%.
    """
    mean, p, difference = critical_difference(scores.to_numpy())
    look = looks(results)
    places = np.argsort(mean, kind="stable")
    figure, axis = plt.subplots(figsize=(6.5, 0.9 + 0.28 * len(mean)))
    for line, place in enumerate(places):
        method = scores.columns[place]
        colour = look[method].colour
        axis.plot([mean[place]] * 2, [0, line + 1], color=colour, linewidth=0.8)
        (dot,) = axis.plot(mean[place], line + 1, look[method].marker or "o", color=colour)
        tip(dot, method, f"mean rank {mean[place]:.2f}", stays=True)
        text = f"{row_of(method).short} ({mean[place]:.1f})"
        left, right = ((6, 0), "left"), ((-6, 0), "right")  # of the middle, so that it stays inside
        offset, side = left if mean[place] <= len(mean) / 2 + 0.5 else right
        named = axis.annotate(
            text, (mean[place], line + 1), offset, textcoords="offset points", va="center", ha=side
        )
        named.set(size="small", zorder=4)
        named.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    ordered = mean[places]
    groups = [(low, ordered[ordered <= low + difference].max()) for low in ordered]
    widest = [g for i, g in enumerate(groups) if i == 0 or g[1] > groups[i - 1][1]]
    for level, (low, high) in enumerate(g for g in widest if g[1] > g[0]):
        height = -0.25 - 0.3 * level
        axis.plot([low - 0.03, high + 0.03], [height, height], color="#333333", linewidth=3)
    axis.set(xlim=(0.8, len(mean) + 0.8), ylim=(len(mean) + 0.6, -1.2), yticks=[])
    axis.set_title(f"Friedman p = {p:.3g}; critical difference {difference:.2f}", size=9)
    axis.set_xlabel(f"mean rank over {len(scores)} benchmarks (1 is best)")
    spaced(figure)
    return figure


def feature_drift(results: Results) -> Figure:
    """Drift of earlier tasks' features per layer, mean over tasks and cells.

    The last point is what the head reads.
    """
    look = looks(results)
    head = int(results.movement["layer"].max()) + 1  # the place after the last block
    figure, axes = panels(len(results.benchmarks), 3.6, 3.0)
    step = max(1, round(head / (4 if characters(axes[0]) > 20 else 2)))
    ticks = {place: str(place) for place in range(1, head - step // 2, step)} | {head: "head"}
    drift = results.movement.dropna(subset=["feature_drift"])
    means = drift.groupby(["benchmark", "method", "layer"])["feature_drift"].mean()
    first = means[[not look[method].later for method in means.index.get_level_values("method")]]
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        for method, one in first_those_shown(axis, look):
            if (benchmark, method) not in means:
                continue
            mean = means[benchmark, method].rename(lambda layer: layer + 1)
            said = _listed(mean.rename({head: "head"}), digits=".3g")
            (line,) = axis.plot(
                mean.index,
                mean,
                color=one.colour,
                linestyle=one.dash,
                linewidth=1.3,
                marker=one.marker or None,
                markersize=4,
                markevery=3,
            )
            tip(line, method, f"after block {said}", later=one.later)
        axis.set(title=benchmark, xlabel="block", ylabel="feature drift, 1 - cosine")
        axis.set_xticks([*ticks], [*ticks.values()])
        axis.set(ylim=(0, None))
        if benchmark in first:
            decades(axis, "y", first[benchmark])
    drawn = set(drift["method"])
    legend_of_lines(figure, {m: one for m, one in look.items() if m in drawn})
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
        for place, row in enumerate(rows):
            mean, std, n = summarise(here.loc[here["method"] == row, "faa"].to_numpy())
            if not n:
                continue
            said = f"{mean:.1f}, one cell"
            if n > 1:
                axis.plot([place] * 2, [mean - std, mean + std], color=POINT, linewidth=1)
                said = f"mean {mean:.1f}, standard deviation {std:.1f}, {n} cells"
            (dot,) = axis.plot(place, mean, "o", color=POINT, markersize=5)
            tip(dot, row, said, stays=True)
        axis.set_xticks(range(len(rows)), values)
        axis.set_xlim(-0.5, len(rows) - 0.5)
        _reference_level(axis, here.loc[here["method"] == results.reference, "faa"])
        axis.set(title=benchmark, xlabel=name, ylabel="FAA (%)")
        axis.locator_params(axis="y", nbins="auto")  # long values leave little height
        crowded = len(rows) * (1 + max(map(len, values))) > characters(axis)
        axis.tick_params(axis="x", rotation=45 if crowded else 0)
    spaced(figure)
    return figure


def _reference_level(axis: Axes, values: pd.Series) -> None:
    if not len(values):
        return
    mean, std = values.mean(), values.std()
    axis.axhline(mean, color="#111111", linestyle=(0, (5, 2)), linewidth=1)
    if len(values) > 1:
        axis.axhspan(mean - std, mean + std, color="#111111", alpha=0.08)
