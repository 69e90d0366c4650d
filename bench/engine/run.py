"""The run of a cell: task after task, evaluation after each, checkpoints, and a status at its end.

The engine owns optimiser, schedule, evaluation with its masking, checkpoints and the guard against
divergence (with task.py). A method only says how an image becomes logits and which loss to
minimise.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import faults, stopping
from bench.code import code_sha
from bench.config.spec import RunSpec
from bench.cost.counted import inference_gflops
from bench.data.stream import TaskSlice
from bench.engine.cell import Cell, build_cell, inputs
from bench.engine.checkpoint import AfterTask, Checkpoints
from bench.engine.heads import Head, aligned_head, has_aligned_head, keeps_statistics
from bench.engine.task import Tell, tell_nobody, train_task
from bench.environment import environment, origin
from bench.errors import Diverged, UsageError
from bench.hardware import not_repeatable, peak_memory_mib
from bench.method import Method
from bench.store.codes import Codes
from bench.store.rundir import FIXED_COLUMNS, STALE, RunDir, environment_digest, identity
from bench.store.tables import Rows

# --- evaluation -------------------------------------------------------------------------------


@torch.inference_mode()
def evaluate(cell: Cell, after: TaskSlice, aligned: Head | None = None) -> Rows:
    """One pass over the test images of the classes seen, as rows of metrics.csv.

    Both scenarios of a head come from the same logits: 'class' over all classes seen, 'task' over
    the classes of the image's own task; those of the aligned head, 'class-aligned' and
    'task-aligned', from the same features. Raises Diverged for logits that are not finite.
    """
    method, stream = cell.method, cell.stream
    tasks = [task for task in stream.eval_tasks if task.stop <= after.stop]
    bounds = torch.tensor([[task.start, task.stop] for task in tasks])
    suffixes = ("",) if aligned is None else ("", "-aligned")
    correct = {
        scenario + suffix: np.zeros(len(tasks), dtype=int)
        for suffix in suffixes
        for scenario in ("class", "task")
    }
    n = np.zeros(len(tasks), dtype=int)
    features = cell.queries.plain("test") if method.needs_query else None
    last = after is stream.tasks[-1]
    shares: list[Tensor] = []  # of the prompts, summed over the images of each task
    for batch in stream.test_batches(after.stop, method.needs_images):
        stopping.check()
        images, query, labels = inputs(cell, batch, features)
        if "gflops_infer" not in cell.facts and last:
            cell.facts["gflops_infer"] = inference_gflops(method, images, query)
        of_heads = _logits(method, images, query, aligned)
        labels = labels.cpu()
        task_of = torch.from_numpy(stream.task_of_class[labels.numpy()])
        n += _per_task(task_of, len(tasks))
        if last and (chosen := method.chosen(query)) is not None:
            of_batch = torch.nn.functional.one_hot(task_of, len(tasks)).double()
            shares.append(of_batch.T @ chosen.double().cpu())
        for suffix, every in zip(suffixes, of_heads, strict=True):
            logits = every[:, : after.stop].cpu()
            if not torch.isfinite(logits).all():
                raise Diverged(f"logits that are not finite after task {after.index + 1}")
            own_logits = _only_own_task(logits, bounds[task_of])
            for scenario, scores in (("class", logits), ("task", own_logits)):
                hits = task_of[scores.argmax(dim=1) == labels]
                correct[scenario + suffix] += _per_task(hits, len(tasks))
    if shares:
        cell.add("selection", _selection(torch.stack(shares).sum(dim=0).numpy() / n[:, None]))
    return [
        {
            **identity(cell.spec),
            "scenario": scenario,
            "after_task": len(tasks),
            "eval_task": task.index + 1,
            "n": int(n[i]),
            "correct": int(hits[i]),
        }
        for scenario, hits in correct.items()
        for i, task in enumerate(tasks)
    ]


def _logits(method: Method, images: Any, query: Any, aligned: Head | None) -> list[Tensor]:
    """Logits (B, classes) of the method, and of the aligned head on the same features."""
    if aligned is None:
        return [method(images, query)]
    features = method.features(images, query)
    return [method.classify(features, head) for head in (method.head, aligned)]


def _selection(shares: np.ndarray) -> Rows:
    """Rows of selection.csv from (tasks, prompts): the prompts that some image of a task got."""
    return [
        {"eval_task": task + 1, "prompt": prompt + 1, "share": round(float(share), 6)}
        for (task, prompt), share in np.ndenumerate(shares)
        if round(float(share), 6)
    ]


def _per_task(task_of: Tensor, tasks: int) -> np.ndarray:
    """(tasks,): how many images each task has, from the task of each image."""
    return np.bincount(task_of.numpy(), minlength=tasks)


def _only_own_task(logits: Tensor, bounds: Tensor) -> Tensor:
    """Logits (b, classes) with those outside each image's bounds (b, 2), start and stop, masked."""
    classes = torch.arange(logits.shape[1])[None]
    outside = (classes < bounds[:, :1]) | (classes >= bounds[:, 1:])
    return logits.masked_fill(outside, -torch.inf)


# --- the run ----------------------------------------------------------------------------------


def identity_of(cell: Cell) -> dict[str, Any]:
    """Facts about a cell's files: two runs that differ here are not one cell."""
    return {
        "precision": cell.backbone.precision,
        "weights_sha": cell.backbone.sha256,
        "data_sha": cell.stream.dataset.sha256,
        "manifest_sha": cell.stream.dataset.manifest,
        "tasks": len(cell.stream.eval_tasks),
        "classes": len(cell.stream.dataset.classes),
    }


def run_cell(
    spec: RunSpec, results: Path, device: str = "cpu", tell: Tell = tell_nobody
) -> dict[str, Any]:
    """Run one cell, or continue it, and leave its results on disk.

    Returns its state: status, reason, facts. tell: called when a task begins, after each epoch and
    each task, and with notes (docs/running.md lists the fields of these events). Raises UsageError
    if the spec cannot be run at all and Busy while another process runs it; every other failure is
    a status.
    """
    run = RunDir.of(results, spec)
    code = code_sha(spec.type, spec.data.name)
    with run.lock():
        before = run.code()
        other = before != "" and not Codes.of(results).same(spec.suite, spec.type, before, code)
        realigned = run.aligned_otherwise(spec)
        if run.done() and not (other or realigned):
            return run.state()
        if other or realigned:
            run.set_aside()
            what = "another recipe of the aligned head" if realigned else f"code {before}"
            run.log(f"what {what} left is in {STALE}/ until this run, of {code}, is done")
        return _run_cell(spec, run, device, tell)


def _run_cell(spec: RunSpec, run: RunDir, device: str, tell: Tell) -> dict[str, Any]:
    cell = build_cell(spec, device)
    environment_facts = environment(cell.device)
    identifying = {
        "code_sha": cell.code,
        "align": dataclasses.asdict(spec.align) if cell.method.has_head else {},
        "env_sha": environment_digest(environment_facts),
        **identity_of(cell),
        **origin(),
    }
    run.refuse_other(identifying)
    run.open(spec, environment_facts, {**identifying, **_settings(cell)}, _classes(cell))
    run.save_state({"status": "running", "reason": "", **identifying})
    try:
        _run_tasks(cell, run, {key: identifying[key] for key in FIXED_COLUMNS}, tell)
        ended = {"status": "done", "reason": not_repeatable(cell.device)}
        state = {**ended, **identifying, **_settings(cell), **_closing_facts(cell)}
        run.finish(cell.tables, state)
        Checkpoints.forget_statistics(run)
    except (KeyboardInterrupt, SystemExit):
        run.give_up({"status": "interrupted", "reason": "stopped by a signal", **identifying})
        raise
    except UsageError:
        raise
    except Exception as error:
        state = {**failure(error), **identifying}
        run.log(f"{state['status']}: {state['reason']}")
        run.give_up(state)
    return state


def failure(error: Exception) -> dict[str, str]:
    """Status and reason of a cell that ended with an exception."""
    reason = (str(error).splitlines() or [""])[0]
    if isinstance(error, Diverged):
        return {"status": "diverged", "reason": reason}
    if isinstance(error, OSError) and error.filename:
        return {"status": "error", "reason": f"{error.filename}: {error.strerror}"}
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in reason:
        return {"status": "oom", "reason": reason or "out of memory"}
    return {"status": "error", "reason": f"{type(error).__name__}: {reason}"}


def _classes(cell: Cell) -> Rows:
    """The cell's class order, as rows of classes.csv."""
    order = {"benchmark": cell.spec.benchmark, "order_seed": cell.spec.order_seed}
    names = [cell.stream.dataset.classes[number] for number in cell.stream.order]
    return [
        {**order, "position": position + 1, "task": task.index + 1, "class": names[position]}
        for task in cell.stream.eval_tasks
        for position in range(task.start, task.stop)
    ]


def _settings(cell: Cell) -> dict[str, Any]:
    """The method's settings with its defaults, and how it selects prompts at test."""
    model = cell.method.configuration
    return {"model": model, "selection": cell.method.selection(model)}


def _closing_facts(cell: Cell) -> dict[str, Any]:
    """Facts about a finished cell for runs.csv."""
    trainable = sum(p.numel() for p in cell.method.parameters())
    total = trainable + sum(p.numel() for p in cell.backbone.parameters())
    return {
        "stream_sha": cell.stream.digest,
        "params_trainable": trainable,
        "params_total": total,
        **cell.facts,
    }


def _run_tasks(cell: Cell, run: RunDir, same: dict[str, str], tell: Tell) -> None:
    """All tasks that are left. same: digests that a checkpoint must share with this run."""

    def say(line: str) -> None:
        run.log(line)
        tell({"note": line})

    kept = Checkpoints(run, cell.spec, same, say)
    _restore_tasks(cell, kept)
    if cell.finished_tasks:
        run.log(f"continued after task {cell.finished_tasks}")
    for task_slice in cell.stream.tasks[cell.finished_tasks :]:
        _run_task(cell, task_slice, run, kept, tell)
        stopping.check()


def _run_task(
    cell: Cell, task_slice: TaskSlice, run: RunDir, kept: Checkpoints, tell: Tell
) -> None:
    """Train a task, evaluate after it, and keep the state."""
    number = {"task": task_slice.index + 1, "tasks": len(cell.stream.tasks)}
    tell(number)
    trained = train_task(cell, task_slice, run.log, kept, tell)
    began = time.perf_counter()
    aligned = aligned_head(cell, task_slice) if has_aligned_head(cell) else None
    aligned_at = time.perf_counter()
    rows = evaluate(cell, task_slice, aligned)
    timing = {
        "task": task_slice.index + 1,
        "train_seconds": round(trained.seconds, 3),
        "eval_seconds": round(time.perf_counter() - aligned_at, 3),
        "align_seconds": round(aligned_at - began, 3),
        "train_images_per_second": round(trained.served / trained.seconds, 1),
        "peak_memory_mib": peak_memory_mib(),
    }
    cell.add("metrics", rows)
    cell.add("timing", [timing])
    cell.finished_tasks = task_slice.index + 1
    accuracies = _accuracies(rows, "class")
    tell({**number, "average_accuracy": sum(accuracies) / len(accuracies)})
    run.log(f"task {task_slice.index + 1} accuracy {_shown(accuracies)}")
    if aligned is not None:
        shown = _shown(_accuracies(rows, "class-aligned"))
        run.log(f"task {task_slice.index + 1} accuracy with aligned head {shown}")
    faults.point("task")
    if keeps_statistics(cell):
        kept.save_statistics(cell.finished_tasks, cell.statistics[-1])
    kept.save_after(
        AfterTask(
            finished=cell.finished_tasks,
            method=cell.method.state_dict(),
            stream=cell.stream.digest,
            tables=cell.tables,
            facts=cell.facts,
        )
    )


def _accuracies(rows: Rows, scenario: str) -> list[float]:
    """Percent correct of each task, from rows of metrics.csv."""
    return [100 * row["correct"] / row["n"] for row in rows if row["scenario"] == scenario]


def _shown(accuracies: list[float]) -> str:
    return " ".join(f"{accuracy:.1f}" for accuracy in accuracies)


def _restore_tasks(cell: Cell, kept: Checkpoints) -> None:
    """Continue after the newest finished task whose state can be read and fits."""
    for state in kept.after():
        of_tasks = kept.statistics(state.finished) if keeps_statistics(cell) else []
        if of_tasks is not None and kept.restore(state, cell.method):
            cell.statistics = of_tasks
            cell.finished_tasks, cell.stream.digest = state.finished, state.stream
            cell.tables |= state.tables
            cell.facts = state.facts
            return
