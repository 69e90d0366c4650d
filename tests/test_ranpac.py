"""RanPAC against its official code: sums, the losses of every ridge, weights and logits."""

import functools

import pytest
import torch
from conftest import with_method
from golden_files import golden
from torch.nn import functional as F

from bench.engine import run as engine
from bench.method import Task, build_method, method_class
from methods.ranpac import RanPAC, ridge_losses

pytestmark = pytest.mark.parity


def close(ours, theirs, what, rtol=1e-9):
    scale = max(1.0, theirs.abs().max().item())
    assert (ours - theirs).abs().max().item() / scale < rtol, what


def official(name, small_vit):
    """The method with the official W, in fp64; the arrays; and its rows of each task."""
    arrays = golden(f"ranpac_{name}")
    projection = arrays["W_rand"].shape[1] if name == "rp" else 0
    method = build_method("ranpac", small_vit, 12, 3, {"projection": projection}, 0).double()
    if projection:
        method.projection.copy_(arrays["W_rand"])
    rows = [
        (
            method.project(arrays[f"task{task}_features"].double()),
            F.one_hot(arrays[f"task{task}_labels"], 12).double(),
        )
        for task in range(3)
    ]
    return method, arrays, rows


@pytest.mark.parametrize("name", ["rp", "norp"])
def test_it_is_the_official_code(name, small_vit):
    method, arrays, rows = official(name, small_vit)
    seen = 0
    for task, (h, y) in enumerate(rows):
        seen += int(arrays["task_sizes"][task])
        losses = losses_of(method, h, y)
        theirs = arrays[f"task{task}_losses_64"]
        told = method.ridges >= (1e-4 if name == "rp" else 0)
        assert losses[told].log() == pytest.approx(theirs[told].log(), rel=1e-7, abs=1e-7)
        if not task:
            close(h[:8], arrays["task0_H_first8_64"], "H")
        method.learn(h, y)
        assert float(method.ridge) == pytest.approx(float(arrays[f"task{task}_ridge_64"]))
        close(method.gram, arrays[f"task{task}_G_64"], "G")
        close(method.sums, arrays[f"task{task}_Q_64"], "Q")
        close(method.weight[:, :seen].T, arrays[f"task{task}_W_64"], "W", 1e-8)
        test = arrays["test_features"][arrays["test_labels"] < seen].double()
        logits = method(None, test)[:, :seen]
        close(logits, arrays[f"task{task}_logits_64"], "logits", 1e-8)


def test_class_means_are_the_official_ones(small_vit):
    """The official code's form without projection and Gram matrix is the suite's `ncm`."""
    arrays = golden("ranpac_ncm")
    method = build_method("ncm", small_vit, 12, 3, {}, 0).double()
    stop = 0
    for task, size in enumerate(arrays["task_sizes"].tolist()):
        start, stop = stop, stop + size
        rows = (arrays[f"task{task}_features"].double(), arrays[f"task{task}_labels"])
        method.end_task(Task(task, start, stop, start, functools.partial(tuple, rows)))
        close(method.class_means.means[:stop], arrays[f"task{task}_W_64"], "means")
        test = arrays["test_features"][arrays["test_labels"] < stop].double()
        close(method(None, test)[:, :stop], arrays[f"task{task}_logits_64"], "logits")


def losses_of(method, h, y):
    return ridge_losses(h, y, int(method.fit_share * len(h)), method.ridges)


def test_rows_in_the_order_of_the_classes_choose_another_ridge(small_vit):
    """The official code's trap, which the shuffle of end_task avoids."""
    method, arrays, rows = official("rp", small_vit)
    for task, (h, y) in enumerate(rows):
        order = arrays[f"task{task}_class_order_rows"]
        losses = losses_of(method, h[order], y[order])
        chosen = float(method.ridges[losses.argmin()])
        assert chosen == pytest.approx(float(arrays[f"task{task}_ridge_class_order_64"]))
        assert chosen != pytest.approx(float(arrays[f"task{task}_ridge_64"]))


@pytest.mark.parametrize(("rows", "size"), [(9, 20), (30, 8)])
def test_both_decompositions_are_the_solve(rows, size):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(rows + 5, size, dtype=torch.float64, generator=generator)
    y = F.one_hot(torch.randint(4, (rows + 5,), generator=generator), 4).double()
    ridges = torch.tensor([1e-3, 1.0, 100.0], dtype=torch.float64)
    for loss, ridge in zip(ridge_losses(h, y, rows, ridges), ridges, strict=True):
        gram = h[:rows].T @ h[:rows] + ridge * torch.eye(size, dtype=torch.float64)
        weight = torch.linalg.solve(gram, h[:rows].T @ y[:rows])
        assert float(loss) == pytest.approx(float(F.mse_loss(h[rows:] @ weight, y[rows:])))


def test_the_rows_are_shuffled(tiny_spec, monkeypatch):
    cell = engine.build_cell(with_method(tiny_spec, "ranpac", projection=20))
    seen = []
    learn = RanPAC.learn
    monkeypatch.setattr(RanPAC, "learn", lambda self, h, y: seen.append(y) or learn(self, h, y))
    engine.train_task(cell, cell.stream.tasks[0], lambda line: None)
    labels = seen[0].argmax(dim=1)
    assert not torch.equal(labels, labels.sort().values)
    assert sorted(labels.tolist()) == sorted(cell.stream.train_labels[cell.stream.tasks[0].rows])


@pytest.mark.parametrize("model", [{"projection": -1}, {"fit_share": 1.0}, {"exponents": (3, 2)}])
def test_impossible_settings(model, small_vit):
    with pytest.raises(ValueError, match=next(iter(model))):
        method_class("ranpac")(small_vit, 4, 2, **model)


def test_a_tiny_ridge_does_not_leave_the_logits_to_rounding(small_vit):
    """Few images and a wide projection: G has many directions of zero, and 10^-8 is too small for
    the rounding of an fp32 G.
    """
    model = {"projection": 300, "exponents": (-8, -8)}
    method = build_method("ranpac", small_vit, 6, 3, model, 0)
    centres = torch.randn(6, 24, generator=torch.Generator().manual_seed(1))
    for index in range(3):
        labels = torch.arange(2 * index, 2 * index + 2).repeat(20)
        noise = torch.randn(40, 24, generator=torch.Generator().manual_seed(index))
        rows = functools.partial(tuple, (20 * centres[labels] + 5 * noise, labels))
        method.end_task(Task(index, 2 * index, 2 * index + 2, 2 * index, rows))
    new = 20 * centres + 5 * torch.randn(6, 24, generator=torch.Generator().manual_seed(9))
    assert torch.equal(method(None, new).argmax(dim=1), torch.arange(6))
