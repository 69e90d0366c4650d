"""What the page of a suite says, section by section, from its results."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd
from markupsafe import Markup

from bench.report import alignment, answer, details, figures, pairs, tables, words
from bench.report.answer import Answer
from bench.report.checks import ROW_KEYS
from bench.report.elsewhere import more_orders
from bench.report.frames import Results
from bench.report.look import looks, marker_path
from bench.report.page import (
    Code,
    Files,
    HtmlFigure,
    Items,
    More,
    Rows,
    Section,
    Switch,
    Text,
    html_table,
)
from bench.report.protocol import protocol
from bench.report.rows import FRONT, is_suite, row_of
from bench.report.table_files import ReportTable
from bench.store.facts import read_facts
from bench.store.tables import COMPARED_COLUMNS, NOT_RECORDED, PUBLISHED, read_csv

MAX_COMMITS = 3  # that are named in the first line; the section Protocol has all
METRICS = (  # of the switch: name, column of cells, scenario
    ("Final average", "faa", "class"),
    ("Cumulative average", "caa", "class"),
    ("Forgetting", "forgetting", "class"),
    ("Task known", "faa", "task"),
    ("Aligned heads", "faa", "class-aligned"),
    ("Aligned, task known", "faa", "task-aligned"),
)
TRACKED = ("Final average", "Aligned heads")  # under version control, as Markdown


def lead(results: Results, verdict: str) -> list[Any]:
    """Above the first section: scale, hardware, code and command in a line, then the verdict."""
    done = results.runs[results.runs["status"] == "done"]
    finished = f"Finished on {day}" if (day := last_day(results)) else ""
    found = verdict[:1].upper() + verdict[1:]
    facts = (scale(results), _sizes(done), hardware(results), _code(done), finished, found)
    line = ". ".join(filter(None, facts))
    made = Markup(", ").join(_command(results, one) for one in results.runs["suite"].unique())
    return [Text(Markup("{}. Made by {}.").format(line, made))]


def _sizes(done: pd.DataFrame) -> str:
    """What each benchmark is to be learned in."""
    sizes = done.drop_duplicates("benchmark").groupby(["classes", "tasks"], sort=False)
    return "; ".join(
        f"{', '.join(benchmarks)}: {classes} classes in {tasks} tasks"
        for (classes, tasks), benchmarks in sizes["benchmark"]
    )


def _command(results: Results, suite: str) -> Markup:
    """What makes a suite's cells; where a file of one's own lies is not known."""
    if is_suite(suite):
        return Markup("<code>./run_all.sh {}</code>").format(suite)
    folder = results.folders.get(suite)
    known = read_facts(folder).suite if folder else ""
    if is_suite(known):
        return Markup("suite {} under the name {}").format(known, suite)
    if known:
        return Markup("the suite file <code>{}.py</code>").format(known)
    return Markup("the command that made {}").format(suite)


def _code(done: pd.DataFrame) -> str:
    """Which versions of this project ran the cells, as far as that is recorded."""
    versions = sorted({str(value) for value in done["version"]} - {NOT_RECORDED, ""})
    unknown = int((~done["version"].isin(versions)).sum())
    if not versions:
        return "Version not recorded"
    commits = sorted({str(value) for value in done["commit"]} - {NOT_RECORDED, ""})
    rest = [f"commit {', '.join(commits)}"] if 0 < len(commits) <= MAX_COMMITS else []
    rest += [f"{_count(unknown, 'cell')} without a recorded version"] if unknown else []
    return f"Version {', '.join(versions)}" + (f" ({'; '.join(rest)})" if rest else "")


def last_day(results: Results) -> str:
    """The day on which the last cell ended; "" where that was not recorded."""
    days = sorted({str(day) for day in results.runs["finished"]} - {NOT_RECORDED, "", "nan"})
    return days[-1] if days else ""


def scale(results: Results) -> str:
    """How many cells, orders and seeds, in which precision."""
    done = results.runs[results.runs["status"] == "done"]
    orders, seeds = done["order_seed"].nunique(), done["seed"].nunique()
    return (
        f"{cells_done(results)} finished, {_count(orders, 'class order')} x "
        f"{_count(seeds, 'seed')}, {precision(results)}"
    )


def cells_done(results: Results) -> str:
    """How many cells have a result, of those that the report would show."""
    done = int((results.runs["status"] == "done").sum())
    return f"{done} of {done + len(results.missing())} cells"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def precision(results: Results) -> str:
    done = results.runs[results.runs["status"] == "done"]
    precisions = sorted(set(done["precision"]) - {""})
    said = "precision " + (" and ".join(precisions) or "unknown")
    if len(precisions) > 1:
        said += " (NOT the same for all cells: rows may differ by that too)"
    return said


def hardware(results: Results) -> str:
    """The machines that ran the cells, as far as they are recorded."""
    used = results.environments[results.environments["env_sha"].isin(results.runs["env_sha"])]
    named = []
    for machine in used.itertuples():
        facts = [
            (machine.processor, "{}"),
            (machine.instructions, "{}"),
            (machine.device, "{}"),
            (machine.cores, "{} cores"),
            (machine.torch, "torch {}"),
        ]
        known = [said.format(value) for value, said in facts if value not in ("", NOT_RECORDED)]
        named.append(", ".join(known))
    return "; ".join(filter(None, dict.fromkeys(named)))


def sections(
    results: Results,
    made: dict[str, ReportTable],
    answers: dict[str, Answer],
    whom: dict[str, pairs.Differences],
    drawn: dict[str, list[HtmlFigure]],
    notes: list[str],
) -> list[Section]:
    """All sections of the page. answers: by the names of METRICS; whom: by benchmark; both empty
    for a suite of settings, which has no methods. drawn: the figures of each section. notes: what
    a reader must know, in the first section.
    """
    found = [
        *([_answer(results, answers)] if answers else []),
        *([_whom(results, whom, drawn[figures.WHOM])] if whom else []),
        _curves(results, drawn, answers),
        _cost(results, made["cost"], drawn[figures.COSTS]),
        _prompts(results, made, drawn[figures.PROMPTS]),
        _numbers(results, made),
        *_published(results),
        Section("Protocol", protocol(results)),
        _missing(results),
        Section("Definitions", [Items(list(words.DEFINITIONS))]),
    ]
    if not answers:
        why = _why_no_answer(results)[1] if len(results.cells) else f"{words.NO_CELL}."
        notes = [why, *notes]
    found[0].blocks.append(Items(notes, important=True))
    return found


def all_answers(results: Results) -> dict[str, Answer]:
    """The table as a paper prints it, by each metric that was measured."""
    if not (results.reference and len(results.cells)):
        return {}
    found = {name: answer.answer(results, *which) for name, *which in METRICS}
    return {name: one for name, one in found.items() if one.standings}


def _answer(results: Results, answers: dict[str, Answer]) -> Section:
    choices = []
    for name, metric, scenario in METRICS:
        if (found := answers.get(name)) is not None:
            links = {m: details.link_of_row(m, said) for m, said in found.names.items()}
            table = answer.html(found, results.benchmarks, links)
            files = Files("tables", answer_file(metric, scenario))
            choices.append((name, table._replace(files=files)))
    found = answers["Final average"]
    lines = answer.sentences(found, results.benchmarks)
    if (aligned := answers.get("Aligned heads")) is not None and answer.best(aligned):
        lines.append(f"With aligned heads: {_lower(answer.headline(aligned))}")
    blocks: list[Any] = [Items(lines)]
    if limit := answer.resolution(found):
        blocks.insert(0, Text(f"{limit} {more_orders(results)}".strip()))
    return Section("The answer", [*blocks, Switch("Metric", choices), Text(words.ANSWER)])


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def answer_file(metric: str, scenario: str) -> str:
    """The name of the files of a table as a paper prints it."""
    names = {
        "task": "answer_task_known",
        "class-aligned": "answer_aligned",
        "task-aligned": "answer_aligned_task_known",
    }
    return names.get(scenario, "answer" if metric == "faa" else f"answer_{metric}")


def headline(results: Results, answers: dict[str, Answer]) -> str:
    """Who stands best where, in a sentence."""
    if not answers:
        return _why_no_answer(results)[0] if len(results.cells) else words.NO_CELL
    return answer.headline(answers["Final average"])


def _why_no_answer(results: Results) -> tuple[str, str]:
    """For the overview, and for the page of a suite that names no row to compare with."""
    if any("@" in method for method in results.methods):
        return "Settings side by side", "Rows are settings (after the @), not methods to be ranked."
    return "No row to compare with", "This suite names no row to compare with (reference)."


def _whom(results: Results, whom: dict[str, pairs.Differences], drawn: list[HtmlFigure]) -> Section:
    if not any(whom.values()):
        return Section("Who is better than whom", [Text("No two rows have finished cells.")])
    why = figures.why_no_ranks(tables.scores(results)) or ("" if drawn else figures.NO_RANKS)
    files = Files("tables", "pairs", ("csv",))
    matrices = [
        (benchmark, pairs.html(results.methods, found)._replace(files=files))
        for benchmark, found in whom.items()
    ]
    text = pairs.explanation(whom)
    shown: list[Any] = [Switch("Benchmark", matrices), Text(text), Text(words.INTERVALS), *drawn]
    if len(tables.paired_table(results)):
        named = f"{row_of(results.reference).short} against each other row, as a table of its own:"
        shown[2:2] = [Text(named), Files("tables", "paired")]
    return Section("Who is better than whom", [*shown, *([Text(why)] if why else [])])


def _curves(
    results: Results, drawn: dict[str, list[HtmlFigure]], answers: dict[str, Answer]
) -> Section:
    """The curves, and above them the choice of rows, for all figures that can leave one out."""
    look = looks(results)
    in_figures = " ".join(figure.svg for section in drawn.values() for figure in section)
    best = answer.best(answers["Final average"]).values() if answers else ()
    first = {*FRONT, "linear", "joint-linear", *best}
    if len(set(look) & {*FRONT, "linear"}) < 2:
        first = {method for method, one in look.items() if not one.later}
    chosen = [
        (
            *(m, row_of(m).short, _css(one.colour), one.dash[1] if one.dash != "-" else ()),
            *(marker_path(one.marker), m in first),
        )
        for m, one in look.items()
        if f'data-row="{escape(m)}"' in in_figures
    ]
    which = figures.which_rows(results)
    blocks = [*([Text(which)] if which else []), *([Rows(words.CHOSEN, chosen)] if chosen else [])]
    return Section("Curves", [*blocks, *drawn[figures.CURVES]])


def _css(colour: Any) -> str:
    if isinstance(colour, str):
        return colour
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def _cost(results: Results, table: ReportTable, drawn: list[HtmlFigure]) -> Section:
    shown = html_table(table.shown, Files("tables", "cost"))
    lacks = tables.what_has_no_cost(tables.cost_of_rows(results)) if drawn else ""
    said = [*([Text(lacks)] if lacks else []), More("Cost of each row, a table", [shown])]
    return Section("Cost", [*drawn, *said, Text(words.COST)])


def _prompts(results: Results, made: dict[str, ReportTable], drawn: list[HtmlFigure]) -> Section:
    shown = html_table(made["movement"].shown, Files("tables", "movement"))
    said = [] if len(results.selection) else [Text(words.NO_SELECTION)]
    movement = More("Movement, a table", [Text(words.MOVEMENT), shown])
    still = tables.what_hardly_moved(made["movement"].exact, results.benchmarks)
    blocks = [*([Text(still)] if still else []), *drawn, *said, movement]
    if (gains := made.get("alignment")) is not None:
        both = html_table(gains.shown, Files("tables", "alignment"))
        blocks.append(More("Trained and aligned head, a table", [Text(alignment.TEXT), both]))
    return Section("What the prompts did", blocks)


def _numbers(results: Results, made: dict[str, ReportTable]) -> Section:
    cells = details.cells_table(results)
    return Section(
        "All numbers",
        [
            Text(words.MEANS),
            More("Means", [html_table(made["main"].shown, Files("tables", "main"))]),
            More(
                "Means, task known",
                [html_table(made["task_scenario"].shown, Files("tables", "task_scenario"))],
            ),
            More("Cells", [cells] if cells.rows else [Text("none")]),
        ],
    )


def published(results: Results) -> pd.DataFrame:
    """Values that papers publish beside what was measured, each with its verdict.

    Where `bench.check` has compared them: that needs more than CSV files.
    """
    folder = results.folders.get(results.suite)
    file = folder / PUBLISHED if folder else None
    found = read_csv(file, COMPARED_COLUMNS) if file is not None and file.is_file() else []
    return pd.DataFrame(found, columns=list(COMPARED_COLUMNS))


def _published(results: Results) -> list[Section]:
    table = published(results)
    if not len(table):
        return []
    counts = table["verdict"].value_counts()
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    near = table[table["verdict"] != "not comparable"].drop(columns="detail")
    far = table.loc[table["verdict"] == "not comparable", [*ROW_KEYS, "what", "metric", "detail"]]
    text = Text(
        Markup(
            "{}. A value is shown only beside a run of the same protocol; reproduced: the same "
            "within one point by two one-sided tests. Found by <code>python -m bench.check {}"
            "</code>, which is to be run again after further cells."
        ).format(said, results.suite)
    )
    blocks: list[Any] = [text, *([html_table(near)] if len(near) else [])]
    blocks.append(Files("tables", "published", ("csv",)))
    if len(far):
        blocks.append(More(f"Not comparable, with the reason ({len(far)})", [html_table(far)]))
    return [Section("Published values", blocks)]


# --- missing ----------------------------------------------------------------------------------


def _missing(results: Results) -> Section:
    left = results.missing()
    if not len(left):
        return Section("Missing cells", [Text("None: every cell has a result.")])
    shown = left.assign(
        status=[details.link_of_cell(one.run_id, one.status) for one in left.itertuples()]
    ).drop(columns=["suite", "run_id"])
    suites = left["suite"].unique()
    commands = "\n".join(f"python -m bench.grid {suite}" for suite in suites if is_suite(suite))
    own = [suite for suite in suites if not is_suite(suite)]
    text = f"{_count(len(left), 'cell')} without a result."
    if own:
        text += f" The command that made {' and '.join(own)} runs what is missing there."
    blocks = [Text("To run what is missing:"), Code(commands)] if commands else []
    table = html_table(shown, Files("tables", "missing"))
    return Section("Missing cells", [Text(text), *blocks, table])
