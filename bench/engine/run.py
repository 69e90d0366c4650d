"""The run of a cell: task after task, evaluation after each, checkpoints, and a status for whatever goes wrong.

The engine owns optimiser, schedule, masking at evaluation, checkpoints and the guard against divergence (with training.py).
A method only says how an image becomes logits and what is descended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import faults, stopping
from bench.config.spec import RunSpec
from bench.cost.counted import inference_gflops
from bench.data.stream import TaskSlice
from bench.engine.cell import Cell, build_cell, inputs
from bench.engine.checkpoint import Checkpoints
from bench.engine.task import train_task
from bench.errors import Diverged, UsageError
from bench.hardware import environment, not_repeatable, peak_memory_mib
from bench.store.rundir import SAME, RunDir, environment_digest, identity
from bench.store.tables import TABLES, Rows

KEPT = (
    "finished_tasks",
    "metrics",
    "timing",
    "losses",
    "movement",
    "similarity",
    "facts",
)  # what a checkpoint holds of a cell
Progress = Callable[[str], None]


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
        images, query, labels = inputs(cell, batch, features)
        if "gflops_infer" not in cell.facts and after is stream.tasks[-1]:
            cell.facts["gflops_infer"] = inference_gflops(cell.method, images, query)
        logits, labels = method(images, query)[:, : after.stop].cpu(), labels.cpu()
        if not torch.isfinite(logits).all():
            raise Diverged(f"logits that are not finite after task {after.index + 1}")
        which = torch.from_numpy(stream.task_of_class[labels.numpy()])
        own = bounds[which]
        outside = (classes[None] < own[:, :1]) | (classes[None] >= own[:, 1:])
        for scenario, scores in (
            ("class", logits),
            ("task", logits.masked_fill(outside, -torch.inf)),
        ):
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


def identity_of(cell: Cell) -> dict[str, Any]:
    """What a cell's files turned out to be: two runs that differ here are not one cell."""
    return {
        "precision": cell.backbone.precision,
        "weights_sha": cell.backbone.sha256,
        "data_sha": cell.stream.dataset.sha256,
        "manifest_sha": cell.stream.dataset.manifest,
        "tasks": len(cell.stream.eval_tasks),
        "classes": len(cell.stream.dataset.classes),
    }


def run_cell(
    spec: RunSpec, results: Path, device: str = "cpu", progress: Progress = lambda text: None
) -> dict:
    """Run one cell, or continue it, and leave its results on disk. Returns its state (status, reason, facts).

    Raises UsageError if the spec cannot be run at all and Busy while another process runs it; every other failure is a status.
    """
    run = RunDir.of(results, spec)
    with run.lock():
        if run.done():
            return run.state()
        return _run_cell(spec, run, device, progress)


def _run_cell(spec: RunSpec, run: RunDir, device: str, progress: Progress) -> dict:
    cell = build_cell(spec, device)
    where = environment(cell.device)
    identifying = {"env_sha": environment_digest(where), **identity_of(cell)}
    run.refuse_other(identifying)
    run.open(spec, where, {**identifying, "model": cell.method.configuration})
    run.save_state({"status": "running", "reason": "", **identifying})
    try:
        _run_tasks(cell, run, {key: identifying[key] for key in SAME}, progress)
        state = {
            "status": "done",
            "reason": not_repeatable(cell.device),
            **identifying,
            **_closing_facts(cell),
        }
        run.finish({name: getattr(cell, name) for name in TABLES}, state)
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


def _run_tasks(cell: Cell, run: RunDir, same: dict[str, str], progress: Progress) -> None:
    """same: what a checkpoint to continue from must share with this run."""

    def say(line: str) -> None:
        run.log(line)
        progress(line)

    kept = Checkpoints(run, cell.spec, same, say)
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
                "peak_memory_mib": peak_memory_mib(),
            }
        )
        own = [r for r in rows if r["scenario"] == "class"]
        run.log(
            f"task {part.index + 1} accuracy "
            + " ".join(f"{100 * r['correct'] / r['n']:.1f}" for r in own)
        )
        faults.point("task")
        rest = json.dumps({name: getattr(cell, name) for name in KEPT})
        kept.save_task(
            cell.finished_tasks,
            {"method": cell.method.state_dict(), "rest": rest, "stream": cell.stream.digest},
        )
        stopping.check()


def _restore_tasks(cell: Cell, kept: Checkpoints) -> None:
    """Continue after the newest finished task whose state can be read and fits."""
    for content in kept.tasks():
        if kept.restore(content, cell.method):
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
