"""The contract, over every registered method: studies of fairness and forgetting rely on it."""

import contextlib
import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FORMS, MODEL, UNTRAINED, with_method

from bench.backbone.vit import load_backbone, weights_digest
from bench.config.spec import BackboneSpec
from bench.engine import run as engine
from bench.engine import task as training
from bench.engine.cell import inputs
from bench.method import Task, build_method, method_class, method_names

METHODS = method_names()
WITH_FORMS = [*METHODS, *FORMS]
pytestmark = pytest.mark.contract
TRAINED = [name for name in METHODS if name not in UNTRAINED]


@pytest.fixture(autouse=True)
def _not_counted(monkeypatch):
    """What an image costs is no part of the contract, and counting takes a third of these tests."""
    monkeypatch.setattr(training, "training_gflops", lambda *step: 0.0)


def prepared(spec, name, **model):
    """A cell with this method, or this one of FORMS."""
    kind = name.split()[0]
    return engine.build_cell(
        with_method(spec, kind, **{**MODEL.get(kind, {}), **FORMS.get(name, {}), **model})
    )


def trained(spec, name, tasks=None, **model):
    cell = prepared(spec, name, **model)
    for task_slice in cell.stream.tasks[:tasks]:
        engine.train_task(cell, task_slice, lambda line: None)
    return cell


def logits_of(cell, rows):
    batch = cell.stream.plain_chunks("test", rows)
    images = cell.backbone.normalise(torch.cat(list(batch)))
    query = torch.from_numpy(cell.queries.plain("test")[rows]) if cell.method.needs_query else None
    with torch.inference_mode():
        return cell.method(images if cell.method.needs_images else None, query)


def test_the_methods_are_all_there():
    assert {"hlgp", "l2p", "l2p_plus", "dualprompt", "coda_prompt", "oneprompt"} <= set(METHODS)
    assert {"linear", "ncm", "linear_ncm", "finetune"} <= set(METHODS)


@pytest.mark.parametrize("name", WITH_FORMS)
def test_what_is_chosen_is_what_is_used(name, tiny_spec):
    """Shares of prompts that sum to 1; a prompt that no image got does not reach its logits."""
    cell = trained(tiny_spec, name)
    rows = np.arange(12)
    query = torch.from_numpy(cell.queries.plain("test")[rows])
    with torch.inference_mode():
        chosen = cell.method.chosen(query)
    if chosen is None:
        assert name.split()[0] not in ("l2p", "l2p_plus", "deep_l2p", "dualprompt", "coda_prompt")
        return
    assert chosen.shape[0] == len(rows)
    assert torch.allclose(chosen.sum(dim=1), torch.ones(len(rows)), atol=1e-5)
    pools = [p for n, p in cell.method.named_parameters() if n.endswith((".prompts", "prompts"))]
    if name.split()[0] not in ("l2p", "l2p_plus", "deep_l2p") or not pools:
        return
    before = logits_of(cell, rows)
    used = chosen.sum(dim=0) > 0
    for pool in pools:
        pool.data[~used] += 100
    assert torch.equal(logits_of(cell, rows), before)
    for pool in pools:
        pool.data[used] += torch.randn(pool.data[used].shape)
    assert not torch.allclose(logits_of(cell, rows), before)


def test_only_the_known_bug_selects_prompts_in_another_way():
    for name in METHODS:
        assert method_class(name).selection({}) == "per image, task unknown"
        mixed = method_class(name).selection({"reference_bug": True}) != "per image, task unknown"
        assert mixed == (name in {"dualprompt", "caprompt"})
    dualprompt = method_class("dualprompt")
    for value in (True, "True"):  # as a suite has it, and as protocol.csv has it
        selection = dualprompt.selection({"reference_bug": value})
        assert selection == "prompts of different images mixed"
    assert dualprompt.selection({"reference_bug": "False"}) == "per image, task unknown"


@pytest.mark.parametrize("name", [n for n in WITH_FORMS if method_class(n.split()[0]).has_head])
def test_features_are_what_the_head_reads(name, tiny_spec):
    """The aligned head is trained on features(): what the trained one was trained on."""
    cell = trained(tiny_spec, name, tasks=1)
    rows = np.arange(6)
    images = cell.backbone.normalise(torch.cat(list(cell.stream.plain_chunks("test", rows))))
    query = torch.from_numpy(cell.queries.plain("test")[rows]) if cell.method.needs_query else None
    given = images if cell.method.needs_images else None, query
    read = []
    cell.method.head.register_forward_pre_hook(lambda head, inputs: read.append(inputs[0].clone()))
    with torch.inference_mode():
        logits, features = cell.method(*given), cell.method.features(*given)
        (of_head,) = read
        assert torch.equal(of_head, features)
        assert torch.equal(cell.method.classify(features, cell.method.head), logits)


@pytest.mark.parametrize("name", WITH_FORMS)
def test_logits_do_not_depend_on_the_batch(name, tiny_spec):
    cell = trained(tiny_spec, name)
    rows = np.arange(12)
    together = logits_of(cell, rows)
    assert together.shape == (12, 6)
    torch.testing.assert_close(
        logits_of(cell, rows[::-1].copy()), together.flip(0), rtol=1e-4, atol=1e-5
    )
    for row in (0, 7):
        torch.testing.assert_close(
            logits_of(cell, rows[row : row + 1])[0], together[row], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", METHODS)
def test_only_declared_parameters_move_and_nothing_frozen_has_a_gradient(name, tiny_spec):
    cell = prepared(tiny_spec, name)
    before_backbone = weights_digest(cell.backbone.vit)
    for task_slice in cell.stream.tasks:
        seen: dict[str, Any] = {}
        begin = cell.method.begin_task

        def watch(task, begin=begin, seen=seen):
            begin(task)
            seen["declared"] = {id(p) for g in cell.method.param_groups() for p in g["params"]}
            seen["before"] = {n: p.detach().clone() for n, p in cell.method.named_parameters()}

        cell.method.begin_task = watch
        engine.train_task(cell, task_slice, lambda line: None)
        cell.method.begin_task = begin
        for key, parameter in cell.method.named_parameters():
            if id(parameter) not in seen["declared"]:
                assert torch.equal(parameter, seen["before"][key]), (
                    f"{key} moved without being declared"
                )
        moved = [
            k for k, p in cell.method.named_parameters() if not torch.equal(p, seen["before"][k])
        ]
        assert bool(moved) == bool(seen["declared"]), "a task trains what it declares"
    assert weights_digest(cell.backbone.vit) == before_backbone
    assert all(p.grad is None for p in cell.backbone.parameters())


@pytest.mark.parametrize("name", [n for n in TRAINED if n not in ("linear", "linear_ncm")])
def test_prompts_are_trained_and_reach_the_logits(name, tiny_spec):
    """A prompt method whose prompts do not reach the network is a linear head in disguise."""
    cell = prepared(tiny_spec, name)
    task_slice = cell.stream.tasks[0]
    torch.manual_seed(0)
    task = training.contract_task(cell, task_slice)
    cell.method.begin_task(task)
    batch = next(iter(cell.stream.batches(task_slice, 0)))
    images = cell.backbone.normalise(batch.images)
    query = torch.from_numpy(cell.queries.train(0)[batch.rows]) if cell.method.needs_query else None
    cell.method.loss(images, query, batch.labels, task).total.backward()
    groups = {group["kind"]: group["params"] for group in cell.method.param_groups()}
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in groups["prompt"])
    if cell.method.needs_query:
        other = cell.method(images.flip(0), query)
        assert not torch.allclose(other, cell.method(images, query)), (
            "the images themselves are looked at"
        )


@pytest.mark.parametrize("name", [n for n in WITH_FORMS if n.split()[0] in TRAINED])
def test_gradients_reach_only_what_is_trained(name, tiny_spec):
    """A gradient that no optimiser owns is wasted work, and it adds up: nothing clears it."""
    cell = trained(tiny_spec, name, tasks=1)
    task_slice = cell.stream.tasks[1]
    task = training.contract_task(cell, task_slice)
    cell.method.train()
    cell.method.begin_task(task)
    batch = next(iter(cell.stream.batches(task_slice, 0)))
    images, query, labels = inputs(
        cell, batch, cell.queries.train(0) if cell.method.needs_query else None
    )
    cell.method.loss(images, query, labels, task).total.backward()
    declared = {id(p) for group in cell.method.param_groups() for p in group["params"]}
    assert [
        key
        for key, p in cell.method.named_parameters()
        if p.grad is not None and id(p) not in declared
    ] == []


@pytest.mark.parametrize("name", WITH_FORMS)
def test_the_old_stays_as_it_was(name, tiny_spec):
    """Prompts, keys and components of a finished task keep every bit in the next one.

    So do the rows of HLGP's head.
    """
    kept = {
        "hlgp": lambda m: [m.learned[0], m.head.weight[:2], m.head.bias[:2]],
        "dualprompt": lambda m: [m.e.prompts[0], m.e.keys[0]],
        "coda_prompt": lambda m: [
            b[: m.per_task]
            for c in m.components
            for b in (c.old_prompt, c.old_key, c.old_attention)
        ],
        "ncm": lambda m: [m.class_means.means[:2]],
        "linear_ncm": lambda m: [m.class_means.means[:2], m.head.weight[:2]],
        "linear": lambda m: [m.head.weight[:2]],
    }
    kind = name.split()[0]
    if kind not in kept:
        return  # shared by design: a pool, one prompt, all weights
    cell = trained(tiny_spec, name, tasks=1)
    before = [t.detach().clone() for t in kept[kind](cell.method)]
    assert any(t.abs().sum() > 0 for t in before)
    for task_slice in cell.stream.tasks[1:]:
        engine.train_task(cell, task_slice, lambda line: None)
    assert all(torch.equal(a, b) for a, b in zip(before, kept[kind](cell.method), strict=True))


@pytest.mark.parametrize("name", WITH_FORMS)
def test_state_round_trips(name, tiny_spec):
    cell = trained(tiny_spec, name)
    other = prepared(replace(tiny_spec, seed=9), name)
    other.method.load_state_dict(cell.method.state_dict())
    rows = np.arange(8)
    assert torch.equal(logits_of(cell, rows), logits_of(other, rows))


def test_building_in_another_order_gives_the_same_weights(small_vit):
    fitting: dict[str, dict[str, Any]] = {  # this network has four blocks
        "coda_prompt": {"layers": (0, 1)},
        "deep_l2p": {"layers": (0, 1)},
        "dualprompt": {"g_layers": (0,), "e_layers": (1, 2)},
        "hlgp": {"groups": 2},
        "ovor": {"layers": (0, 1), "lengths": (2, 3)},
        "vq_prompt": {"layers": (0, 1)},
    }

    def build(order):
        models = {n: {**MODEL.get(n, {}), **fitting.get(n, {})} for n in order}
        return {
            n: build_method(n, small_vit, 6, 3, model, seed=5).state_dict()
            for n, model in models.items()
        }

    one, two = build(METHODS), build(METHODS[::-1])
    for name in METHODS:
        assert all(torch.equal(one[name][k], two[name][k]) for k in one[name]), name


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("classes", "tasks"), [(6, 1), (7, 3), (40, 20)])
def test_one_task_uneven_tasks_and_many_tasks(name, classes, tasks, tiny_spec):
    each = 1 if tasks == 20 else 4  # images
    data = replace(
        tiny_spec.data, classes=classes, tasks=tasks, train_per_class=2, test_per_class=each
    )
    spec = replace(tiny_spec, data=data)
    spec = replace(spec, train=replace(spec.train, epochs=1, clip_norm=1.0))
    cell = trained(spec, name, **({"pool": 20} if name == "coda_prompt" else {}))
    rows = engine.evaluate(cell, cell.stream.tasks[-1])
    assert len(rows) == 2 * tasks
    assert sum(row["n"] for row in rows if row["scenario"] == "class") == classes * each


@pytest.mark.parametrize("name", [name for name in WITH_FORMS if name not in UNTRAINED])
def test_a_step_reads_nothing_from_the_device(name, monkeypatch):
    """A tensor on the meta device has no values: reading one, for which a GPU must wait, raises."""
    # autocast does not know that device.
    monkeypatch.setattr(torch, "autocast", lambda *given, **how: contextlib.nullcontext())
    kind = name.split()[0]
    vit = load_backbone(
        BackboneSpec(
            name="vit", checkpoint="random", image_size=16, patch=8, width=24, depth=12, heads=2
        )
    )
    method = build_method(kind, vit, 6, 3, {**MODEL.get(kind, {}), **FORMS.get(name, {})}, 0)
    for index in range(2):
        queries, labels = torch.randn(4, 24), torch.tensor([0, 0, 1, 1]) + 2 * index
        plain_queries = functools.partial(tuple, (queries, labels))
        chunk = (torch.randn(4, 3, 16, 16), queries, labels)
        plain_images = functools.partial(iter, [chunk])
        task = Task(index, 2 * index, 2 * index + 2, 2 * index, plain_queries, plain_images)
        method.begin_task(task)
        if index == 0:
            method.end_task(task)
    meta = torch.device("meta")
    vit.to(meta)
    method.to(meta)
    images, query = torch.zeros(3, 3, 16, 16, device=meta), torch.zeros(3, 24, device=meta)
    method.loss(images, query, torch.zeros(3, dtype=torch.long, device=meta), task).total.backward()
    assert method(images, query).shape == (3, 6)


def test_evaluation_needs_no_gradient_and_sees_each_image_once(tiny_spec):
    cell = trained(tiny_spec, "oneprompt")
    seen = []
    forward = cell.method.forward

    def watch(images, query):
        assert torch.is_inference_mode_enabled()
        seen.append(len(images))
        return forward(images, query)

    cell.facts["gflops_infer"] = 0.0
    cell.method.forward = watch
    engine.evaluate(cell, cell.stream.tasks[-1])
    assert sum(seen) == 6 * 4
