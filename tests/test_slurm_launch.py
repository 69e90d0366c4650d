"""What a launch submits and leaves alone, and what an element does: Slurm is a stand-in."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from conftest import TINY, slurm_arguments

from bench import grid
from bench.config.suite import load_suite
from bench.errors import UsageError
from bench.launch import scripts, slurm, submitted
from bench.launch.display import make_display
from bench.launch.pool import Pool, rounds_of
from bench.launch.status import status
from bench.store.rundir import RunDir


@pytest.fixture
def cells():
    return load_suite(str(TINY)).select(["linear"])


@pytest.fixture
def launch(commands, tmp_path, cells):
    """A launch of these cells, and the folder of their results."""
    args = slurm_arguments(tmp_path, slurm_jobs=1)
    folder = args.results / cells[0].suite
    folder.mkdir(parents=True)

    def go(**given):
        return slurm.launch(
            slurm_arguments(tmp_path, slurm_jobs=1, **given), cells, cells, folder, []
        )

    return go, folder


def submissions(commands) -> int:
    file = commands / "sbatch.called"
    return file.read_text().count("--array=") if file.exists() else 0


def says(commands, folder, state):
    """squeue says that the only array is in this state, and that the job that collects waits."""
    (one,) = submitted.launches(folder)
    lines = [f"7|0|{state}|n1|None|{one.comment}\n"] if state else []
    lines.append(f"8|N/A|PENDING||Dependency|{one.comment}\n")
    (commands / "squeue.says").write_text("".join(lines))


def test_what_is_queued_is_left_alone_but_checked(launch, commands, capsys):
    go, folder = launch
    assert go() == 0
    says(commands, folder, "PENDING")
    assert go() == 0
    assert "4 cell(s) are in Slurm's queue already" in capsys.readouterr().out
    with pytest.raises(UsageError, match="at least 5 minutes"):
        go(sbatch="--time=3")
    (commands / "sbatch").write_text(
        '#!/bin/bash\n[ "$1" = --test-only ] && { echo nowhere >&2; exit 1; }\necho 8\n'
    )
    with pytest.raises(UsageError, match="Slurm: nowhere"):
        go(sbatch="--partition=nowhere")
    assert submissions(commands) == 1


def test_an_element_that_is_ending_is_waited_for(launch, commands, monkeypatch, capsys):
    """Its cells are submitted when it has ended; if it takes too long the exit code says so."""
    go, folder = launch
    assert go() == 0
    says(commands, folder, submitted.ENDING)
    monkeypatch.setattr(slurm, "ENDING_SECONDS", 0)
    assert go() == 3
    assert "4 cell(s): their elements are still ending" in capsys.readouterr().out
    assert submissions(commands) == 1
    monkeypatch.setattr(slurm, "ENDING_SECONDS", 60)
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: says(commands, folder, ""))
    assert go() == 0
    said = capsys.readouterr()
    assert "waiting for 1 element(s)" in said.err
    assert "submitted job 7: 4 cells" in said.out


def test_another_element_that_has_the_same_cells_counts(launch, commands, monkeypatch):
    go, folder = launch
    go()
    (one,) = submitted.launches(folder)
    monkeypatch.setattr(slurm, "ENDING_SECONDS", 0)
    for states in (("PENDING", submitted.ENDING), (submitted.ENDING, "PENDING")):
        lines = [f"7|0|{state}|n1|None|{one.comment}\n" for state in states]
        (commands / "squeue.says").write_text("".join(lines))
        assert go() == 0, "nothing is left over"


def test_cells_that_a_process_runs_are_left_to_it(launch, commands, cells, tmp_path, capsys):
    go, folder = launch
    with RunDir(folder / "runs" / cells[0].run_id).lock():
        assert go() == 0
    said = capsys.readouterr().out
    assert f"1 cell(s) are left to another process that runs them: {cells[0].run_id}" in said
    (one,) = submitted.launches(folder)
    assert [*one.elements[0]] == [cell.run_id for cell in cells[1:]]


def test_a_job_that_never_was_has_no_log(launch, commands, cells):
    """The launcher was killed before it called sbatch."""
    go, folder = launch
    go()
    (folder / "slurm" / "7.json").unlink()
    said = status(folder.parent, folder.name, cells)
    assert said.count("its launcher was killed, and no job of it is in the queue") == len(cells)
    assert ".log" not in said


def test_a_failed_cell_keeps_its_job_and_node(launch, cells, monkeypatch):
    """Also when the element is no longer in the queue."""
    _, folder = launch
    for name, value in (("ARRAY_JOB_ID", "7"), ("ARRAY_TASK_ID", "3"), ("D_NODENAME", "n9")):
        monkeypatch.setenv(f"SLURM{'' if name[0] == 'D' else '_'}{name}", value)
    pool = Pool(folder.parent, cells, make_display("quiet"))
    pool.note_failure(cells[0], "oom", "the process ended with signal 9")
    said = status(folder.parent, folder.name, cells)
    (row,) = (line for line in said.splitlines() if "oom" in line and cells[0].run_id in line)
    assert "7_3 n9" in row


@pytest.mark.parametrize("saved", [True, False])
def test_an_element_ends_as_stopped_only_with_something_saved(saved, cells, tmp_path, monkeypatch):
    """Its script has it requeued then; without anything new it would be stopped again."""
    args = slurm_arguments(tmp_path, json=False, quiet=True, share=("", "0"))
    run = RunDir.of(args.results, cells[0])
    (run.path / "ckpt").mkdir(parents=True)
    old = run.path / "ckpt" / "old.pt"
    old.touch()
    os.utime(old, (1, 1))

    def stopped(*words):
        if saved:
            (run.path / "ckpt" / "new.pt").touch()
        raise SystemExit(143)

    monkeypatch.setattr(grid, "run_local", stopped)
    suite = load_suite(str(TINY))
    element = grid.Grid(args, suite, cells, cells, [], {}, rounds_of(cells))
    if saved:
        with pytest.raises(SystemExit):
            element.run_share()
    else:
        assert element.run_share() == 3


@pytest.mark.parametrize(
    ("code", "sent", "tries", "known"),
    [
        (143, "USR1", 1, True),
        (143, "USR1", 1, False),  # the launcher's Slurm lies elsewhere
        (143, "USR1", 3, True),  # the controller answers at last
        (143, "USR1", 4, True),  # it does not
        (3, "USR1", 0, True),
        (143, "TERM", 0, True),
    ],
)
def test_the_script_requeues_at_the_time_limit(code, sent, tries, known, commands, tmp_path):
    stand_in = (
        f"import pathlib, signal, sys; signal.signal(15, lambda *_: sys.exit({code})); "
        "pathlib.Path('on').touch(); signal.pause()"
    )
    grid_of_ours = shlex.join([sys.executable, "-c", stand_in])
    text = scripts.SCRIPT.format(
        seconds=60,
        defaults="",
        exports="",
        folder=tmp_path,
        command=grid_of_ours,
        scontrol=commands / ("scontrol" if known else "gone"),
        pauses="0 0 0",
    )
    fails = f'[ "$(wc -l < {commands}/scontrol.called)" -ge {2 * tries} ]'
    with (commands / "scontrol").open("a") as file:
        file.write(f"{fails}\n")
    env = {**os.environ, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    script = subprocess.Popen(["bash", "-c", text], env=env, start_new_session=True)
    try:
        while not (tmp_path / "on").exists():
            assert script.poll() is None
            time.sleep(0.05)
        if sent == "USR1":
            script.send_signal(signal.SIGUSR1)
        else:
            os.killpg(script.pid, signal.SIGTERM)  # Slurm tells all
        assert script.wait(30) == (0 if 0 < tries < 4 else code)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
    called = commands / "scontrol.called"
    assert (called.read_text() if called.exists() else "") == "requeue\n7_3\n" * min(tries, 3)
