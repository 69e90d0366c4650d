"""Tables from data frames, each as Markdown, CSV and LaTeX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from bench.report.frames import Results
from bench.report.labels import label
from bench.stats import Summary, paired, summarise
from bench.store.files import write_text

REFERENCE = "hlgp"
SHOWN = {"faa": "FAA", "caa": "CAA", "forgetting": "forgetting"}


def cell_text(summary: Summary, latex: bool = False) -> str:
    """mean ± standard deviation; a dash where the metric is not defined."""
    if not summary.n:
        return "–" if not latex else "--"
    if np.isnan(summary.std):
        return f"{summary.mean:.1f}"
    sign = "$\\pm$" if latex else "±"
    return f"{summary.mean:.1f} {sign} {summary.std:.1f}"


def main_table(results: Results, scenario: str = "class") -> pd.DataFrame:
    """One row per benchmark and method: mean, spread and n of FAA, CAA and forgetting, in percent; if rows come from several
    suites, which."""
    rows = []
    suites = results.runs.drop_duplicates("method").set_index("method")["suite"]
    for benchmark in results.benchmarks:
        for method in results.methods:
            part = select(results, benchmark, method, scenario)
            row = {"benchmark": benchmark, "method": method, "n": len(part)}
            for metric in SHOWN:
                summary = summarise(part[metric].to_numpy() if len(part) else np.array([]))
                row |= {
                    f"{metric}_mean": summary.mean,
                    f"{metric}_std": summary.std,
                    f"{metric}_n": summary.n,
                }
            rows.append(row | ({"suite": suites[method]} if suites.nunique() > 1 else {}))
    return pd.DataFrame(rows)


HARDLY = (
    0.1  # prompts of a run whose change over a task is below this share of their size did not move
)


def movement_table(results: Results) -> pd.DataFrame:
    """Per benchmark and method: RMS of the prompts after the last task, their change relative to it (mean over tasks and
    layers), feature drift of what the head reads (mean over tasks), and a flag with the number of runs in which the prompts
    hardly moved."""
    rows = []
    for (benchmark, method), part in results.movement.groupby(["benchmark", "method"], sort=False):
        prompts = part.dropna(subset=["prompt_rms"])
        last = prompts[prompts["task"] == prompts["task"].max()]
        change = prompts["prompt_change"] / prompts["prompt_rms"]
        of_run = change.groupby(prompts["run_id"]).mean()
        still = int((of_run < HARDLY).sum())
        read = part[part["layer"] == part["layer"].max()]
        rows.append(
            {
                "benchmark": benchmark,
                "method": method,
                "prompt_rms": last["prompt_rms"].mean(),
                "relative_change": change.mean(),
                "feature_drift": read["feature_drift"].mean(),
                "flag": f"HARDLY MOVED ({still} of {len(of_run)} runs)" if still else "",
            }
        )
    columns = ["benchmark", "method", "prompt_rms", "relative_change", "feature_drift", "flag"]
    return pd.DataFrame(rows, columns=columns)


def protocol_table(results: Results) -> pd.DataFrame:
    """A row per key that anything sets, a column per method; what differs from most others that have the key is marked with *.

    Values that differ between benchmarks are all shown, in the order of the benchmarks.
    """
    protocol = results.protocol
    if not len(protocol):
        return pd.DataFrame(columns=["key"])
    marked: set[tuple[str, str]] = set()
    for (_, key), part in protocol.groupby(["benchmark", "key"], sort=False):
        marked |= {(method, key) for method in _unusual(part.set_index("method")["value"])}
    columns: dict[str, dict[str, str]] = {}
    for (method, key), part in protocol.groupby(["method", "key"], sort=False):
        values = part["value"].tolist()
        text = " / ".join(values if len(set(values)) > 1 else values[:1])
        columns.setdefault(method, {})[key] = text + (" *" if (method, key) in marked else "")
    return pd.DataFrame(columns, dtype=object).fillna("").rename_axis("key").reset_index()


def _unusual(values: pd.Series) -> list[str]:
    """Rows whose value of one key on one benchmark is not the most frequent one; all, where none is."""
    often = values.value_counts()
    if len(often) < 2:
        return []
    usual = often.index[0] if often.iloc[0] > often.iloc[1] else None
    return values.index[values != usual].tolist()


def select(results: Results, benchmark: str, method: str, scenario: str) -> pd.DataFrame:
    """Finished cells of one row, by order and seed."""
    cells = results.cells
    if not len(cells):
        return cells
    chosen = (
        (cells["benchmark"] == benchmark)
        & (cells["method"] == method)
        & (cells["scenario"] == scenario)
    )
    return cells[chosen].sort_values(["order_seed", "seed"])


def paired_table(results: Results, metric: str = "faa") -> pd.DataFrame:
    """HLGP minus each other row over the same orders and seeds, in points, with a 95% t interval."""
    rows = []
    for benchmark in results.benchmarks:
        ours = select(results, benchmark, REFERENCE, "class")
        for method in results.methods:
            theirs = select(results, benchmark, method, "class")
            if method == REFERENCE or not len(ours) or not len(theirs):
                continue
            both = ours.merge(theirs, on=["order_seed", "seed"])
            value = paired(both[f"{metric}_x"].to_numpy(), both[f"{metric}_y"].to_numpy())
            rows.append({"benchmark": benchmark, "HLGP minus": method, "difference": value.difference,
                         "half_width_95": value.half_width, "sign_flip_p": value.p, "n": value.n})  # fmt: skip
    return pd.DataFrame(rows)


def cost_table(results: Results) -> pd.DataFrame:
    """Parameters, FLOPs per image and measured time of each method on each benchmark (means over its cells)."""
    rows = []
    per_run = results.timing.groupby("run_id")[["train_seconds", "eval_seconds"]].sum()
    done = results.runs[results.runs["status"] == "done"]
    for (benchmark, method), part in done.groupby(["benchmark", "method"], sort=False):
        seconds = per_run.reindex(part["run_id"])
        rows.append(
            {
                "benchmark": benchmark,
                "method": label(method),
                "trainable parameters": int(part["params_trainable"].iloc[0]),
                "GFLOPs/image train": _mean(part["gflops_train"]),
                "GFLOPs/image test": _mean(part["gflops_infer"]),
                "train s": round(seconds["train_seconds"].mean(), 1),
                "test s": round(seconds["eval_seconds"].mean(), 1),
            }
        )
    return pd.DataFrame(rows)


def _mean(column: pd.Series) -> float | str:
    values = pd.to_numeric(column, errors="coerce").dropna()
    return round(float(values.mean()), 4) if len(values) else "–"


def for_people(table: pd.DataFrame, latex: bool = False) -> pd.DataFrame:
    """The main table with 'mean ± std' cells and methods by their printed names."""
    shown = pd.DataFrame({"benchmark": table["benchmark"], "method": table["method"].map(label)})
    for metric, title in SHOWN.items():
        shown[title] = [
            cell_text(Summary(m, s, n), latex)
            for m, s, n in zip(
                table[f"{metric}_mean"], table[f"{metric}_std"], table[f"{metric}_n"], strict=True
            )
        ]
    shown["n"] = table["n"]
    return shown.assign(suite=table["suite"]) if "suite" in table else shown


def paired_for_people(table: pd.DataFrame, latex: bool = False) -> pd.DataFrame:
    """Differences as 'points ± half width'."""
    if not len(table):
        return table
    sign = "$\\pm$" if latex else "±"
    text = [
        f"{d:+.1f}" + (f" {sign} {h:.1f}" if not np.isnan(h) else "")
        for d, h in zip(table["difference"], table["half_width_95"], strict=True)
    ]
    return pd.DataFrame(
        {"benchmark": table["benchmark"], "HLGP minus": table["HLGP minus"].map(label), "points": text,
         "p (sign flips)": [f"{p:.2f}" if not np.isnan(p) else "–" for p in table["sign_flip_p"]], "n": table["n"]}
    )  # fmt: skip


def markdown(table: pd.DataFrame) -> str:
    return tabulate(
        table, headers="keys", tablefmt="github", showindex=False, disable_numparse=True
    )


def escape_latex(text: str) -> str:
    """A name as LaTeX text; whatever a folder is called, it compiles."""
    special = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{",
               "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip
    return "".join(special.get(char, char) for char in text)


def write(
    folder: Path,
    name: str,
    exact: pd.DataFrame,
    people: pd.DataFrame,
    latex: pd.DataFrame | None = None,
) -> None:
    """folder/name.md for people, .csv with every digit, .tex for a paper."""
    write_text(folder / f"{name}.md", markdown(people) + "\n")
    write_text(
        folder / f"{name}.csv", exact.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    )
    source = (people if latex is None else latex).astype(str)
    given = (
        "benchmark",
        "method",
        "HLGP minus",
    )  # columns of names; in a table made for LaTeX the rest is LaTeX already
    names = [column for column in source if latex is None or column in given]
    for column in names:
        source[column] = source[column].map(lambda value: escape_latex(str(value)))
    source.columns = [escape_latex(str(column)) for column in source.columns]
    text = tabulate(
        source, headers="keys", tablefmt="latex_raw", showindex=False, disable_numparse=True
    )
    write_text(folder / f"{name}.tex", text.replace("±", "$\\pm$").replace("–", "--") + "\n")
