"""What a grid says while it runs, and what it sends to a tracker."""

import json
import queue
import subprocess
import sys
import threading
import types

import pytest
from conftest import TINY, table

from bench.config.suite import load_suite
from bench.errors import UsageError
from bench.launch import track
from bench.launch.display import Clock, Outcome, make_display, note_of, share_done
from bench.launch.pool import Pool, rounds_of

EPOCH = {"task": 2, "tasks": 4, "epoch": 1, "epochs": 2, "losses": {"ce": 0.5}}
CELLS = load_suite(str(TINY)).cells


def test_a_line_for_each_finished_cell_without_a_terminal(command):
    said = command("bench.grid", str(TINY), "--methods", "linear", "--jobs", "1", check=0).stderr
    lines = [line for line in said.splitlines() if "FAA" in line]
    assert len(lines) == 4
    assert "1/4 linear, glyphs, order 1, seed 1: FAA " in lines[0]
    assert "all done about" in lines[0]
    assert "4 of its 8 cells are asked for, 0 done before; they go to results/tiny_suite" in said


def test_quiet_says_nothing_and_json_says_all_in_objects(command, tmp_path):
    quiet = command("bench.grid", str(TINY), "--methods", "linear", "--quiet", check=0)
    assert quiet.stderr == ""
    done = command("bench.grid", str(TINY), "--json", "--report", "reports", check=0)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.count("cell") == 4
    assert kinds[-1] == "end"
    assert events[-1]["counts"] == {"done": 8}
    (cell,) = [e for e in events if e["event"] == "cell" and e["number"] == 1]
    rows = table(tmp_path / "results" / "tiny_suite" / "metrics.csv")
    last = [
        int(row["correct"]) / int(row["n"])
        for row in rows
        if row["run_id"] == cell["run_id"]
        and (row["scenario"], row["after_task"]) == ("class", "2")
    ]
    assert cell["faa"] == pytest.approx(100 * sum(last) / len(last))
    assert (tmp_path / "reports" / "tiny_suite" / "index.html").is_file()


def test_bars_on_a_terminal(capsys):
    display = make_display("bars")
    display.start(list(CELLS), {cell.run_id: 1.0 for cell in CELLS}, 2)
    display.event(1, CELLS[0], EPOCH)
    display.say("a line [in brackets]")
    display.finished(1, CELLS[0], Outcome("done", "", 1.0))
    display.finished(0, CELLS[1], Outcome("diverged", "loss nan", 1.0))
    display.close()
    said = capsys.readouterr().err
    assert "a line [in brackets]" in said
    assert "diverged: loss nan" in said
    assert "2 of 8 cells" in said


def test_how_much_is_done():
    assert share_done(EPOCH) == (1 + 1 / 2) / 4
    assert share_done({"task": 4, "tasks": 4, "average_accuracy": 1.0}) == 1
    assert share_done({"note": "x"}) is None
    assert note_of(EPOCH) == "task 2 of 4, epoch 1 of 2, ce 0.500"
    clock = Clock({"a": 3.0, "b": 1.0})
    assert clock.seconds_left is None
    clock.set_share("a", 0.5)  # found when it was continued: not done by this grid
    assert clock.seconds_left is None
    clock.began -= 10
    clock.set_share("a", 1.0)
    assert clock.done == 3.0
    assert clock.seconds_left == pytest.approx(10 * 1.0 / 1.5, rel=0.01)


def test_order_by_order_and_a_report_after_each_but_the_last(tmp_path):
    renewed = []
    pool = Pool(tmp_path, list(CELLS), make_display("quiet"))
    pool.round_done = lambda number, count: renewed.append((number, count))
    queued = [pool.waiting.get_nowait() for _ in CELLS]
    assert [cell.order_seed for cell in queued] == [1] * 4 + [2] * 4
    pool.display.start(queued, {cell.run_id: 1.0 for cell in queued}, 1)
    done = Outcome("done", "", 1.0)
    for cell in [*queued[4:], *queued[:3]]:  # the second order ends first
        pool.finish(0, cell, done)
    assert renewed == []
    pool.finish(0, queued[3], done)
    assert renewed == [], "after the last one the grid itself writes the report"
    again = Pool(tmp_path, list(CELLS), pool.display)
    again.round_done = pool.round_done
    for cell in queued[:4]:
        again.finish(0, cell, done)
    assert renewed == [(1, 2)]
    assert set(rounds_of(CELLS).values()) == {0, 1}


def test_tensorboard_has_losses_and_accuracies(command, tmp_path):
    words = ("bench.grid", str(TINY), "--methods", "linear", "--track", "tensorboard")
    command(*words, "--benchmarks", "glyphs", check=0)
    code = (
        "import sys, json;"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator;"
        "e = EventAccumulator(sys.argv[1]); e.Reload();"
        "print(json.dumps({t: [s.value for s in e.Scalars(t)] for t in e.Tags()['scalars']}))"
    )
    for folder in (tmp_path / "results" / "tiny_suite" / "tensorboard").glob("linear*"):
        python = [sys.executable, "-c", code, str(folder)]
        scalars = json.loads(subprocess.run(python, capture_output=True, check=True).stdout)
        assert scalars.keys() == {"loss/ce", "images_per_second", "average_accuracy"}
        assert len(scalars["average_accuracy"]) == 2


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_other_trackers_offline(name, command, tmp_path, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("bench.grid", str(TINY), "--methods", "linear", "--benchmarks", "glyphs")
    assert "ended for" not in command(*words, "--track", name, check=0).stderr
    assert any((tmp_path / "results" / "tiny_suite" / name).rglob("*"))


def test_a_tracker_that_fails_or_hangs_stops_nothing(tmp_path, monkeypatch, capsys):
    def broken(name, folder, spec):
        raise RuntimeError("no such server")

    monkeypatch.setattr(track, "back_end", broken)
    with track.Tracker("wandb", tmp_path, CELLS[0]) as tracker:
        tracker.tell(EPOCH)
    assert "ended for linear--glyphs" in capsys.readouterr().err
    hangs = types.SimpleNamespace(experiment=None, add_scalars=lambda *a: threading.Event().wait())
    monkeypatch.setattr(track, "back_end", lambda *words: hangs)
    monkeypatch.setattr(track, "MAX_CLOSING_SECONDS", 0.1)
    monkeypatch.setattr(track, "MAX_WAITING_EVENTS", 2)
    with track.Tracker("wandb", tmp_path, CELLS[0]) as tracker:
        assert isinstance(tracker.events, queue.Queue)
        for _ in range(9):
            tracker.tell(EPOCH | {"images_per_second": 1.0})


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"--track mlflow: .*pip install 'hlgp-bench\[mlflow\]'"):
        track.require_tracker("mlflow")
