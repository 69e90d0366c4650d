"""Runs of several machines in one folder."""

import hashlib
import shutil

import pytest
from conftest import TINY

from bench.config.suite import load_suite
from bench.engine.run import run_cell
from bench.errors import UsageError
from bench.store.collect import collect
from bench.store.merge import merge

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


def test_merged_and_collected_it_is_one_run(machines, command, tmp_path):
    done = command("bench.grid", "merge", *map(str, machines), check=0)
    assert "4 finished cells added, 0 were there" in done.stdout
    command("bench.grid", str(TINY), "--methods", "linear", "--collect", check=0)
    collect(tmp_path / "m" / "whole", load_suite(str(TINY)).select(["linear"]))
    merged = tmp_path / "results" / SUITE / "metrics.csv"
    whole = tmp_path / "m" / "whole" / SUITE / "metrics.csv"
    assert merged.read_bytes() == whole.read_bytes()
    assert "0 finished cells added, 4 were there" in merge(machines, tmp_path / "results")


def test_two_results_of_one_cell_are_named(machines, tmp_path):
    name = next((machines[0] / "runs").iterdir()).name
    other = tmp_path / "other" / SUITE
    shutil.copytree(machines[0], other)
    file = other / "runs" / name / "metrics.csv"
    text = file.read_text()
    file.write_text(text.replace(",0\n", ",1\n", 1) if ",0\n" in text else text + "x")
    seal = other / "runs" / name / "DONE"

    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    others = [line for line in seal.read_text().splitlines() if "metrics.csv" not in line]
    seal.write_text("\n".join([*others, f"{digest}  metrics.csv"]) + "\n")
    with pytest.raises(UsageError, match=r"metrics.csv and .* differ"):
        merge([machines[0], other], tmp_path / "results")
    assert not (tmp_path / "results").exists()


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
