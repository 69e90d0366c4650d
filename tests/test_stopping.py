"""A run that is stopped anywhere loses nothing.

The tests use real processes, real signals, and a disk that fails at any step of writing.

The ordinary tests run a selection; `pytest -m fault` runs every method, every point and every kind.
"""

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm
from conftest import ROOT, TINY, UNTRAINED, cell_of
from fault_cell import files_of, process
from fault_cell import run as run_here

from bench import faults
from bench.engine import run as engine
from bench.errors import UsageError
from bench.method import method_names
from bench.store import files
from bench.store.rundir import RunDir

POINTS = (
    "step:1",
    "step:6",
    "step:12",
    "epoch:1",
    "epoch:4",
    "align:3",
    "task:1",
    "task:3",
    "save:9",
    "saved:4",
    "saved:12",
    "done:1",
)
SELECTED = [
    ("hlgp", "step:6"),
    ("linear", "align:8"),  # in the middle of the stage after the last task
    ("hlgp", "epoch:4"),
    ("finetune", "step:12"),
    ("coda_prompt", "save:9"),
    ("dualprompt", "done:1"),
]
every = pytest.mark.fault
# Those with the most state of their own, or work at a task's end; each point is for every method.
MOST_STATE = ("hlgp", "coda_prompt", "caprompt", "nsp", "ovor", "ranpac", "slca")


def killed_at(point, spec, folder, expected):
    """Kill a process at this point; the next one must end with the files of an undisturbed run.

    Returns True if the process came to the point.
    """
    code = process(spec, folder, BENCH_CRASH_AT=point)
    assert code in (0, -signal.SIGKILL)
    assert process(spec, folder) == 0
    assert files_of(folder, spec) == expected, f"{spec.method} killed at {point}"
    return code != 0


@pytest.mark.parametrize(("name", "point"), SELECTED)
def test_killed_at_a_point_it_continues_to_the_same_bytes(
    name, point, tiny_spec, tmp_path, undisturbed
):
    spec = cell_of(tiny_spec, name)
    assert killed_at(point, spec, tmp_path, undisturbed(spec))


@pytest.mark.parametrize(
    "name",
    ["hlgp", pytest.param("finetune", marks=every), pytest.param("coda_prompt", marks=every)],
)
def test_a_copied_folder_is_continued_elsewhere(name, tiny_spec, tmp_path, undisturbed):
    """As on another machine: only the results folder is copied, and the cache is empty."""
    spec = cell_of(tiny_spec, name)
    assert process(spec, tmp_path / "here", BENCH_CRASH_AT="step:7") == -signal.SIGKILL
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    assert process(spec, tmp_path / "there", BENCH_CACHE=str(tmp_path / "cache")) == 0
    assert files_of(tmp_path / "there", spec) == undisturbed(spec)


@every
@pytest.mark.parametrize("name", method_names())
def test_killed_at_each_point_every_method_continues_to_the_same_bytes(
    name, tiny_spec, tmp_path, undisturbed
):
    spec = cell_of(tiny_spec, name)
    died = [killed_at(point, spec, tmp_path / point, undisturbed(spec)) for point in POINTS]
    assert sum(died) >= (4 if name in UNTRAINED else len(POINTS)), (
        "these have no steps, and no epochs to save"
    )


def at_work(spec, folder):
    """A process with everything loaded, or one that has ended because the cell was already done."""
    ready = warm.forks.Event()
    child = warm.process(run_here, spec, folder, ready)
    while child.is_alive() and not ready.wait(0.02):
        pass
    return child


def killed_at_random(spec, folder, kills, expected, generator, span):
    """Start and kill at random instants of the cell's own work, until a run ends by itself.

    Returns how many processes were killed.
    """
    done = 0
    while True:
        child = at_work(spec, folder)
        child.join(generator.uniform(0.0, span) if done < kills else None)
        if child.exitcode is None:
            child.kill()
            child.join()
            done += 1
            continue
        assert child.exitcode == 0
        assert files_of(folder, spec) == expected
        return done


def seconds_of_work(spec, folder):
    """How long a cell takes when everything is loaded."""
    child = at_work(spec, folder)
    start = time.monotonic()
    child.join()
    return time.monotonic() - start


def kill_often(name, spec, folder, kills, expected):
    """Kill so many processes at instants all over a cell, in as many rounds as that takes.

    Returns in how many rounds a killed process left work to continue from.
    """
    generator, span = random.Random(name), seconds_of_work(spec, folder / "whole")
    done = round_ = left_work = 0
    while done < kills:
        results = folder / str(round_)
        killed = killed_at_random(spec, results, kills - done, expected, generator, span)
        left_work += (
            killed > 0
            and "continued after" in (RunDir.of(results, spec).path / "log.txt").read_text()
        )
        done, round_ = done + killed, round_ + 1
    return left_work


def test_killed_at_random_instants(tiny_spec, tmp_path, undisturbed):
    spec = cell_of(tiny_spec, "hlgp")
    kill_often("hlgp", spec, tmp_path, 4, undisturbed(spec))


@every
@pytest.mark.parametrize("name", MOST_STATE)
def test_killed_at_twenty_random_instants(name, tiny_spec, tmp_path, undisturbed):
    spec = cell_of(tiny_spec, name)
    assert kill_often(name, spec, tmp_path, 20, undisturbed(spec)) or name in UNTRAINED, (
        "ncm is over in a moment"
    )


def failing_io(kind, spec, folder, expected, first=1, stride=1):
    """Fail one step of writing, then one that is `stride` later, ... until a run has fewer steps.

    Returns how many failures were tried.
    """
    tried = 0
    for number in range(first, 10_000, stride):
        results = folder / f"{kind}{number}"
        faults.restart()
        os.environ["BENCH_FAIL_IO"] = f"{number}:{kind}"
        try:
            state = engine.run_cell(spec, results)
        except (OSError, UsageError):
            state = {"status": "refused"}
        finally:
            del os.environ["BENCH_FAIL_IO"]
        came_through = faults.steps_of_writing() < number
        tried += not came_through
        assert engine.run_cell(spec, results)["status"] == "done", (
            f"after the failure of step {number}"
        )
        assert files_of(results, spec) == expected, f"after the failure of step {number}"
        if came_through:
            assert state["status"] == "done"
            return tried
    raise AssertionError("it never came through")


def test_a_failing_disk_at_some_steps_of_writing(tiny_spec, tmp_path, undisturbed):
    spec = cell_of(tiny_spec, "linear")
    assert failing_io("SHORT", spec, tmp_path, undisturbed(spec), stride=17) >= 4


@every
@pytest.mark.parametrize(
    ("name", "kind", "first", "stride"),
    [("linear", kind, 1, 1) for kind in ("ENOSPC", "EIO", "SHORT")]
    + [("hlgp", "EIO", first, 4) for first in (1, 2, 3, 4)],  # side by side: it takes minutes
)
def test_a_failing_disk_at_every_step_of_writing(
    name, kind, first, stride, tiny_spec, tmp_path, undisturbed
):
    spec = cell_of(tiny_spec, name)
    assert failing_io(kind, spec, tmp_path, undisturbed(spec), first, stride) >= 60 / stride


def test_a_disk_that_is_full_is_named(command, tmp_path):
    """A real disk does not say which file it was."""

    def full(stream):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as failed:
        files.write_atomic(tmp_path / "x.csv", full)
    assert failed.value.filename == str(tmp_path / "x.csv")
    assert not list(tmp_path.iterdir())
    words = (
        "bench.run",
        str(TINY),
        "--method",
        "linear",
        "--benchmark",
        "glyphs",
        "--name",
        "full",
    )
    done = command(*words, check=3, BENCH_FAIL_IO="1:ENOSPC")
    assert "No space left on device; what was finished is safe" in done.stderr
    assert "Traceback" not in done.stderr
    assert "spec.json" in done.stderr


# --- signals ----------------------------------------------------------------------------------

LONG_RUN = ("--set", "data.classes=12", "data.tasks=6", "train.epochs=12")


def start(*words, cwd, program=(sys.executable, "-m")):
    return warm.Popen(
        [*program, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end_of(process, seconds=240):
    """The exit code and the output of a process."""
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said


def wait_for(folder, pattern, text="", seconds=90):
    """Wait for a file with that text in it, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for file in folder.glob(pattern):
            if text in file.read_text():
                return file
        time.sleep(0.01)
    raise AssertionError(f"{pattern} did not come")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=every)]
)
def test_a_signal_stops_at_the_next_step_with_everything_saved(number, code, tmp_path):
    words = (
        "bench.run",
        str(TINY),
        "--method",
        "hlgp",
        "--benchmark",
        "glyphs",
        *LONG_RUN,
        "--name",
        "s",
    )
    victim = start(*words, cwd=tmp_path)
    log = wait_for(tmp_path, "results/s/runs/*/log.txt", "task 2 epoch 1")
    victim.send_signal(number)
    ended, said = end_of(victim)
    assert ended == code, said
    assert "the same command continues" in said
    assert "Traceback" not in said
    assert '"interrupted"' in (log.parent / "state.json").read_text()
    before = len(log.read_text().splitlines())
    assert end_of(start(*words, cwd=tmp_path))[0] == 0
    lines = log.read_text().splitlines()
    assert len({line for line in lines if " epoch " in line}) == len(
        [x for x in lines if " epoch " in x]
    ), "no epoch ran twice"
    assert before < len(lines)
    assert end_of(start(*words, "--results", "whole", cwd=tmp_path))[0] == 0
    (whole,) = tmp_path.glob("whole/s/runs/*/metrics.csv")
    assert (log.parent / "metrics.csv").read_bytes() == whole.read_bytes()


@every
def test_run_all_passes_the_signal_on_and_continues_to_the_report(tmp_path):
    words = (
        str(TINY),
        "--results",
        "results",
        "--report",
        "reports",
        *LONG_RUN,
        "--name",
        "g",
        "--jobs",
        "2",
    )
    victim = start(*words, cwd=tmp_path, program=[str(ROOT / "run_all.sh")])
    log = wait_for(tmp_path, "results/g/runs/hlgp--*/log.txt", "task 1 epoch 2")
    victim.send_signal(signal.SIGTERM)
    ended, said = end_of(victim)
    assert ended == 143, said
    assert '"interrupted"' in (log.parent / "state.json").read_text()
    assert not (tmp_path / "reports" / "g" / "index.html").exists()
    ended, said = end_of(start(*words, cwd=tmp_path, program=[str(ROOT / "run_all.sh")]))
    assert ended == 0, said
    assert (tmp_path / "reports" / "g" / "index.html").is_file()
    lines = [line for line in log.read_text().splitlines() if " epoch " in line]
    assert len(set(lines)) == len(lines) == 72, "no epoch ran twice, none is missing"


@every
def test_a_stopped_grid_has_collected_what_is_done_and_kept_what_was_there(tmp_path):
    words = (
        "bench.grid",
        str(TINY),
        *LONG_RUN,
        "--name",
        "g",
        "--jobs",
        "1",
        "--benchmarks",
        "glyphs",
        "--methods",
        "hlgp",
    )
    folder = tmp_path / "results" / "g"
    assert end_of(start(*words, "--order-seeds", "2", cwd=tmp_path))[0] == 0
    before = (folder / "metrics.csv").read_text().splitlines()
    (folder / "runs").rename(tmp_path / "elsewhere")  # as in a clone: tables alone
    victim = start(*words, cwd=tmp_path)
    wait_for(folder, "runs/hlgp--*--o2--*/log.txt", "task 1 epoch 1")
    renewed = (folder / "metrics.csv").read_text().splitlines()
    assert len(renewed) == 2 * len(before) - 1, "the first order's rows beside what was there"
    assert set(before) < set(renewed)
    victim.send_signal(signal.SIGTERM)
    ended, said = end_of(victim)
    assert ended == 143, said
    after = (folder / "metrics.csv").read_text().splitlines()
    assert len(after) == 2 * len(before) - 1
    assert set(before) < set(after)
    statuses = [line.split(",") for line in (folder / "runs.csv").read_text().splitlines()]
    assert sum("done" in row for row in statuses) == 2


@every
def test_a_cell_past_its_time_limit_is_interrupted_and_resumable(command, tmp_path):
    words = (
        "bench.grid",
        str(TINY),
        *LONG_RUN,
        "train.epochs=80",
        "--name",
        "t",
        "--methods",
        "hlgp",
        "--benchmarks",
        "glyphs",
        "--order-seeds",
        "1",
    )
    done = command(*words, "--time-limit", "0.03", check=3)
    assert "past its limit of 0.03 minutes" in done.stderr
    assert "past its limit" in (tmp_path / "results" / "t" / "runs.csv").read_text()
    for _ in range(40):  # every start comes a little further
        if command(*words, "--time-limit", "0.1").returncode == 0:
            break
    else:
        raise AssertionError("it never came to an end")


# --- two at once ------------------------------------------------------------------------------


@every
def test_two_grids_run_every_cell_once(tmp_path, monkeypatch):
    words = ("bench.grid", str(TINY), "--set", "train.epochs=3", "--name", "race", "--jobs", "2")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cold"))  # for which they race as well
    both = [start(*words, cwd=tmp_path) for _ in range(2)]
    for grid in both:
        ended, said = end_of(grid)
        assert ended == 0, said
    logs = list(tmp_path.glob("results/race/runs/*/log.txt"))
    assert len(logs) == 8
    for log in logs:
        epochs = re.findall(r"task \d epoch \d", log.read_text())
        assert len(epochs) == len(set(epochs)) == 6, f"{log}: run twice"
    assert (tmp_path / "results" / "race" / "metrics.csv").read_text().count("\n") == 1 + 8 * 4 * 3


@every
def test_a_cell_that_another_process_runs_is_left_alone(tiny_spec, tmp_path, command):
    words = (
        "bench.run",
        str(TINY),
        "--method",
        "linear",
        "--benchmark",
        "glyphs",
        "--name",
        "busy",
    )
    folder = Path(command(*words, check=0).stdout.splitlines()[-1])
    (tmp_path / folder / "DONE").unlink()
    with RunDir(tmp_path / folder).lock():
        assert "another process" in command(*words, check=3).stderr
    command(*words, check=0)  # the lock of a process that is gone is no lock


# --- what must not matter ---------------------------------------------------------------------


@every
def test_jobs_order_folder_locale_and_hash_seed_do_not_matter(command, tmp_path):
    words = ("bench.grid", str(TINY), "--name", "d")
    command(
        *words,
        "--jobs",
        "1",
        check=0,
        PYTHONHASHSEED="1",
        LC_ALL="C",
        BENCH_CACHE=str(tmp_path / "cold"),
    )
    first = (tmp_path / "results" / "d" / "metrics.csv").read_bytes()
    for method in ("hlgp", "linear"):  # one after the other, the later row first
        command(
            *words,
            "--jobs",
            "3",
            "--methods",
            method,
            "--results",
            "again",
            check=0,
            PYTHONHASHSEED="2",
            LC_ALL="C.UTF-8",
        )
    assert (tmp_path / "again" / "d" / "metrics.csv").read_bytes() == first
