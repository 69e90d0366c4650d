"""The text that runs on a node, where folder and variables are not those of the launcher."""

import os
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import TINY
from conftest import slurm_arguments as arguments

from bench.config.suite import load_suite
from bench.launch import sbatch, scripts
from bench.paths import PROJECT


@pytest.fixture
def cells():
    return load_suite(str(TINY)).cells


def array(args, cells, options="") -> str:
    return scripts.of_array(args, cells, args.results / "x.json", 1, sbatch.parse(options))


def bare(command: str, where="/") -> subprocess.CompletedProcess:
    """A command where nothing is passed on, as a site with --export=NONE has it."""
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    words = ["bash", "-c", command]
    return subprocess.run(words, cwd=where, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def other_copy(tmp_path, monkeypatch):
    """A working directory that holds another copy of this project."""
    folder = tmp_path / "other"
    for package in ("bench", "methods"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise SystemExit('another copy')\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("safe_path", [True, False])
def test_another_copy_in_the_working_directory_is_not_imported(
    safe_path, other_copy, tmp_path, cells, monkeypatch
):
    flags = SimpleNamespace(safe_path=safe_path)
    monkeypatch.setattr(scripts, "sys", SimpleNamespace(flags=flags, executable=sys.executable))
    args = arguments(tmp_path)
    for text in (array(args, cells), scripts.of_collecting(args, "x")):
        before = text.partition("|| exit 2\n")[0]
        shown = shlex.join([sys.executable, "-m", "bench.grid", "--list"])
        done = bare(f"{before} && exec {shown}")
        assert done.returncode == 0, done.stderr
    printed = scripts.command_of(cells[0], args).partition(sys.executable)[0]
    where = "import bench; print(bench.__file__)"
    done = bare(f"{printed} {shlex.join([sys.executable, '-c', where])}")
    assert done.stdout.strip() == str(PROJECT / "bench" / "__init__.py"), done.stderr


def test_own_files_are_found_as_the_launcher_finds_them(command, tmp_path):
    """A suite by a relative path, with _base_ and a module that lies in the working directory."""
    (tmp_path / "base.py").write_text(TINY.read_text())
    (tmp_path / "ours.py").write_text("EPOCHS = 2\n")
    own = '_base_ = ["base.py"]\nfrom ours import EPOCHS\ntrain = dict(epochs=EPOCHS)\ndel EPOCHS\n'
    (tmp_path / "own.py").write_text(own)
    words = ("own.py", "--launcher", "print", "--methods", "linear")
    # run_all.sh, which CI calls, leaves the working directory out
    done = command("bench.grid", *words, check=0, PYTHONSAFEPATH="")
    done = bare(done.stdout.splitlines()[0])
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "results" / "own" / "runs").glob("*/DONE"))) == 1


def test_what_is_stale_stays_where_that_is_asked_for(tmp_path, cells):
    """An element may start again when the code is other than at the launch."""
    for keep in (True, False):
        args = arguments(tmp_path, keep_stale=keep)
        texts = [array(args, cells), scripts.of_collecting(args, "x")]
        texts.append(scripts.command_of(cells[0], args))
        assert [" --keep-stale" in text for text in texts] == [keep] * 3


def test_folders_of_weights_are_known_without_an_environment(tmp_path, cells, monkeypatch):
    names = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "XDG_CACHE_HOME")
    for name in (*names, "HF_TOKEN"):
        monkeypatch.setenv(name, f"of {name}")
    args = arguments(tmp_path)
    for text in (array(args, cells), scripts.of_collecting(args, "x")):
        for name in names:
            assert f"export {name}='of {name}'\n" in text
        assert "HF_TOKEN" not in text, "a secret"
