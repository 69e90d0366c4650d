"""A report's files, from results: tables, figures and the page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bench.report import answer, figures, pairs, table_files, tables
from bench.report.frames import Results
from bench.report.page import Section, html_figure, html_table, page
from bench.report.rows import label, row_of
from bench.report.table_files import ReportTable
from bench.store.files import write_text

# Names of the files that a report of any suite makes.
TABLE_FILE = re.compile(
    r"(answer|main|task_scenario|paired|cost|movement|protocol|missing|cells)\.(md|csv|tex)"
)
FIGURE_FILE = re.compile(
    r"(accuracy|forgetting|parameters|drift|similarity|(setting|matrix)-.+)\.(svg|png)"
)

UNCHECKED = "No protocol.csv: whether rows were trained on the same batches could not be checked."
ANSWER_TEXT = (
    "Final average accuracy in percent, mean over class orders and seeds with its 95% t interval. "
    "Best method of each benchmark in bold. Underlined: no difference from it can be told (t test "
    "over pairs of the same order and seed, Holm's correction, 5%). Rows below the first rule are "
    "references and take no part; those below the second see all classes at once."
)
METRICS_TEXT = (
    "FAA: final average accuracy. CAA: mean of the average accuracy after each task. Forgetting: "
    "max form. Class-incremental, the task is never known at test."
)
TASK_TEXT = "The same logits, restricted to the classes of the image's own task."
COST_TEXT = (
    "FLOPs count the query's forward pass although it is shared between methods. Times are of the "
    "machine that ran the cells, with the query cache as it happened to be."
)
MOVEMENT_TEXT = (
    "What training did: size of the prompts after the last task, how much a task changes them "
    "relative to it, and drift (1 - cosine) of earlier tasks' features as the head reads them. A "
    "row flagged HARDLY MOVED is in effect a linear head."
)
PROTOCOL_TEXT = (
    "What every row was run with, from its spec. * marks what differs from most other rows. If a "
    "value differs between benchmarks, the values are in the order of the benchmarks."
)


def build(results: Results, out: Path, tracked: bool = False) -> str:
    """Write the report of a suite into the folder `out`; return the main table as Markdown.

    tracked: only what is kept under version control, tables as Markdown and figures as PNG. Files
    of an earlier report in `out` that this one does not have are removed.
    """
    made = all_tables(results, out / "tables", tracked)
    written: list[Path] = []
    shown = []
    for drawn in figures.all_figures(results):
        files = figures.save(drawn, out / "figures", tracked)
        written += files
        if not tracked:
            svg = files[out / "figures" / f"{drawn.name}.svg"].decode()
            shown.append(html_figure(svg, drawn.name, drawn.caption))
    _remove_others(out / "figures", FIGURE_FILE, written)
    if not tracked:
        sections = _sections(results, made, tuple(shown))
        write_text(
            out / "index.html", page(f"Results: {results.suite}", all_notes(results), sections)
        )
    return table_files.markdown(made["main"].shown)


def all_tables(results: Results, folder: Path, tracked: bool) -> dict[str, ReportTable]:
    """The tables by name; those with rows are written into the folder."""
    made = tables.all_tables(results)
    written = []
    for table in made.values():
        if len(table.exact):
            written += table_files.write(folder, table, tracked)
    if len(results.cells) and results.reference:
        written += _write_answer(results, folder, tracked)
    if len(results.cells):
        written.append(folder / "cells.csv")
        write_text(written[-1], table_files.csv_text(tables.cells_table(results)))
    _remove_others(folder, TABLE_FILE, written)
    return made


def _write_answer(results: Results, folder: Path, tracked: bool) -> list[Path]:
    """The table as a paper prints it: Markdown, and CSV and LaTeX unless tracked."""
    found = answer.answer(results)
    lines = answer.sentences(found, results.benchmarks)
    table = table_files.markdown(answer.shown(found, results.benchmarks))
    texts = {"md": f"{table}\n\n" + "".join(f"- {line}\n" for line in lines)}
    if not tracked:
        texts["csv"] = table_files.csv_text(answer.exact(found))
        texts["tex"] = answer.latex(found, results.benchmarks)
    files = []
    for kind, text in texts.items():
        files.append(folder / f"answer.{kind}")
        write_text(files[-1], text)
    return files


def _answer_section(results: Results) -> list[Section]:
    """The first section of the page; none for a suite of settings, which has no methods."""
    if not (results.reference and len(results.cells)):
        return []
    found = answer.answer(results)
    statements = tuple(answer.sentences(found, results.benchmarks))
    table = answer.html(found, results.benchmarks)
    return [Section("The answer", ANSWER_TEXT, table, statements=statements)]


def _pairs_section(results: Results, table: ReportTable) -> list[Section]:
    """A matrix for each benchmark; none for a suite of settings."""
    if not (results.reference and len(results.cells)):
        return []
    matrices = tuple(pairs.html(results, benchmark) for benchmark in results.benchmarks)
    return [Section("Who is better than whom", _paired_text(table), more_tables=matrices)]


def _remove_others(folder: Path, names: re.Pattern, written: Iterable[Path]) -> None:
    """Remove the files of an earlier report that this one did not write."""
    if folder.is_dir():
        for file in set(folder.iterdir()) - set(written):
            if names.fullmatch(file.name):
                file.unlink()


def _sections(results: Results, made: dict[str, ReportTable], drawn: tuple) -> list[Section]:
    html = {name: html_table(table.shown) for name, table in made.items()}
    missing = f"{len(made['missing'].exact)} cell(s) without a result."
    return [
        *_answer_section(results),
        *_pairs_section(results, made["paired"]),
        Section("Figures", figures.what_is_left_out(results), figures=drawn),
        Section("All numbers", METRICS_TEXT, html["main"]),
        Section("Task known", TASK_TEXT, html["task_scenario"]),
        Section("Cost", COST_TEXT, html["cost"]),
        Section("Movement", MOVEMENT_TEXT, html["movement"]),
        Section("Protocol", PROTOCOL_TEXT, html["protocol"]),
        Section("Missing cells", missing, html["missing"]),
    ]


def _paired_text(table: ReportTable) -> str:
    n = int(table.exact["n"].max()) if len(table.exact) else 0
    smallest = 2 ** (1 - n) if n > 1 else 1
    return (
        "Row minus column, final average accuracy in points, over pairs of one order and seed. "
        "Interval, p and the share of pairs in which the row is above: hover, or "
        "tables/paired.csv. Nothing here is corrected for the number of comparisons. "
        f"With {n} pairs the sign-flip test cannot go below p = {smallest:.4g}."
    )


# --- notes ------------------------------------------------------------------------------------


def all_notes(results: Results) -> list[str]:
    """What a reader must know before the numbers."""
    names = [method.split("@")[0] for method in results.methods]
    of_rows = list(dict.fromkeys(row_of(name).note for name in names))
    notes = [scale_note(results), *of_rows, other_suites(results), *warnings(results)]
    return [note for note in notes if note]


def warnings(results: Results) -> list[str]:
    """What is not shown or could not be checked; also said on the command line."""
    unchecked = [] if len(results.protocol) else [UNCHECKED]
    return [*results.notes, *unchecked, *code_notes(results)]


def code_notes(results: Results) -> list[str]:
    """A sentence for each kind of other code, with the rows that have it."""
    rows_of: dict[str, list[str]] = {}
    for (benchmark, method), said in results.of_other_code.items():
        rows_of.setdefault(said, []).append(f"{label(method)} on {benchmark}")
    return [f"{said} (marked †): {', '.join(rows)}." for said, rows in rows_of.items()]


def other_suites(results: Results) -> str:
    """Says which rows were run as part of another suite; empty if none was."""
    others = results.runs[results.runs["suite"] != results.suite]
    rows_of = others.groupby("suite", sort=False)["method"].unique()
    return " ".join(
        f"From suite '{suite}', run apart on the same images, class orders, batches and views "
        f"(digests compared): {', '.join(map(label, methods))}."
        for suite, methods in rows_of.items()
    )


def scale_note(results: Results) -> str:
    """What the numbers are and are not, from the runs themselves."""
    done = results.runs[results.runs["status"] == "done"]
    precisions = sorted(set(done["precision"]) - {""})
    precision = " and ".join(precisions) or "unknown"
    if len(precisions) > 1:
        precision += " (NOT the same for all cells: rows may differ by that too)"
    others = [suite for suite in results.runs["suite"].unique() if suite != results.suite]
    beside = f" with rows of {' and '.join(others)}" if others else ""
    return (
        f"Suite '{results.suite}'{beside}: {len(done)} of {len(results.runs)} cells finished; "
        f"{done['order_seed'].nunique()} class order(s) x {done['seed'].nunique()} seed(s), "
        f"precision {precision}. Accuracies in percent, mean ± sample standard deviation. These "
        "runs are at this suite's own scale (backbone, images and training length as in spec.json "
        "of each run): not comparable with a paper's numbers."
    )
