"""One task: epochs x steps, the same loop for every method, from wherever a checkpoint within the task stands."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import faults, stopping
from bench.config.spec import TrainSpec
from bench.cost.counted import training_gflops
from bench.data.keyed import derive
from bench.data.stream import TaskSlice
from bench.engine import movement
from bench.engine.cell import Cell, inputs
from bench.engine.checkpoint import Checkpoints
from bench.errors import Diverged
from bench.method import Task


@dataclass
class Position:
    """Where training stands within a task. Nothing of it is read from the device before an epoch has ended."""

    epoch: int = 0
    step: int = 0  # steps done in this epoch
    served: int = 0  # image views trained on in this task
    seconds: float = 0.0  # spent on this task by processes that were stopped
    sums: dict[str, Tensor] = field(
        default_factory=dict
    )  # of each part of the loss over this epoch's steps, float64
    bad_step: Tensor | None = (
        None  # the first step of this epoch with a loss or gradient that is not finite; 0 = none
    )


def schedule_factor(kind: str, done: float, epochs: int) -> float:
    """Learning rate relative to the base rate after `done` epochs of a task, a fraction within one.

    coda: the released behaviour of GT-RIPL/CODA-Prompt utils/schedulers.py, whose first two epochs share the full
    rate; cosine: the intended one, cos(99 pi e / (200 (K - 1))) for epoch e from 0, which ends near zero; cosine_step:
    the same curve at every step, cos(pi done / (2 K)), for runs so short that an epoch near zero is a large part.
    """
    if kind == "cosine_step":
        return math.cos(math.pi * done / (2 * epochs))
    epoch = int(done)
    if kind == "constant" or epochs == 1:
        return 1.0
    step = max(epoch - 1, 0) if kind == "coda" else epoch
    return math.cos(99 * math.pi * step / (200 * (epochs - 1)))


def build_optimiser(groups: list[dict[str, Any]], train: TrainSpec) -> torch.optim.Optimizer | None:
    """A fresh optimiser for a task's trainables; None where a method trains nothing."""
    rates = {"prompt": train.prompt_lr, "head": train.head_lr}
    if not groups:
        return None
    with_rates = [
        {"params": g["params"], "lr": rates[g["kind"]], "base_lr": rates[g["kind"]]} for g in groups
    ]
    if train.optimiser == "sgd":
        return torch.optim.SGD(with_rates, momentum=0.9, weight_decay=train.weight_decay)
    kind = torch.optim.Adam if train.optimiser == "adam" else torch.optim.AdamW
    return kind(with_rates, betas=(0.9, 0.999), weight_decay=train.weight_decay)


def contract_task(cell: Cell, part: TaskSlice) -> Task:
    """What the method is told of a task."""

    def plain_queries() -> tuple[Tensor, Tensor]:
        features = torch.from_numpy(np.array(cell.queries.plain("train")[part.rows]))
        return features.to(cell.device), torch.from_numpy(cell.stream.train_labels[part.rows]).to(
            cell.device
        )

    loss_start = 0 if cell.spec.train.loss_classes == "seen" else part.start
    return Task(part.index, part.start, part.stop, loss_start, plain_queries)


def train_task(
    cell: Cell, part: TaskSlice, log: Callable[[str], None], kept: Checkpoints | None = None
) -> Position:
    """All epochs of one task, from where a checkpoint within it stands; returns the position at its end."""
    method, train = cell.method, cell.spec.train
    features_before = _old_features(cell, part)
    torch.manual_seed(derive(cell.spec.seed, "method", part.index))
    task = contract_task(cell, part)
    method.train()
    method.begin_task(task)
    prompts_before = {
        layer: prompt.detach().clone() for layer, prompt in method.layer_prompts().items()
    }
    optimiser = build_optimiser(method.param_groups(), train)
    at = (optimiser and kept and _restore_within(cell, optimiser, kept)) or Position()
    began = time.perf_counter()
    not_before = 0.0  # when the next state is worth writing

    def save() -> None:
        nonlocal not_before
        if optimiser is not None and kept is not None:
            start = time.perf_counter()
            now = replace(at, seconds=at.seconds + start - began)
            kept.save_within(cell.finished_tasks, _state_within(cell, optimiser, now))
            end = time.perf_counter()
            not_before = (
                end + 20 * (end - start) if end - start > 1 else 0.0
            )  # fine-tuning writes all weights

    while at.epoch < train.epochs:
        _train_epoch(cell, part, task, optimiser, at, save)
        if at.sums:
            means = {name: f"{float(value) / at.step:.4f}" for name, value in at.sums.items()}
            place = {"run_id": cell.spec.run_id, "task": part.index + 1, "epoch": at.epoch + 1}
            cell.losses += [
                {**place, "part": name, "value": value} for name, value in means.items()
            ]
            shown = " ".join(f"{name} {value}" for name, value in means.items())
            log(
                f"task {part.index + 1} epoch {at.epoch + 1}/{train.epochs} images {at.served} {shown}"
            )
        at.epoch, at.step, at.sums, at.bad_step = at.epoch + 1, 0, {}, None
        if time.perf_counter() >= not_before:
            save()
        faults.point("epoch")
    for parameter in method.parameters():
        parameter.grad = None
    prompts = {layer: prompt.detach() for layer, prompt in method.layer_prompts().items()}
    method.end_task(task)
    method.eval()
    moved = movement.prompt_rows(prompts_before, prompts)
    rows = movement.table(part.index + 1, moved, features_before, _old_features(cell, part))
    cell.movement += [{"run_id": cell.spec.run_id, **row} for row in rows]
    if part is cell.stream.tasks[-1]:
        cell.similarity += [
            {"run_id": cell.spec.run_id, **row} for row in movement.similarities(prompts)
        ]
    return at


def _train_epoch(
    cell: Cell,
    part: TaskSlice,
    task: Task,
    optimiser: torch.optim.Optimizer | None,
    at: Position,
    save: Callable[[], None],
) -> None:
    """One pass over a task's images, from the step at which it stands."""
    method, train = cell.method, cell.spec.train
    batches = cell.stream.batches(
        part, at.epoch, method.needs_images and optimiser is not None, skip=at.step
    )
    if optimiser is None:
        for _ in (
            batches
        ):  # nothing is trained; the stream's digest still covers what others were served
            pass
        return
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    steps = math.ceil(len(part.rows) / train.batch_size)
    features = cell.queries.train(at.epoch) if method.needs_query else None
    if at.bad_step is None:
        at.bad_step = torch.zeros((), dtype=torch.int64, device=cell.device)
    for batch in batches:
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * schedule_factor(
                train.schedule, at.epoch + at.step / steps, train.epochs
            )
        images, query, labels = inputs(cell, batch, features)
        if (
            at.epoch == at.step == 0 and part is cell.stream.tasks[-1]
        ):  # the last task: where prompts of all tasks take part
            cell.facts["gflops_train"] = training_gflops(method, images, query, labels, task)
        loss = method.loss(images, query, labels, task)
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if train.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, train.clip_norm, norm)
        optimiser.step()
        at.step, at.served = at.step + 1, at.served + len(labels)
        bad = ~(loss.total.detach().isfinite() & norm.isfinite()) & (at.bad_step == 0)
        at.bad_step = torch.where(bad, at.step, at.bad_step)
        for name, value in loss.parts.items():
            at.sums[name] = at.sums.get(name, 0.0) + value.detach().double()
        faults.point("step")
        if stopping.asked() and at.step < steps:
            _refuse_divergence(part, at)
            save()
            stopping.check()
    _refuse_divergence(part, at)


def _refuse_divergence(part: TaskSlice, at: Position) -> None:
    if at.bad_step is not None and (step := int(at.bad_step)):
        place = f"task {part.index + 1}, epoch {at.epoch + 1}, step {step}"
        raise Diverged(f"a loss or gradient that is not finite at {place}")


def _state_within(cell: Cell, optimiser: torch.optim.Optimizer, at: Position) -> dict[str, Any]:
    """All that training goes on from: tensors and plain values."""
    return {
        "method": cell.method.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": _random_state(cell.device),
        "position": {
            **vars(at),
            "sums": {name: float(value) for name, value in at.sums.items()},
            "bad_step": None,
        },
        "losses": json.dumps(cell.losses),
        "facts": json.dumps(cell.facts),
        "stream": cell.stream.digest,
    }


def _restore_within(
    cell: Cell, optimiser: torch.optim.Optimizer, kept: Checkpoints
) -> Position | None:
    """Continue within a task whose begin_task has run; None where there is no state to continue from."""
    content = kept.within(cell.finished_tasks)
    if content is None or not kept.restore(content, cell.method, optimiser):
        return None
    torch.set_rng_state(content["random"][0])
    if len(content["random"]) > 1:
        torch.cuda.set_rng_state(content["random"][1], cell.device)
    cell.losses, cell.facts = json.loads(content["losses"]), json.loads(content["facts"])
    cell.stream.digest = content["stream"]
    position = content["position"]
    sums = {
        name: torch.tensor(value, dtype=torch.float64, device=cell.device)
        for name, value in position["sums"].items()
    }
    return Position(**{**position, "sums": sums})


def _random_state(device: torch.device) -> list[Tensor]:
    return [
        torch.get_rng_state(),
        *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else []),
    ]


def _old_features(cell: Cell, part: TaskSlice) -> Tensor | None:
    """Features of earlier tasks' test images as the method has them now; None where there are none, or none can move."""
    if part.start == 0 or not cell.method.needs_images:
        return None
    began = time.perf_counter()
    cell.method.eval()
    rows = movement.old_rows(cell.stream, part.start)
    query = (
        torch.from_numpy(cell.queries.plain("test")[rows]).to(cell.device)
        if cell.method.needs_query
        else None
    )
    features = movement.features(cell.method, cell.stream, rows, query)
    cell.measuring += time.perf_counter() - began
    return features
