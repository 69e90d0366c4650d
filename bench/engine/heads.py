"""The two heads that a cell is tested with: the trained one and its aligned copy (align.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import stopping
from bench.data.keyed import derive
from bench.data.stream import TaskSlice
from bench.engine.align import TaskStatistics, align, statistics
from bench.engine.cell import Cell
from bench.engine.task import contract_task
from bench.errors import Diverged

Head = Callable[[Tensor], Tensor]


def has_aligned_head(cell: Cell) -> bool:
    """True if the cell is tested with an aligned head too."""
    return cell.method.has_head and cell.spec.align.covariance != "off"


def keeps_statistics(cell: Cell) -> bool:
    """True if there is something to align: a run of one task has nothing."""
    return has_aligned_head(cell) and len(cell.stream.tasks) > 1


def aligned_head(cell: Cell, task_slice: TaskSlice) -> Head:
    """The head to test beside the trained one after a task; the trained one after the first.

    Adds the task's statistics to the cell's. Raises Diverged if features or head are not finite.
    """
    try:
        return _aligned_head(cell, task_slice)
    except torch.linalg.LinAlgError as error:
        after = f"after task {task_slice.index + 1}"
        raise Diverged(f"features whose covariance has no Cholesky factor {after}") from error


def _aligned_head(cell: Cell, task_slice: TaskSlice) -> Head:
    method, spec = cell.method, cell.spec.align
    if not keeps_statistics(cell):
        return method.head
    cell.statistics.append(_statistics_of(cell, task_slice))
    if len(cell.statistics) == 1:
        return method.head
    seen = task_slice.stop
    weight, bias = method.head.weight.detach().clone(), method.head.bias.detach().clone()
    generator = torch.Generator().manual_seed(derive(cell.spec.seed, "align", task_slice.index))
    shape = (seen, spec.samples, weight.shape[1])

    def random() -> tuple[Tensor, Tensor]:
        noise = torch.randn(shape, generator=generator)  # on the host: the same on any device
        order = torch.randperm(seen * spec.samples, generator=generator)
        return noise.to(cell.device), order.to(cell.device)

    trained = align(weight[:seen], bias[:seen], cell.statistics, spec, random)
    if not all(tensor.isfinite().all() for tensor in trained):
        raise Diverged(f"an aligned head that is not finite after task {task_slice.index + 1}")
    weight[:seen], bias[:seen] = trained
    return functools.partial(F.linear, weight=weight, bias=bias)


@torch.no_grad()
def _statistics_of(cell: Cell, task_slice: TaskSlice) -> TaskStatistics:
    """Of a task's classes, from one pass over its training images through the method as it is."""
    features, labels = [], []
    for images, query, of_chunk in contract_task(cell, task_slice).plain_images():
        stopping.check()
        features.append(cell.method.features(images, query).float())
        labels.append(of_chunk)
    return statistics(
        torch.cat(features),
        torch.cat(labels),
        task_slice.start,
        task_slice.stop,
        cell.spec.align.covariance,
    )
