"""code_sha: what changes it, what does not, and what becomes of runs of other code."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY, table

import bench.code as code
from bench.cli import CHECK_FAILED, FINE
from bench.report.build import code_notes
from bench.report.codes import MIXED, OTHER, PROVED
from bench.report.frames import load
from bench.store.codes import Codes, record_same
from bench.store.rundir import RunDir
from bench.store.tables import NOT_RECORDED, PROTOCOL, RUNS, write_csv

CHANGES = [  # what may change a number: file, text, what stands there instead
    ("methods/hlgp.py", "groups: int = 3", "groups: int = 4"),
    ("bench/data/views.py", "CROP_TRIES = 10", "CROP_TRIES = 11"),
    ("bench/engine/task.py", "math.pi", "3.14"),
    ("bench/data/glyphs.py", "0.5", "0.51"),
]
PROSE = [  # what may not
    ("methods/hlgp.py", '"""HLGP', '"""An HLGP'),
    ("bench/engine/task.py", "def schedule_factor", "# A comment.\n\n\ndef schedule_factor"),
    ("bench/report/tables.py", "0.1", "0.2"),
    ("bench/__init__.py", "0.", "9."),
    ("methods/l2p.py", "import torch", "import torch\n\nTHEIRS = 1"),
    ("docs/running.md", "#", "##"),
]
CORE = {  # what is behind a number of HLGP on glyphs; to leave one out is a decision
    *("backbone.torchvision_guard", "backbone.vit", "backbone.weights"),
    *("cost.counted", "data.datasets", "data.glyph_masks", "data.glyphs", "data.keyed"),
    *("data.orders", "data.registry", "data.ahead", "data.stream", "data.views"),
    *("engine.align", "engine.cell", "engine.checkpoint", "engine.heads", "engine.movement"),
    *("engine.queries", "engine.run", "engine.task", "hardware", "method", "methods.hlgp"),
}
ADDED_DATASET = """
import csv as for_mine


@dataset("mine", on_disk=True)
def load_mine(spec: DataSpec, image_size: int) -> Raw:
    return for_mine.reader(spec.root)
"""


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the project's text, which a test may change."""
    for folder in ("bench", "methods", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.np*"))
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    return tmp_path


def sha_now(method: str = "hlgp", dataset: str = "glyphs") -> str:
    for cached in (code._source, code._module, code.reached, code.code_sha):
        cached.cache_clear()
    try:
        return code.code_sha(method, dataset)
    finally:
        for cached in (code._source, code._module, code.reached, code.code_sha):
            cached.cache_clear()


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file} has no {old}"
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(("name", "old", "new"), CHANGES)
def test_what_can_change_a_number_changes_the_digest(copy, name, old, new):
    before = sha_now()
    change(copy / name, old, new)
    assert sha_now() != before


@pytest.mark.parametrize(("name", "old", "new"), PROSE)
def test_what_cannot_does_not(copy, name, old, new):
    before = sha_now()
    change(copy / name, old, new)
    assert sha_now() == before


def test_a_dataset_that_is_added_concerns_its_own_cells_alone(copy):
    before = [sha_now(dataset=name) for name in ("glyphs", "digits", "folder")]
    with (copy / "bench" / "data" / "datasets.py").open("a") as stream:
        stream.write(ADDED_DATASET)
    assert [sha_now(dataset=name) for name in ("glyphs", "digits", "folder")] == before
    assert sha_now(dataset="mine") not in before


def test_methods_share_the_engines_half_alone():
    first, second = (sha_now(method).split("-") for method in ("hlgp", "l2p"))
    assert first[0] == second[0]
    assert first[1] != second[1]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_all_versions_of_python_agree(version):
    asked = _python(version, "import bench.code as c; print(c.code_sha('deep_l2p', 'digits'))")
    assert asked.stdout.strip() == sha_now("deep_l2p", "digits"), asked.stderr


def _python(version: str, script: str) -> subprocess.CompletedProcess:
    """Run a script with another Python. Skips the test where there is none."""
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [str(each) for each in folder.glob(f"{version}.*/bin/python")]
    found += [each for each in [shutil.which(f"python{version}")] if each]
    for python in found:
        if not subprocess.run([python, "-c", ""], capture_output=True).returncode:
            return subprocess.run([python, "-c", script], cwd=ROOT, capture_output=True, text=True)
    pytest.skip(f"no Python {version} here")


def test_the_digest_of_a_text_is_known(tmp_path, monkeypatch):
    """The same digits on every Python: this test runs on each that runs the tests."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "one.py").write_text(
        '"""Text."""\nimport math\n\n\ndef f(x: int = 3, *a, k=None, **b) -> str:\n'
        '    """Text."""\n    with open("x") as s, open("y"):\n        pass\n'
        '    return f"{x!r:>{k}} {math.pi:.2f}" f"b" + "c" if x else [i for i in a if i][0:1]\n'
        "\n\nclass C[T]:\n    pass\n".replace("C[T]", "C")
    )
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    assert sha_now("one") == "e3b0c442-c39b0ff7"


def test_the_engine_reaches_all_that_a_run_loads(tmp_path):
    """What a run imports is in its digest, or is declared not to change a number."""
    script = (
        "import json, sys; from bench.config.suite import load_suite\n"
        "from bench.engine.run import run_cell\n"
        f"cells = load_suite({str(TINY)!r}).select(['hlgp'], ['glyphs'], [1])\n"
        f"run_cell(cells[0], __import__('pathlib').Path({str(tmp_path)!r}))\n"
        "print(json.dumps([n for n, m in sys.modules.items() "
        "if n.split('.')[0] in ('bench', 'methods') and not hasattr(m, '__path__')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    reached = code.reached(code.ENGINE, "glyphs") | code.reached("methods.hlgp", "glyphs")
    assert {name.removeprefix("bench.") for name in reached} == CORE
    unknown = {name for name in loaded - reached if not code._left_out(name)}
    # Readers of other datasets, which datasets.py imports for them.
    assert unknown == {"bench.data.cifar", "bench.data.digits", "bench.data.parallel"}


# --- runs of other code ---


def other_code(monkeypatch, sha: str) -> None:
    for module in ("bench.engine.run", "bench.engine.cell"):
        monkeypatch.setattr(f"{module}.code_sha", lambda method, dataset: sha)


def test_a_finished_cell_of_other_code_is_run_again(tiny_spec, run, monkeypatch):
    state, folder = run(tiny_spec)
    assert state["code_sha"] == code.code_sha("linear", "glyphs")
    written = (folder / "state.json").stat().st_mtime_ns
    run(tiny_spec)
    assert (folder / "state.json").stat().st_mtime_ns == written, "the same code: not run again"
    other_code(monkeypatch, "11111111-22222222")
    state, _ = run(tiny_spec)
    assert state["code_sha"] == "11111111-22222222"
    assert not (folder / "stale").exists(), "removed once the new run is done"


def test_the_old_run_is_kept_until_the_new_one_is_done(tiny_spec, run, monkeypatch):
    _, folder = run(tiny_spec)
    before = (folder / "metrics.csv").read_bytes()
    other_code(monkeypatch, "11111111-22222222")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.engine.run._run_tasks", stop)
    for _ in range(2):  # stopped twice: the first one's files are not lost either
        with pytest.raises(KeyboardInterrupt):
            run(tiny_spec)
    assert RunDir(folder / "stale").done()
    assert (folder / "stale" / "metrics.csv").read_bytes() == before
    assert not RunDir(folder).done()


def test_a_begun_cell_of_other_code_starts_again(tiny_spec, run, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bench.engine.run._restore_tasks", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_spec)
    other_code(monkeypatch, "11111111-22222222")
    _, folder = run(tiny_spec)
    assert "what code" in (folder / "log.txt").read_text()


OLD = "00000000-00000000"


def forget_code(results: Path) -> None:
    """As runs and tables that another code made."""
    for file in results.glob("*/runs/*/state.json"):
        state = json.loads(file.read_text())
        state["code_sha"] = OLD
        file.write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")
        run = RunDir(file.parent)
        seals = (run.path / "DONE").read_text().splitlines()
        seals = [run._seal("state.json") if "state.json" in line else line for line in seals]
        (run.path / "DONE").write_text("".join(f"{line}\n" for line in seals))
    for file in results.glob("*/runs.csv"):
        file.write_text(re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{8}\b", OLD, file.read_text()))


ONE_ROW = ("bench.grid", str(TINY), "--methods", "linear", "--benchmarks", "glyphs", "--jobs", "1")


def test_the_grid_says_so_and_runs_them_again(command, tmp_path):
    words = (*ONE_ROW, "--order-seeds", "1")
    command(*words, check=0)
    forget_code(tmp_path / "results")
    assert "stale" in command(*words, "--dry-run", check=0).stdout
    kept = command(*words, "--keep-stale", check=0)
    assert "1 done before" in kept.stderr
    runs = table(tmp_path / "results" / "tiny_suite" / "runs.csv")
    assert {row["code_sha"] for row in runs} == {OLD}, "as they were made"
    one = ("bench.run", str(TINY), "--method", "linear", "--benchmark", "glyphs")
    said = command(*one, "--keep-stale", check=0)
    assert "other code than today's" in said.stdout
    again = command(*words, check=0)
    assert "1 finished cell(s) are of other code than today's and are run again" in again.stderr
    runs = table(tmp_path / "results" / "tiny_suite" / "runs.csv")
    assert {row["code_sha"] for row in runs} == {code.code_sha("linear", "glyphs")}


def test_the_same_bytes_join_two_codes(command, tmp_path):
    command(*ONE_ROW, check=0)
    forget_code(tmp_path / "results")
    same = ("bench.check", "same", str(TINY), "--results", "results", "--jobs", "1")
    said = command(*same, check=FINE).stdout
    assert "1 of 1 cells are the same bytes" in said
    links = table(tmp_path / "results" / "same_code.csv")
    assert [(row["old_code"], row["method"]) for row in links] == [(OLD, "linear")]
    assert "stale" not in command(*ONE_ROW, "--dry-run", check=0).stdout, "no longer stale"
    losses = tmp_path / "results" / "tiny_suite" / "losses.csv"
    losses.write_text(re.sub(r"(?m)([0-9])$", r"\g<1>1", losses.read_text()))
    altered = command(*same, check=CHECK_FAILED).stdout
    assert "rows of losses.csv differ" in altered
    assert len(table(tmp_path / "results" / "same_code.csv")) == len(links), "nothing is recorded"


def test_codes_are_joined_over_several_steps():
    def link(old, new, suite="s", method="m"):
        return {"suite": suite, "method": method, "old_code": old, "new_code": new}

    codes = Codes([link("a", "b"), link("c", "d"), link("b", "c"), link(NOT_RECORDED, "d")])
    assert codes.same("s", "m", "a", "d")
    assert codes.same("s", "m", NOT_RECORDED, "a")
    assert not codes.same("other", "m", NOT_RECORDED, "a"), "what was not recorded there is unknown"
    assert not codes.same("s", "m", "a", "e")


def frames(tmp_path, *codes: str):
    """Two rows of one benchmark, two cells each, with these codes."""
    from report_tables import write_protocol, write_suite

    def coded(metrics, runs):
        for row, sha in zip(runs, codes, strict=True):
            row["code_sha"] = sha

    write_suite(tmp_path / "s", coded)
    write_protocol(tmp_path / "s", hlgp={"type": "hlgp"}, other_row={"type": "l2p"})
    return tmp_path / "s"


def test_the_report_marks_rows_of_other_code(tmp_path):
    folder = frames(tmp_path, "aaaa-1", "aaaa-1", "aaaa-2", "aaaa-2")
    assert not load(folder).of_other_code
    frames(tmp_path, "aaaa-1", "aaaa-1", "bbbb-2", "bbbb-2")
    assert list(load(folder).of_other_code.values()) == [OTHER]
    frames(tmp_path, "aaaa-1", "bbbb-1", "aaaa-2", "aaaa-2")
    assert list(load(folder).of_other_code.values()) == [MIXED]
    link = {"suite": "s", "method": "hlgp", "old_code": "bbbb-1", "new_code": "aaaa-1", "cells": 1}
    record_same(tmp_path / "same_code.csv", [link])
    assert not load(folder).of_other_code, "known to give the same bytes"


def test_the_report_says_what_was_proved_of_another_engine(tmp_path):
    """A new row under an engine that others were run again with: marked, and what to do."""

    from report_tables import identity, write_protocol, write_suite

    codes_of = {"hlgp": "aaaa-1", "other_row": "aaaa-2", "l2p": "aaaa-3", "third": "bbbb-9"}

    def third(metrics, runs):
        for rows in (metrics, runs):
            for method in ("third", "l2p"):
                old = [row for row in rows if row["method"] == "hlgp"]
                rows += [row | identity(method, row["order_seed"]) for row in old]
        for row in runs:
            row["code_sha"] = codes_of[row["method"]]

    folder = write_suite(tmp_path / "mini", third)
    link = {"suite": "mini", "method": "hlgp", "old_code": "aaaa-1", "new_code": "bbbb-1"}
    write_protocol(folder, **{m: {"type": m} for m in codes_of})
    record_same(tmp_path / "same_code.csv", [link | {"cells": 1}])
    results = load(folder)
    ((row, said),) = results.of_other_code.items()
    assert row == ("b<script>", "third")
    assert said == OTHER + PROVED.format(1, 3)
    (note,) = code_notes(results)
    assert note.endswith(
        "third on b<script>. To find out whether the bytes are the same: "
        "python -m bench.check same mini."
    )


def test_the_mark_is_in_the_tables(command, tmp_path):
    frames(tmp_path / "results", "aaaa-1", "aaaa-1", "bbbb-2", "bbbb-2")
    said = command("bench.report", "s", check=0)
    assert "(marked †)" in said.stderr
    assert " † " in said.stdout
    cells = table(tmp_path / "reports" / "s" / "tables" / "cells.csv")
    assert [row["code_sha"] for row in cells] == ["aaaa-1", "aaaa-1", "bbbb-2", "bbbb-2"]


def test_tables_without_the_later_columns_are_read(tmp_path):
    folder = frames(tmp_path, *["x-1"] * 4)
    rows = [{k: v for k, v in row.items() if k != "commit"} for row in table(folder / "runs.csv")]
    older = [name for name in RUNS if name not in ("code_sha", "version", "commit")]
    write_csv(folder / "runs.csv", older, [{k: row[k] for k in older} for row in rows])
    assert set(load(folder).runs["code_sha"]) == {NOT_RECORDED}
    assert PROTOCOL
