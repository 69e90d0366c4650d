"""What a cell would take of a GPU: predicted without one, and held against real tensors."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import MODEL, SMALL, TINY, UNTRAINED

from bench.config.spec import AlignSpec
from bench.cost import memory
from bench.cost.memory import Living, predicted_bytes
from bench.engine.align import TaskStatistics, samples
from bench.errors import UsageError
from bench.launch import pool
from bench.method import method_names

MIB = 2**20


def of_method(name, batch=16, precision="fp32"):
    model = json.dumps(MODEL.get(name, {}))
    return memory._of_method.__wrapped__(
        name, model, replace(SMALL, depth=6), precision, batch, 1, 6, 3
    )


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
    predicted = of_method(name)
    monkeypatch.setattr(memory, "FakeTensorMode", lambda **options: contextlib.nullcontext())
    real = of_method(name)
    assert predicted[0] == real[0] > 0
    for fake, measured in zip(predicted[1:3], real[1:3], strict=True):
        assert fake == pytest.approx(measured, rel=0.1, abs=20_000)
    assert (real[1] > 0) is (name not in UNTRAINED)


def test_a_step_grows_with_the_batch_and_shrinks_with_bf16():
    one, two, half = of_method("hlgp", 64), of_method("hlgp", 128), of_method("hlgp", 64, "bf16")
    assert two[1] == pytest.approx(2 * one[1], rel=0.1)
    assert one[0] == two[0] < half[0], "bf16 has the network twice"
    assert 0.4 * one[1] < half[1] < 0.8 * one[1]


def test_the_aligned_head_is_counted(tiny_spec):
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
        noise = torch.zeros(tasks * per_task, 256, width)
        order = torch.randperm(tasks * per_task * 256)
        drawn = samples(statistics, "full", noise).flatten(0, 1)[order]
    kept = sum(task.spread.nbytes for task in statistics)
    cell = replace(tiny_spec, align=AlignSpec())
    assert memory._aligned(cell, tasks * per_task, width) == pytest.approx(
        kept + living.peak, rel=0.1
    )
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
        pool._refuse_too_many(count, gpus, free * gib, cells)
        return
    with pytest.raises(UsageError) as refused:
        pool._refuse_too_many(count, gpus, free * gib, cells)
    assert f"--jobs {count}: large on glyphs takes up to 11.0 GiB" in str(refused.value)
    assert f"(accepted: at most --jobs {most})" in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "said"), [({"bytes": [3, 4, 4]}, ""), ({"reason": "no"}, "whether 2 cells fit")]
)
def test_what_cannot_be_predicted_is_said(answer, said, tiny_spec, monkeypatch):
    lines: list[str] = []
    worker = pool.Worker(Path("r"), "auto", lines.append)
    answer = {"devices": ["cuda:0"], "free": [8], **answer}
    monkeypatch.setattr(worker, "ask", lambda *words: answer)
    assert len(pool.further_workers(worker, [tiny_spec] * 3, 2)) == 1
    assert said in "".join(lines)
    assert bool(lines) is bool(said)


def test_a_dry_run_says_what_a_cell_takes_of_a_gpu(command):
    words = ("bench.grid", str(TINY), "--dry-run", "--methods", "linear")
    said = command(*words, "--device", "cuda", check=0).stdout
    assert "a cell takes at most 1." in said.splitlines()[-1]
    assert "GiB of a GPU" not in command(*words, check=0).stdout
