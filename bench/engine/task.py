"""One task of a cell: epochs x steps, the same loop for every method.

Training continues from a checkpoint within the task where one exists.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench import faults, stopping
from bench.config.spec import TrainSpec
from bench.cost.counted import training_gflops
from bench.data.keyed import derive
from bench.data.stream import Batch, TaskSlice
from bench.engine import movement
from bench.engine.cell import Cell, Inputs, inputs
from bench.engine.checkpoint import Checkpoints, Position, WithinTask
from bench.errors import Diverged
from bench.method import Task

SLOW_WRITE_SECONDS = 1.0  # a state that takes longer to write is not written after every epoch
MIN_WORK_PER_WRITE = 20  # seconds of training between two slow writes, per second of writing
SMALLEST_RATE = 1e-6  # of the schedule coswm
Log = Callable[[str], None]
Event = dict[str, Any]  # what a run says while it goes on; docs/running.md lists the fields
Tell = Callable[[Event], None]


def tell_nobody(event: Event) -> None:
    """The Tell of a run that nobody watches."""


class TrainedTask(NamedTuple):
    """What the training of one task took."""

    served: int  # image views
    seconds: float  # of training, by all processes together, without what is measured beside it


@dataclass
class Training:
    """One task in training. Nothing of it is read from the device before an epoch has ended."""

    cell: Cell
    task_slice: TaskSlice
    task: Task
    optimiser: torch.optim.Optimizer | None  # None: the method trains nothing
    epoch: int = 0
    step: int = 0  # steps done in this epoch
    served: int = 0  # image views trained on in this task
    earlier_seconds: float = 0.0  # spent on this task by processes that were stopped
    # Each term of the loss, summed over this epoch's steps, float64.
    sums: dict[str, Tensor] = field(default_factory=dict)
    # This epoch's first step with a loss or gradient that is not finite, int64; 0: none.
    bad_step: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return math.ceil(len(self.task_slice.rows) / self.cell.spec.train.batch_size)

    @property
    def is_last_task(self) -> bool:
        return self.task_slice is self.cell.stream.tasks[-1]

    def position(self, seconds: float) -> Position:
        """Where training is, with the seconds that this process has spent on the task."""
        sums = {name: float(value) for name, value in self.sums.items()}
        return Position(self.epoch, self.step, self.served, self.earlier_seconds + seconds, sums)

    def go_to(self, position: Position) -> None:
        self.epoch, self.step, self.served = position.epoch, position.step, position.served
        self.earlier_seconds = position.seconds
        self.sums = {
            name: torch.tensor(value, dtype=torch.float64, device=self.cell.device)
            for name, value in position.sums.items()
        }

    def next_epoch(self) -> None:
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}

    def refuse_divergence(self) -> None:
        """Raises Diverged if a step of this epoch was not finite. Waits for the device."""
        if step := int(self.bad_step):
            where = f"task {self.task_slice.index + 1}, epoch {self.epoch + 1}, step {step}"
            raise Diverged(f"a loss or gradient that is not finite at {where}")


# --- learning rate, optimiser -----------------------------------------------------------------


def schedule_factor(kind: str, done: float, epochs: int, milestones: tuple[int, ...] = ()) -> float:
    """Learning rate relative to the base rate, `done` epochs into a task (a whole number or not).

    coda: as GT-RIPL/CODA-Prompt utils/schedulers.py runs it, where the first two epochs share the
    full rate. cosine: as it was meant, cos(99 pi e / (200 (K - 1))) for epoch e from 0, which ends
    near zero. cosine_step: cos(pi done / (2 K)) at every step, for runs so short that an epoch near
    zero is a large share. step: a tenth after each 30 epochs, one epoch late, as timm's scheduler
    runs in CAPrompt (trainers/caprompt_trainer.py). multistep: a tenth after each milestone.
    """
    if kind == "cosine_step":
        return math.cos(math.pi * done / (2 * epochs))
    epoch = int(done)
    if kind == "step":
        return 0.1 ** (max(epoch - 1, 0) // 30)
    if kind == "multistep":
        return 0.1 ** sum(epoch >= milestone for milestone in milestones)
    if kind == "constant" or epochs == 1:
        return 1.0
    shifted = max(epoch - 1, 0) if kind == "coda" else epoch
    return math.cos(99 * math.pi * shifted / (200 * (epochs - 1)))


def coswm(update: int, updates: int, frozen: int, base: float) -> float:
    """The rate of VQ-Prompt's schedule at an update, from 0 (utils/schedulers.py).

    The first update has the full rate, the `frozen` that follow almost none, then a cosine to it.
    """
    entry = update - 1  # it is stepped after the update
    if entry < 0:
        return base
    if entry < frozen:
        return SMALLEST_RATE
    falling = (1 + math.cos(math.pi * (entry - frozen) / (updates - frozen))) / 2
    return SMALLEST_RATE + (base - SMALLEST_RATE) * falling


def build_optimiser(groups: list[dict[str, Any]], train: TrainSpec) -> torch.optim.Optimizer | None:
    """A fresh optimiser for a task's parameter groups; None where a method trains nothing."""
    if not groups:
        return None
    rates = {"prompt": train.prompt_lr, "head": train.head_lr}
    with_rates = [
        {"params": g["params"], "lr": rates[g["kind"]], "base_lr": rates[g["kind"]]} for g in groups
    ]
    if train.optimiser == "sgd":
        return torch.optim.SGD(with_rates, momentum=0.9, weight_decay=train.weight_decay)
    kind = torch.optim.Adam if train.optimiser == "adam" else torch.optim.AdamW
    return kind(with_rates, betas=(0.9, 0.999), weight_decay=train.weight_decay)


def _set_rates(training: Training, optimiser: torch.optim.Optimizer) -> None:
    train, steps = training.cell.spec.train, training.steps
    done = training.epoch + training.step / steps
    for group in optimiser.param_groups:
        base = group["base_lr"]
        if train.schedule == "coswm":
            update, frozen = training.epoch * steps + training.step, round(train.frozen * steps)
            group["lr"] = coswm(update, train.epochs * steps, frozen, base)
        else:
            factor = schedule_factor(train.schedule, done, train.epochs, train.milestones)
            group["lr"] = base * factor


# --- a task -----------------------------------------------------------------------------------


def plain_images(cell: Cell, rows: np.ndarray) -> Iterator[Inputs]:
    """These training images without augmentation, chunk by chunk, as the cell's method takes them.

    A method that needs no images gets its queries in one chunk.
    """
    method, stream = cell.method, cell.stream
    features = cell.queries.plain("train") if method.needs_query else None
    chunks = stream.plain_batches(rows, method.needs_images)
    return (inputs(cell, batch, features) for batch in chunks)


def contract_task(cell: Cell, task_slice: TaskSlice) -> Task:
    """What the method is told of a task."""
    rows = task_slice.rows

    def plain_queries() -> tuple[Tensor, Tensor]:
        features = torch.from_numpy(np.array(cell.queries.plain("train")[rows]))
        labels = torch.from_numpy(cell.stream.train_labels[rows])
        return features.to(cell.device), labels.to(cell.device)

    loss_start = 0 if cell.spec.train.loss_classes == "seen" else task_slice.start
    return Task(
        task_slice.index,
        task_slice.start,
        task_slice.stop,
        loss_start,
        plain_queries,
        functools.partial(plain_images, cell, rows),
    )


def train_task(
    cell: Cell,
    task_slice: TaskSlice,
    log: Log,
    kept: Checkpoints | None = None,
    tell: Tell = tell_nobody,
) -> TrainedTask:
    """All epochs of one task.

    kept: where states within the task are read from and written to. tell: called after each epoch.
    """
    entered, cell.measuring_seconds = time.perf_counter(), 0.0
    method = cell.method
    features_before = _old_features(cell, task_slice)
    torch.manual_seed(derive(cell.spec.seed, "method", task_slice.index))
    task = contract_task(cell, task_slice)
    method.train()
    method.begin_task(task)
    prompts_before = {layer: p.detach().clone() for layer, p in method.layer_prompts().items()}
    optimiser = build_optimiser(method.param_groups(), cell.spec.train)
    training = Training(cell, task_slice, task, optimiser)
    _train_epochs(training, _StatesWithin(training, kept), log, tell)
    for parameter in method.parameters():
        parameter.grad = None
    prompts = {layer: p.detach() for layer, p in method.layer_prompts().items()}
    method.end_task(task)
    method.eval()
    moved = movement.prompt_rows(prompts_before, prompts)
    drift = movement.feature_drift(features_before, _old_features(cell, task_slice))
    cell.add("movement", movement.table(task_slice.index + 1, moved, drift))
    if training.is_last_task:
        cell.add("similarity", movement.similarities(prompts))
    seconds = time.perf_counter() - entered - cell.measuring_seconds
    return TrainedTask(training.served, training.earlier_seconds + seconds)


def _train_epochs(training: Training, states: _StatesWithin, log: Log, tell: Tell) -> None:
    states.restore()
    while training.epoch < training.cell.spec.train.epochs:
        _train_epoch(training, states)
        _record_losses(training, log)
        tell(_epoch_event(training, states.seconds))
        training.next_epoch()
        states.save_if_cheap()
        faults.point("epoch")


def _mean_losses(training: Training) -> dict[str, float]:
    """The mean of each term of the loss over the steps of this epoch."""
    return {name: float(total) / training.step for name, total in training.sums.items()}


def _epoch_event(training: Training, seconds: float) -> Event:
    """What is told of an epoch that has just ended. seconds: spent on this task so far."""
    return {
        "task": training.task_slice.index + 1,
        "tasks": len(training.cell.stream.tasks),
        "epoch": training.epoch + 1,
        "epochs": training.cell.spec.train.epochs,
        "losses": _mean_losses(training),
        "images_per_second": training.served / seconds if seconds else 0.0,
    }


def _record_losses(training: Training, log: Log) -> None:
    """The mean of each term of the loss over the epoch, for losses.csv and the cell's log."""
    if not training.sums:
        return
    cell, task, epoch = training.cell, training.task_slice.index + 1, training.epoch + 1
    means = {name: f"{mean:.4f}" for name, mean in _mean_losses(training).items()}
    cell.add(
        "losses",
        [{"task": task, "epoch": epoch, "part": n, "value": mean} for n, mean in means.items()],
    )
    shown = " ".join(f"{name} {mean}" for name, mean in means.items())
    log(f"task {task} epoch {epoch}/{cell.spec.train.epochs} images {training.served} {shown}")


def _train_epoch(training: Training, states: _StatesWithin) -> None:
    """One pass over a task's images, from the step that training has come to."""
    cell, optimiser = training.cell, training.optimiser
    needs_images = cell.method.needs_images and optimiser is not None
    batches = cell.stream.batches(
        training.task_slice, training.epoch, needs_images, skip=training.step
    )
    if optimiser is None:
        for _ in batches:  # the stream's digest covers them, as it does for other methods
            pass
        return
    features = cell.queries.train(training.epoch) if cell.method.needs_query else None
    training.bad_step = torch.zeros((), dtype=torch.int64, device=cell.device)
    for batch in batches:
        _train_step(training, optimiser, batch, features)
        faults.point("step")
        if stopping.asked() and training.step < training.steps:
            training.refuse_divergence()
            states.save()
            stopping.check()
    training.refuse_divergence()


def _train_step(
    training: Training, optimiser: torch.optim.Optimizer, batch: Batch, features: np.ndarray | None
) -> None:
    cell, task = training.cell, training.task
    _set_rates(training, optimiser)
    images, query, labels = inputs(cell, batch, features)
    if training.epoch == training.step == 0 and training.is_last_task:
        # Prompts of all tasks take part in the last one.
        gflops = training_gflops(cell.method, images, query, labels, task)
        cell.facts["gflops_train"] = gflops
    loss = cell.method.loss(images, query, labels, task)
    optimiser.zero_grad(set_to_none=True)
    loss.total.backward()
    norm = _clipped_norm(optimiser, cell.spec.train.clip_norm)
    optimiser.step()
    cell.method.after_step()
    training.step, training.served = training.step + 1, training.served + len(labels)
    finite = loss.total.detach().isfinite() & norm.isfinite()
    first_bad = ~finite & (training.bad_step == 0)
    training.bad_step = torch.where(first_bad, training.step, training.bad_step)
    for name, value in loss.terms.items():
        training.sums[name] = training.sums.get(name, 0.0) + value.detach().double()


def _clipped_norm(optimiser: torch.optim.Optimizer, clip_norm: float) -> Tensor:
    """The norm of all gradients, which are then clipped to clip_norm unless that is 0."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm


def _old_features(cell: Cell, task_slice: TaskSlice) -> Tensor | None:
    """Features of earlier tasks' test images as the method makes them now.

    None in the first task, and for a method on frozen features, which cannot move.
    """
    if task_slice.start == 0 or not cell.method.needs_images:
        return None
    began = time.perf_counter()
    cell.method.eval()
    rows, query = movement.old_rows(cell.stream, task_slice.start), None
    if cell.method.needs_query:
        query = torch.from_numpy(cell.queries.plain("test")[rows]).to(cell.device)
    features = movement.features(cell.method, cell.stream, rows, query)
    cell.measuring_seconds += time.perf_counter() - began
    return features


# --- states within the task -------------------------------------------------------------------


class _StatesWithin:
    """Reads and writes the states within one task, if it has an optimiser and checkpoints."""

    def __init__(self, training: Training, kept: Checkpoints | None) -> None:
        self.training, self.kept = training, kept
        self.began = time.perf_counter()
        self.not_before = 0.0  # the time at which the next state is worth its writing

    def restore(self) -> None:
        """Continue a task whose begin_task has run from its kept state, if one exists and fits."""
        training, cell, optimiser = self.training, self.training.cell, self.training.optimiser
        if optimiser is not None and self.kept is not None:
            state = self.kept.within(cell.finished_tasks)
            if state is not None and self.kept.restore(state, cell.method, optimiser):
                _set_random_state(state.random, cell.device)
                cell.tables["losses"], cell.facts = state.losses, state.facts
                cell.stream.digest = state.stream
                training.go_to(state.position)
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Spent on this task so far, by all processes together."""
        return self.training.earlier_seconds + time.perf_counter() - self.began

    def save_if_cheap(self) -> None:
        """Fine-tuning writes all weights: that takes at most a twentieth of the time."""
        if time.perf_counter() >= self.not_before:
            self.save()

    def save(self) -> None:
        optimiser, cell = self.training.optimiser, self.training.cell
        if optimiser is None or self.kept is None:
            return
        start = time.perf_counter()
        state = WithinTask(
            finished=cell.finished_tasks,
            method=cell.method.state_dict(),
            optimiser=optimiser.state_dict(),
            random=_random_state(cell.device),
            stream=cell.stream.digest,
            position=self.training.position(start - self.began),
            losses=cell.tables["losses"],
            facts=cell.facts,
        )
        self.kept.save_within(state)
        end = time.perf_counter()
        slow = end - start > SLOW_WRITE_SECONDS
        self.not_before = end + MIN_WORK_PER_WRITE * (end - start) if slow else 0.0


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
