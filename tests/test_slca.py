"""SLCA's first stage against its official code. Its second stage is in test_align.py."""

import pytest
import torch
from golden_files import golden
from torch import nn

from bench.engine.task import schedule_factor
from bench.method import Task, build_method
from methods import slca

pytestmark = pytest.mark.parity


def close(ours, theirs, what):
    scale = max(1.0, theirs.abs().max().item())
    assert (ours.detach() - theirs).abs().max().item() / scale < 1e-9, what


@pytest.mark.parametrize("file", ["full", "head_only"])
def test_three_tasks_of_the_slow_learner_are_the_official_ones(file, small_vit, monkeypatch):
    """The official network is a linear layer and the fresh norm; with the head alone, nothing."""
    arrays = golden(f"slca_{file}")
    monkeypatch.setattr(slca, "run_vit", lambda vit, x, **settings: vit(x)[:, None])
    method = build_method("slca", small_vit, 12, 3, {}, 0)
    network = {}
    method.vit = nn.Identity()
    if file == "full":
        linear, norm = nn.Linear(24, 24), nn.LayerNorm(24, eps=1e-5)
        with torch.no_grad():
            linear.weight.copy_(arrays["lin_w"])
            linear.bias.copy_(arrays["lin_b"])
        method.vit = nn.Sequential(linear, norm)
        network = {"lin_w": linear.weight, "lin_b": linear.bias}
        network |= {"norm_w": norm.weight, "norm_b": norm.bias}
    method.head = nn.Linear(24, 12)
    method.double()
    views, labels = arrays["train_view"].double(), arrays["train_labels"]
    for t in range(3):
        task = Task(t, 4 * t, 4 * t + 4, 4 * t, lambda: (views, labels))
        rows = torch.nonzero((labels >= task.start) & (labels < task.stop))[:, 0]
        with torch.no_grad():
            method.head.weight[task.start : task.stop] = arrays[f"task{t}_head_init"].double()
            method.head.bias[task.start : task.stop] = 0
        method.begin_task(task)
        hyper = arrays[f"task{t}_stage1_hyper"]
        rates = {"prompt": float(hyper[0, 0, 0]), "head": float(hyper[0, -1, 0])}
        groups = [{**group, "lr": rates[group["kind"]]} for group in method.param_groups()]
        optimiser = torch.optim.SGD(groups, momentum=0.9, weight_decay=5e-4)
        step = 0
        for epoch, order in enumerate(arrays[f"task{t}_order"]):
            factor = schedule_factor("multistep", epoch, 3, (2,))
            for group in optimiser.param_groups:
                group["lr"] = rates[group["kind"]] * factor
            for chosen in rows[order].split(16):
                loss = method.loss(views[chosen], None, labels[chosen], task)
                close(loss.total, arrays[f"task{t}_stage1_loss_64"][step], f"loss {t} {step}")
                optimiser.zero_grad()
                loss.total.backward()
                if not step:
                    grads = {name: value.grad for name, value in network.items()}
                    grads["head_w"] = method.head.weight.grad[task.start : task.stop]
                    grads["head_b"] = method.head.bias.grad[task.start : task.stop]
                    for name, value in grads.items():
                        close(value, arrays[f"task{t}_stage1_grad_{name}_first_64"], name)
                optimiser.step()
                method.after_step()
                step += 1
        found = {
            **network,
            "head_w": method.head.weight[: task.stop],
            "head_b": method.head.bias[: task.stop],
        }
        for name, value in found.items():
            close(value, arrays[f"task{t}_stage1_{name}_64"], f"{name} {t}")


def test_the_last_norm_is_a_fresh_one(small_vit):
    with torch.no_grad():
        small_vit.vit.norm.weight.fill_(3.0)
    fresh, pretrained = (
        build_method("slca", small_vit, 6, 3, {"fresh_norm": on}, 0).vit.norm
        for on in (True, False)
    )
    assert torch.equal(fresh.weight, torch.ones_like(fresh.weight))
    assert fresh.eps == 1e-5
    assert torch.equal(pretrained.weight, small_vit.vit.norm.weight)
