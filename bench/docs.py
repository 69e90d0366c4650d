"""Write the tables of README.md and docs/, their figure and docs/paired.csv from CSV files:
`python -m bench.docs`.

A table stands between the lines `<!-- table NAME -->` and `<!-- end -->`. With --check nothing is
written: a stale table, a link or figure that is missing, and a shell line whose command, suite or
option is unknown are errors.
"""

from __future__ import annotations

import argparse
import functools
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from bench import cli
from bench.paths import PROJECT, REFERENCE
from bench.report.figures import PlannedFigure, save, style
from bench.report.frames import Results, load
from bench.report.plots import accuracy_curves
from bench.report.rows import label
from bench.report.table_files import markdown
from bench.report.tables import ROW_KEYS, cell_text, in_pairs, read_by_head, select
from bench.stats import half_width, holm, paired_t, summarise
from bench.store.facts import read_facts
from bench.store.files import write_text

MARKED = re.compile(r"(<!-- table ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.S)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SHELL = re.compile(r"```(?:bash|sh)\n(.*?)```", re.S)
HLGP = "hlgp"
FRONT_ROWS = (HLGP, "l2p", "dualprompt", "coda-prompt", "linear", "joint-linear")
COMPARED = (
    *("hlgp-matched", "hlgp-independent", "l2p", "l2p++", "dualprompt", "coda-prompt"),
    *("oneprompt", "caprompt", "vq-prompt", "nsp", "ovor", "slca", "linear"),
)
ON_PHOTOGRAPHS = (
    *("hlgp-independent", "l2p++", "dualprompt", "coda-prompt", "caprompt", "oneprompt", "nsp"),
    "linear",
)
AGAINST = {  # suites with tests, and the rows that HLGP is compared with
    "orders": COMPARED,
    "photos_orders": ON_PHOTOGRAPHS,
    "tiny_imagenet_orders": ON_PHOTOGRAPHS,
}
PAIRED = PROJECT / "docs" / "paired.csv"
LEVEL = 0.05
NONE = "–"  # what a table says of a row without cells


@functools.cache
def published(suite: str) -> Results:
    folder = PROJECT / "results" / REFERENCE / suite
    return load(folder, [folder.parent / name for name in read_facts(folder).beside])


def both_heads(suite: str, rows: tuple[str, ...] = ()) -> pd.DataFrame:
    """FAA with the trained and with the aligned head of each row, mean ± standard deviation."""
    results = published(suite)
    lines = []
    for method in rows or results.methods:
        of_heads = [
            [
                cell_text(summarise(select(results, benchmark, method, scenario)["faa"].to_numpy()))
                for scenario in ("class", "class-aligned")
            ]
            for benchmark in results.benchmarks
        ]
        # Of one task, or without a head: nothing is aligned.
        one = results.kinds[method] == "joint" or all(b == NONE for _, b in of_heads)
        lines.append([label(method), *(a if one else f"{a} / {b}" for a, b in of_heads)])
    return pd.DataFrame(lines, columns=["", *results.benchmarks])


@functools.cache
def comparisons(suite: str, scenario: str) -> pd.DataFrame:
    """FAA of HLGP minus that of AGAINST, over pairs of cells: a line for each and benchmark.

    half_width: of the 95% t interval. p: of a paired t test; p_holm: with Holm's correction over
    these lines.
    """
    results = published(suite)
    lines = []
    for other in AGAINST[suite]:
        for benchmark in results.benchmarks:
            cells = [select(results, benchmark, m, scenario) for m in (HLGP, other)]
            ours, theirs = in_pairs(cells[0], cells[1], "faa").T
            differences = ours - theirs
            measured = differences.mean(), half_width(differences), paired_t(ours, theirs)
            lines.append([suite, HLGP, other, benchmark, scenario, len(ours), *measured])
    names = ["suite", "row", "other", "benchmark", "scenario", "n", "difference", "half_width", "p"]
    table = pd.DataFrame(lines, columns=names)
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def against(suite: str, scenario: str) -> pd.DataFrame:
    """`comparisons` as a table: differences with intervals, and * where p_holm is below 5%."""
    table, others = comparisons(suite, scenario), AGAINST[suite]
    texts = [
        f"{line.difference:+.1f} ± {line.half_width:.1f}{' *' if line.p_holm < LEVEL else ''}"
        for line in table.itertuples()
    ]
    shown = table.assign(text=texts).pivot(index="other", columns="benchmark", values="text")
    shown = shown.loc[list(others), published(suite).benchmarks]
    shown.insert(0, label(HLGP), [f"minus {label(other)}" for other in others])
    return shown.reset_index(drop=True)


def all_comparisons() -> str:
    """Every comparison of the tables `against`, with n and p: docs/paired.csv."""
    tables = [
        comparisons(suite, scenario) for suite in AGAINST for scenario in ("class", "class-aligned")
    ]
    return pd.concat(tables).to_csv(index=False, float_format="%.4g", lineterminator="\n")


def against_by_head(suite: str) -> pd.DataFrame:
    """As `against`, on the one benchmark of a suite: a column for each head, corrected alone."""
    trained, aligned = (against(suite, scenario) for scenario in ("class", "class-aligned"))
    trained.columns = [label(HLGP), "head as trained"]
    return trained.assign(**{"aligned head": aligned.iloc[:, 1]})


def drift(suite: str, row: str, other: str) -> pd.DataFrame:
    """How far prompts and old features move, and what alignment brings: a row against another.

    Drift is of what the head reads, 1 - cosine, mean over tasks. Its p is of a paired t test over
    cells, corrected for the number of benchmarks (Holm). Differences are row minus other, with 95%
    t intervals over pairs of cells, not corrected for their number.
    """
    results = published(suite)
    seeds = ["order_seed", "seed"]
    of_cells = read_by_head(results).merge(results.runs[["run_id", *seeds]], on="run_id")
    drifts = of_cells.groupby([*ROW_KEYS, *seeds])["feature_drift"].mean()
    moves = results.movement.groupby(ROW_KEYS)["prompt_change"].mean()
    pairs = {name: [drifts[name, method] for method in (row, other)] for name in results.benchmarks}
    p_values = holm(np.array([paired_t(*pair) for pair in pairs.values()]))
    columns: dict[str, list[str]] = {}
    for (benchmark, (ours, theirs)), p in zip(pairs.items(), p_values, strict=True):
        of_heads = {}
        for scenario in ("class", "class-aligned"):
            cells = [select(results, benchmark, method, scenario) for method in (row, other)]
            of_heads[scenario] = cells[0].merge(cells[1], on=seeds)
        trained, aligned = of_heads["class"], of_heads["class-aligned"]
        faas = [both["faa_x"] - both["faa_y"] for both in (trained, aligned)]
        columns[benchmark] = [
            f"{moves[benchmark, row]:.3f} / {moves[benchmark, other]:.3f}",
            f"{ours.mean():.4f} / {theirs.mean():.4f}",
            f"{(ours < theirs).sum()} of {len(ours)}",
            f"{p:.3f}" if p >= 0.001 else "< 0.001",
            _difference(faas[1] - faas[0]),
            _difference(trained["forgetting_x"] - trained["forgetting_y"]),
            _difference(aligned["forgetting_x"] - aligned["forgetting_y"]),
        ]
    lines = ["movement of prompts", "drift", "orders with less drift", "p of the drift"]
    lines += ["gain by alignment", "forgetting, head as trained", "forgetting, aligned head"]
    return pd.DataFrame({"": lines, **columns})


def _difference(values: pd.Series) -> str:
    return f"{values.mean():+.1f} ± {half_width(values.to_numpy()):.1f}"


def by_order(suite: str) -> pd.DataFrame:
    """FAA with each class order, forgetting and task-known FAA of each row of one benchmark."""
    results = published(suite)
    (benchmark,) = results.benchmarks
    lines = []
    for method in results.methods:
        cells, known = (select(results, benchmark, method, kind) for kind in ("class", "task"))
        columns = (cells["faa"], cells["forgetting"], known["faa"])
        faa, forgetting, task_known = (cell_text(summarise(c.to_numpy())) for c in columns)
        orders = ", ".join(f"{value:.1f}" for value in cells["faa"])
        lines.append([label(method), faa, orders, forgetting, task_known])
    heads = ["row", "FAA", "each class order", "forgetting", "FAA, task known"]
    return pd.DataFrame(lines, columns=heads)


def heads_by_order(suite: str) -> pd.DataFrame:
    """FAA with each class order, both heads, and drift (mean over tasks and orders) of each row."""
    results = published(suite)
    (benchmark,) = results.benchmarks
    drifts = read_by_head(results).groupby("method")["feature_drift"].mean()
    lines = []
    for method in results.methods:
        of_heads = (select(results, benchmark, method, s) for s in ("class", "class-aligned"))
        texts = [", ".join(f"{value:.1f}" for value in cells["faa"]) for cells in of_heads]
        if results.kinds[method] == "joint":
            texts[1] = ""
        moved = drifts.get(method, float("nan"))
        lines.append(
            [label(method), *(t or NONE for t in texts), NONE if moved != moved else f"{moved:.3f}"]
        )
    heads = ["row", "FAA, head as trained, each class order", "aligned head", "drift"]
    return pd.DataFrame(lines, columns=heads)


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "front": functools.partial(both_heads, "orders", FRONT_ROWS),
    "orders": functools.partial(both_heads, "orders"),
    "orders-trained": functools.partial(against, "orders", "class"),
    "orders-aligned": functools.partial(against, "orders", "class-aligned"),
    "orders-matched": functools.partial(drift, "orders", "hlgp", "hlgp-matched"),
    "orders-own-rate": functools.partial(drift, "orders", "hlgp", "hlgp-independent"),
    "photos": functools.partial(by_order, "photos"),
    "photos_orders": functools.partial(heads_by_order, "photos_orders"),
    "tiny_imagenet_small": functools.partial(by_order, "tiny_imagenet_small"),
    "tiny_imagenet_orders": functools.partial(heads_by_order, "tiny_imagenet_orders"),
    "tiny-against": functools.partial(against_by_head, "tiny_imagenet_orders"),
    "photos-against": functools.partial(against_by_head, "photos_orders"),
    "photos-slow": functools.partial(drift, "photos_orders", "hlgp-slow", "hlgp-independent"),
    "photos-own-rate": functools.partial(drift, "photos_orders", "hlgp", "hlgp-independent"),
    "tiny-drift": functools.partial(drift, "tiny_imagenet_orders", "hlgp", "hlgp-independent"),
}


def with_tables(text: str) -> str:
    """The text with every marked table as the published CSV files say."""
    return MARKED.sub(lambda m: f"{m[1]}{markdown(TABLES[m[2]]())}\n{m[4]}", text)


# --- checks -----------------------------------------------------------------------------------


def problems(file: Path, text: str) -> Iterator[str]:
    """A line for each stale table, missing link or figure, and shell line that cannot run."""
    where = file.relative_to(PROJECT)
    for name in (found[2] for found in MARKED.finditer(text)):
        if name not in TABLES:
            yield f"{where}: table {name} is unknown (accepted: {', '.join(TABLES)})"
            return
    if with_tables(text) != text:
        yield f"{where}: a table is not that of the CSV files: run python -m bench.docs"
    for target in LINK.findall(text):
        if "://" not in target and not (file.parent / target).exists():
            yield f"{where}: {target} does not exist"
    for line in shell_lines(text):
        if reason := wrong_command(line):
            yield f"{where}: {line}: {reason}"


def shell_lines(text: str) -> Iterator[str]:
    """The commands in blocks of shell, without comments."""
    for block in SHELL.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                yield shlex.join(words)


def wrong_command(line: str) -> str:
    """Why a command of this project cannot run; "" for one that can, or another program's."""
    words = shlex.split(line)
    if words[0] == "./run_all.sh":
        words = ["python", "-m", "bench.grid", *words[1:]]
        if words[3:4] == ["test"]:
            return ""
    if words[:2] != ["python", "-m"] or not words[2].startswith("bench."):
        return ""
    folder = PROJECT.joinpath(*words[2].split("."))
    source = folder.with_suffix(".py") if folder.with_suffix(".py").is_file() else folder
    source = source / "__main__.py" if source.is_dir() else source
    if not source.is_file():
        return f"no command {words[2]}"
    files = [source, PROJECT / "bench" / "config" / "arguments.py"]
    if words[2] == "bench.grid":
        files.append(PROJECT / "bench" / "launch" / "options.py")
    known = "".join(file.read_text() for file in files)
    for word in words[3:]:
        if word.startswith("--") and " " not in word and f'"{word.partition("=")[0]}"' not in known:
            return f"no option {word}"
    return ""


def main() -> int:
    parser = cli.Parser(
        prog="python -m bench.docs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="Write nothing, say what is wrong.")
    args = parser.parse_args()
    if not args.check:
        style()
        draw = functools.partial(accuracy_curves, published("orders"), FRONT_ROWS[:4])
        save(PlannedFigure("front", "", draw, pd.DataFrame()), PROJECT / "docs", tracked=True)
        write_text(PAIRED, all_comparisons())
    said: list[str] = []
    if PAIRED.read_text(encoding="utf-8") != all_comparisons():
        said.append("docs/paired.csv is not that of the CSV files: run python -m bench.docs")
    for file in [*sorted(PROJECT.glob("*.md")), *sorted(PROJECT.glob("docs/*.md"))]:
        text = file.read_text(encoding="utf-8")
        if not args.check and (new := with_tables(text)) != text:
            write_text(file, new)
            text = new
        said += problems(file, text)
    for line in said:
        print(line, file=sys.stderr)
    return cli.CHECK_FAILED if said else cli.FINE


if __name__ == "__main__":
    cli.run(main)
