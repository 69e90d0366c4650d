"""Runs of several machines in one folder."""

import hashlib
import shutil

import pytest
from conftest import TINY

from bench.errors import UsageError
from bench.store.merge import merge

SUITE = "tiny_suite"


@pytest.fixture
def machines(command, tmp_path):
    """Two shares of a suite, each with a folder of its own."""
    for i in (1, 2):
        words = ("--methods", "linear", "--shard", f"{i}/2", "--results", f"machine{i}")
        command("bench.grid", str(TINY), *words, check=0)
    return [tmp_path / f"machine{i}" / SUITE for i in (1, 2)]


def test_merged_and_collected_it_is_one_run(machines, command, tmp_path):
    done = command("bench.grid", "merge", *map(str, machines), check=0)
    assert "4 finished cells added, 0 were there" in done.stdout
    command("bench.grid", str(TINY), "--methods", "linear", "--collect", check=0)
    command("bench.grid", str(TINY), "--methods", "linear", "--results", "whole", check=0)
    merged, whole = (tmp_path / name / SUITE / "metrics.csv" for name in ("results", "whole"))
    assert merged.read_bytes() == whole.read_bytes()
    again = command("bench.grid", "merge", *map(str, machines), check=0)
    assert "0 finished cells added, 4 were there" in again.stdout


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


def test_folders_that_do_not_belong_together(machines, command, tmp_path):
    with pytest.raises(UsageError, match="no runs here"):
        merge([tmp_path], tmp_path / "results")
    words = ("--methods", "linear", "--benchmarks", "glyphs", "--name", "mine", "--results", "m3")
    command("bench.grid", str(TINY), *words, check=0)
    with pytest.raises(UsageError, match="several suites"):
        merge([machines[0], tmp_path / "m3" / "mine"], tmp_path / "results")


def test_unfinished_runs_are_left_alone(machines, tmp_path):
    next((machines[0] / "runs").glob("*/DONE")).unlink()
    said = merge(machines, tmp_path / "results")
    assert "3 finished cells added" in said
    assert "1 unfinished left alone" in said
