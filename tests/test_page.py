"""The page in a real browser: nothing from the network, no error, readable on a phone."""

import html
import re
import shutil
import subprocess

import pytest
from conftest import REFERENCE

from bench.report.build import build
from bench.report.frames import load

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# In a frame, since a window is 500 pixels wide at least.
FRAME = """<!doctype html><iframe width="{width}" height="900" style="border: 0" srcdoc="{page}"
onload="const root = this.contentDocument.documentElement;
document.documentElement.dataset.wide = root.scrollWidth;
document.documentElement.dataset.view = root.clientWidth;"></iframe>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a published suite, without its figures: they are drawn elsewhere."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.figures.all_figures", lambda results: iter(()))
        build(load(REFERENCE / "mini", [], [REFERENCE / "references"]), folder)
    return folder / "index.html"


def test_nothing_comes_from_the_network(page):
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#)[^"']+""", text)
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text


def test_every_link_resolves(page):
    text = page.read_text()
    targets = re.findall(r'href="#([^"]+)"', text)
    assert len(targets) > 5
    ids = set(re.findall(r'id="([^"]+)"', text))
    assert [target for target in targets if target not in ids] == []


def test_it_starts_with_the_answer(page):
    text = page.read_text()
    headings = re.findall(r"<h2>([^<]+)</h2>", text)
    assert headings[:2] == ["The answer", "Who is better than whom"]
    assert text.index("<b>33.9 ± 3.0</b>") < text.index("Who is better than whom</h2>")


@pytest.mark.parametrize("width", [380, 1280])
def test_no_error_and_no_sideways_scroll(page, tmp_path, width):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} here")
    measured = tmp_path / "page.html"
    inner = html.escape(page.read_text())
    measured.write_text(FRAME.format(width=width, page=inner))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"]
    options += [
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
        f"--user-data-dir={tmp_path}/p",
    ]
    done = subprocess.run(
        [browser, *options, "--window-size=1400,1000", measured.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = dict(re.findall(r'data-(wide|view)="(\d+)"', done.stdout))
    assert int(found["view"]) == width
    assert int(found["wide"]) <= width
