"""The log of movement: it measures what it says, and measuring changes nothing."""

import csv

import numpy as np
import pytest
import torch
from conftest import cell_of, with_method
from test_methods import prepared, trained

from bench.engine import movement
from bench.engine import task as training
from bench.method import method_names

POOLS = ["l2p", "l2p_plus", "deep_l2p", "dualprompt", "coda_prompt", "caprompt", "vq_prompt"]
WITH_PROMPTS = ["hlgp", "oneprompt", "nsp", "ovor", *POOLS]
WHOLE_NETWORK = ["finetune", "slca"]


@pytest.mark.parametrize("name", [*WITH_PROMPTS, *WHOLE_NETWORK])
def test_the_last_row_is_what_the_head_reads(name, tiny_spec):
    cell = trained(tiny_spec, name, tasks=2)
    rows = movement.old_rows(cell.stream, 2)
    query = (
        torch.from_numpy(np.array(cell.queries.plain("test")[rows]))
        if cell.method.needs_query
        else None
    )
    features = movement.features(cell.method, cell.stream, rows, query)
    assert features.shape == (cell.backbone.depth + 1, 8, cell.backbone.width)
    images = cell.backbone.normalise(torch.cat(list(cell.stream.plain_chunks("test", rows))))
    with torch.inference_mode():
        torch.testing.assert_close(
            cell.method.head(features[-1]), cell.method(images, query), rtol=1e-4, atol=1e-4
        )


def test_blocks_are_in_their_order(tiny_spec):
    """A method without prompts has the features of the frozen network, block by block."""
    cell = prepared(tiny_spec, "finetune")
    rows = movement.old_rows(cell.stream, 2)
    features = movement.features(cell.method, cell.stream, rows, None)
    vit = cell.backbone.vit
    with torch.inference_mode():
        x = vit._pos_embed(
            vit.patch_embed(
                cell.backbone.normalise(torch.cat(list(cell.stream.plain_chunks("test", rows))))
            )
        )
        for block, seen in zip(vit.blocks, features, strict=False):
            x = block(x)
            torch.testing.assert_close(x[:, 0], seen, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", method_names())
def test_movement_of_every_method(name, tiny_spec, run):
    state, folder = run(cell_of(tiny_spec, name))
    assert state["status"] == "done"
    with (folder / "movement.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    prompts = [row for row in rows if row["prompt_rms"]]
    assert bool(prompts) == (name in WITH_PROMPTS)
    assert all(float(row["prompt_rms"]) > 0 and float(row["prompt_change"]) > 0 for row in prompts)
    drift = [float(row["feature_drift"]) for row in rows if row["feature_drift"]]
    assert (max(drift, default=0.0) > 0) == (name in (*WITH_PROMPTS, *WHOLE_NETWORK))
    assert {row["task"] for row in rows if row["feature_drift"]} <= {"2", "3"}, (
        "before the first task there are no earlier ones"
    )


def test_selection_is_counted_for_each_task(tiny_spec, run):
    """After the last task alone; the shares of a task are those of its test images."""
    _, folder = run(cell_of(tiny_spec, "l2p"))
    with (folder / "selection.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["eval_task"] for row in rows} == {"1", "2", "3"}
    for task in ("1", "2", "3"):
        shares = [float(row["share"]) for row in rows if row["eval_task"] == task]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
    _, folder = run(cell_of(tiny_spec, "linear"))
    assert (folder / "selection.csv").read_text() == "run_id,eval_task,prompt,share\n"


def test_measuring_changes_nothing(tiny_spec, run, monkeypatch):
    spec = with_method(tiny_spec, "hlgp")
    _, with_it = run(spec, "with")
    monkeypatch.setattr(training, "_old_features", lambda cell, task_slice: None)
    _, without = run(spec, "without")
    assert (with_it / "metrics.csv").read_bytes() == (without / "metrics.csv").read_bytes()


def test_change_and_drift_by_hand():
    before, after = {0: torch.tensor([[3.0, 4.0]])}, {0: torch.tensor([[-3.0, 4.0]])}
    assert movement.prompt_rows(before, after) == {
        0: {
            "prompt_rms": pytest.approx(12.5**0.5, abs=1e-5),
            "prompt_change": pytest.approx(18**0.5, abs=1e-5),
        }
    }
    old = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # one layer, two images
    new = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
    rows = movement.table(2, {}, movement.feature_drift(old, new))
    assert rows == [
        {"task": 2, "layer": 0, "feature_drift": pytest.approx((1 - 0.5**0.5) / 2, abs=1e-5)}
    ]


def test_drift_is_from_before_the_task_begins_to_after_it_has_ended(tiny_spec, monkeypatch):
    """In some methods the beginning of a task changes the features: that is drift as well."""
    cell, said = prepared(tiny_spec, "hlgp"), []
    for where, name in (
        (training, "_old_features"),
        (cell.method, "begin_task"),
        (cell.method, "end_task"),
    ):
        real = getattr(where, name)
        monkeypatch.setattr(
            where,
            name,
            lambda *a, real=real, name=name: (said.append(name), real(*a))[1],
            raising=False,
        )
    training.train_task(cell, cell.stream.tasks[0], print)
    assert said == ["_old_features", "begin_task", "end_task", "_old_features"]


def test_similarity_of_layers_by_hand():
    rows = movement.similarities(
        {0: torch.ones(1, 2), 3: torch.tensor([[1.0, 0.0]]), 5: torch.ones(2, 2)}
    )
    assert rows == [{"layer": 0, "other": 3, "cosine": pytest.approx(0.5**0.5, abs=1e-5)}]
