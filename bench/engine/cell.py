"""A cell: one method on one benchmark with one class order and one seed, built and checked."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.backbone.vit import FrozenViT, load_backbone
from bench.code import code_sha
from bench.config.spec import BackboneSpec, DataSpec, RunSpec
from bench.data.datasets import Dataset, load_dataset
from bench.data.keyed import derive
from bench.data.stream import Batch, TaskStream, to_device
from bench.engine.queries import Queries
from bench.hardware import resolve_precision, set_arithmetic
from bench.method import Method, build_method
from bench.store.tables import TABLES, Rows

# cuBLAS is deterministic only with this, set before it starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


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
    code: str  # its code_sha
    tables: dict[str, Rows] = field(default_factory=lambda: {name: [] for name in TABLES})
    facts: dict[str, Any] = field(default_factory=dict)  # for runs.csv: FLOPs per image
    statistics: list[Any] = field(default_factory=list)  # TaskStatistics of finished tasks
    finished_tasks: int = 0
    measuring_seconds: float = 0.0  # spent in this task on what is measured beside training

    def add(self, table: str, rows: Rows) -> None:
        """Add rows to one of the cell's tables, under its run_id."""
        self.tables[table] += [{"run_id": self.spec.run_id, **row} for row in rows]


class Inputs(NamedTuple):
    """A batch as a method takes it, on the device. None: the method does not need it."""

    images: Any  # (B, 3, H, W) float, or None
    query: Any  # (B, D) float, or None
    labels: Tensor  # (B,)


def build_cell(spec: RunSpec, device: str = "cpu") -> Cell:
    """Build a cell. Raises UsageError if something in its spec is impossible."""
    code = code_sha(spec.type, spec.data.name)  # read before the method is imported
    set_arithmetic(spec.train.threads)
    torch_device = torch.device(device)
    backbone = _backbone(spec.backbone, resolve_precision(spec.train.precision, torch_device)).to(
        torch_device
    )
    dataset = _dataset(spec.data, backbone.image_size)
    stream = TaskStream(
        dataset,
        spec.data,
        order_seed=spec.order_seed,
        seed=spec.seed,
        image_size=backbone.image_size,
        batch=spec.train.batch_size,
        joint=spec.train.joint,
        device=torch_device,
    )
    method = build_method(
        spec.type,
        backbone,
        len(dataset.classes),
        len(stream.tasks),
        spec.model,
        derive(spec.seed, "init", spec.type),
    ).to(torch_device)
    return Cell(spec, torch_device, backbone, stream, Queries(backbone, stream, spec), method, code)


def inputs(cell: Cell, batch: Batch, features: np.ndarray | None) -> Inputs:
    """A batch as the cell's method takes it. features: (n, D) queries of all images, or None."""
    images = None if batch.images is None else cell.backbone.normalise(batch.images)
    query = None if features is None else to_device(features[batch.rows], cell.device)
    return Inputs(images, query, batch.labels)
