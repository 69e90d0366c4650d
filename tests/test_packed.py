"""Packed runs count as finished everywhere, whatever became of the tables."""

import shutil
import zipfile
from dataclasses import replace

import pytest
from conftest import TINY
from test_code import forget_code, other_code

from bench.engine import run as engine
from bench.errors import UsageError
from bench.report.checks import _refuse_altered
from bench.store.archive import archives
from bench.store.collect import collect
from bench.store.pack import pack
from bench.store.rundir import RunDir
from bench.store.tables import read_metrics, read_runs


@pytest.fixture
def folder(tiny_spec, run, tmp_path):
    """The results of one cell, packed."""
    run(tiny_spec)
    collect(tmp_path / "results", [tiny_spec])
    pack(tmp_path / "results", [tiny_spec])
    return tmp_path / "results" / tiny_spec.suite


def stop(*words):
    raise KeyboardInterrupt


def test_whoever_has_a_packed_cell_on_a_list_finds_it_done(folder, tiny_spec, run, monkeypatch):
    """Another grid, or a command that was printed before it was packed."""
    monkeypatch.setattr(engine, "_run_cell", lambda *words: pytest.fail("it was trained again"))
    state, path = run(tiny_spec)
    assert state["status"] == "done"
    assert [file.name for file in path.iterdir()] == [".lock"]
    before = (folder / "metrics.csv").read_bytes()
    assert collect(folder.parent, [tiny_spec], [folder], rerun=[tiny_spec.run_id]) == {"done": 1}
    assert (folder / "metrics.csv").read_bytes() == before
    pack(folder.parent, [tiny_spec])
    assert not path.exists(), "nor does its lock stay"
    assert len(archives(folder)) == 1


def test_a_packed_cell_of_other_code_keeps_its_rows_until_it_is_done(
    folder, tiny_spec, run, monkeypatch
):
    before = (folder / "metrics.csv").read_bytes()
    rows = read_metrics(folder / "metrics.csv")
    other_code(monkeypatch, "11111111-22222222")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_run_tasks", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_spec)
    one = RunDir.of(folder.parent, tiny_spec)
    assert not one.done(), "what was begun is newer than what is packed"
    assert collect(folder.parent, [tiny_spec], [folder], rerun=[tiny_spec.run_id]) == {"done": 1}
    assert (folder / "metrics.csv").read_bytes() == before
    _refuse_altered("metrics.csv", tiny_spec.run_id, rows, folder)  # a report shows them
    one.save_state(one.state() | {"status": "diverged"})
    assert collect(folder.parent, [tiny_spec], [folder], rerun=[tiny_spec.run_id]) == {
        "diverged": 1
    }
    run(tiny_spec)
    collect(folder.parent, [tiny_spec], [folder], rerun=[tiny_spec.run_id])
    (row,) = read_runs(folder / "runs.csv")
    assert row["code_sha"] == "11111111-22222222"
    assert "2.zip: 1 finished runs" in pack(folder.parent, [tiny_spec])
    assert one.code() == "11111111-22222222", "the newest archive counts"


def test_a_run_that_is_not_what_was_packed_stays(folder, tiny_spec, run, monkeypatch):
    """It was run again, with other code, while the archive was written."""
    other_code(monkeypatch, "11111111-22222222")
    run(tiny_spec)
    collect(folder.parent, [tiny_spec])
    monkeypatch.setattr(
        "bench.store.pack._write", lambda stream, runs: stream.write(b"PK\5\6" + bytes(18))
    )
    pack(folder.parent, [tiny_spec])
    assert (RunDir.of(folder.parent, tiny_spec).path / "DONE").is_file()


def test_without_tables_the_rows_come_from_the_archive(folder, tiny_spec):
    tables = {file: file.read_bytes() for file in folder.glob("*.csv")}
    for file in tables:
        file.unlink()
    assert collect(folder.parent, [tiny_spec], [folder]) == {"done": 1}
    assert {file: file.read_bytes() for file in tables} == tables
    stale = (
        (folder / "runs.csv")
        .read_text()
        .replace(read_runs(folder / "runs.csv")[0]["code_sha"], "x")
    )
    (folder / "runs.csv").write_text(stale)
    collect(folder.parent, [tiny_spec], [folder])
    assert {file: file.read_bytes() for file in tables} == tables, "rows of another run of it"


def test_all_commands_say_the_same_of_packed_and_of_stale_cells(command, tmp_path):
    one = ("--methods", "linear", "--benchmarks", "glyphs", "--order-seeds", "1")
    words = ("bench.grid", str(TINY), *one)
    command(*words, check=0)
    folder = tmp_path / "results" / "tiny_suite"
    command(*words, "--collect", "--archive", check=0)
    tables = {file: file.read_bytes() for file in folder.glob("*.csv")}
    for file in tables:
        file.unlink()
    assert command(*words, "--status", check=0).stdout == "suite tiny_suite: 1 done\n"
    assert command(*words, "--dry-run", check=0).stdout.split()[0] == "done"
    command(*words, "--collect", check=0)
    assert {file: file.read_bytes() for file in tables} == tables
    zipfile.ZipFile(folder / "archive" / "1.zip").extractall(folder / "runs")
    shutil.rmtree(folder / "archive")
    forget_code(tmp_path / "results")
    said = command(*words, "--status", check=0).stdout
    assert "1 done (1 of them of other code than today's, e.g. linear--glyphs" in said
    said = command(*words, "--collect", check=0).stderr
    assert "1 finished cell(s) are of other code than today's and are in the tables, e.g." in said
    assert read_runs(folder / "runs.csv")[0]["status"] == "done"
    assert "stale" in command(*words, "--dry-run", check=0).stdout


def test_archives_of_other_names_are_older(folder, tiny_spec, run):
    (folder / "archive" / "1.zip").rename(folder / "archive" / "old.zip")
    other = replace(tiny_spec, order_seed=2)
    run(other)
    collect(folder.parent, [tiny_spec, other], [folder])
    assert "archive/1.zip: 1 finished runs" in pack(folder.parent, [tiny_spec, other])
    assert [file.name for file in archives(folder)] == ["old.zip", "1.zip"]
    assert RunDir.of(folder.parent, tiny_spec).done()


def test_an_archive_that_was_altered_is_named(folder, tiny_spec):
    file = folder / "archive" / "1.zip"
    with zipfile.ZipFile(file) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content + b"x" * name.endswith("losses.csv"))
        archive.writestr(f"{tiny_spec.run_id}/../../out", b"")
        archive.writestr("half/metrics.csv", b"")
    run = RunDir.of(folder.parent, tiny_spec)
    assert not [name for name in run.names() if "out" in name], "nothing leads out of its folder"
    assert not RunDir(folder / "runs" / "half").done()
    (folder / "runs.csv").unlink()
    with pytest.raises(UsageError, match=rf"^{file}: {tiny_spec.run_id} was altered since"):
        collect(folder.parent, [tiny_spec])
    (folder / "archive").rename(folder / "aside")
    (folder / "archive").write_text("a file")
    assert not run.done()
