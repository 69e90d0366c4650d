"""A cell: everything that a run of it needs, built and checked before any training starts."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.backbone.vit import FrozenViT, load_backbone
from bench.config.spec import BackboneSpec, DataSpec, RunSpec
from bench.data.datasets import Dataset, load_dataset
from bench.data.keyed import derive
from bench.data.stream import Batch, TaskStream, to_device
from bench.engine.queries import Queries
from bench.hardware import resolve_precision, set_arithmetic
from bench.method import Method, build_method
from bench.store.tables import Rows

os.environ.setdefault(
    "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
)  # cuBLAS is deterministic only with this, set before its start


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


def build_cell(spec: RunSpec, device: str = "cpu") -> Cell:
    """Build a cell. Raises UsageError for whatever in its spec cannot be."""
    set_arithmetic(spec.train.threads)
    place = torch.device(device)
    backbone = _backbone(spec.backbone, resolve_precision(spec.train.precision, place)).to(place)
    dataset = _dataset(spec.data, backbone.image_size)
    stream = TaskStream(
        dataset,
        spec.data,
        spec.order_seed,
        spec.seed,
        backbone.image_size,
        spec.train.batch_size,
        spec.train.joint,
        place,
    )
    method = build_method(
        spec.type,
        backbone,
        len(dataset.classes),
        len(stream.tasks),
        spec.model,
        derive(spec.seed, "init", spec.type),
    ).to(place)
    return Cell(spec, place, backbone, stream, Queries(backbone, stream, spec), method)


def inputs(cell: Cell, batch: Batch, features: np.ndarray | None) -> tuple[Any, Any, Tensor]:
    """images, query, labels as a method takes them, on the device; None for what it does not need."""
    images = None if batch.images is None else cell.backbone.normalise(batch.images)
    query = None if features is None else to_device(features[batch.rows], cell.device)
    return images, query, batch.labels
