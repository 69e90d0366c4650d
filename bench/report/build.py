"""A report's files, from results: tables, figures, the page, and a page for each row and cell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from bench.report import (
    alignment,
    answer,
    details,
    figures,
    pairs,
    protocol,
    sections,
    table_files,
    tables,
)
from bench.report.answer import Answer
from bench.report.frames import Results
from bench.report.look import Paper
from bench.report.overview import Summary, write_summary
from bench.report.page import HtmlFigure, html_figure, page
from bench.report.rows import is_suite, label, row_of
from bench.report.table_files import ReportTable
from bench.report.verdict import verdict
from bench.store.files import write_text

# Names of the files that a report of any suite makes.
TABLE_FILE = re.compile(
    r"(answer(_\w+)?|main|task_scenario|paired|pairs|cost|movement|alignment|protocol"
    r"|differences|missing|cells|environments|published)"
    r"\.(md|csv|tex)"
)
FIGURE_FILE = re.compile(
    r"(accuracy|orders|forgetting|matrices|ranks|parameters|cost|drift|gain|similarity|selection"
    r"|(setting|matrix)-.+)\.(svg|png|csv)"
)
PAGE_FILE = re.compile(r".+\.html")

UNCHECKED = "No protocol.csv: whether rows were trained on the same batches could not be checked."


def build(results: Results, out: Path, tracked: bool = False) -> str:
    """Write the report of a suite into the folder `out`; return the main table as Markdown.

    tracked: only what is kept under version control, tables as Markdown and figures as PNG. Files
    of an earlier report in `out` that this one does not have are removed.
    """
    answers = sections.all_answers(results)
    whom = pairs.all_differences(results, answers.get("Final average"))
    made = all_tables(results, answers, whom, out / "tables", tracked)
    written: list[Path] = []
    shown: dict[str, list[HtmlFigure]] = {
        name: [] for name in (figures.CURVES, figures.COSTS, figures.PROMPTS, figures.WHOM)
    }
    save = partial(figures.save, folder=out / "figures", tracked=tracked)
    for one, files in figures.side_by_side(save, figures.all_figures(results)):
        written += files
        if not tracked:
            svg = files[out / "figures" / f"{one.name}.svg"]
            shown[one.section].append(html_figure(svg, one.name, one.caption))
    _remove_others(out / "figures", FIGURE_FILE, written)
    if not tracked:
        said = verdict(results)
        lead = sections.lead(results, said)
        parts = sections.sections(results, made, answers, whom, shown, all_notes(results))
        write_text(out / "index.html", page(results.title, parts, lead))
        _write_pages(results, out)
        headline = sections.headline(results, answers)
        write_summary(out, Summary(headline, _size(results), sections.last_day(results), said))
    return table_files.markdown(made["main"].shown)


def build_figures(results: Results, out: Path, paper: Paper) -> list[Path]:
    """Write the figures alone, as PDF for a paper; return the files."""
    save = partial(figures.save_for_paper, folder=out / "figures", paper=paper)
    saved = figures.side_by_side(save, figures.all_figures(results, paper))
    return [file for _, file in saved]


def all_tables(
    results: Results,
    answers: dict[str, Answer],
    whom: dict[str, pairs.Differences],
    folder: Path,
    tracked: bool,
) -> dict[str, ReportTable]:
    """The tables by name; those with rows are written into the folder."""
    made = tables.all_tables(results)
    if len(gains := alignment.gains(results)):
        shown = alignment.shown(gains)
        made["alignment"] = ReportTable("alignment", gains, shown, shown)
    differences = protocol.differences_table(results.protocol)
    made[protocol.DIFFERENCES] = ReportTable(protocol.DIFFERENCES, differences, differences)
    written = []
    for table in made.values():
        if len(table.exact):
            written += table_files.write(folder, table, tracked)
    for name, metric, scenario in sections.METRICS:
        if name in answers and (name in sections.TRACKED or not tracked):
            file = sections.answer_file(metric, scenario)
            written += _write_answer(results, answers[name], folder, file, tracked)
    frames = {"cells": tables.cells_table(results)} if len(results.cells) else {}
    if not tracked:
        others = {
            "environments": protocol.environments(results),
            "published": sections.published(results),
        }
        frames |= {name: frame for name, frame in others.items() if len(frame)}
    if any(whom.values()) and not tracked:
        frames["pairs"] = pairs.exact(whom)
    for name, frame in frames.items():
        written.append(folder / f"{name}.csv")
        write_text(written[-1], table_files.csv_text(frame))
    _remove_others(folder, TABLE_FILE, written)
    return made


def _write_answer(
    results: Results, found: Answer, folder: Path, name: str, tracked: bool
) -> list[Path]:
    """A table as a paper prints it: Markdown, and CSV and LaTeX unless tracked."""
    table = table_files.markdown(answer.shown(found, results.benchmarks))
    texts = {"md": f"{table}\n"}
    if name == "answer":
        lines = answer.sentences(found, results.benchmarks)
        limit = answer.resolution(found)
        texts["md"] += f"\n{limit}\n" if limit else ""
        texts["md"] += "\n" + "".join(f"- {line}\n" for line in lines)
    if not tracked:
        texts["csv"] = table_files.csv_text(answer.exact(found))
        texts["tex"] = answer.latex(found, results.benchmarks)
    for kind, text in texts.items():
        write_text(folder / f"{name}.{kind}", text)
    return [folder / f"{name}.{kind}" for kind in texts]


def _write_pages(results: Results, out: Path) -> None:
    written = []
    for name, text in details.pages(results):
        written.append(out / name)
        write_text(written[-1], text)
    for folder in (details.ROWS, details.CELLS):
        _remove_others(out / folder, PAGE_FILE, written)


def _size(results: Results) -> str:
    rows, benchmarks = len(results.methods), len(results.benchmarks)
    on = f"{benchmarks} benchmark{'' if benchmarks == 1 else 's'}"
    return f"{rows} rows on {on}, {sections.cells_done(results)}"


def _remove_others(folder: Path, names: re.Pattern, written: Iterable[Path]) -> None:
    """Remove the files of an earlier report that this one did not write."""
    if folder.is_dir():
        for file in set(folder.iterdir()) - set(written):
            if names.fullmatch(file.name):
                file.unlink()


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
    """A sentence for each kind of other code, with the rows that have it and what can be done."""
    rows_of: dict[str, dict[str, list[str]]] = {}
    for (benchmark, method), said in results.of_other_code.items():
        rows_of.setdefault(said, {}).setdefault(label(method), []).append(benchmark)
    notes = []
    for said, rows in rows_of.items():
        named = "; ".join(f"{name} on {', '.join(on)}" for name, on in rows.items())
        notes.append(f"{said} (marked †): {named}.")
    if notes:
        marked = {method for _, method in results.of_other_code}
        rest = results.runs.loc[~results.runs["method"].isin(marked), "suite"].unique()
        commands = [f"python -m bench.check same {suite}" for suite in rest if is_suite(suite)]
        if commands:
            notes[-1] += f" To find out whether the bytes are the same: {', '.join(commands)}."
    return notes


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
    others = [suite for suite in results.runs["suite"].unique() if suite != results.suite]
    beside = f" with rows of {' and '.join(others)}" if others else ""
    return (
        f"Suite '{results.suite}'{beside}, {sections.precision(results)}: these runs are at this "
        "suite's own scale (backbone, images and training length as in spec.json of each run), "
        "not comparable with a paper's numbers."
    )
