"""README and docs: their examples are run, their tables, links and commands are checked."""

import importlib
import re
import shlex
import sys
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, TINY, table

from bench import docs
from bench.config.suite import load_suite
from bench.cost.suite import counts
from bench.data import datasets
from bench.data.missing import require_files
from bench.engine.run import run_cell
from bench.errors import UsageError
from bench.method import _REGISTRY


def blocks(title: str) -> list[str]:
    """The Python blocks of the paragraph that begins with **title**."""
    text = (ROOT / "README.md").read_text().split(f"**{title}**", 1)[1]
    paragraph = re.split(r"^\*\*|^## ", text, maxsplit=1, flags=re.M)[0]
    return re.findall(r"```python\n(.*?)```", paragraph, re.S)


def test_an_own_dataset(tmp_path, monkeypatch):
    (example,) = blocks("A dataset.")
    monkeypatch.setitem(datasets.SOURCES, "mine", None)  # so that it is removed afterwards
    exec(example, {**vars(datasets)})  # it is written for that file
    root = tmp_path / "pictures"
    settings = {"data.name": "mine", "data.root": str(root), "data.tasks": 2}
    settings |= {"data.classes": 4}
    with pytest.raises(UsageError, match=r"pictures' not found"):
        require_files(load_suite(str(TINY), settings).cells)
    root.mkdir()
    with pytest.raises(UsageError, match=r"mine cannot be read .*classes.txt"):
        datasets.load_dataset(load_suite(str(TINY), settings).cells[0].data, 32)
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3)):
        labels = np.repeat(np.arange(4), count)
        np.save(root / f"{part}_labels.npy", labels)
        images = rng.integers(0, 256, (len(labels), 40, 40, 3), dtype=np.uint8)
        np.save(root / f"{part}_images.npy", images)
    (root / "classes.txt").write_text("a b c d\n")
    suite = load_suite(str(TINY), settings)
    require_files(suite.cells)
    (cell,) = suite.select(["linear"], order_seeds=[1])
    assert (cell.benchmark, counts(cell.data).known) == ("pictures", False)
    state = run_cell(cell, tmp_path / "results")
    assert state["status"] == "done", state
    rows = table(tmp_path / "results" / suite.name / "runs" / cell.run_id / "metrics.csv")
    last = [row for row in rows if row["after_task"] == "2" and row["scenario"] == "class"]
    assert sum(int(row["n"]) for row in last) == 12


def test_an_own_method(tmp_path, monkeypatch):
    method, suite_file = blocks("Your method.")
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "mine.py").write_text(method)
    monkeypatch.setattr(importlib.import_module("methods"), "__path__", [str(folder)])
    monkeypatch.delitem(sys.modules, "methods.mine", raising=False)
    monkeypatch.setitem(_REGISTRY, "mine", None)  # so that it is removed afterwards
    monkeypatch.delitem(_REGISTRY, "mine")
    (tmp_path / "bench").symlink_to(ROOT / "bench")
    (tmp_path / "mine.py").write_text(suite_file)
    settings: dict[str, Any] = {"data.classes": 4, "data.train_per_class": 4}
    settings |= {"data.test_per_class": 2}
    settings |= {"train.epochs": 1, "train.precision": "fp32", "benchmarks.glyphs.data.tasks": 2}
    suite = load_suite(str(tmp_path / "mine.py"), settings)
    assert (suite.reference, suite.beside) == ("mine", ()), "they are not inherited from mini"
    cell = suite.select(benchmarks=["glyphs"], order_seeds=[1])[0]
    state = run_cell(cell, tmp_path / "results")
    assert state["status"] == "done", state
    monkeypatch.delitem(sys.modules, "methods.mine", raising=False)


PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_links_and_commands_of_a_page(page):
    assert list(docs.problems(page, page.read_text())) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<!-- table front -->\n| old |\n<!-- end -->", "not that of the CSV files"),
        ("<!-- table nowhere -->\n<!-- end -->", "table nowhere is unknown"),
        ("[page](docs/nowhere.md)", "docs/nowhere.md does not exist"),
        ("![figure](docs/nowhere.png)", "docs/nowhere.png does not exist"),
        ("```bash\npython -m bench.gird mini\n```", "no command bench.gird"),
        ("```bash\nA=1 ./run_all.sh mini --job 3  # x\n```", "no option --job"),
    ],
)
def test_what_is_wrong_on_a_page_is_said(text, says):
    (line,) = docs.problems(ROOT / "README.md", text)
    assert says in line


def test_the_front_page_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


@pytest.mark.parametrize("words", list(docs.shell_lines((ROOT / "README.md").read_text())))
def test_a_command_of_the_front_page_runs(words, command, tmp_path):
    """Those that take minutes with --dry-run; FILE and DIR are for the reader to fill in."""
    parts = [part for part in shlex.split(words) if part not in ("python", "-m")]
    if parts[0] == "./run_all.sh":
        parts = ["bench.grid", *parts[1:]]
    if (
        parts[1:2] == ["test"]
        or "FILE" in words
        or "DIR" in words
        or "mine" in words
        or parts == ["bench.check", "mini"]
        or parts[:2] == ["bench.report", "--compare"]
    ):
        return  # the tests themselves, and what other tests here run
    if parts[0] == "bench.grid":
        parts += [] if "--dry-run" in parts else ["--dry-run"]
    elif parts[0] == "bench.run":
        parts += ["--set", "train.epochs=1", "data.train_per_class=2", "data.test_per_class=2"]
    command(*parts, check=0)
