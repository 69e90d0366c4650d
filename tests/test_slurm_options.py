"""The words of the command line that are for Slurm."""

import ast
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY
from conftest import slurm_arguments as arguments

from bench import cli
from bench.config.suite import SUITES
from bench.launch import options, sbatch, scripts

GRID = ("bench.grid", str(TINY))
SLURM = (*GRID, "--launcher", "slurm")


def parsed(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["grid", str(TINY), *words])
    return options.parse("")


def test_options_of_slurm_need_slurm(command):
    done = command(*GRID, "--slurm-jobs", "2", check=2)
    assert "for --launcher slurm" in done.stderr


def test_without_slurm_nothing_is_built_or_written(command, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = command(*SLURM, "--set", "methods.hlgp.model.groups=99", check=2)
    assert done.stderr.splitlines()[-1].endswith("no Slurm here (sbatch is not on the PATH)")
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").rglob("*.*"))


def test_options_of_sbatch_may_begin_with_dashes_and_be_given_twice(monkeypatch):
    """The last --time counts, as on sbatch's own command line."""
    words = ("--launcher", "slurm", "--sbatch", "--time=5", "--sbatch=-p wide --time=60")
    args = parsed(monkeypatch, *words)
    assert args.sbatch == "--time=5 -p wide --time=60"
    assert sbatch.parse(args.sbatch).time == "60"


def test_what_lacks_its_quotes_is_not_taken_for_another_option(command):
    """--time was read as the start of --time-limit."""
    done = command(*SLURM, "--sbatch", "--partition=wide", "--time=60", check=2)
    said = done.stderr.splitlines()[-1]
    assert "unrecognized arguments: --time=60; what is for --sbatch stands in one pair" in said
    done = command(*GRID, "--time=60", check=2)
    assert "unrecognized arguments: --time=60 (did you mean --time-limit? " in done.stderr


def test_no_command_completes_the_names_of_options():
    """sbatch does, and so do our readers of its options: all others are cli.Parser's."""
    with pytest.raises(SystemExit):
        cli.Parser().parse_args(["--hel"])
    calls = []
    for file in (ROOT / "bench").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "ArgumentParser":
                calls.append(file.name)
    assert calls == ["glyph_masks.py"], "which is of the engine, and whose options are no others"


def test_a_home_folder_in_scratch(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parsed(monkeypatch, "--scratch=~/x").scratch == str(tmp_path / "x")
    assert parsed(monkeypatch, "--scratch=$TMPDIR/~").scratch == "$TMPDIR/~"
    assert parsed(monkeypatch).scratch == ""
    for name in ("--scratch", "--report"):
        with pytest.raises(SystemExit):
            parsed(monkeypatch, f"{name}=~nobody-of-this-name/x")
        assert "nobody here has this home folder" in capsys.readouterr().err.splitlines()[-1]


def test_a_file_of_ones_own_has_not_the_memory_of_its_namesake(tmp_path):
    own = tmp_path / "mini.py"
    own.touch()
    asked = sbatch.parse("")

    def memory(suite: str | Path) -> int:
        return scripts.memory_mib(arguments(tmp_path, suite=str(suite)), asked)

    assert memory(own) == 0
    assert memory("mini") == memory(SUITES / "mini.py") > 0
