"""Where figures put things: nothing is cut off, no name runs into another, as wide as a column."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import REFERENCE
from PIL import Image
from report_tables import identity, write_suite

from bench.report import figures, look
from bench.report.__main__ import COLUMN_WIDTHS, MAX_POINTS
from bench.report.build import build_figures
from bench.report.frames import load
from bench.report.look import Paper, plt
from bench.store.tables import SIMILARITY, write_csv

PAPERS = [Paper(COLUMN_WIDTHS[columns], MAX_POINTS[columns]) for columns in (1, 2)]


@pytest.fixture(autouse=True)
def _style():
    """That of a paper is for one test."""
    yield
    look.style()
    plt.close("all")


def texts(figure):
    """Names, marks and numbers of a figure with their places, and its legends."""
    found = [*figure.legends]
    for one in figure.axes:
        if not one.get_visible():
            continue
        found += [one.title, *(text for text in one.texts if text.get_text() != "//")]
        for axis in (one.xaxis, one.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = (tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)
            found += [axis.label, *(tick.label1 for tick in ticks)]
    upright = [one for one in found if one in figure.legends or one.get_rotation() in (0, 90)]
    boxes = [(one, one.get_window_extent()) for one in upright if one.get_visible()]
    return [(one, box.padded(-0.5)) for one, box in boxes if box.width > 1 and box.height > 1]


@pytest.mark.parametrize("paper", [None, *PAPERS], ids=str)
@pytest.mark.parametrize("suite", ["mini", "ablation", "photos_orders"])
def test_no_name_runs_into_another(suite, paper):
    """The names of axes are placed once, for a picture of 100 dots an inch and an SVG of 72."""
    beside = [REFERENCE / "references"] if suite == "mini" else []
    for planned in figures.all_figures(load(REFERENCE / suite, beside), paper):
        figure = planned.draw()
        if paper:
            look.as_wide_as(figure, paper.width)
        for dots in (72,) if paper else (100, 72):
            figure.set_dpi(dots)
            figure.canvas.draw()
            for (first, box), (second, other) in itertools.combinations(texts(figure), 2):
                assert not box.overlaps(other), f"{planned.name}: {first} and {second}"
        plt.close(figure)


def uncut(results, folder):
    """Every picture has a margin on each side."""
    for planned in figures.all_figures(results):
        figures.save(planned, folder)
        with Image.open(folder / f"{planned.name}.png") as image:
            pixels = np.asarray(image.convert("L"))
        for side in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
            assert side.min() == 255, planned.name


@pytest.mark.parametrize("suite", ["align_tune", "photos", "headroom"])
def test_no_picture_is_cut(suite, tmp_path):
    uncut(load(REFERENCE / suite), tmp_path)


@pytest.mark.parametrize("name", ["hlgp", "my_method_with_a_name_of_sixty_characters_or_so"])
def test_one_row_has_whole_pictures(name, tmp_path):
    """Its colour bars have their names, and the row its own."""

    def change(metrics, runs):
        for rows in (metrics, runs):
            rows[:] = [row for row in rows if row["method"] == "hlgp"]
            for row in rows:
                row.update(identity(name, row["order_seed"]))

    folder = write_suite(tmp_path / "s", change)
    (folder / "timing.csv").unlink()
    likeness = [
        {"run_id": identity(name, order)["run_id"], "layer": 0, "other": 1, "cosine": 0.3}
        for order in (1, 2)
    ]
    write_csv(folder / "similarity.csv", SIMILARITY, likeness)
    results = load(folder)
    drawn = {one.name for one in figures.all_figures(results)}
    assert {"orders", "matrices", "similarity"} <= drawn
    uncut(results, tmp_path)
    uncut(replace(results, runs=results.runs.head(1)), tmp_path)


def test_figures_for_a_paper(tmp_path):
    """As wide as its column, and nothing but the figures."""
    files = build_figures(load(write_suite(tmp_path / "s")), tmp_path / "out", Paper(3.25, 7))
    assert {"accuracy.pdf", "orders.pdf", "cost.pdf"} <= {file.name for file in files}
    assert not (tmp_path / "out" / "index.html").exists()
    for file in files:
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", file.read_bytes())
        assert float(box[1]) / 72 == pytest.approx(3.25, rel=0.03), file.name


@pytest.mark.parametrize(("columns", "points"), [("1", "9"), ("2", "10.5"), ("2", "3")])
def test_text_is_as_large_as_a_paper_has_it(columns, points, command):
    words = ("--format", "pdf", "--columns", columns, "--font-size", points)
    done = command("bench.report", "mini", "--results", str(REFERENCE), *words, check=2)
    assert "--font-size" in done.stderr
    assert f"a number from 4 to {MAX_POINTS[int(columns)]}" in done.stderr
