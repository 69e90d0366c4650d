"""What the runner promises.

The same spec gives the same bytes, nothing runs twice, an interrupted cell continues, and a failed
cell leaves no numbers.
"""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, cell_of, table, with_method
from PIL import Image

from bench.config.spec import AlignSpec, TrainSpec, spec_from_json
from bench.data.stream import TaskStream
from bench.engine import run as engine
from bench.engine import task as training
from bench.engine.checkpoint import Checkpoints
from bench.engine.task import build_optimiser, coswm, schedule_factor, train_task
from bench.errors import UsageError
from bench.hardware import not_repeatable
from bench.method import Method
from bench.store.collect import collect
from bench.store.rundir import FIXED_COLUMNS, RunDir
from bench.store.tables import TABLES
from methods.hlgp import HLGP

CELLS = ("hlgp", "dualprompt", "coda_prompt", "l2p", "linear", "ncm", "finetune")


def checkpoints(folder):
    """The checkpoints of a run directory, and a list that collects what they say."""
    said: list[str] = []
    spec = spec_from_json((folder / "spec.json").read_text())
    state = json.loads((folder / "state.json").read_text())
    same = {key: state[key] for key in FIXED_COLUMNS}
    return Checkpoints(RunDir(folder), spec, same, said.append), said


def trained_state(folder):
    return next(checkpoints(folder)[0].after()).method


def assert_same_weights(first, second):
    """Counts on a few images could agree by chance: compare the trained tensors themselves."""
    one, two = trained_state(first), trained_state(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", CELLS)
def test_same_spec_same_bytes_with_cold_and_warm_cache(name, tiny_spec, run, tmp_path, monkeypatch):
    spec = cell_of(tiny_spec, name)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cold"))
    state, first = run(spec, "a")
    assert state["status"] == "done"
    torch.manual_seed(77)  # whatever was drawn before must not matter
    _, second = run(spec, "b")
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()
    assert_same_weights(first, second)
    rows = table(first / "metrics.csv")
    heads = 1 + engine.build_cell(spec).method.has_head
    assert len(rows) == heads * 2 * (1 + 2 + 3)


def test_all_methods_were_served_the_same_stream(tiny_spec, run):
    digests = {name: run(cell_of(tiny_spec, name))[0]["stream_sha"] for name in CELLS}
    assert len(set(digests.values())) == 1, digests
    assert run(replace(tiny_spec, seed=2))[0]["stream_sha"] not in digests.values()


def test_all_methods_were_served_the_same_pixels(tiny_spec, monkeypatch):
    """The bytes themselves, not only their digest."""
    served: dict[str, list[bytes]] = {}
    batches = TaskStream.batches

    def spy(self, task_slice, epoch, with_images=True, skip=0):
        for batch in batches(self, task_slice, epoch, True):
            served.setdefault(current, []).append(
                batch.images.numpy().tobytes() + batch.labels.numpy().tobytes()
            )
            yield batch

    monkeypatch.setattr(TaskStream, "batches", spy)
    for current in ("hlgp", "l2p", "finetune"):
        cell = engine.build_cell(cell_of(tiny_spec, current))
        for task_slice in cell.stream.tasks:
            engine.train_task(cell, task_slice, lambda line: None)
    assert served["hlgp"] == served["l2p"] == served["finetune"]
    assert len(served["hlgp"]) == 3 * 2 * 2, "three tasks, two epochs, two batches"


def test_a_finished_cell_is_not_run_again(tiny_spec, run, monkeypatch):
    run(tiny_spec)
    monkeypatch.setattr(engine, "build_cell", lambda *a: pytest.fail("it was run again"))
    assert run(tiny_spec)[0]["status"] == "done"


def test_altered_results_are_noticed(tiny_spec, run):
    _, folder = run(tiny_spec)
    metrics = folder / "metrics.csv"
    metrics.write_text(metrics.read_text().replace(",8,", ",9,", 1).replace(",task,", ",class,", 1))
    with pytest.raises(UsageError, match="altered"):
        run(tiny_spec)


def test_other_files_under_a_finished_cell_are_noticed(tmp_path, command):
    """A spec holds no paths: a folder with other images has the same run_id."""
    words = (
        "bench.grid",
        str(TINY),
        "--methods",
        "linear",
        "--set",
        f"data.root={tmp_path / 'pictures'}",
        "--name",
        "mine",
    )
    for part in ("train", "test"):
        for name in "abcd":
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (ord(name), 0, 0)).save(
                tmp_path / "pictures" / part / name / "0.png"
            )
    command(*words, check=0)
    command(*words, check=0)
    Image.new("RGB", (8, 8), (0, 9, 0)).save(tmp_path / "pictures" / "train" / "a" / "0.png")
    assert "begun with other images" in command(*words, check=2).stderr


def test_schedules():
    def rates(kind, points, epochs):
        return [round(schedule_factor(kind, done, epochs), 3) for done in points]

    assert rates("constant", (0, 1.5, 3.9), 4) == [1, 1, 1]
    assert rates("coda", (0, 1, 2, 2.5, 3), 4) == [1, 1, 0.869, 0.869, 0.509], (
        "the first two epochs share the full rate"
    )
    assert rates("cosine", (0, 1, 2, 3.9), 4) == [1, 0.869, 0.509, 0.016]
    assert rates("cosine_step", (0, 1, 2, 3, 3.99), 4) == [1, 0.924, 0.707, 0.383, 0.004]
    assert rates("cosine_step", (0, 0.5), 1) == [1, 0.707]
    assert rates("step", (0, 30.9, 31, 49), 50) == [1, 1, 0.1, 0.1], "31 epochs, then 19"
    falling = [schedule_factor("multistep", epoch, 10, (4, 7)) for epoch in range(10)]
    assert falling == pytest.approx([1] * 4 + [0.1] * 3 + [0.01] * 3)


@pytest.mark.parity
def test_coswm_is_vq_prompts_official_schedule():
    with np.load(ROOT / "tests" / "golden" / "vq_prompt_schedules.npz") as golden:
        updates = int(golden["iter_step"] * golden["n_epochs"])
        for base, rates in zip(golden["base"], golden["lr_of_update"].T, strict=True):
            found = [coswm(n, updates, int(golden["freeze_iters"]), base) for n in range(updates)]
            assert found == pytest.approx(rates, rel=1e-6)
        epochs = int(golden["cosine_epochs"])
        for base, rates in zip(golden["base"], golden["lr_of_epoch"].T, strict=True):
            found = [base * schedule_factor("coda", epoch, epochs) for epoch in range(epochs)]
            assert found == pytest.approx(rates, rel=1e-6), "its cosine is CODA-Prompt's"


def test_the_engine_follows_coswm(tiny_spec, monkeypatch):
    train = replace(tiny_spec.train, schedule="coswm", frozen=0.5, epochs=2, batch_size=2)
    cell = engine.build_cell(replace(tiny_spec, train=train))
    seen = []
    after_step = type(cell.method).after_step

    def watch(self):
        seen.append(optimisers[0].param_groups[0]["lr"])
        after_step(self)

    optimisers = []
    build = training.build_optimiser
    monkeypatch.setattr(
        training,
        "build_optimiser",
        lambda *words: optimisers.append(build(*words)) or optimisers[0],
    )
    monkeypatch.setattr(type(cell.method), "after_step", watch)
    train_task(cell, cell.stream.tasks[0], lambda line: None)
    assert seen == [coswm(n, 8, 2, 0.01) for n in range(8)], "after each step, eight of them"


@pytest.mark.parametrize("name", CELLS)
def test_stopped_after_a_task_it_continues_to_the_same_bytes(
    name, tiny_spec, run, tmp_path, monkeypatch
):
    spec = cell_of(tiny_spec, name)
    _, whole = run(spec, "whole")
    evaluate, calls = engine.evaluate, []

    def stop_at_second(cell, task_slice, *more):
        calls.append(task_slice.index)
        if task_slice.index == 1:
            raise KeyboardInterrupt
        return evaluate(cell, task_slice, *more)

    monkeypatch.setattr(engine, "evaluate", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(spec, "stopped")
    assert RunDir.of(tmp_path / "stopped", spec).state()["status"] == "interrupted"
    monkeypatch.setattr(
        engine,
        "evaluate",
        lambda cell, now, *more: calls.append(now.index) or evaluate(cell, now, *more),
    )
    state, folder = run(spec, "stopped")
    assert calls == [0, 1, 1, 2], "task 1 was not trained again"
    for one in TABLES.keys() - {"timing"}:
        assert (folder / f"{one}.csv").read_bytes() == (whole / f"{one}.csv").read_bytes(), one
    assert {k: v for k, v in state.items() if k.startswith("gflops")} == {
        k: v
        for k, v in RunDir.of(tmp_path / "whole", spec).state().items()
        if k.startswith("gflops")
    }
    assert_same_weights(folder, whole)
    assert state["stream_sha"] == RunDir.of(tmp_path / "whole", spec).state()["stream_sha"]


def test_a_corrupt_checkpoint_is_named_and_the_one_before_it_used(tiny_spec, run, monkeypatch):
    evaluate = engine.evaluate
    _, whole = run(tiny_spec, "whole")

    def stop(cell, task_slice, *more):
        if task_slice.index == 2:
            raise KeyboardInterrupt
        return evaluate(cell, task_slice, *more)

    monkeypatch.setattr(engine, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_spec)
    monkeypatch.setattr(engine, "evaluate", evaluate)
    folder = whole.parents[3] / "results" / "tiny" / "runs" / tiny_spec.run_id
    kept = {f"{name}-{task}.pt" for name in ("task", "statistics") for task in (1, 2)}
    assert {f.name for f in (folder / "ckpt").iterdir()} == kept | {"within.pt"}
    content = bytearray((folder / "ckpt" / "task-2.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "ckpt" / "task-2.pt").write_bytes(content)
    run(tiny_spec)
    log = (folder / "log.txt").read_text()
    assert "task-2.pt: not used: torn or altered" in log
    assert "continued after task 1" in log
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_a_checkpoint_that_does_not_fit_leaves_nothing_behind(tiny_spec, run, tmp_path):
    """A method was changed between two runs: training must not start from half of its old state."""
    spec = replace(tiny_spec, align=AlignSpec(covariance="off"))  # its statistics go when it ends
    _, folder = run(spec)
    cell = engine.build_cell(spec)
    fresh = {key: value.clone() for key, value in cell.method.state_dict().items()}
    engine._restore_tasks(cell, checkpoints(folder)[0])
    assert cell.finished_tasks == 3
    changed = engine.build_cell(spec)
    changed.method.register_buffer("new", torch.zeros(1))
    kept, said = checkpoints(folder)
    engine._restore_tasks(changed, kept)
    assert changed.finished_tasks == 0
    assert len(said) == 2
    assert "not used" in said[0]
    assert all(torch.equal(changed.method.state_dict()[key], value) for key, value in fresh.items())


@pytest.mark.parametrize(("seconds", "written"), [(0, 4), (3, 1)])
def test_states_within_a_task_that_take_long_to_write_are_written_less_often(
    seconds, written, tiny_spec, monkeypatch
):
    """Writing all weights of a large network would take longer than a short epoch."""
    cell = engine.build_cell(replace(tiny_spec, train=replace(tiny_spec.train, epochs=4)))
    saves, clock = [], [0.0]

    class Slow:
        def save_within(self, state):
            saves.append(state.finished)
            clock[0] += seconds

        def within(self, finished):
            return None

    monkeypatch.setattr("bench.engine.task.time.perf_counter", lambda: clock[0])
    train_task(cell, cell.stream.tasks[0], lambda line: None, Slow())
    assert len(saves) == written


def test_divergence_is_a_status_that_says_where_and_leaves_no_numbers(tiny_spec, run, tmp_path):
    wild = replace(tiny_spec.train, prompt_lr=1e30, optimiser="sgd")
    spec = replace(tiny_spec, method="finetune", type="finetune", train=wild)
    state, folder = run(spec)
    assert state["status"] == "diverged"
    assert "task 1, epoch" in state["reason"]
    assert not (folder / "metrics.csv").exists()
    assert not (folder / "DONE").exists()
    counts = collect(tmp_path / "results", [spec])
    assert counts == {"diverged": 1}
    assert (tmp_path / "results" / "tiny" / "metrics.csv").read_text().count("\n") == 1, (
        "only the header"
    )


@pytest.mark.parametrize(
    ("error", "status"), [(MemoryError(), "oom"), (ValueError("broken"), "error")]
)
def test_failures_are_told_apart(error, status, tiny_spec, run, monkeypatch):
    def fail(self, *inputs):
        raise error

    monkeypatch.setattr(HLGP, "forward", fail)
    state, folder = run(with_method(tiny_spec, "hlgp"))
    assert state["status"] == status
    assert not (folder / "DONE").exists()


def test_evaluating_needs_no_task_identity(tiny_spec):
    """The test batch holds images of all tasks, and the method gets images and queries only."""
    for cls in (HLGP, Method):
        assert list(inspect.signature(cls.forward).parameters) == ["self", "images", "query"]


def test_classes_that_have_not_come_yet_are_no_answers(tiny_spec):
    """However large their logits are. After the last task this would not show."""
    cell = engine.build_cell(with_method(tiny_spec, "linear"))
    first = cell.stream.tasks[0]
    train_task(cell, first, lambda line: None)
    before = engine.evaluate(cell, first)
    with torch.no_grad():
        cell.method.head.bias[first.stop :] += 1e6
    assert engine.evaluate(cell, first) == before
    assert {row["scenario"]: row["correct"] for row in before}["class"] > 0


def test_prompts_and_head_have_their_own_rates():
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "kind": kind}
        for kind in ("prompt", "head")
    ]
    for optimiser in ("adam", "adamw", "sgd"):
        built = build_optimiser(groups, TrainSpec(prompt_lr=0.25, head_lr=0.5, optimiser=optimiser))
        assert [(group["lr"], group["base_lr"]) for group in built.param_groups] == [
            (0.25, 0.25),
            (0.5, 0.5),
        ]


def test_environment_and_digests_are_recorded(tiny_spec, run):
    state, folder = run(tiny_spec)
    assert set(json.loads((folder / "env.json").read_text())) >= {
        "python",
        "torch",
        "timm",
        "numpy",
        "instructions",
        "device",
    }
    for key in ("weights_sha", "data_sha", "stream_sha", "env_sha"):
        assert state[key]
    assert state["params_trainable"] == 6 * (tiny_spec.backbone.width + 1)
    assert json.loads((folder / "spec.json").read_text())["train"]["epochs"] == 2
    assert "task 3 accuracy" in (folder / "log.txt").read_text()


def test_what_cannot_be_repeated_is_marked(tiny_spec, run, monkeypatch):
    assert not_repeatable(torch.device("cpu")) == not_repeatable(torch.device("cuda")) == ""
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "not repeatable" in not_repeatable(torch.device("cuda"))
    monkeypatch.setattr(engine, "not_repeatable", lambda device: "not repeatable: so")
    state, folder = run(tiny_spec)
    assert state["status"] == "done"
    collect(folder.parent.parent.parent, [tiny_spec])
    assert table(folder.parent.parent / "runs.csv")[0]["reason"] == "not repeatable: so"
