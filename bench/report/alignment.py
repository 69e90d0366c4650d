"""What an aligned head gains, beside how far the features of old classes drifted.

The statistics that the aligned head is trained on are taken once, after each task, and kept. So a
method whose old features drift less should gain more; the table and the figure show whether it
does.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.report.frames import Results
from bench.report.look import decades, few_ticks, legend, looks, panels, tip
from bench.report.rows import label
from bench.report.tables import ROW_KEYS, in_pairs, read_by_head, select
from bench.stats import half_width

COLUMNS = [*ROW_KEYS, "faa", "faa_aligned", "gain", "half_width_95", "n", "feature_drift"]
TEXT = (
    "Aligned heads: after each task a copy of the head is trained on samples of one Gaussian for "
    "each class seen, whose mean and covariance were taken when the class was learned (Zhang et "
    "al., SLCA, ICCV 2023). The head that training goes on with is not touched, and both are "
    "tested on the same features. gain: aligned minus trained, ± the half of its 95% t interval."
)
CAPTION = (
    "What an aligned head gains over the trained one (points of final average accuracy, with 95% t "
    "intervals over cells) against the drift of earlier tasks' features as the head reads them, on "
    "an axis that is logarithmic above its first mark where drifts span more than two decades."
)


def gains(results: Results) -> pd.DataFrame:
    """COLUMNS of each row that was tested with both heads on several tasks.

    faa, faa_aligned: percent, mean over cells; gain: aligned minus trained, in points, with the
    half width of its 95% t interval over pairs of one cell; feature_drift: of what the head reads,
    mean over tasks (0 for a row on frozen features).
    """
    if not len(results.cells):
        return pd.DataFrame(columns=COLUMNS)
    drift = read_by_head(results).groupby(ROW_KEYS)["feature_drift"].mean()
    rows = []
    for benchmark in results.benchmarks:
        for method in results.methods:
            if results.kinds[method] == "joint":
                continue  # of one task: nothing was aligned
            both = [select(results, benchmark, method, s) for s in ("class", "class-aligned")]
            trained, aligned = in_pairs(both[0], both[1], "faa").T
            if not len(trained):
                continue
            gain = aligned - trained
            moved = drift.get((benchmark, method), float("nan"))
            rows.append(
                {
                    "benchmark": benchmark,
                    "method": method,
                    "faa": trained.mean(),
                    "faa_aligned": aligned.mean(),
                    "gain": gain.mean(),
                    "half_width_95": float(half_width(gain)),
                    "n": len(gain),
                    "feature_drift": moved if moved == moved else 0.0,
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """For people: one decimal, gains with their intervals, rows under their names."""
    pairs = zip(table["gain"], table["half_width_95"], strict=True)
    said = [f"{gain:+.1f}" + (f" ± {half:.1f}" if half == half else "") for gain, half in pairs]
    return pd.DataFrame(
        {
            "benchmark": table["benchmark"],
            "method": [label(method) for method in table["method"]],
            "head as trained": table["faa"].map("{:.1f}".format),
            "aligned head": table["faa_aligned"].map("{:.1f}".format),
            "gain (95% interval)": said,
            "feature drift": table["feature_drift"].map("{:.3g}".format),
            "n": table["n"],
        }
    )


def gain_against_drift(results: Results, table: pd.DataFrame) -> Figure:
    """A panel for each benchmark: a dot for each row of `gains`, with its interval."""
    look = looks(results)
    table = table[[not look[method].later for method in table["method"]]]
    benchmarks = [b for b in results.benchmarks if b in set(table["benchmark"])]
    figure, axes = panels(len(benchmarks), 3.6, 3.0)
    dots: dict[str, Any] = {}
    for axis, benchmark in zip(axes, benchmarks, strict=False):
        axis.axhline(0, color="#b0b0b0", linewidth=0.8, zorder=0)
        for row in table[table["benchmark"] == benchmark].itertuples():
            one = look[row.method]
            half = row.half_width_95 if row.half_width_95 == row.half_width_95 else 0.0
            bar = axis.errorbar(
                row.feature_drift,
                row.gain,
                yerr=half,
                fmt=one.marker or "s",
                color=one.colour,
                markersize=6 if one.front else 4,
                elinewidth=0.8,
            )
            bar.lines[0].set_label(label(row.method))
            said = f"{row.gain:+.1f} ± {half:.1f} points at drift {row.feature_drift:.3g}"
            tip(bar.lines[0], row.method, said, stays=True)
            dots.setdefault(label(row.method), bar.lines[0])
        axis.set(title=benchmark, xlabel="feature drift, 1 - cosine", ylabel="gain (points)")
        few_ticks(axis)
        decades(axis, "x", table.loc[table["benchmark"] == benchmark, "feature_drift"])
    legend(figure, list(dots.values()))
    return figure
