"""Tasks x epochs x steps: the one loop that trains and evaluates every method.

The engine owns the optimiser, schedule, masking at evaluation, checkpoints and the guard against divergence. A method
only says how an image becomes logits and what is descended.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import faults, movement, stopping
from bench.backbone import FrozenViT, load_backbone, resolve_precision
from bench.checkpoint import Checkpoints
from bench.config.spec import BackboneSpec, DataSpec, RunSpec, TrainSpec, UsageError
from bench.cost import inference_gflops, training_gflops
from bench.data.datasets import Dataset, load_dataset
from bench.data.keyed import derive
from bench.data.stream import Batch, TaskSlice, TaskStream
from bench.method import Method, Task, build_method
from bench.queries import Queries
from bench.store.rundir import RunDir, environment_digest, identity
from bench.store.tables import TABLES, Rows

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this, set before its start
KEPT = ("finished_tasks", "metrics", "timing", "losses", "movement", "similarity", "facts")  # what a checkpoint holds of a cell
Progress = Callable[[str], None]


class Diverged(Exception):
    """A loss or a gradient that is not finite: the cell has no result."""


# --- building a cell ------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _dataset(spec: DataSpec, image_size: int) -> Dataset:
    return load_dataset(spec, image_size)


@functools.lru_cache(maxsize=2)
def _backbone(spec: BackboneSpec, precision: str) -> FrozenViT:
    return load_backbone(spec, precision)


@dataclass
class Cell:
    """Everything that a run needs, built and checked before any training starts."""

    spec: RunSpec
    device: torch.device
    backbone: FrozenViT
    stream: TaskStream
    queries: Queries
    method: Method
    metrics: Rows = field(default_factory=list)
    timing: Rows = field(default_factory=list)
    losses: Rows = field(default_factory=list)
    movement: Rows = field(default_factory=list)
    similarity: Rows = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    finished_tasks: int = 0
    measuring: float = 0.0  # seconds spent on what is measured beside training


@dataclass
class Position:
    """Where training stands within a task. Nothing of it is read from the device before an epoch has ended."""

    epoch: int = 0
    step: int = 0  # steps done in this epoch
    served: int = 0  # image views trained on in this task
    seconds: float = 0.0  # spent on this task by processes that were stopped
    sums: dict[str, Tensor] = field(default_factory=dict)  # of each part of the loss over this epoch's steps, float64
    bad_step: Tensor | None = None  # the first step of this epoch with a loss or gradient that is not finite; 0 = none


def prepare(spec: RunSpec, device: str = "cpu") -> Cell:
    """Build a cell. Raises UsageError for whatever in its spec cannot be."""
    torch.set_num_threads(spec.train.threads)
    torch.use_deterministic_algorithms(True)
    # Nothing here reads uninitialised memory; filling it would cost 3% of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    place = torch.device(device)
    backbone = _backbone(spec.backbone, resolve_precision(spec.train.precision, place)).to(place)
    dataset = _dataset(spec.data, backbone.image_size)
    stream = TaskStream(
        dataset, spec.data, spec.order_seed, spec.seed, backbone.image_size, spec.train.batch_size, spec.train.joint
    )
    method = build_method(
        spec.type, backbone, len(dataset.classes), len(stream.tasks), spec.model, derive(spec.seed, "init", spec.type)
    ).to(place)
    return Cell(spec, place, backbone, stream, Queries(backbone, stream, spec, place), method)


# --- training -------------------------------------------------------------------------------------------------------


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
    with_rates = [{"params": g["params"], "lr": rates[g["kind"]], "base_lr": rates[g["kind"]]} for g in groups]
    if train.optimiser == "sgd":
        return torch.optim.SGD(with_rates, momentum=0.9, weight_decay=train.weight_decay)
    kind = torch.optim.Adam if train.optimiser == "adam" else torch.optim.AdamW
    return kind(with_rates, betas=(0.9, 0.999), weight_decay=train.weight_decay)


def _inputs(cell: Cell, batch: Batch, features: np.ndarray | None) -> tuple[Any, Any, Tensor]:
    """images, query, labels as a method takes them, on the device; None for what it does not need."""
    images = None if batch.images is None else cell.backbone.prepare(batch.images.to(cell.device))
    query = None if features is None else torch.from_numpy(np.array(features[batch.rows])).to(cell.device)
    return images, query, batch.labels.to(cell.device)


def contract_task(cell: Cell, part: TaskSlice) -> Task:
    """What the method is told of a task."""

    def plain_queries() -> tuple[Tensor, Tensor]:
        features = torch.from_numpy(np.array(cell.queries.plain("train")[part.rows]))
        return features.to(cell.device), torch.from_numpy(cell.stream.train_labels[part.rows]).to(cell.device)

    loss_start = 0 if cell.spec.train.loss_classes == "seen" else part.start
    return Task(part.index, part.start, part.stop, loss_start, plain_queries)


def train_task(cell: Cell, part: TaskSlice, log: Callable[[str], None], kept: Checkpoints | None = None) -> Position:
    """All epochs of one task, from where a checkpoint within it stands; returns the position at its end."""
    method, train = cell.method, cell.spec.train
    features_before = _old_features(cell, part)
    torch.manual_seed(derive(cell.spec.seed, "method", part.index))
    task = contract_task(cell, part)
    method.train()
    method.begin_task(task)
    prompts_before = {layer: prompt.detach().clone() for layer, prompt in method.layer_prompts().items()}
    optimiser = build_optimiser(method.param_groups(), train)
    at = (optimiser and kept and _restore_within(cell, optimiser, kept)) or Position()
    began = time.perf_counter()

    def save() -> None:
        if optimiser is not None and kept is not None:
            now = replace(at, seconds=at.seconds + time.perf_counter() - began)
            kept.save_within(cell.finished_tasks, _state_within(cell, optimiser, now))

    while at.epoch < train.epochs:
        _train_epoch(cell, part, task, optimiser, at, save)
        if at.sums:
            means = {name: f"{float(value) / at.step:.4f}" for name, value in at.sums.items()}
            place = {"run_id": cell.spec.run_id, "task": part.index + 1, "epoch": at.epoch + 1}
            cell.losses += [{**place, "part": name, "value": value} for name, value in means.items()]
            shown = " ".join(f"{name} {value}" for name, value in means.items())
            log(f"task {part.index + 1} epoch {at.epoch + 1}/{train.epochs} images {at.served} {shown}")
        at.epoch, at.step, at.sums, at.bad_step = at.epoch + 1, 0, {}, None
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
        cell.similarity += [{"run_id": cell.spec.run_id, **row} for row in movement.similarities(prompts)]
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
    batches = cell.stream.batches(part, at.epoch, method.needs_images and optimiser is not None, skip=at.step)
    if optimiser is None:
        for _ in batches:  # nothing is trained; the stream's digest still covers what others were served
            pass
        return
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    steps = math.ceil(len(part.rows) / train.batch_size)
    features = cell.queries.train(at.epoch) if method.needs_query else None
    if at.bad_step is None:
        at.bad_step = torch.zeros((), dtype=torch.int64, device=cell.device)
    for batch in batches:
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * schedule_factor(train.schedule, at.epoch + at.step / steps, train.epochs)
        images, query, labels = _inputs(cell, batch, features)
        if at.epoch == at.step == 0 and part is cell.stream.tasks[-1]:  # the last task: where prompts of all tasks take part
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
        "position": {**vars(at), "sums": {name: float(value) for name, value in at.sums.items()}, "bad_step": None},
        "losses": json.dumps(cell.losses),
        "facts": json.dumps(cell.facts),
        "stream": cell.stream.digest,
    }


def _restore_within(cell: Cell, optimiser: torch.optim.Optimizer, kept: Checkpoints) -> Position | None:
    """Continue within a task whose begin_task has run; None where there is no state to continue from."""
    content = kept.within(cell.finished_tasks)
    if content is None:
        return None
    before = copy.deepcopy(cell.method.state_dict())
    try:
        cell.method.load_state_dict(content["method"])
        optimiser.load_state_dict(content["optimiser"])
    except Exception as error:  # a method that was changed meanwhile: the task starts again
        cell.method.load_state_dict(before)
        kept.reject(error)
        return None
    torch.set_rng_state(content["random"][0])
    if len(content["random"]) > 1:
        torch.cuda.set_rng_state(content["random"][1], cell.device)
    cell.losses, cell.facts = json.loads(content["losses"]), json.loads(content["facts"])
    cell.stream.digest = content["stream"]
    position = content["position"]
    sums = {name: torch.tensor(value, dtype=torch.float64, device=cell.device) for name, value in position["sums"].items()}
    return Position(**{**position, "sums": sums})


def _random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _old_features(cell: Cell, part: TaskSlice) -> Tensor | None:
    """Features of earlier tasks' test images as the method has them now; None where there are none, or none can move."""
    if part.start == 0 or not cell.method.needs_images:
        return None
    began = time.perf_counter()
    cell.method.eval()
    rows = movement.old_rows(cell.stream, part.start)
    query = torch.from_numpy(cell.queries.plain("test")[rows]).to(cell.device) if cell.method.needs_query else None
    features = movement.features(cell.method, cell.stream, rows, query, cell.device)
    cell.measuring += time.perf_counter() - began
    return features


# --- evaluation -----------------------------------------------------------------------------------------------------


@torch.inference_mode()
def evaluate(cell: Cell, after: TaskSlice) -> Rows:
    """One pass over the test images of the classes seen; class and task scenario from the same logits."""
    method, stream = cell.method, cell.stream
    tasks = [t for t in stream.eval_tasks if t.stop <= after.stop]
    correct = {"class": np.zeros(len(tasks), dtype=int), "task": np.zeros(len(tasks), dtype=int)}
    n = np.zeros(len(tasks), dtype=int)
    features = cell.queries.plain("test") if method.needs_query else None
    bounds = torch.tensor([[t.start, t.stop] for t in tasks])
    classes = torch.arange(after.stop)
    for batch in stream.test_batches(after.stop, method.needs_images):
        stopping.check()
        images, query, labels = _inputs(cell, batch, features)
        if "gflops_infer" not in cell.facts and after is stream.tasks[-1]:
            cell.facts["gflops_infer"] = inference_gflops(cell.method, images, query)
        logits, labels = method(images, query)[:, : after.stop].cpu(), labels.cpu()
        if not torch.isfinite(logits).all():
            raise Diverged(f"logits that are not finite after task {after.index + 1}")
        which = torch.from_numpy(stream.task_of_class[labels.numpy()])
        own = bounds[which]
        outside = (classes[None] < own[:, :1]) | (classes[None] >= own[:, 1:])
        for scenario, scores in (("class", logits), ("task", logits.masked_fill(outside, -torch.inf))):
            hit = scores.argmax(dim=1) == labels
            correct[scenario] += np.bincount(which[hit].numpy(), minlength=len(tasks))
        n += np.bincount(which.numpy(), minlength=len(tasks))
    return [
        {**identity(cell.spec), "scenario": scenario, "after_task": len(tasks), "eval_task": t.index + 1,
         "n": int(n[i]), "correct": int(hits[i])}
        for scenario, hits in correct.items()
        for i, t in enumerate(tasks)
    ]  # fmt: skip


# --- the run --------------------------------------------------------------------------------------------------------


def environment(cell: Cell) -> dict[str, Any]:
    """What numbers may depend on besides the spec."""
    import timm

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "device": cell.device.type if cell.device.type == "cpu" else torch.cuda.get_device_name(cell.device),
    }


def identity_of(cell: Cell) -> dict[str, Any]:
    """What a cell's files turned out to be: two runs that differ here are not one cell."""
    return {
        "precision": cell.backbone.precision,
        "weights_sha": cell.backbone.sha256,
        "data_sha": cell.stream.dataset.sha256,
        "tasks": len(cell.stream.eval_tasks),
        "classes": len(cell.stream.dataset.classes),
    }


def run_cell(spec: RunSpec, results: Path, device: str = "cpu", progress: Progress = lambda text: None) -> dict:
    """Run one cell, or continue it, and leave its results on disk. Returns its state (status, reason, facts).

    Raises UsageError if the spec cannot be run at all and Busy while another process runs it; every other failure is a status.
    """
    run = RunDir.of(results, spec)
    with run.lock():
        if run.done():
            return run.state()
        return _run_cell(spec, run, device, progress)


def _run_cell(spec: RunSpec, run: RunDir, device: str, progress: Progress) -> dict:
    cell = prepare(spec, device)
    where = environment(cell)
    identifying = {"env_sha": environment_digest(where), **identity_of(cell)}
    run.refuse_other(identifying)
    run.open(spec, where)
    run.save_state({"status": "running", "reason": "", **identifying})
    try:
        _run_tasks(cell, run, progress)
        state = {"status": "done", "reason": "", **identifying, **_closing_facts(cell)}
        run.finish({name: getattr(cell, name) for name in TABLES}, state)
    except (KeyboardInterrupt, SystemExit):
        run.save_state({"status": "interrupted", "reason": "stopped by a signal", **identifying})
        raise
    except UsageError:
        raise
    except Exception as error:
        state = {**_failure(error), **identifying}
        run.log(f"{state['status']}: {state['reason']}")
        run.save_state(state)
    return state


def _failure(error: Exception) -> dict[str, str]:
    reason = (str(error).splitlines() or [""])[0]
    if isinstance(error, Diverged):
        return {"status": "diverged", "reason": reason}
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in reason:
        return {"status": "oom", "reason": reason or "out of memory"}
    return {"status": "error", "reason": f"{type(error).__name__}: {reason}"}


def _run_tasks(cell: Cell, run: RunDir, progress: Progress) -> None:
    def say(line: str) -> None:
        run.log(line)
        progress(line)

    kept = Checkpoints(run, cell.spec, say)
    _restore_tasks(cell, kept)
    if cell.finished_tasks:
        run.log(f"continued after task {cell.finished_tasks}")
    for part in cell.stream.tasks[cell.finished_tasks :]:
        progress(f"task {part.index + 1}/{len(cell.stream.tasks)}")
        cell.measuring, before = 0.0, time.perf_counter()
        end = train_task(cell, part, run.log, kept)
        trained = time.perf_counter()
        train_seconds = end.seconds + trained - before - cell.measuring
        rows = evaluate(cell, part)
        ended = time.perf_counter()
        cell.metrics += rows
        cell.finished_tasks = part.index + 1
        cell.timing.append(
            {
                "run_id": cell.spec.run_id,
                "task": part.index + 1,
                "train_seconds": round(train_seconds, 3),
                "eval_seconds": round(ended - trained, 3),
                "train_images_per_second": round(end.served / train_seconds, 1),
                "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
        own = [r for r in rows if r["scenario"] == "class"]
        run.log(f"task {part.index + 1} accuracy " + " ".join(f"{100 * r['correct'] / r['n']:.1f}" for r in own))
        faults.point("task")
        rest = json.dumps({name: getattr(cell, name) for name in KEPT})
        kept.save_task(cell.finished_tasks, {"method": cell.method.state_dict(), "rest": rest, "stream": cell.stream.digest})
        stopping.check()


def _restore_tasks(cell: Cell, kept: Checkpoints) -> None:
    """Continue after the newest finished task whose state can be read and fits."""
    fresh = {key: value.clone() for key, value in cell.method.state_dict().items()}
    for content in kept.tasks():
        try:
            cell.method.load_state_dict(content["method"])
        except Exception as error:  # the method was changed; what fitted of its old state must not stay
            cell.method.load_state_dict(fresh)
            kept.reject(error)
            continue
        for name, value in json.loads(content["rest"]).items():
            setattr(cell, name, value)
        cell.stream.digest = content["stream"]
        return


def _closing_facts(cell: Cell) -> dict[str, Any]:
    """Facts of a finished cell for runs.csv."""
    trainable = sum(p.numel() for p in cell.method.parameters())
    total = trainable + sum(p.numel() for p in cell.backbone.parameters())
    return {
        "model": cell.method.configuration,
        "stream_sha": cell.stream.digest,
        "params_trainable": trainable,
        "params_total": total,
        **cell.facts,
    }
