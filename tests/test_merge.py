"""Runs of several machines in one folder."""

import errno
import hashlib
import shutil
from pathlib import Path

import pytest
from conftest import TINY

from bench.config.suite import load_suite
from bench.engine.run import run_cell
from bench.errors import UsageError
from bench.store.collect import collect
from bench.store.facts import SuiteFacts, read_facts, write_facts
from bench.store.merge import _how_to_collect, merge, words_of
from bench.store.pack import pack
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


def pack_all(folder):
    cells = load_suite(str(TINY)).select(["linear"])
    cells = [cell for cell in cells if (folder / "runs" / cell.run_id).is_dir()]
    collect(folder.parent, cells)
    return pack(folder.parent, cells)


def test_contradictions_end_the_command_in_one_line(machines, command):
    done = command("bench.grid", "merge", *map(str, machines), check=0)
    name = next((machines[0] / "runs").iterdir()).name
    alter(machines[0] / "runs" / name)
    done = command("bench.grid", "merge", *map(str, machines), check=2)
    assert done.stderr.startswith("error: 1 cell(s)")
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_packed_runs_are_merged_and_a_folder_wins_over_them(machines, tmp_path):
    """A run that was packed and run again is the newer one."""
    results, newer = tmp_path / "results", next((machines[0] / "runs").iterdir())
    shutil.copytree(newer, tmp_path / "kept")
    files = {file.relative_to(machines[0]): file.read_bytes() for file in newer.glob("*.*")}
    assert "1.zip: 2 finished runs" in pack_all(machines[0])
    assert "4 finished cells added" in merge(machines, results)
    assert all((results / SUITE / file).read_bytes() == text for file, text in files.items())
    assert not (machines[0] / "runs" / newer.name).exists(), "nothing is unpacked there"
    shutil.copytree(tmp_path / "kept", newer)
    alter(newer)
    merge([machines[0]], tmp_path / "again")
    (copied,) = tmp_path.glob(f"again/*/runs/{newer.name}/metrics.csv")
    assert copied.read_bytes() == (newer / "metrics.csv").read_bytes()
    with pytest.raises(UsageError, match=f"{newer}/metrics.csv and .* differ"):
        merge([machines[0]], results)


def test_runs_of_another_suite_file_are_refused(machines, tmp_path):
    """The name of a folder can be chosen; suite.json says whose results it holds."""
    results = tmp_path / "results"
    write_facts(machines[0], SuiteFacts("linear", suite="one"))
    write_facts(machines[1], SuiteFacts("linear", suite="two"))
    with pytest.raises(UsageError, match=rf"^{machines[0]} holds .* 'one', {machines[1]} of 'two'"):
        merge(machines, results)
    write_facts(machines[1], SuiteFacts("hlgp", suite="one"))
    with pytest.raises(UsageError, match="two suites: 'reference' is 'linear' and 'hlgp'"):
        merge(machines, results)
    assert not results.exists()
    write_facts(machines[1], SuiteFacts("linear", suite="one"))
    merge(machines, results)
    assert read_facts(results / SUITE) == SuiteFacts("linear", suite="one")
    write_facts(results / SUITE, SuiteFacts("linear", suite="three"))
    with pytest.raises(UsageError, match=r"'one', .* of 'three'"):
        merge(machines, results)


def test_folders_whose_suite_is_not_recorded_go_with_every_suite(machines, tmp_path):
    results = tmp_path / "results"
    write_facts(machines[0], SuiteFacts(suite="one"))
    write_facts(machines[1], SuiteFacts())
    merge(machines, results)
    assert read_facts(results / SUITE) == SuiteFacts(), "it is open to both"


def test_the_command_that_collects_is_named_where_it_is_known(tmp_path):
    one, mini = Path("results"), SuiteFacts(suite="mini")
    assert _how_to_collect("mini", mini, one).startswith("python -m bench.grid mini --collect")
    spaced = _how_to_collect("mini", mini, Path("my results"))
    assert "mini --results 'my results' --collect" in spaced
    for suite, facts in (("mini-064212", mini), ("mini", None), ("own", SuiteFacts(suite="own"))):
        said = _how_to_collect(suite, facts, one)
        assert "python" not in said
        assert "(with its suite or file, --set and --name), with --collect" in said


def test_a_full_disk_is_named_and_checkpoints_stay(machines, tmp_path, monkeypatch):
    results = tmp_path / "results"

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert list(machines[0].glob("runs/*/ckpt/*"))
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left") as said:
            merge(machines, results)
    assert said.value.filename.startswith(str(results / SUITE))
    merge(machines, results)
    assert not list(results.glob("*/runs/*/ckpt"))


def test_what_cannot_be_merged_is_not_left_out_without_a_word(machines, tmp_path, monkeypatch):
    spec = next(machines[0].glob("runs/*/spec.json"))
    spec.unlink()
    with pytest.raises(UsageError, match=rf"^{spec}: not there, though the run has finished"):
        merge(machines, tmp_path / "results")

    def scandir(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(UsageError, match=rf"^{machines[0]}/runs: cannot be read \(Permission"):
        merge(machines, tmp_path / "results")


def test_merge_is_found_behind_the_folder_of_results():
    """A container gives --results before what its user says."""
    assert words_of(["merge", "a"]) == ["a"]
    assert words_of(["--results", "/r", "merge", "a"]) == ["--results", "/r", "a"]
    assert words_of(["--results=/r", "merge", "a"]) == ["--results=/r", "a"]
    for others in ([], ["--results"], ["mini"], ["--name", "merge"], ["mini", "merge"]):
        assert words_of(others) is None
