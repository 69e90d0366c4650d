"""What a cell would take of a GPU: predicted without one, and held against real tensors."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import MODEL, SMALL, TINY, UNTRAINED, cell_of

from bench.cost import memory
from bench.cost.memory import Living, predicted_bytes
from bench.engine.align import TaskStatistics, samples
from bench.errors import UsageError
from bench.launch import pool
from bench.method import build_method, method_class, method_names

MIB = 2**20


def peaks(name, batch=16, precision="fp32", index=0):
    """Bytes of a training step in a task, and of a test pass."""
    backbone = memory._network(replace(SMALL, depth=6), precision)
    method = build_method(name, backbone, 6, 3, MODEL.get(name, {}), 0)
    for earlier in range(index + 1):
        task = memory._task(method, earlier, 2 * earlier, 2, 8)
        if method.needs_images:
            method.begin_task(task)
    trained = [p for group in method.param_groups() for p in group["params"]]
    return memory._step(method, task, trained, batch), memory._test(method)


def test_living_counts_what_lives():
    with Living() as living:
        first = torch.zeros(MIB // 4)
        second = first + 1
        view = second[1:].view(-1)
        second.mul_(2)
        assert (living.now, living.peak) == (2 * MIB, 2 * MIB), "views and in-place: nothing new"
        del first
        assert living.now == MIB
        del second
        assert living.now == MIB, "a view keeps it"
        del view
        assert (living.now, living.peak) == (0, 2 * MIB)


@pytest.mark.parametrize("name", method_names())
def test_fake_tensors_take_what_real_ones_do(name, monkeypatch):
    predicted = peaks(name)
    monkeypatch.setattr(memory, "FakeTensorMode", lambda **options: contextlib.nullcontext())
    real = peaks(name)
    for fake, measured in zip(predicted, real, strict=True):
        assert fake == pytest.approx(measured, rel=0.1, abs=20_000)
    assert (real[0] > 0) is (name not in UNTRAINED)


def test_a_step_grows_with_the_batch_and_the_tasks_and_shrinks_with_bf16():
    one, two, half = (
        peaks("caprompt", 64),
        peaks("caprompt", 128),
        peaks("caprompt", 64, "bf16"),
    )
    assert two[0] == pytest.approx(2 * one[0], rel=0.1)
    assert 0.4 * one[0] < half[0] < 0.8 * one[0]
    later = peaks("caprompt", 64, index=1)
    assert later[0] == pytest.approx(2 * one[0], rel=0.1), "its loss has a second pass there"


def test_the_end_of_a_task_is_counted(tiny_spec):
    """RanPAC keeps a matrix of 1500 x 1500, in float64, and solves with it."""
    small, large = (
        predicted_bytes(replace(tiny_spec, type="ranpac", model={"projection": size}))
        for size in (30, 1500)
    )
    assert large - small > memory.SPARE * 3 * 8 * 1500**2


def test_a_method_that_reads_values_is_named_and_the_others_are_known(tiny_spec, monkeypatch):
    hlgp = method_class("hlgp")
    loss = hlgp.loss
    monkeypatch.setattr(hlgp, "loss", lambda *words: float(loss(*words).total))
    sizes, unknown = memory.predictions([cell_of(tiny_spec, n) for n in ("hlgp", "linear")])
    assert sizes[0] == 0 < sizes[1]
    assert unknown.keys() == {"hlgp"}
    assert "\n" not in unknown["hlgp"]


def test_the_aligned_head_is_counted():
    width, per_task, tasks = 32, 3, 2
    statistics = [
        TaskStatistics(
            task * per_task,
            (task + 1) * per_task,
            torch.zeros(per_task, width).double(),
            torch.zeros(per_task, width, width),
            0,
        )
        for task in range(tasks)
    ]
    with Living() as living:
        for _ in range(2):  # epochs
            noise = torch.zeros(tasks * per_task, 256, width)
            order = torch.randperm(tasks * per_task * 256)
            drawn = samples(statistics, "full", noise).flatten(0, 1)[order]
    kept = sum(task.spread.nbytes for task in statistics)
    predicted = memory._aligned("full", 256, tasks * per_task, width)
    assert predicted == pytest.approx(kept + living.peak, rel=0.1)
    assert len(drawn) == tasks * per_task * 256


def test_a_cell_takes_at_least_its_weights(tiny_spec):
    network = memory._network(tiny_spec.backbone, "fp32")
    weights = sum(p.numel() * 4 for p in network.parameters())
    assert predicted_bytes(tiny_spec) > memory.CONTEXT_BYTES + weights


@pytest.mark.parametrize(
    ("count", "gpus", "free", "most"),
    [(2, 1, 21, 0), (3, 1, 21, 2), (4, 2, 21, 0), (5, 2, 21, 4), (9, 2, 5, 2), (3, 1, 25, 0)],
)
def test_cells_that_do_not_fit_are_refused(count, gpus, free, most, tiny_spec):
    gib = 2**30
    cells = [
        (size * gib, replace(tiny_spec, method=name))
        for size, name in ((4, "small"), (11, "large"), (10, "middle"), (3, "tiny"))
    ]
    if not most:
        pool._refuse_too_many(9, count, gpus, free * gib, cells)
        return
    with pytest.raises(UsageError) as refused:
        pool._refuse_too_many(9, count, gpus, free * gib, cells)
    assert "--jobs 9: large on glyphs takes up to 11.0 GiB" in str(refused.value)
    assert f"(accepted: at most --jobs {most})" in str(refused.value)


def test_what_cannot_be_predicted_is_said(tiny_spec, monkeypatch):
    lines: list[str] = []
    worker = pool.Worker(Path("r"), "auto", lines.append)
    answer = {"devices": ["cuda:0"], "free": [8], "bytes": [0, 4, 4], "unknown": {"odd": "why"}}
    monkeypatch.setattr(worker, "ask", lambda *words: answer)
    assert len(pool.further_workers(worker, [tiny_spec] * 3, 2)) == 1
    assert lines == ["odd: what it takes of a GPU cannot be predicted (why)"]
    answer["bytes"] = [1, 4, 4]
    with pytest.raises(UsageError, match="at most --jobs 2"):
        pool.further_workers(worker, [tiny_spec] * 3, 3)


def test_a_dry_run_says_what_a_cell_takes_of_a_gpu(command):
    words = ("bench.grid", str(TINY), "--dry-run", "--methods", "linear")
    said = command(*words, "--device", "cuda", check=0).stdout
    assert "a cell takes at most 1." in said.splitlines()[-1]
    assert "GiB of a GPU" not in command(*words, check=0).stdout
