"""The grid: every cell of a suite once, whatever fails, waits or was done elsewhere, and tables as
if run in one place.
"""

import argparse
import fcntl
import itertools
import os
import shutil
import subprocess
import threading
import time
import zipfile
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, TINY, table

from bench import grid, hardware
from bench.config.suite import load_suite
from bench.errors import UsageError
from bench.launch import pool
from bench.launch.display import make_display
from bench.store.collect import collect
from bench.store.files import check_writable
from bench.store.pack import pack
from bench.store.rundir import FIXED_COLUMNS, RunDir
from bench.store.tables import read_runs


def test_grid_report_and_resume_as_a_user_sees_them(command, tmp_path):
    command("bench.grid", str(TINY), "--methods", "linear", check=0)
    folder = tmp_path / "results" / "tiny_suite"
    first = (folder / "metrics.csv").read_bytes()
    runs = table(folder / "runs.csv")
    assert [row["status"] for row in runs].count("done") == 4
    assert len(runs) == 4, "the tables speak of what was asked for"
    report = command("bench.report", "tiny_suite", check=0)
    assert "missing" not in report.stdout
    assert "reports/tiny_suite/index.html" in report.stdout
    command("bench.grid", str(TINY), "--jobs", "1", check=0)
    again = (folder / "metrics.csv").read_text()
    assert all(line in again for line in first.decode().splitlines()), (
        "what was done stays as it was"
    )
    done = command("bench.grid", str(TINY), check=0)
    assert "8 done before" in done.stderr


def test_a_folder_of_another_suite_is_refused(command, tmp_path):
    """--set, --name and a file that was moved are the same suite; old folders do not say theirs."""
    one = ("--methods", "linear", "--benchmarks", "glyphs", "--order-seeds", "1", "--name", "mine")
    (tmp_path / "moved").mkdir()
    moved, other = tmp_path / "moved" / TINY.name, tmp_path / "other.py"
    for copy in (moved, other):
        shutil.copy(TINY, copy)
    command("bench.grid", str(TINY), *one, check=0)
    command("bench.grid", str(moved), *one, "--set", "train.epochs=2", check=0)
    facts, metrics = (tmp_path / "results" / "mine" / n for n in ("suite.json", "metrics.csv"))
    before = metrics.read_bytes()
    for words in ((), ("--collect",), ("--launcher", "slurm"), ("--status",), ("--dry-run",)):
        done = command("bench.grid", str(other), *one, *words, check=2)
        assert "mine: holds results of the suite 'tiny_suite', not of 'other'" in done.stderr
    cell = ("bench.run", str(other), "--method", "linear", "--benchmark", "glyphs")
    assert "not of 'other'" in command(*cell, "--name", "mine", check=2).stderr
    assert metrics.read_bytes() == before
    facts.write_text(facts.read_text().replace('"tiny_suite"', '""'))
    command("bench.grid", str(TINY), *one, "--collect", check=0)
    assert '"suite": ""' in facts.read_text(), "there are cells of other settings: whose are they?"
    command("bench.grid", str(other), *one, "--collect", check=0)


def test_to_collect_needs_no_images(command, tmp_path):
    """Shares are trained where the images are; tables are written on any machine."""
    words = ("bench.grid", str(TINY), "--set", "data.name=folder", "data.root=gone", "--methods")
    assert "not found" in command(*words, "linear", check=2).stderr
    done = command(*words, "linear", "--collect", check=3)
    assert "not found" not in done.stderr


def test_a_fresh_clone_goes_on_from_committed_tables(command, tmp_path):
    """A clone has the tables and no runs: with --keep their cells are done, and the tables end as
    if run in one place.
    """
    folder = tmp_path / "results" / "tiny_suite"
    command("bench.grid", str(TINY), "--jobs", "1", check=0)
    tables = ("metrics", "runs", "losses", "movement", "similarity", "protocol")
    whole = {name: (folder / f"{name}.csv").read_bytes() for name in tables}
    shutil.rmtree(folder / "runs")
    command("bench.grid", str(TINY), "--methods", "linear", "--jobs", "1", check=0)
    assert {name: (folder / f"{name}.csv").read_bytes() for name in tables} == whole, (
        "a selection adds to what is there"
    )
    (folder / "runs.csv").unlink()
    command("bench.grid", str(TINY), "--methods", "linear", "--jobs", "1", check=0)
    assert {row["method"] for row in table(folder / "metrics.csv")} == {"linear"}
    shutil.rmtree(folder / "runs")
    assert (
        "4 done before" in command("bench.grid", str(TINY), "--keep", "--jobs", "1", check=0).stderr
    )
    assert {name: (folder / f"{name}.csv").read_bytes() for name in tables} == whole
    assert len(list((folder / "runs").glob("*/DONE"))) == 4, "those of hlgp"


def test_kept_rows_of_other_images_are_refused(command, tmp_path):
    folder = tmp_path / "results" / "tiny_suite"
    command("bench.grid", str(TINY), "--methods", "linear", check=0)
    shutil.rmtree(folder / "runs")
    rows = table(folder / "runs.csv")
    altered = (folder / "runs.csv").read_text().replace(rows[0]["data_sha"], "0" * 64)
    (folder / "runs.csv").write_text(altered)
    said = command("bench.grid", str(TINY), "--keep", check=2).stderr.splitlines()[-1]
    assert f"runs.csv: {rows[0]['run_id']}: begun with other images (000000000000, now " in said
    assert (folder / "runs.csv").read_text() == altered, "nothing is lost"


def test_a_failed_cell_does_not_stop_the_grid(command, tmp_path):
    done = command("bench.grid", str(TINY), "--set", "methods.hlgp.train.prompt_lr=1e18",
                   "methods.hlgp.train.optimiser=sgd", "--name", "half")  # fmt: skip
    assert done.returncode == 3
    rows = table(tmp_path / "results" / "half" / "runs.csv")
    assert {row["status"] for row in rows if row["method"] == "linear"} == {"done"}
    failed = [row for row in rows if row["method"] == "hlgp"]
    assert {row["status"] for row in failed} == {"diverged"}
    report = command("bench.report", "half", check=0)
    assert "4 cell(s) missing" in report.stdout
    page = (tmp_path / "reports" / "half" / "index.html").read_text()
    assert "diverged" in page


@pytest.mark.parametrize(
    ("jobs", "expected"), [(None, ["cuda:0", "cuda:1"]), (3, ["cuda:0", "cuda:0", "cuda:1"])]
)
def test_cells_are_dealt_to_the_gpus(jobs, expected, tiny_spec, tmp_path, monkeypatch):
    """One on each, not one for each of the host's cores."""
    made = []

    class Fake(pool.Worker):
        def __init__(self, results, device, say):
            super().__init__(results, device, say)
            made.append(self)

        def ask(self, do, *specs, tell=None, limit=None, track=""):
            same = dict.fromkeys(FIXED_COLUMNS, "")
            return {
                "status": "done" if do == "run" else "ok",
                "reason": "",
                "identity": same,
                "devices": hardware.devices("auto"),
                "free": [8, 7],
                "bytes": [2, 3, 2, 3, 4],
                "unknown": {},
            }

    monkeypatch.setattr(pool, "Worker", Fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cells = [replace(tiny_spec, seed=seed) for seed in range(5)]
    assert pool.run_local(pool.Pool(tmp_path, cells, make_display("quiet")), jobs, "auto") == {}
    assert sorted(one.device for one in made) == expected
    assert hardware.devices("cuda:1") == ["cuda:1"]


def test_shards_cover_everything_once(command):
    def listed(*words):
        """The cells that a dry run names, before what they cost."""
        said = command("bench.grid", str(TINY), "--dry-run", *words, check=0).stdout
        return said.partition("\n\n")[0].splitlines()

    whole = listed()
    assert len(whole) == 8
    shares = [listed("--shard", f"{i}/3") for i in (1, 2, 3)]
    assert sorted(itertools.chain(*shares)) == sorted(whole)
    linear = listed("--methods", "linear", "--shard", "2/3")
    assert set(linear) <= set(shares[1]), "a cell's share depends on its name alone"


def test_a_report_folder_that_cannot_be_written_is_found_before_training(command, tmp_path):
    (tmp_path / "r").write_text("a file")
    done = command("bench.grid", str(TINY), "--report", "r", check=2)
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("results/*/runs/*"))


def test_decoded_images_go_to_the_scratch_disk(command, tmp_path):
    (tmp_path / "full").touch()
    done = command("bench.grid", str(TINY), "--scratch", "full/x", check=2)
    assert "full/x: cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1
    command(*("bench.grid", str(TINY), "--methods", "linear", "--scratch", "disk"), check=0)
    assert list((tmp_path / "disk").rglob("*.npy"))


def test_packed_runs_stay_finished(command, tmp_path):
    """Tables and page as before, a few files, nothing trained again; unpacked it is as it was."""
    words = ("bench.grid", str(TINY), "--methods", "linear", "--benchmarks", "glyphs")
    draw = (*words, "--collect", "--report", "reports")
    command(*words, check=0)
    command(*draw, check=0)
    folder = tmp_path / "results" / "tiny_suite"
    tables = {file: file.read_bytes() for file in folder.glob("*.csv")}
    runs = {file: file.read_bytes() for file in folder.glob("runs/*/*.*") if file.suffix}
    page = next((tmp_path / "reports" / "tiny_suite" / "cells").iterdir())
    text = page.read_text()
    assert "End of its log" in text
    said = command(*draw, "--archive", check=0).stderr
    assert "archive/1.zip: 2 finished runs are packed" in said
    assert not list((folder / "runs").iterdir())
    assert "2 done before" in command(*words, check=0).stderr
    assert not list((folder / "runs").iterdir()), "nothing was trained"
    assert "2 done" in command(*words, "--status", check=0).stdout
    command(*draw, check=0)
    assert page.read_text() == text
    assert {file: file.read_bytes() for file in tables} == tables
    zipfile.ZipFile(folder / "archive" / "1.zip").extractall(folder / "runs")
    assert {file: file.read_bytes() for file in runs} == runs
    again = command(*words, "--collect", "--archive", check=0).stderr
    assert "archive: all runs were packed before" in again
    assert not list((folder / "runs").iterdir())
    (folder / "archive" / "2.zip").write_bytes(b"torn")
    assert "archive/2.zip: cannot be read" in command(*words, "--status", check=2).stderr


def test_runs_are_packed_beside_another_grid(tiny_spec, run, tmp_path):
    """What another grid finished since the tables were written stays; what it ran is not lost."""
    results, other = tmp_path / "results", replace(tiny_spec, order_seed=2)
    run(tiny_spec)
    collect(results, [tiny_spec, other])
    run(other)
    folder = results / tiny_spec.suite
    assert "1 finished runs" in pack(results, [tiny_spec, other])
    assert [one.name for one in folder.glob("runs/*")] == [other.run_id]
    assert not list(folder.glob("archive/.*")), "nothing half removed"
    counts = collect(results, [tiny_spec, other], [folder], rerun=[tiny_spec.run_id, other.run_id])
    assert counts == {"done": 2}
    assert "2.zip: 1 finished runs" in pack(results, [tiny_spec, other])
    assert collect(results, [tiny_spec, other], [folder]) == {"done": 2}


def test_clocks_apart_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.store.files.file_time", lambda folder: time.time() - 312)
    check_writable([tmp_path])
    assert (
        f"{tmp_path}: its file server's clock and this machine's are -312 s"
        in capsys.readouterr().err
    )
    monkeypatch.undo()
    check_writable([tmp_path])
    assert not capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_python_that_is_not_there_is_named(tmp_path):
    words, env = [str(ROOT / "run_all.sh"), "--list"], {**os.environ, "PYTHON": "/no/python"}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: PYTHON=/no/python: no such program\n")
    words[1] = "--help"  # answered without Python, before anything is set up
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "./run_all.sh test" in done.stdout


def test_a_grid_that_waited_to_collect_has_what_the_other_finished(tiny_spec, run, tmp_path):
    """The other holds the lock of the tables while it ends: what was read before that would
    overwrite its rows.
    """
    folder, counts = tmp_path / "results" / tiny_spec.suite, []
    folder.mkdir(parents=True)
    late = threading.Thread(target=lambda: counts.append(collect(folder.parent, [tiny_spec])))
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        late.start()
        run(tiny_spec)  # some tenths of a second: enough for the thread to come to the lock
        assert not counts
    late.join()
    assert counts == [{"done": 1}]
    assert len(table(folder / "metrics.csv")) == 2 * 2 * (1 + 2 + 3)  # heads, scenarios, tasks


def test_a_cell_that_another_process_runs_is_running_in_the_tables(tiny_spec, tmp_path):
    run = RunDir.of(tmp_path, tiny_spec)
    with run.lock():
        run.save_state({"status": "running"})
        assert collect(tmp_path, [tiny_spec]) == {"running": 1}
        (row,) = read_runs(tmp_path / tiny_spec.suite / "runs.csv")
        assert (row["status"], row["reason"]) == ("running", "another process runs it")
    assert collect(tmp_path, [tiny_spec]) == {"interrupted": 1}


def test_the_precision_of_another_machine_is_not_this_ones(tiny_spec, tmp_path):
    class Here:
        results = tmp_path

        def ask(self, what, cell):
            return {"status": "ok", "identity": {"precision": "fp32", "data_sha": "a" * 12}}

    cell = replace(tiny_spec, train=replace(tiny_spec.train, precision="auto"))
    run = RunDir.of(tmp_path, cell)
    run.path.mkdir(parents=True)
    run.save_state({"status": "interrupted", "precision": "bf16"})
    pool.check_cells([cell], Here(), {}, elsewhere=True)
    with pytest.raises(UsageError, match="begun with other precision"):
        pool.check_cells([cell], Here(), {})
    run.save_state({"status": "interrupted", "precision": "bf16", "data_sha": "b" * 12})
    with pytest.raises(UsageError, match="begun with other images"):
        pool.check_cells([cell], Here(), {}, elsewhere=True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "train.epochs=3", "--name", "before"), "finished cell(s) of other settings"),
        (("--report", "a file/x"), "a file"),
    ],
)
def test_what_a_node_would_refuse_is_refused_before(words, says, command, commands, tmp_path):
    """Slurm is not even asked."""
    (tmp_path / "a file").touch()
    one = ("bench.grid", str(TINY), "--benchmarks", "glyphs", "--methods", "linear")
    command(*one, "--order-seeds", "1", "--name", "before", check=0)
    shutil.rmtree(tmp_path / "results" / "before" / "runs")
    done = command(*one, "--launcher", "slurm", *words, check=2)
    assert says in done.stderr.splitlines()[-1], done.stderr
    assert not list(commands.glob("*.called"))


def test_printed_commands_run_from_any_folder(command, tmp_path):
    line = command(
        "bench.grid", str(TINY), "--launcher", "print", "--methods", "linear", check=0
    ).stdout.splitlines()[0]
    bare = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        line, shell=True, cwd="/", env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "results" / "tiny_suite" / "runs").glob("*/DONE"))) == 1


def grid_in(results, shard=(1, 1)):
    """A grid of one finished cell, in this process."""
    args = argparse.Namespace(results=results, json=False, quiet=True, shard=shard, keep=False)
    args.published, args.share, args.report, args.archive = None, None, None, False
    args.jobs, args.device, args.time_limit, args.track = 1, "cpu", None, ""
    suite = load_suite(str(TINY), {}, "mini")
    cells, rounds = suite.cells[:1], pool.rounds_of(suite.cells)
    return grid.Grid(args, suite, cells, [], cells, {}, rounds)


@pytest.mark.parametrize(("shard", "checks"), [((1, 2), 0), ((1, 1), 1)])
def test_a_share_has_no_verdict(shard, checks, tmp_path, monkeypatch):
    """It would be of some cells, and end a pod with 1."""
    called = []
    monkeypatch.setattr(grid.subprocess, "call", lambda words, **how: called.append(words) or 1)
    monkeypatch.setattr(grid, "run_local", lambda *words, **how: {})
    one = grid_in(tmp_path, shard)
    assert one.run() == checks
    assert one.only_collect() == 0, "the tables are written, whatever they show"
    assert len(called) == 2 * checks


def test_runs_of_other_settings_are_named_though_no_table_lists_them(tmp_path, capsys):
    """A merge brought them."""
    folder = tmp_path / "mini" / "runs" / "linear--glyphs--o1--s1--000000000000"
    folder.mkdir(parents=True)
    (folder / "DONE").touch()
    grid_in(tmp_path)
    said = capsys.readouterr().err
    assert f"1 finished cell(s) of other settings, e.g. {folder.name}, are not in the" in said
