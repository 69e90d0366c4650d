"""The aligned head: the numbers of SLCA's official stage, and training that knows nothing of it."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import cell_of, table, with_method
from golden_files import golden
from torch.nn import functional as F

from bench.config.spec import AlignSpec, BackboneSpec, spec_from_json
from bench.engine import align, heads
from bench.engine import run as engine
from bench.engine.align import TaskStatistics
from bench.store.collect import collect
from bench.store.rundir import RunDir

FORMS = ("full", "diagonal", "shared")


# --- against the official stage ---------------------------------------------------------------


def features_of(arrays, name, task, images="train_plain"):
    """(n, D) float64 of images in the test view, by the network after this task."""
    plain = arrays[images].double()
    if name == "head_only":
        return plain
    part = {
        key: arrays[f"task{task}_stage1_{key}_64"] for key in ("lin_w", "lin_b", "norm_w", "norm_b")
    }
    moved = F.linear(plain, part["lin_w"], part["lin_b"])
    return F.layer_norm(moved, (24,), part["norm_w"], part["norm_b"], eps=1e-5)


def bounds(arrays):
    stops = np.cumsum([0, *arrays["task_sizes"].tolist()])
    return list(itertools.pairwise(stops.tolist()))


def close(ours, theirs, what):
    scale = max(1.0, theirs.abs().max().item())
    assert (ours - theirs).abs().max().item() / scale < 1e-9, what


@pytest.mark.parity
@pytest.mark.parametrize("name", ["head_only", "full"])
def test_it_is_slcas_official_stage(name, monkeypatch):
    arrays = golden(f"slca_{name}")
    slopes = []
    gradient = align.gradient
    monkeypatch.setattr(
        align, "gradient", lambda *given: slopes.append(gradient(*given)) or slopes[-1]
    )
    tasks: list[TaskStatistics] = []
    for task, (start, stop) in enumerate(bounds(arrays)):
        found = align.statistics(
            features_of(arrays, name, task), arrays["train_labels"], start, stop, "full"
        )
        tasks.append(found)
        close(found.means, arrays[f"task{task}_means_64"], "means")
        close(found.spread @ found.spread.mT, arrays[f"task{task}_covs_64"], "covariances")
        if task == 0:
            continue
        close(align.scaled_means(tasks), arrays[f"task{task}_ca_scaled_means_64"], "scaled means")
        noise = arrays[f"task{task}_noise"].double()
        draws = iter(zip(noise, arrays[f"task{task}_permutation"], strict=True))
        spec = AlignSpec(samples=noise.shape[2], epochs=len(noise), lr=0.01, temperature=0.1)
        start = {key: arrays[f"task{task}_stage1_head_{key}_64"] for key in ("w", "b")}
        before = {key: value.clone() for key, value in start.items()}
        slopes.clear()
        weight, bias = align.align(
            start["w"], start["b"], tasks, spec, functools.partial(next, draws)
        )
        assert all(torch.equal(start[key], before[key]) for key in start), "copies alone"
        close(weight, arrays[f"task{task}_head_w_64"], "weight")
        close(bias, arrays[f"task{task}_head_b_64"], "bias")
        for when, found_slopes in {"first": slopes[0], "last": slopes[-1]}.items():
            for key, slope in zip("wb", found_slopes, strict=True):
                close(slope, arrays[f"task{task}_ca_grad_{key}_{when}_64"], f"{when} gradient")
        test = features_of(arrays, name, task, "test")[arrays["test_labels"] < stop]
        close(F.linear(test, weight, bias), arrays[f"task{task}_logits_64"], "logits")
        if name == "head_only":
            drawn = align.samples(tasks, "full", noise[0])
            close(drawn, arrays[f"task{task}_ca_samples_epoch0_64"], "samples")


@pytest.mark.parametrize("temperature", [0.0, 0.1])
@pytest.mark.parametrize("sizes", [[4], [3, 2], [1, 4, 2]])
def test_the_gradient_is_that_of_the_loss(sizes, temperature):
    generator = torch.Generator().manual_seed(1)
    classes = sum(sizes)
    x = torch.randn(7, 5, dtype=torch.float64, generator=generator)
    weight = torch.randn(classes, 5, dtype=torch.float64, generator=generator)
    bias = torch.zeros(classes, dtype=torch.float64)
    x[0] = 0  # logits that are all zero have no direction
    labels = torch.randint(classes, (7,), generator=generator)
    number = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    of_task = F.one_hot(number, len(sizes)).double()
    found = align.gradient(x, labels, weight, bias, of_task, temperature)
    weight.requires_grad_()
    bias.requires_grad_()
    logits = F.linear(x, weight, bias)
    if temperature:
        norms = [part.norm(dim=1) + 1e-7 for part in logits.split(sizes, dim=1)]
        logits = logits / (torch.stack(norms).mean(dim=0)[:, None] * temperature)
    F.cross_entropy(logits, labels).backward()
    for ours, theirs in zip(found, (weight.grad, bias.grad), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


# --- the three covariances --------------------------------------------------------------------


@pytest.mark.parametrize("covariance", FORMS)
def test_samples_have_the_moments_of_the_features(covariance):
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(3).repeat(4000)
    mixed = torch.randn(3, 5, 5, generator=generator)[labels]
    noise = torch.randn(len(labels), 5, 1, generator=generator)
    features = labels[:, None] * 2.0 + (mixed @ noise)[:, :, 0]
    found = align.statistics(features, labels, 0, 3, covariance)
    drawn = align.samples([found], covariance, torch.randn(3, 20000, 5, generator=generator))
    covariances = torch.stack([features[labels == label].T.cov() for label in range(3)])
    expected = {
        "full": covariances,
        "diagonal": torch.diag_embed(covariances.diagonal(dim1=1, dim2=2)),
        "shared": covariances.mean(dim=0).expand(3, 5, 5),
    }[covariance]
    for label in range(3):
        own = features[labels == label].mean(dim=0)
        torch.testing.assert_close(drawn[label].mean(dim=0), own, atol=0.1, rtol=0.05)
        torch.testing.assert_close(drawn[label].T.cov(), expected[label], atol=0.3, rtol=0.1)


@pytest.mark.parametrize("covariance", FORMS)
def test_a_class_with_one_image_is_drawn_at_its_mean(covariance):
    found = align.statistics(torch.ones(1, 4), torch.zeros(1), 0, 1, covariance)
    drawn = align.samples([found], covariance, torch.randn(1, 50, 4))
    assert drawn.isfinite().all()
    assert (drawn - 1).abs().max() < 0.1, "the ridge alone"


def test_statistics_are_kept_small_where_asked():
    features, labels = torch.randn(40, 8), torch.arange(4).repeat(10)
    sizes = {form: align.statistics(features, labels, 0, 4, form).spread.numel() for form in FORMS}
    assert sizes == {"full": 4 * 64, "diagonal": 4 * 8, "shared": 64}


# --- in a run ---------------------------------------------------------------------------------


def metric_rows(folder, aligned):
    rows = table(folder / "metrics.csv")
    return [row for row in rows if row["scenario"].endswith("-aligned") == aligned]


@pytest.mark.parametrize("name", ["linear", "hlgp", "coda_prompt", "linear_ncm"])
def test_training_knows_nothing_of_it(name, tiny_spec, run):
    spec = cell_of(tiny_spec, name)
    _, on = run(spec, "on")
    _, off = run(replace(spec, align=AlignSpec(covariance="off")), "off")
    assert metric_rows(on, False) == table(off / "metrics.csv"), "the same run_id and counts"
    for file in ("losses.csv", "movement.csv", "similarity.csv", "selection.csv"):
        assert (on / file).read_bytes() == (off / file).read_bytes()
    aligned = metric_rows(on, True)
    assert {row["scenario"] for row in aligned} == {"class-aligned", "task-aligned"}
    assert len(aligned) == len(metric_rows(on, False))
    first = [
        [row["correct"] for row in rows if row["after_task"] == "1"]
        for rows in (aligned, metric_rows(on, False))
    ]
    assert first[0] == first[1], "after one task there is nothing to align"


def test_it_mends_a_head_trained_in_sequence(tiny_spec, run):
    data = replace(tiny_spec.data, train_per_class=0, test_per_class=0)
    train = replace(tiny_spec.train, epochs=4)
    _, folder = run(replace(tiny_spec, backbone=BackboneSpec(), data=data, train=train))
    right = {
        aligned: sum(
            int(row["correct"])
            for row in metric_rows(folder, aligned)
            if row["after_task"] == "3" and row["scenario"].startswith("class")
        )
        for aligned in (False, True)
    }
    assert right[True] > right[False]


def test_a_method_without_a_head_and_a_joint_run(tiny_spec, run):
    _, folder = run(with_method(tiny_spec, "ncm"), "ncm")
    assert not metric_rows(folder, True)
    assert not any(key.startswith("align") for key in protocol_keys(folder))
    joint = replace(tiny_spec, train=replace(tiny_spec.train, joint=True))
    _, folder = run(joint, "joint")
    counts = [[row["correct"] for row in metric_rows(folder, kind)] for kind in (False, True)]
    assert counts[0] == counts[1], "one task has nothing to align"


def protocol_keys(folder):
    import json

    return json.loads((folder / "spec.json").read_text())["resolved"]


@pytest.mark.parametrize("covariance", FORMS)
def test_statistics_lie_in_files_of_their_own_and_go(covariance, tiny_spec, tmp_path, monkeypatch):
    spec = replace(tiny_spec, align=AlignSpec(covariance=covariance))
    folder = RunDir.of(tmp_path, spec).path / "ckpt"
    seen = []
    evaluate = engine.evaluate

    def watch(*words):
        seen.append(sorted(file.name for file in folder.glob("statistics-*")))
        return evaluate(*words)

    monkeypatch.setattr(engine, "evaluate", watch)
    engine.run_cell(spec, tmp_path)
    assert seen == [[], ["statistics-1.pt"], ["statistics-1.pt", "statistics-2.pt"]]
    assert not list(folder.glob("statistics-*")), "the run is done"


def test_a_broken_statistics_file_starts_the_cell_again(tiny_spec, tmp_path, undisturbed):
    from fault_cell import files_of, process

    spec = cell_of(tiny_spec, "linear")
    process(spec, tmp_path, BENCH_CRASH_AT="task:3")
    folder = RunDir.of(tmp_path, spec).path
    (folder / "ckpt" / "statistics-2.pt").write_bytes(b"broken")
    assert process(spec, tmp_path) == 0
    assert "statistics-2.pt: not used" in (folder / "log.txt").read_text()
    assert files_of(tmp_path, spec) == undisturbed(spec)


def test_other_settings_run_the_cell_again_and_mix_with_nothing(tiny_spec, tmp_path):
    first = engine.run_cell(tiny_spec, tmp_path)
    other = replace(tiny_spec, align=AlignSpec(covariance="diagonal", samples=8))
    assert other.run_id == tiny_spec.run_id, "training does not depend on it"
    run = RunDir.of(tmp_path, other)
    assert run.done()
    assert not run.done_as(other)
    again = engine.run_cell(other, tmp_path)
    assert first["align"] != again["align"]
    assert run.done_as(other)
    collect(tmp_path, [other])
    settings = {row["key"]: row["value"] for row in table(tmp_path / "tiny" / "protocol.csv")}
    assert settings["align.covariance"] == "diagonal"
    assert settings["align.samples"] == "8"


def test_a_spec_of_a_time_without_it_is_read(tiny_spec):
    import dataclasses
    import json

    tree = dataclasses.asdict(tiny_spec)
    del tree["align"]
    assert spec_from_json(json.dumps(tree)).align == AlignSpec()


def test_the_stage_is_the_same_each_time_and_for_each_covariance_another(tiny_spec):
    found: dict[str, torch.Tensor] = {}
    for covariance in (*FORMS, "full"):
        cell = engine.build_cell(replace(tiny_spec, align=AlignSpec(covariance=covariance)))
        torch.manual_seed(len(found))  # its random numbers are its own
        state = torch.random.get_rng_state()
        for task_slice in cell.stream.tasks[:2]:
            head: Any = heads.aligned_head(cell, task_slice)
        assert torch.equal(torch.random.get_rng_state(), state)
        weight = head.keywords["weight"]
        assert torch.equal(weight[4:], cell.method.head.weight[4:]), "of classes seen alone"
        if covariance in found:
            assert torch.equal(found[covariance], weight)
        found[covariance] = weight
    assert len({tuple(weight.flatten().tolist()) for weight in found.values()}) == 3
