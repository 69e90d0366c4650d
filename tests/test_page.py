"""The page: what it says, where its links go, and how it behaves in a real browser."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files
from urllib.parse import unquote

import pandas as pd
import pytest
from conftest import REFERENCE

from bench.report import details, figures, plots, sections
from bench.report.build import build
from bench.report.frames import load
from bench.report.look import plt
from bench.store.facts import SuiteFacts, write_facts
from bench.store.tables import NOT_RECORDED

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"),
    *("--disable-background-networking", "--no-first-run", "--enable-logging=stderr"),
    *("--virtual-time-budget=60000", "--window-size=1400,1000"),
)
# In a frame, since a window is 500 pixels wide at least: what a visitor does, and then sees.
FRAME = """<!doctype html>
<meta charset="utf-8">
<script>AXE</script>
<iframe width="{width}" height="900" style="border: 0" srcdoc="{page}"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = async () => {{
  const page = frame.contentDocument;
  const seen = (element) => frame.contentWindow.getComputedStyle(element).display !== "none";
  const all = (selector) => [...page.querySelectorAll(selector)];
  const found = {{
    wide: page.documentElement.scrollWidth,
    view: page.documentElement.clientWidth,
    dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    loaded: frame.contentWindow.performance.getEntriesByType("resource").map((one) => one.name),
    tips: all('svg [data-row="hlgp"] > title').map((title) => title.textContent),
    figures: all("figure svg").length,
    without_name: all("figure svg").filter((svg) => !svg.getAttribute("aria-label")).length,
    drawn: all("#cost svg title").map((title) => title.textContent),
  }};
  const image = page.querySelector("svg image");  // of the first matrix
  image.scrollIntoView();
  const box = image.getBoundingClientRect();
  const cell = (after, task) => page.elementFromPoint(
    box.left + (task - 0.5) / 3 * box.width, box.top + (after - 0.5) / 3 * box.height);
  found.cell = cell(3, 2).textContent;
  found.never = cell(2, 3).tagName;  // not yet learned
  const table = page.querySelector("table");
  const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  const heads = table.tHead.rows[0].cells;
  const lines = () => [...table.tBodies[0].rows].map((row) => row.className + row.textContent);
  const whole = lines().join();
  heads[4].querySelector("button").click();
  found.falling = names();
  heads[4].querySelector("button").click();
  found.rising = names();
  found.sorted = heads[4].getAttribute("aria-sort");
  heads[4].querySelector("button").click();
  found.restored = lines().join() === whole;
  const second = all("#the-answer table")[1];  // joint rows have no cumulative average
  found.last = [1, 2].map(() => {{
    second.tHead.rows[0].cells[1].querySelector("button").click();
    return [...second.tBodies[0].rows].at(-1).cells[1].textContent;
  }});
  found.sorts = frame.contentWindow.eval(`(names) => names.sort((a, b) => compare(a, b, 1))`)(
    ["2026-11-29", "2025-12-01", "2026-01-05", "hlgp--o10", "hlgp--o2", "3.5 ± 1", "20"]);
  const choices = () => all("#the-answer .choice").map(seen);
  found.before = choices();
  page.querySelectorAll("#the-answer input")[2].click();
  found.after = choices();
  const curves = (row) => all(`svg [data-row="${{row}}"]`).filter(seen).length;
  const choose = (row) => page.querySelector(`.rows input[value="${{row}}"]`).click();
  for (const row of ["hlgp", "finetune"]) {{  // shown at first, and only once it is chosen
    found[row] = [curves(row)];
    choose(row);
    found[row].push(curves(row));
    choose(row);
  }}
  for (const one of all("#cost details, #protocol details")) one.open = true;
  for (const drawing of all("svg > g")) drawing.remove();  // to axe an SVG is an image with a name
  frame.contentWindow.eval(document.scripts[0].textContent);
  const report = await frame.contentWindow.axe.run("html", {{ resultTypes: ["violations"] }});
  found.faults = report.violations.map((one) => one.id + " " + one.nodes[0].html.slice(0, 200));
  document.documentElement.dataset.found = JSON.stringify(found);
}};
</script>"""


# The pages below and above: axe alone, one after the other.
FRAMES = """<!doctype html>
<meta charset="utf-8">
<script>AXE</script>
PAGES
<script>
onload = async () => {{
  const found = [];
  for (const frame of document.querySelectorAll("iframe")) {{
    frame.contentWindow.eval(document.scripts[0].textContent);
    const report = await frame.contentWindow.axe.run("html", {{ resultTypes: ["violations"] }});
    const wide = frame.contentDocument.documentElement.scrollWidth;
    found.push([wide, ...report.violations.map((one) => one.id + " " + one.nodes[0].html)]);
  }}
  document.documentElement.dataset.found = JSON.stringify(found);
}};
</script>"""


@pytest.fixture(scope="module")
def mini():
    return load(REFERENCE / "mini", [], [REFERENCE / "references"])


@pytest.fixture(scope="module")
def report(mini, tmp_path_factory):
    """The report of a published suite."""
    folder = tmp_path_factory.mktemp("reports") / "mini"
    build(mini, folder)
    return folder


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


def browse(text, folder, dark):
    """What a page's script found in a real browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} here")
    axe = files("axe_core_python").joinpath("axe.min.js").read_text()
    (folder / "page.html").write_text(text.replace("AXE", axe), encoding="utf-8")
    colours = ["--blink-settings=preferredColorScheme=0"] if dark else []
    words = [*colours, f"--user-data-dir={folder}/p", (folder / "page.html").as_uri()]
    done = subprocess.run(
        [browser, *OPTIONS, *words], capture_output=True, encoding="utf-8", timeout=240
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    return json.loads(html.unescape(re.findall(r'data-found="([^"]*)"', done.stdout)[0]))


@pytest.mark.parametrize("dark", [True, False])
def test_other_pages_in_a_browser(mini, report, tmp_path, dark):
    """The overview, a row's page and a cell's, as narrow as a phone."""
    pages = [report.parent / "index.html", report / "rows" / "hlgp.html"]
    pages.append(report / "cells" / f"{mini.cells['run_id'].iloc[0]}.html")
    frame = '<iframe width="380" height="900" style="border: 0" srcdoc="{}"></iframe>'
    frames = "".join(frame.format(html.escape(one.read_text())) for one in pages)
    assert browse(FRAMES.format().replace("PAGES", frames), tmp_path, dark) == [[380]] * 3


@pytest.mark.parametrize(("width", "dark"), [(380, True), (1280, False)])
def test_in_a_browser(mini, report, page, tmp_path, width, dark):
    found = browse(FRAME.format(width=width, page=html.escape(page)), tmp_path, dark)
    assert (found["view"], found["dark"]) == (width, dark)
    assert found["wide"] <= width, "no sideways scroll"
    assert found["loaded"] == [], "nothing from the network"
    assert found["faults"] == []
    drawn = [one.name for one in figures.all_figures(mini)]
    assert len(drawn) == 10
    assert (found["figures"], found["without_name"]) == (len(drawn), 0)
    # Sorted by glyphs-v, the fourth column of numbers.
    means = pd.read_csv(report / "tables" / "answer.csv")
    means = means[means["benchmark"] == "glyphs-v"]
    shown = means.assign(mean=means["mean"].round(1)).set_index("method")["mean"]
    assert found["falling"][0] == "RanPAC"
    assert shown.idxmax() == "ranpac"
    assert found["rising"] == found["falling"][::-1]
    assert found["sorted"] == "ascending"
    assert found["restored"], "the third click: as it came, with its rules"
    numbers, dates = ["3.5 ± 1", "20"], ["2025-12-01", "2026-01-05", "2026-11-29"]
    assert found["sorts"] == [*numbers, *dates, "hlgp--o2", "hlgp--o10"]
    assert found["last"] == ["–", "–"], "no value: last, whichever way"
    assert found["before"] == [True, False, False, False, False, False], "the last two: aligned"
    assert found["after"] == [False, False, True, False, False, False]
    # Hover says the value that is in the figure's CSV, and a row can be left out.
    curve = pd.read_csv(report / "figures" / "accuracy.csv")
    curve = curve[(curve["method"] == "hlgp") & (curve["benchmark"] == "glyphs-v")]
    last = curve[curve["after_task"] == 6]["accuracy"].mean()
    assert any(tip.endswith(f"6: {last:.1f}") for tip in found["tips"])
    assert found["hlgp"][0] > found["hlgp"][1] == 0
    assert found["finetune"][0] == 0 < found["finetune"][1]
    cost = pd.read_csv(report / "figures" / "cost.csv").set_index("method").loc["hlgp"]
    said = f"{cost['faa']:.1f}% at {cost['train_seconds']:.4g} training seconds of a cell"
    assert any(title.endswith(said) for title in found["drawn"])
    mean = pd.read_csv(report / "figures" / "matrices.csv")
    mean = mean.set_index(["benchmark", "method", "after_task", "eval_task"])["accuracy"]
    assert found["cell"] == f"after task 3, task 2: {mean['glyphs', 'hlgp', 3, 2]:.1f}"
    assert found["never"] == "image"
