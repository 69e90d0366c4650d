"""Runs of several machines in one folder."""

import hashlib
import shutil

import pytest
from conftest import TINY

from bench.config.suite import load_suite
from bench.engine.run import run_cell
from bench.errors import UsageError
from bench.store.archive import pack
from bench.store.collect import collect
from bench.store.merge import merge
from bench.store.rundir import RunDir

SUITE = "tiny_suite"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two machines with half of the cells each, one with all of them, and one of another suite."""
    folder = tmp_path_factory.mktemp("machines")
    cells = load_suite(str(TINY)).select(["linear"])
    for i, cell in enumerate(cells):
        run_cell(cell, folder / f"machine{i % 2}")
    shutil.copytree(folder / "machine0", folder / "whole")
    shutil.copytree(folder / "machine1", folder / "whole", dirs_exist_ok=True)
    run_cell(load_suite(str(TINY), {}, "mine").select(["linear"])[0], folder / "other")
    return folder


@pytest.fixture
def machines(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    return [tmp_path / "m" / f"machine{i}" / SUITE for i in (0, 1)]


def alter(run):
    """Another count in its metrics.csv, and a seal for it."""
    file, seal = run / "metrics.csv", run / "DONE"
    text = file.read_text()
    file.write_text(text.replace(",0\n", ",1\n", 1) if ",0\n" in text else text + "x")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    others = [line for line in seal.read_text().splitlines() if "metrics.csv" not in line]
    seal.write_text("\n".join([*others, f"{digest}  metrics.csv"]) + "\n")


def test_merged_and_collected_it_is_one_run(machines, command, tmp_path):
    done = command("bench.grid", "merge", *map(str, machines), check=0)
    assert "4 finished cells added, 0 were there" in done.stdout
    command("bench.grid", str(TINY), "--methods", "linear", "--collect", check=0)
    collect(tmp_path / "m" / "whole", load_suite(str(TINY)).select(["linear"]))
    merged = tmp_path / "results" / SUITE / "metrics.csv"
    whole = tmp_path / "m" / "whole" / SUITE / "metrics.csv"
    assert merged.read_bytes() == whole.read_bytes()
    assert "0 finished cells added, 4 were there" in merge(machines, tmp_path / "results")


def test_two_results_of_one_cell_are_named(machines, tmp_path, monkeypatch):
    name = next((machines[0] / "runs").iterdir()).name
    other = tmp_path / "other" / SUITE
    shutil.copytree(machines[0], other)
    alter(other / "runs" / name)
    with pytest.raises(UsageError, match=rf"1 cell.s. .*{name}/metrics.csv and .* differ"):
        merge([machines[0], other], tmp_path / "results")
    others = [run for run in (other / "runs").iterdir() if run.name != name]
    for run in others:
        alter(run)
    with pytest.raises(UsageError, match=r"^2 cell.s. ") as both:
        merge([machines[0], other], tmp_path / "results")
    assert all(run.name in str(both.value) for run in [*others, other / "runs" / name])
    monkeypatch.setattr("bench.store.merge.LISTED", 1)
    with pytest.raises(UsageError, match=r"2 cell.s. [^,]*, [^,]*, and 1 more differ"):
        merge([machines[0], other], tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_packed_run_is_compared_too(machines, tmp_path):
    results = tmp_path / "results"
    merge(machines, results)
    cells = load_suite(str(TINY)).select(["linear"])
    collect(results, cells)
    pack(results, cells)
    assert "0 finished cells added, 4 were there" in merge(machines, results)
    run = next((machines[0] / "runs").iterdir())
    alter(run)
    with pytest.raises(UsageError, match=rf"metrics.csv and {run.name}/metrics.csv in .*1.zip"):
        merge(machines, results)


def test_what_stands_in_the_way_is_named(machines, tmp_path):
    results = tmp_path / "results"
    name = next((machines[0] / "runs").iterdir()).name
    with (
        RunDir(results / SUITE / "runs" / name).lock(),
        pytest.raises(UsageError, match="another process is running this cell"),
    ):
        merge(machines, results)
    merge(machines, results)
    for broken in ("{", "[]", "{}"):
        (machines[0] / "runs" / name / "spec.json").write_text(broken)
        with pytest.raises(UsageError, match=r"spec.json: no spec of a run"):
            merge(machines, results)


def test_folders_that_do_not_belong_together(machines, tmp_path):
    with pytest.raises(UsageError, match="no runs here"):
        merge([tmp_path], tmp_path / "results")
    with pytest.raises(UsageError, match="several suites"):
        merge([machines[0], tmp_path / "m" / "other" / "mine"], tmp_path / "results")


def test_unfinished_runs_are_left_alone(machines, tmp_path):
    next((machines[0] / "runs").glob("*/DONE")).unlink()
    said = merge(machines, tmp_path / "results")
    assert "3 finished cells added" in said
    assert "1 unfinished left alone" in said
