"""Frozen query features: of the views that are served, and never those of other weights, images or
views.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import with_method

from bench.config.spec import BackboneSpec
from bench.engine import queries
from bench.engine import run as engine


@pytest.fixture
def spec(tiny_spec):
    return with_method(replace(tiny_spec, data=replace(tiny_spec.data, crop_low=0.3)), "dualprompt")


def test_training_queries_are_of_the_views_that_are_served(spec):
    cell = engine.build_cell(spec)
    for epoch in (0, 1):
        for batch in cell.stream.batches(cell.stream.tasks[1], epoch):
            with torch.inference_mode():
                seen = cell.backbone.cls(cell.backbone.normalise(batch.images))
            features = torch.from_numpy(np.array(cell.queries.train(epoch)[batch.rows]))
            torch.testing.assert_close(features, seen, rtol=1e-4, atol=1e-5)
    assert not np.allclose(cell.queries.train(0), cell.queries.train(1)), (
        "other views in another epoch"
    )
    assert not np.allclose(cell.queries.train(0), cell.queries.plain("train")), (
        "not of the test view"
    )


def test_plain_queries_are_of_the_test_view(spec):
    cell = engine.build_cell(spec)
    for batch in cell.stream.test_batches(6):
        with torch.inference_mode():
            seen = cell.backbone.cls(cell.backbone.normalise(batch.images))
        features = torch.from_numpy(np.array(cell.queries.plain("test")[batch.rows]))
        torch.testing.assert_close(features, seen, rtol=1e-4, atol=1e-5)


def test_whatever_features_depend_on_is_in_their_name(spec, monkeypatch):
    names = []
    monkeypatch.setattr(queries, "cached", lambda kind, key, make: names.append(key))

    def ask(epoch=0, part="train", change=spec, **other):
        backbone = SimpleNamespace(
            **{"sha256": "w", "image_size": 32, "precision": "fp32", **other}
        )
        dataset = SimpleNamespace(sha256=other.get("data", "d"), side=other.get("side", 32))
        stream = SimpleNamespace(
            dataset=dataset, device=torch.device("cpu"), seed=change.seed, spec=change.data
        )
        asked = queries.Queries(backbone, stream, change)
        asked.plain(part) if epoch is None else asked.train(epoch)
        return names[-1]

    data, train = spec.data, spec.train
    told = [
        ask(),
        ask(epoch=1),
        ask(epoch=None),
        ask(epoch=None, part="test"),
        ask(sha256="other weights"),
        ask(image_size=48),
        ask(precision="bf16"),
        ask(data="other images"),
        ask(side=64),
        ask(change=replace(spec, seed=2)),
        ask(change=replace(spec, data=replace(data, crop_low=0.4))),
        ask(change=replace(spec, data=replace(data, flip=True))),
        ask(change=replace(spec, train=replace(train, threads=2))),
        ask(change=replace(spec, backbone=BackboneSpec(normalise="timm"))),
    ]
    for what, value in (
        ("timm", SimpleNamespace(__version__="0")),
        ("processor_name", lambda: "another"),
    ):
        monkeypatch.setattr(queries, what, value)
        told.append(ask())
    assert len(set(told)) == len(told)
    same = [
        replace(spec, order_seed=7),
        with_method(spec, "coda_prompt"),
        replace(spec, train=replace(train, prompt_lr=1.0)),
    ]
    assert {ask(change=change) for change in same} == {ask()}, "shared by orders, methods and rates"
