"""Figures from data frames, with seaborn: SVG for the page, PNG for everything else. Equal input gives equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.frames import Results
from bench.report.labels import label
from bench.report.tables import REFERENCE, select
from bench.store.files import write_bytes

Colour = tuple[float, float, float] | str
JOINT_DASH = (0, (1, 1.5))
REFERENCES: dict[
    str, tuple[Colour, Any]
] = {  # rows to compare with: dark or pale, and never a plain line
    "deep-l2p++": ("#01513d", (0, (3, 1))),
    "oneprompt": ("#4aa8dd", (0, (6, 2, 1, 2))),
    "linear": ("#111111", (0, (5, 2))),
    "linear-ncm": ("#6b6b6b", (0, (6, 2, 1, 2))),
    "ncm": ("#a0a0a0", (0, (3, 2))),
    "finetune": ("#8b1a1a", (0, (5, 2))),
    "finetune++": ("#d98880", (0, (5, 2))),
    "joint-linear": ("#a0a0a0", JOINT_DASH),
    "joint-prompt": ("#111111", JOINT_DASH),
}
MOST_ROWS, MOST_PANELS = 16, 24  # more of them in one figure cannot be read


def style() -> None:
    """One look for all figures."""
    sns.set_theme(context="paper", style="whitegrid", font="DejaVu Sans")
    plt.rcParams.update(
        {"svg.hashsalt": "bench", "figure.dpi": 100, "savefig.bbox": "tight", "axes.titlesize": 10}
    )


def looks(results: Results) -> dict[str, tuple[Colour, Any]]:
    """Colour and dash of each method, the same in every figure."""
    own = [m for m in results.methods if m not in REFERENCES]
    plain = dict(zip(own, sns.color_palette("colorblind", len(own)), strict=True))
    return {m: REFERENCES.get(m) or (plain[m], "-") for m in results.methods}


def _panels(count: int, width: float, height: float) -> tuple[Figure, list]:
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat)


def _squares(
    axis: Axes, values: np.ndarray, names: Iterable[int], colours: str, limits: tuple[float, float]
) -> None:
    """A square matrix as colours. seaborn's heatmap draws the whole figure again for each of its panels."""
    axis.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    named = list(enumerate(map(str, names)))[
        :: -(-len(values) // 12)
    ]  # more labels than that run into each other
    axis.set_xticks(*zip(*named, strict=True))
    axis.set_yticks(*zip(*named, strict=True))
    axis.grid(visible=False)


def accuracy_curves(results: Results) -> Figure:
    """Average accuracy on the tasks seen, after each task: mean over cells, band of one standard deviation."""
    look = looks(results)
    figure, axes = _panels(len(results.benchmarks), 3.6, 3.0)
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        part = results.curve[
            (results.curve["benchmark"] == benchmark) & (results.curve["scenario"] == "class")
        ]
        for method, group in part.dropna(subset=["accuracy"]).groupby("method", sort=False):
            colour, dash = look[method]
            if method.startswith("joint"):  # one point in time: a level to compare with
                axis.axhline(group["accuracy"].mean(), color=colour, linestyle=dash, linewidth=1.2)
                continue
            own = method not in REFERENCES
            sns.lineplot(
                group, x="after_task", y="accuracy", color=colour, linestyle=dash, ax=axis, errorbar="sd",
                marker="o" if own else None, markersize=4, legend=False, err_kws={"alpha": 0.12 if own else 0.05},
            )  # fmt: skip
        axis.set(title=benchmark, xlabel="tasks learned", ylabel="average accuracy (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
    handles = [
        plt.Line2D([], [], color=c, label=label(m), linestyle=dash) for m, (c, dash) in look.items()
    ]
    figure.tight_layout()
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=3
    )
    return figure


def accuracy_matrices(results: Results, benchmark: str) -> Figure:
    """Accuracy on each task after each task, one panel a method, mean over cells."""
    methods = [
        m
        for m in results.methods
        if not m.startswith("joint") and len(select(results, benchmark, m, "class"))
    ]
    figure, axes = _panels(max(len(methods), 1), 3.1, 2.7)
    for axis, method in zip(axes, methods, strict=False):
        runs = select(results, benchmark, method, "class")["run_id"]
        mean = 100 * np.mean([results.matrices[run, "class"] for run in runs], axis=0)
        _squares(axis, mean, range(1, len(mean) + 1), "viridis", (0, 100))
        for (after, task), value in np.ndenumerate(mean):
            if len(mean) <= 10 and not np.isnan(value):
                axis.text(
                    task,
                    after,
                    f"{value:.0f}",
                    ha="center",
                    va="center",
                    size=7,
                    color="w" if value < 65 else "k",
                )
        axis.set(title=label(method), xlabel="task tested", ylabel="after task")
    figure.suptitle(f"{benchmark}: accuracy (%)", y=1.0)
    figure.tight_layout()
    return figure


def forgetting_bars(results: Results) -> Figure:
    """Forgetting (max form) of each method, mean and one standard deviation."""
    part = results.cells[
        (results.cells["scenario"] == "class") & results.cells["forgetting"].notna()
    ]
    colours = {label(m): colour for m, (colour, _) in looks(results).items()}
    figure, axis = plt.subplots(figsize=(max(6.0, 1.9 * len(results.benchmarks)), 3.2))
    if len(part):
        shown = part.assign(method=part["method"].map(label))
        order = [label(m) for m in results.methods if label(m) in set(shown["method"])]
        sns.barplot(
            shown, x="benchmark", y="forgetting", hue="method", hue_order=order, order=results.benchmarks,
            palette=colours, errorbar="sd", err_kws={"linewidth": 1}, ax=axis,
        )  # fmt: skip
        sns.move_legend(axis, "center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title=None)
    axis.set(xlabel="", ylabel="forgetting (points, max form)")
    return figure


def accuracy_against_parameters(results: Results) -> Figure:
    """Final average accuracy against trainable parameters (log scale), mean over cells; NCM trains nothing: left edge."""
    done = results.runs[results.runs["status"] == "done"]
    size = pd.to_numeric(done.set_index("run_id")["params_trainable"])
    part = results.cells[results.cells["scenario"] == "class"]
    look = looks(results)
    figure, axes = _panels(len(results.benchmarks), 3.6, 3.0)
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        chosen = part[part["benchmark"] == benchmark]
        for method, group in chosen.groupby("method", sort=False):
            x = max(float(size.loc[group["run_id"]].mean()), 300.0)
            axis.errorbar(x, group["faa"].mean(), yerr=group["faa"].std() if len(group) > 1 else None,
                          fmt="^" if method.startswith("joint") else "s" if method in REFERENCES else "o",
                          color=look[method][0], label=label(method), capsize=2, markersize=5)  # fmt: skip
        axis.set(
            xscale="log",
            title=benchmark,
            xlabel="trainable parameters",
            ylabel="final average accuracy (%)",
        )
    shown = {
        name: handle
        for axis in axes
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.tight_layout()
    figure.legend(
        shown.values(), shown, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False
    )
    return figure


def feature_drift(results: Results) -> Figure:
    """Drift of earlier tasks' features per block, mean over tasks and cells; the last point is what the head reads."""
    look = looks(results)
    figure, axes = _panels(len(results.benchmarks), 3.6, 3.0)
    part = results.movement.dropna(subset=["feature_drift"])
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        for method, group in part[part["benchmark"] == benchmark].groupby("method", sort=False):
            mean = group.groupby("layer")["feature_drift"].mean()
            axis.plot(
                mean.index + 1,
                mean,
                color=look[method][0],
                linestyle=look[method][1],
                label=label(method),
                linewidth=1.3,
            )
        axis.set(
            title=benchmark, xlabel="block", ylabel="feature drift, 1 - cosine", ylim=(0, None)
        )
    handles = [plt.Line2D([], [], color=look[m][0], label=label(m), linestyle=look[m][1])
               for m in look if m in set(part["method"])]  # fmt: skip
    figure.tight_layout()
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=3
    )
    return figure


def prompt_similarity(results: Results) -> Figure:
    """Cosine between the prompts of every two layers after the last task, one panel a method, mean over all cells."""
    methods = [m for m in results.methods if m in set(results.similarity["method"])]
    figure, axes = _panels(len(methods), 3.4, 3.0)
    for axis, method in zip(axes, methods, strict=False):
        part = results.similarity[results.similarity["method"] == method]
        half = part.pivot_table(index="layer", columns="other", values="cosine")
        layers = sorted(set(half.index) | set(half.columns))
        square = half.reindex(index=layers, columns=layers)
        square = square.combine_first(square.T)
        _squares(axis, square.to_numpy(), layers, "vlag", (-1, 1))
        axis.set(title=label(method), xlabel="layer", ylabel="layer")
    figure.tight_layout()
    figure.colorbar(axes[0].images[0], ax=list(axes), label="cosine", shrink=0.8)
    return figure


def settings(results: Results, group: str) -> Figure:
    """Final average accuracy of the rows GROUP@VALUE, mean and one standard deviation; dashed: the row they vary, if any."""
    rows = [m for m in results.methods if m.split("@")[0] == group and "@" in m]
    part = results.cells[results.cells["scenario"] == "class"]
    figure, axes = _panels(len(results.benchmarks), 1.6 + 0.5 * len(rows), 2.8)
    for axis, benchmark in zip(axes, results.benchmarks, strict=False):
        here = part[part["benchmark"] == benchmark]
        shown = here[here["method"].isin(rows)]
        names = [m.split("@", 1)[1] for m in rows]
        sns.pointplot(
            shown.assign(value=shown["method"].str.split("@").str[1]), x="value", y="faa", order=names, errorbar="sd",
            linestyle="none", ax=axis, err_kws={"linewidth": 1},
        )  # fmt: skip
        default = here.loc[here["method"] == REFERENCE, "faa"]
        if len(default):
            axis.axhline(default.mean(), color="#111111", linestyle=(0, (5, 2)), linewidth=1)
            if len(default) > 1:
                low, high = default.mean() - default.std(), default.mean() + default.std()
                axis.axhspan(low, high, color="#111111", alpha=0.08)
        axis.set(title=benchmark, xlabel=group, ylabel="final average accuracy (%)")
        axis.tick_params(axis="x", rotation=45 if len(rows) * max(map(len, names)) > 24 else 0)
    figure.tight_layout()
    return figure


PARAMETERS = "Final average accuracy against trainable parameters."
DRIFT = (
    "How far the features of earlier tasks' test images drift while a later task is learned, by block (mean over tasks); the "
    "last point is what the head reads."
)


def control_of(results: Results) -> Results | None:
    """The rows of a study of HLGP's switches that its claim is about: the default, its controls, and each number of groups."""
    chosen = [
        m for m in results.methods if m == REFERENCE or m.startswith(("generator@", "groups@"))
    ]
    if REFERENCE not in chosen or len(chosen) < 2:
        return None
    names = ("runs", "cells", "movement")
    return replace(
        results,
        **{
            name: getattr(results, name)[getattr(results, name)["method"].isin(chosen)]
            for name in names
        },
    )


def all_figures(results: Results) -> Iterator[tuple[str, str, Figure]]:
    """(file name, caption, figure) in the order of the report; rows NAME@VALUE, as of a search, get a figure per name."""
    if not len(results.cells):
        return
    style()
    groups = list(dict.fromkeys(m.split("@")[0] for m in results.methods if "@" in m))
    for group in groups:
        caption = f"{label(group)}: final average accuracy by value. Dashed, with one standard deviation: the default row."
        yield f"setting-{group}", caption, settings(results, group)
    if not groups and len(results.methods) <= MOST_ROWS:
        yield from _figures_of_rows(results)
    elif (shown := control_of(results)) is not None:
        yield (
            "parameters",
            "The default row and its controls: " + PARAMETERS,
            accuracy_against_parameters(shown),
        )
        if shown.movement["feature_drift"].notna().any():
            yield "drift", "The default row and its controls: " + DRIFT, feature_drift(shown)
    if 0 < results.similarity["method"].nunique() <= MOST_PANELS:
        caption = "Cosine between the prompts of every two layers after the last task."
        yield "similarity", caption, prompt_similarity(results)


def what_is_left_out(results: Results) -> str:
    """Why there are no figures of all rows, where there are none."""
    many = len(results.methods) > MOST_ROWS and not any("@" in m for m in results.methods)
    return (
        f"{len(results.methods)} rows cannot be told apart in one figure: those of all rows are left out."
        if many
        else ""
    )


def _figures_of_rows(results: Results) -> Iterator[tuple[str, str, Figure]]:
    yield (
        "accuracy",
        "Average accuracy on the tasks seen so far. Bands: one standard deviation over class orders and seeds. Dotted "
        "levels: all classes trained at once.",
        accuracy_curves(results),
    )
    yield (
        "forgetting",
        "Forgetting (max form), one standard deviation. Low forgetting is no merit of its own: a method that learns "
        "nothing forgets nothing.",
        forgetting_bars(results),
    )
    yield "parameters", PARAMETERS, accuracy_against_parameters(results)
    if results.movement["feature_drift"].notna().any():
        yield "drift", DRIFT, feature_drift(results)
    for benchmark in results.benchmarks:
        yield (
            f"matrix-{benchmark}",
            f"Accuracy matrices on {benchmark}.",
            accuracy_matrices(results, benchmark),
        )


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write name.svg and name.png without dates, and return the SVG for the page."""
    texts = []
    for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        content = buffer.getvalue()
        write_bytes(folder / f"{name}.{kind}", content)
        texts.append(content)
    plt.close(figure)
    return texts[0].decode()
