"""The page: what it says, and where its links go."""

import html
import re
from dataclasses import replace
from urllib.parse import unquote

import pandas as pd
import pytest
from conftest import REFERENCE

from bench.report import details, plots, sections
from bench.report.frames import load
from bench.report.look import plt
from bench.store.facts import SuiteFacts, write_facts
from bench.store.tables import NOT_RECORDED


@pytest.fixture(scope="module")
def page(report):
    return (report / "index.html").read_text()


def test_nothing_comes_from_the_network(report):
    for file in [report.parent / "index.html", *report.rglob("*.html")]:
        text = file.read_text()
        assert not re.findall(r"""\bsrc=["']|href=["'](?!data:)\w+:""", text), file
        assert not re.findall(r"url\((?!#)", text), file
        assert "@import" not in text, file


def test_every_link_resolves(report):
    pages = [report.parent / "index.html", *report.rglob("*.html")]
    assert len(pages) > 200, "a page for each row and each cell"
    count = 0
    for file in pages:
        text = file.read_text()
        ids = set(re.findall(r'\bid="([^"]+)"', text))
        for target in re.findall(r'\bhref="(?!data:)([^"]+)"', text):
            path, _, place = html.unescape(target).partition("#")
            assert place in ids if not path else (file.parent / unquote(path)).is_file(), target
            count += 1
    assert count > 900


def test_every_cell_has_its_page_linked(mini, tmp_path):
    """That of a failed cell too, whose log's end is what one looks for."""
    runs = mini.runs.copy()
    runs.loc[runs.index[:2], "status"] = ["oom", "missing"]
    failed = replace(mini, runs=runs, cells=mini.cells[~mini.cells["run_id"].isin(runs.run_id[:2])])
    table = sections._missing(failed).blocks[-1]
    linked = [str(row[table.columns.index("status")]) for row in table.rows]
    pages = dict(details.pages(failed))
    for run_id, link in zip(runs["run_id"][:2], linked, strict=True):
        address = re.findall(r'href="([^"]+)"', link)[0]
        assert unquote(address) == f"cells/{details.file_name(run_id)}.html"
        assert unquote(address) in pages
    cells = details.cells_table(failed).rows
    assert len(cells) + len(linked) == len(runs), "every cell is in one of the two"


def test_it_starts_with_the_answer(page):
    headings = re.findall(r"<h2>([^<]+)</h2>", page)
    assert headings[:2] == ["The answer", "Who is better than whom"]
    assert page.index("<b>34.4 ± 5.2</b>") < page.index("Who is better than whom</h2>")


def test_what_is_missing_has_the_command_of_its_suite(mini):
    runs = mini.runs.copy()
    of_each = runs.drop_duplicates("suite").index
    runs.loc[of_each, "status"] = "missing"
    text, _, commands, _ = sections._missing(replace(mini, runs=runs)).blocks
    assert text.text == "2 cells without a result."
    assert commands.text == "python -m bench.grid mini\npython -m bench.grid references"


def test_a_file_of_ones_own_is_made_by_its_own_command(mini):
    """No command is shown that would not work: a suite's words are not in its tables."""
    runs = mini.runs.head(1).assign(suite="mine", status="missing")
    text, table = sections._missing(replace(mini, runs=runs)).blocks
    assert text.text.endswith("The command that made mine runs what is missing there.")
    assert table.rows
    pages = dict(details.pages(replace(mini, runs=runs)))
    (page,) = (text for name, text in pages.items() if name.startswith("cells/"))
    assert "bench.run mine" not in page
    assert "bench.run, what made these results, and" in page


def begun(mini, folder):
    """A suite `mine`, made by a file of one's own: the first cell of DualPrompt, alone."""
    first = mini.runs[mini.runs["method"] == "dualprompt"]["run_id"].iloc[0]
    for name in ("runs", "metrics", "protocol"):
        table = pd.read_csv(REFERENCE / "mini" / f"{name}.csv", dtype=str, keep_default_na=False)
        chosen = table["method"] == "dualprompt"
        rows = table[chosen & (table["run_id"] == first)] if "run_id" in table else table[chosen]
        rows = rows.replace({"dualprompt": "mine", "mini": "mine"})
        if "run_id" in rows:
            rows["run_id"] = rows["run_id"].str.replace("dualprompt--", "mine--")
        folder.mkdir(exist_ok=True)
        rows.to_csv(folder / f"{name}.csv", index=False)
    write_facts(folder, SuiteFacts(suite="mine"))
    return load(REFERENCE / "mini", [folder], [REFERENCE / "references"])


def test_a_row_of_ones_own_that_is_not_finished(mini, tmp_path):
    """Its runs.csv lists the one cell that was run; the page counts the others too."""
    results = begun(mini, tmp_path / "mine")
    missing = results.missing()
    grid = results.runs[results.runs["method"] == "hlgp"]
    assert len(missing) == len(grid) - 1
    assert set(missing["method"]) == {"mine"}
    done = len(results.runs)
    assert sections.scale(results).startswith(f"{done} of {done + len(grid) - 1} cells finished")
    text, *_ = sections._missing(results).blocks
    assert text.text == (
        f"{len(grid) - 1} cells without a result. "
        "The command that made mine runs what is missing there."
    )
    assert not len(mini.missing()), "whole suites lack nothing"


def test_whose_page_it_is_and_what_made_it(mini, tmp_path):
    results = begun(mini, tmp_path / "mine")
    assert (results.title, mini.title) == ("Results: mini + mine", "Results: mini")
    (said,) = sections.lead(results, "reproduced: all")
    assert "<code>./run_all.sh references</code>" in said.text
    assert said.text.endswith("the suite file <code>mine.py</code>.")
    assert "run_all.sh mine" not in said.text, "it takes the project's suites alone"
    assert ". Reproduced: all. Made by " in said.text
    runs = mini.runs.copy()
    runs.loc[runs.index[:3], "version"] = NOT_RECORDED
    (said,) = sections.lead(replace(mini, runs=runs), "")
    commits = ", ".join(sorted(set(mini.runs["commit"])))
    lacks = "; 3 cells without a recorded version"
    assert f"Version 0.1.0 (commit {commits}{lacks})" in said.text


def test_the_page_says_each_thing_where_it_is_needed(page):
    """What a column means stands at its table, and what the tests can tell above the sentences."""
    prompts = page.partition('<section id="what-the-prompts-did">')[2].partition("</section>")[0]
    shown, _, folded = prompts.partition("<details>")
    assert "relative_change" not in shown
    assert "relative_change" in folded
    assert "in one run or more: " in shown
    assert "VPT-NSP2 on every benchmark" in shown
    answer = page.partition('<section id="the-answer">')[2]
    assert answer.index("Level does not mean alike") < answer.index("<li>glyphs: of 11 methods")
    assert answer.index("<li>With aligned heads: highest mean") < answer.index("<table")
    assert "glyphs-v: 60 classes in 6 tasks; digits: 10 classes in 5 tasks. " in page
    definitions = page.partition('<section id="definitions">')[2]
    assert definitions.index("<li>a[t, i]") < definitions.index("<li>Final average accuracy")
    assert "so far minus" not in page, "one definition of forgetting"
    assert page.count('<table class="turned">') == 5, "the matrices of pairs"


def test_a_setting_says_its_value_on_hover():
    ablation = load(REFERENCE / "ablation")
    figure = plots.settings(ablation, "bottleneck")
    said = [unquote(artist.get_gid()) for artist in figure.findobj() if artist.get_gid()]
    cells = ablation.cells[ablation.cells["scenario"] == "class"]
    row = cells[(cells["method"] == "bottleneck@64") & (cells["benchmark"] == "digits")]
    assert f"mean {row['faa'].mean():.1f}, standard deviation {row['faa'].std():.1f}" in said[-1]
    assert len(said) == 2 * len(ablation.benchmarks), "two values"
    plt.close(figure)


def test_a_cell_has_its_page(mini, report):
    cell = mini.cells.iloc[0]
    text = (report / "cells" / f"{cell['run_id']}.html").read_text()
    assert f"{100 * mini.matrices[cell['run_id'], 'class'][-1, 0]:.1f}</span>" in text
    assert f"--method {cell['method']} --benchmark {cell['benchmark']} --order-seed" in text
    assert mini.runs["data_sha"].iloc[0] in text
