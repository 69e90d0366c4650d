"""The tables of a report, from data frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from bench.report.checks import ROW_KEYS
from bench.report.frames import Results
from bench.report.rows import label, row_of
from bench.report.table_files import ReportTable
from bench.stats import Summary, paired, summarise
from bench.store.tables import PROTOCOL

Marked = Mapping[tuple[str, str], str]  # Results.of_other_code
NONE: Marked = MappingProxyType({})
MARK = " †"
METRIC_TITLES = {"faa": "FAA", "caa": "CAA", "forgetting": "forgetting"}
SHORT_COSTS = {  # in LaTeX, so that the table fits a page
    "trainable parameters": "parameters",
    "GFLOPs/image train": "GFLOPs train",
    "GFLOPs/image test": "GFLOPs test",
}
COUNTED_COSTS = ("parameters", "gflops_train", "gflops_infer")  # the others are measured
# Prompts of a run did not move if their change over a task is below this share of their size.
MIN_RELATIVE_CHANGE = 0.1


def all_tables(results: Results) -> dict[str, ReportTable]:
    """The tables by the names of their files."""
    tables = []
    for name, scenario in (("main", "class"), ("task_scenario", "task")):
        exact = main_table(results, scenario)
        shown, latex = (for_people(exact, results.of_other_code, tex) for tex in (False, True))
        tables.append(ReportTable(name, exact, shown, latex))
    exact = paired_table(results)
    shown, latex = (paired_for_people(exact, results.of_other_code, tex) for tex in (False, True))
    tables.append(ReportTable("paired", exact, shown, latex))
    exact = movement_table(results)
    drift = exact["feature_drift"].map("{:.3g}".format, na_action="ignore")
    shown = exact.round(3).assign(method=exact["method"].map(label), feature_drift=drift)
    tables.append(ReportTable("movement", exact, _dashed(shown)))
    exact = cost_table(results)
    shown = cost_for_people(exact)
    tables.append(ReportTable("cost", exact, shown, shown.rename(columns=SHORT_COSTS)))
    others = {
        "protocol": protocol_table(results),
        "missing": results.missing().drop(columns=["suite", "run_id"]),
    }
    for name, table in others.items():
        named = {"method": table["method"].map(label)} if "method" in table else {}
        tables.append(ReportTable(name, table, table.assign(**named)))
    return {table.name: table for table in tables}


def _dashed(table: pd.DataFrame) -> pd.DataFrame:
    """With a dash for every value that is not defined."""
    return table.astype(object).where(table.notna(), "–")


def select(results: Results, benchmark: str, method: str, scenario: str) -> pd.DataFrame:
    """Finished cells of one row, by order and seed."""
    return results.by_row.get((benchmark, method, scenario), results.cells[:0])


Cells = dict[tuple[str, str], float]


def by_order_and_seed(rows: pd.DataFrame, metric: str) -> Cells:
    """A metric of a row's cells (as of `select`)."""
    keys = zip(rows["order_seed"], rows["seed"], strict=True)
    return dict(zip(keys, rows[metric], strict=True))


def in_common(ours: Cells, theirs: Cells) -> np.ndarray:
    """(pairs, 2): the values of two rows, over orders and seeds of both."""
    return np.array([(ours[key], theirs[key]) for key in ours if key in theirs]).reshape(-1, 2)


def in_pairs(first: pd.DataFrame, second: pd.DataFrame, metric: str) -> np.ndarray:
    """(pairs, 2): a metric of two rows' cells (as of `select`), over orders and seeds of both."""
    return in_common(by_order_and_seed(first, metric), by_order_and_seed(second, metric))


# --- accuracies -------------------------------------------------------------------------------


def main_table(results: Results, scenario: str = "class") -> pd.DataFrame:
    """One row per benchmark and method: mean, spread and n of FAA, CAA and forgetting, in percent.

    If rows come from several suites, it has a column that says from which.
    """
    rows = []
    suites = results.runs.drop_duplicates("method").set_index("method")["suite"]
    asked = set(zip(results.runs["benchmark"], results.runs["method"], strict=True))
    for benchmark in results.benchmarks:
        for method in results.methods:
            if (benchmark, method) not in asked:
                continue
            cells = select(results, benchmark, method, scenario)
            row = {"benchmark": benchmark, "method": method, "n": len(cells)}
            for metric in METRIC_TITLES:
                values = cells[metric].to_numpy() if len(cells) else np.array([])
                mean, std, n = summarise(values)
                row |= {f"{metric}_mean": mean, f"{metric}_std": std, f"{metric}_n": n}
            rows.append(row | ({"suite": suites[method]} if suites.nunique() > 1 else {}))
    return pd.DataFrame(rows)


def cells_table(results: Results) -> pd.DataFrame:
    """One row per finished cell: the runs behind each mean of the main table."""
    cells = results.cells[results.cells["scenario"] == "class"]
    codes = results.runs.set_index("run_id")["code_sha"]
    names = [*ROW_KEYS, "order_seed", "seed"]
    table = cells[["run_id", *names, *METRIC_TITLES]].rename(columns=METRIC_TITLES)
    return table.assign(code_sha=table["run_id"].map(codes))


def for_people(table: pd.DataFrame, marked: Marked = NONE, latex: bool = False) -> pd.DataFrame:
    """The main table with 'mean ± std' cells and methods by their printed names."""
    shown = pd.DataFrame({"benchmark": table["benchmark"], "method": _names(table, marked)})
    for metric, title in METRIC_TITLES.items():
        columns = [table[f"{metric}_{name}"] for name in ("mean", "std", "n")]
        shown[f"{title} (sd)"] = [cell_text(Summary(*c), latex) for c in zip(*columns, strict=True)]
    shown["n"] = table["n"]
    return shown.assign(suite=table["suite"]) if "suite" in table else shown


def _names(table: pd.DataFrame, marked: Marked) -> list[str]:
    """The methods of the first two columns, with a mark at rows of other code."""
    rows = table.iloc[:, :2].itertuples(index=False, name=None)
    return [
        label(method) + (MARK if (benchmark, method) in marked else "")
        for benchmark, method in rows
    ]


def cell_text(summary: Summary, latex: bool = False) -> str:
    """mean ± standard deviation; a dash if the metric is not defined."""
    if not summary.n:
        return "--" if latex else "–"
    if np.isnan(summary.std):
        return f"{summary.mean:.1f}"
    return f"{summary.mean:.1f} {_sign(latex)} {summary.std:.1f}"


def _sign(latex: bool) -> str:
    return "$\\pm$" if latex else "±"


# --- paired differences -----------------------------------------------------------------------


def minus(results: Results) -> str:
    """The title of the column of rows that are subtracted from the reference."""
    return f"{row_of(results.reference).short} minus"


def paired_table(results: Results, metric: str = "faa") -> pd.DataFrame:
    """The reference minus each other row over the same orders and seeds, in points.

    With the half width of the 95% t interval and the p of the sign-flip test.
    """
    rows = []
    for benchmark in results.benchmarks:
        ours = select(results, benchmark, results.reference, "class")
        for method in results.methods:
            theirs = select(results, benchmark, method, "class")
            if method == results.reference or not len(ours) or not len(theirs):
                continue
            value = paired(*in_pairs(ours, theirs, metric).T)
            rows.append(
                {
                    "benchmark": benchmark,
                    minus(results): method,
                    "difference": value.difference,
                    "half_width_95": value.half_width,
                    "sign_flip_p": value.p,
                    "n": value.n,
                }
            )
    return pd.DataFrame(rows)


def paired_for_people(
    table: pd.DataFrame, marked: Marked = NONE, latex: bool = False
) -> pd.DataFrame:
    """Differences as 'points ± half width'."""
    if not len(table):
        return table
    pairs = zip(table["difference"], table["half_width_95"], strict=True)
    minus_column = table.columns[1]
    return pd.DataFrame(
        {
            "benchmark": table["benchmark"],
            minus_column: _names(table, marked),
            "points (95% interval)": [_interval_text(mean, half, latex) for mean, half in pairs],
            "p (sign flips)": ["–" if np.isnan(p) else f"{p:.2f}" for p in table["sign_flip_p"]],
            "n": table["n"],
        }
    )


def _interval_text(difference: float, half_width: float, latex: bool) -> str:
    if np.isnan(half_width):
        return f"{difference:+.1f}"
    return f"{difference:+.1f} {_sign(latex)} {half_width:.1f}"


# --- what training did and cost ---------------------------------------------------------------


def read_by_head(results: Results) -> pd.DataFrame:
    """The rows of movement of what the head reads: each row's last layer."""
    layers = results.movement.groupby(ROW_KEYS)["layer"]
    return results.movement[results.movement["layer"] == layers.transform("max")]


def movement_table(results: Results) -> pd.DataFrame:
    """Per benchmark and method, how far prompts and features moved.

    prompt_rms: root mean square of the prompts after the last task. relative_change: their change
    over a task relative to it (mean over tasks and layers). feature_drift: of the features that the
    head reads (mean over tasks). flag: the number of runs in which the prompts hardly moved.
    """
    columns = ["prompt_rms", "relative_change", "feature_drift", "flag"]
    prompts = results.movement.dropna(subset=["prompt_rms"])
    change = prompts["prompt_change"] / prompts["prompt_rms"]
    prompts = prompts.assign(relative_change=change)
    last = prompts[prompts["task"] == prompts.groupby(ROW_KEYS)["task"].transform("max")]
    of_run = prompts.groupby([*ROW_KEYS, "run_id"])["relative_change"].mean()
    still = (of_run < MIN_RELATIVE_CHANGE).groupby(ROW_KEYS).agg(["sum", "size"])
    still = still[still["sum"] > 0].astype(str)
    table = results.movement[ROW_KEYS].drop_duplicates().set_index(ROW_KEYS)
    # Not .mean(), which adds in another order: published digits are those of this one.
    table["prompt_rms"] = last.groupby(ROW_KEYS)["prompt_rms"].agg(pd.Series.mean)
    table["relative_change"] = prompts.groupby(ROW_KEYS)["relative_change"].agg(pd.Series.mean)
    table["feature_drift"] = read_by_head(results).groupby(ROW_KEYS)["feature_drift"].mean()
    table["flag"] = "HARDLY MOVED (" + still["sum"] + " of " + still["size"] + " runs)"
    return table.fillna({"flag": ""}).reset_index()[[*ROW_KEYS, *columns]]


def what_hardly_moved(table: pd.DataFrame, benchmarks: list[str]) -> str:
    """A sentence that names the flagged rows of `movement_table`; "" without any."""
    flagged = table[table["flag"] != ""]
    named = []
    for method, on in flagged.groupby("method", sort=False)["benchmark"].unique().items():
        where = "every benchmark" if len(on) == len(benchmarks) else ", ".join(on)
        named.append(f"{row_of(str(method)).short} on {where}")
    if not named:
        return ""
    return (
        f"Prompts that hardly moved, changing in a task by less than {MIN_RELATIVE_CHANGE:g} of "
        f"their size in one run or more: {'; '.join(named)}."
    )


def cost_table(results: Results) -> pd.DataFrame:
    """Per benchmark and method: parameters, FLOPs per image, seconds and memory (mean of cells)."""
    rows = []
    per_run = results.timing.groupby("run_id").agg(
        train_seconds=("train_seconds", "sum"),
        eval_seconds=("eval_seconds", "sum"),
        peak_memory_mib=("peak_memory_mib", "max"),
    )
    done = results.runs[results.runs["status"] == "done"]
    for (benchmark, method), group in done.groupby(ROW_KEYS, sort=False):
        seconds = per_run.reindex(group["run_id"])
        rows.append(
            {
                "benchmark": benchmark,
                "method": method,
                "trainable parameters": int(group["params_trainable"].iloc[0]),
                "GFLOPs/image train": pd.to_numeric(group["gflops_train"], errors="coerce").mean(),
                "GFLOPs/image test": pd.to_numeric(group["gflops_infer"], errors="coerce").mean(),
                "train s": seconds["train_seconds"].mean(),
                "test s": seconds["eval_seconds"].mean(),
                "peak MiB": seconds["peak_memory_mib"].mean(),
            }
        )
    return pd.DataFrame(rows)


def cost_for_people(table: pd.DataFrame) -> pd.DataFrame:
    """Rounded, rows under their names, a dash for what is not known."""
    if not len(table):
        return table
    digits = {"GFLOPs/image train": 4, "GFLOPs/image test": 4, "train s": 1, "test s": 1}
    shown = table.round(digits).assign(method=table["method"].map(label))
    memory = table["peak MiB"].map("{:.0f}".format, na_action="ignore")
    return _dashed(shown.assign(**{"peak MiB": memory}))


def cost_of_rows(results: Results) -> pd.DataFrame:
    """A row per method that has finished cells on every benchmark; each value the mean over them.

    faa (percent), parameters, gflops_train, gflops_infer, train_seconds (of a cell) and
    peak_memory_mib; front_COST: on the Pareto front of accuracy and this cost (never a joint row).
    What was measured, seconds and memory, is NaN for rows with a benchmark on which no cell ran in
    the environment that most cells share: machines differ by more than rows.
    """
    cells = results.cells[results.cells["scenario"] == "class"] if len(results.cells) else None
    costs = [*COUNTED_COSTS, "train_seconds", "peak_memory_mib"]
    if cells is None:
        fronts = (f"front_{cost}" for cost in costs)
        return pd.DataFrame(columns=["method", "faa", *costs, *fronts])
    timing = results.timing.groupby("run_id").agg(
        train_seconds=("train_seconds", "sum"), peak_memory_mib=("peak_memory_mib", "max")
    )
    runs = results.runs.set_index("run_id").join(timing)
    shared = runs["env_sha"] == runs.loc[runs["status"] == "done", "env_sha"].mode().iloc[0]
    runs[list(timing.columns)] = runs[list(timing.columns)].where(shared)
    runs = runs.rename(columns={"params_trainable": "parameters"})[costs]
    runs = runs.apply(pd.to_numeric, errors="coerce")
    means = cells.join(runs, on="run_id").groupby(ROW_KEYS, sort=False)[["faa", *costs]].mean()
    whole = means.groupby("method", sort=False)["faa"].size() == len(results.benchmarks)
    table = means.groupby("method", sort=False).agg(pd.Series.mean, skipna=False)[whole]
    table = table.reindex([method for method in results.methods if method in table.index])
    takes_part = [results.kinds[method] != "joint" for method in table.index]
    for cost in costs:
        own = pareto_front(table.loc[takes_part, cost], table.loc[takes_part, "faa"])
        table[f"front_{cost}"] = own.reindex(table.index, fill_value=False)
    return table.reset_index()


def what_has_no_cost(table: pd.DataFrame) -> str:
    """A sentence that names the rows of `cost_of_rows` that a cost is not known of; "" if none."""
    said = []
    for columns, why in (
        (["gflops_train"], "without a training step, and so without its FLOPs"),
        (["train_seconds", "peak_memory_mib"], "not measured in the environment that most share"),
    ):
        known = table[columns].notna()
        if known.any(axis=None) and not (all_of := known.all(axis=1)).all():
            rows = ", ".join(row_of(method).short for method in table.loc[~all_of, "method"])
            said.append(f"{why}: {rows}")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if said else ""


def pareto_front(cost: pd.Series, accuracy: pd.Series) -> pd.Series:
    """True where no other row is at least as accurate for less, or more accurate for as much."""
    front = []
    for own_cost, own in zip(cost, accuracy, strict=True):
        better = (cost <= own_cost) & (accuracy >= own) & ((cost < own_cost) | (accuracy > own))
        front.append(bool(own_cost == own_cost) and not better.any())
    return pd.Series(front, index=cost.index, dtype=bool)


def scores(results: Results) -> pd.DataFrame:
    """Mean final accuracy, benchmarks x methods, of the methods that were run on all of them.

    Reference and joint rows take no part.
    """
    means = {
        method: [select(results, b, method, "class")["faa"].mean() for b in results.benchmarks]
        for method in results.methods
        if results.kinds[method] == "method" and len(results.cells)
    }
    return pd.DataFrame(means, index=results.benchmarks).dropna(axis=1)


# --- settings ---------------------------------------------------------------------------------


def protocol_table(results: Results) -> pd.DataFrame:
    """A row per setting, a column per method; * marks what differs from most other rows.

    Values that differ between benchmarks are all shown, in the order of the benchmarks.
    """
    protocol = results.protocol
    if not len(protocol):
        return pd.DataFrame(columns=["key"])
    found: dict[tuple[str, str], list[str]] = {}
    of_rows: dict[tuple[str, str], dict[str, str]] = {}  # by benchmark and key
    for benchmark, method, key, value in zip(*(protocol[c] for c in PROTOCOL), strict=True):
        found.setdefault((method, key), []).append(value)
        of_rows.setdefault((benchmark, key), {})[method] = value
    marked = {(method, key) for (_, key), rows in of_rows.items() for method in _unusual(rows)}
    columns: dict[str, dict[str, str]] = {}
    for (method, key), values in found.items():
        text = " / ".join(values if len(set(values)) > 1 else values[:1])
        columns.setdefault(method, {})[key] = text + (" *" if (method, key) in marked else "")
    return pd.DataFrame(columns, dtype=object).fillna("").rename_axis("key").reset_index()


def _unusual(values: dict[str, str]) -> list[str]:
    """Rows whose value of a setting is not the most frequent one; all rows, if no value is."""
    counts = Counter(values.values()).most_common(2)
    if len(counts) < 2:
        return []
    usual = counts[0][0] if counts[0][1] > counts[1][1] else None
    return [method for method, value in values.items() if value != usual]
