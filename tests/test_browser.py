"""The report in a real browser: what a visitor does, and then sees."""

import shutil
from importlib.resources import files

import pandas as pd
import pytest

from bench.report import figures

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, LAPTOP = 380, 1280  # pixels
SEEN = "all => all.map(one => getComputedStyle(one).display !== 'none')"
# To axe, which says what keeps people from reading a page, a figure is an image with a name: it
# takes minutes where it sees what an SVG is made of.
FAULTS = """async () => {
    for (const drawing of document.querySelectorAll("svg > g")) drawing.remove();
    for (const folded of document.querySelectorAll("details")) folded.open = true;
    const report = await axe.run("html", { resultTypes: ["violations"] });
    return report.violations.map(one => `${one.id} ${one.nodes[0].html.slice(0, 200)}`);
}"""
TIP = """([x, y]) => {
    let seen = document.elementFromPoint(x, y);
    while (seen && !seen.querySelector(":scope > title")) seen = seen.parentElement;
    return seen ? seen.querySelector(":scope > title").textContent : "";
}"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} here")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser):
    """Opens a file. At the end of the test: nothing on the console, and no file but those asked."""
    contexts, said, asked, opened = [], [], [], []

    def opens(file, width=LAPTOP, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        opened.append(file.as_uri())
        page.goto(file.as_uri())
        return page

    yield opens
    for context in contexts:
        context.close()
    assert said == []
    assert asked == opened


def names(table):
    return table.locator("tbody th").all_inner_texts()


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_a_page_can_be_read(mini, report, visit, width, colours):
    """Contrast, names, alternative texts, and no sideways scroll bar, on every kind of page."""
    axe = files("axe_core_python").joinpath("axe.min.js").read_text()
    cell = mini.cells["run_id"].iloc[0]
    for name in ("../index.html", "index.html", "rows/hlgp.html", f"cells/{cell}.html"):
        page = visit((report / name).resolve(), width, color_scheme=colours)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        page.evaluate(axe)
        assert page.evaluate(FAULTS) == [], name
        page.close()


def test_every_figure_is_an_image_with_a_name(mini, report, visit):
    page = visit(report / "index.html")
    drawn = [one.name for one in figures.all_figures(mini)]
    assert len(drawn) == 10
    labels = [one.get_attribute("aria-label") for one in page.locator("figure svg").all()]
    assert len(labels) == len(drawn)
    assert all(labels)


def test_a_table_sorts_by_a_click(report, visit):
    page = visit(report / "index.html")
    table = page.locator("#the-answer table").first
    head = table.locator("thead th", has_text="glyphs-v")
    rows, lines = table.locator("tbody tr"), "all => all.map(one => one.className + one.innerText)"
    whole = rows.evaluate_all(lines)
    head.click()
    assert head.get_attribute("aria-sort") == "descending"
    falling = names(table)
    means = pd.read_csv(report / "tables" / "answer.csv")
    means = means[means["benchmark"] == "glyphs-v"].set_index("method")["mean"]
    assert means.idxmax() == "ranpac"
    assert falling[0] == "RanPAC"
    head.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(table) == falling[::-1]
    head.click()
    assert head.get_attribute("aria-sort") is None
    assert table.locator("tbody tr").evaluate_all(lines) == whole, (
        "the third click: as it came, with its rules"
    )
    # Joint rows have no cumulative average: last, whichever way.
    page.locator("#the-answer input").nth(1).check()
    table = page.locator("#the-answer table").nth(1)
    for _ in range(2):
        table.locator("thead th").nth(1).click()
        assert table.locator("tbody tr").last.locator("td").first.inner_text() == "–"


def test_how_values_are_sorted(report, visit):
    page = visit(report / "index.html")
    numbers, dates = ["3.5 ± 1", "20"], ["2025-12-01", "2026-01-05", "2026-11-29"]
    expected = [*numbers, *dates, "hlgp--o2", "hlgp--o10"]
    sort = "values => values.sort((a, b) => compare(a, b, 1))"
    assert page.evaluate(sort, expected[::-1]) == expected


def test_the_metric_can_be_chosen(report, visit):
    page = visit(report / "index.html")
    choices = page.locator("#the-answer .choice")
    assert choices.evaluate_all(SEEN) == [True, *[False] * 5], "the last two: aligned heads"
    page.locator("#the-answer input").nth(2).check()
    assert choices.evaluate_all(SEEN) == [False, False, True, *[False] * 3]


def test_a_row_can_be_left_out_of_figures_or_added(report, visit):
    page = visit(report / "index.html")
    for row, at_first in (("hlgp", True), ("finetune", False)):
        lines = page.locator(f'#curves svg [data-row="{row}"]')
        box = page.locator(f'.rows input[value="{row}"]').first
        assert any(lines.evaluate_all(SEEN)) == box.is_checked() == at_first
        box.click()
        assert any(lines.evaluate_all(SEEN)) != at_first


def test_hover_says_what_the_csv_says(report, visit):
    page = visit(report / "index.html")

    def tip(place, x, y):
        """Of a point of an element, from 0 to 1."""
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        at = [box["x"] + x * box["width"], box["y"] + y * box["height"]]
        page.mouse.move(*at)
        return page.evaluate(TIP, at)

    mean = pd.read_csv(report / "figures" / "matrices.csv")
    mean = mean.set_index(["benchmark", "method", "after_task", "eval_task"])["accuracy"]
    matrix = page.locator("#curves svg image").first
    said = f"after task 3, task 2: {mean['glyphs', 'hlgp', 3, 2]:.1f}"
    assert tip(matrix, 1.5 / 3, 2.5 / 3) == said
    assert tip(matrix, 2.5 / 3, 1.5 / 3) == "", "not yet learned"
    cost = pd.read_csv(report / "figures" / "cost.csv").set_index("method").loc["l2p"]
    dot = page.locator('#cost g:has(> title:text-matches("^L2P: .* training seconds of a cell"))')
    said = f"L2P: {cost['faa']:.1f}% at {cost['train_seconds']:.4g} training seconds of a cell"
    assert tip(dot.first, 0.5, 0.5) == said
    curve = pd.read_csv(report / "figures" / "accuracy.csv")
    curve = curve[(curve["method"] == "hlgp") & (curve["benchmark"] == "glyphs-v")]
    last = curve[curve["after_task"] == 6]["accuracy"].mean()
    tips = page.locator('#curves svg [data-row="hlgp"] > title').all_text_contents()
    assert any(one.endswith(f"6: {last:.1f}") for one in tips)


def test_it_is_whole_without_its_script(mini, report, visit):
    """Every table and figure, the choice of metrics too."""
    page = visit(report / "index.html", java_script_enabled=False)
    choices = page.locator("#the-answer .choice")
    page.locator("#the-answer input").nth(2).check()
    assert [choices.nth(place).is_visible() for place in (0, 2)] == [False, True]
    assert page.locator("figure svg").first.is_visible()
    assert not page.locator(".rows").first.is_visible(), "it would choose nothing"
    assert len(names(page.locator("#the-answer table").nth(2))) == len(mini.methods)


def test_on_paper_it_says_every_metric(report, visit):
    page = visit(report / "index.html")
    page.emulate_media(media="print")
    assert all(page.locator("#the-answer .choice").evaluate_all(SEEN))
    assert not any(page.locator("nav, .rows, .files").evaluate_all(SEEN))
