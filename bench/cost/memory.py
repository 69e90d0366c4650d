"""The memory of a GPU that a cell takes, before it runs: without data, weights or a GPU.

A training step and a test pass of the method run on fake tensors, which have a shape and no
contents, at the cell's own batch and network; what lives at once is added up. Resampling and the
aligned head follow from their sizes. No GPU has measured this yet.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.backbone import vit
from bench.config.spec import BackboneSpec, RunSpec
from bench.cost.suite import counts
from bench.data.orders import task_sizes
from bench.data.stream import IMAGES_PER_CHUNK, MAX_GPU_MEMORY_SHARE
from bench.hardware import free_bytes, resolve_precision
from bench.method import Task, build_method

CONTEXT_BYTES = 2**30  # for CUDA and cuBLAS themselves in each process: an allowance
SPARE = 1.2  # for the gaps between blocks of memory: an allowance
STATES = {"sgd": 1, "adam": 2, "adamw": 2}  # tensors an optimiser keeps for each that is trained
RESAMPLED_BYTES = 4 * 3 * 8  # of a pixel: four float64 images of three colours live at once


class Living(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations make while it is entered.

    now: those that live. peak: the most that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = (
            weakref.WeakKeyDictionary()
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if not any(result.alias_info for result in func._schema.returns):  # no view, not in place
            for value in tree_leaves(made):
                if isinstance(value, Tensor) and value.untyped_storage() not in self._known:
                    self._add(value.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = self._known[storage] = storage.nbytes()
        weakref.finalize(storage, self._drop, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _drop(self, size: int) -> None:
        self.now -= size


def predicted_bytes(cell: RunSpec, gpu: torch.device | None = None) -> int:
    """What a cell takes of a GPU at most. None: in fp32, without images that stay there.

    Images of a part stay where they take less than a quarter of what is free (data/stream.py).
    """
    each, side = counts(cell.data), cell.data.decode or cell.backbone.image_size
    pixels = 3 * side**2
    parts = [each.classes * of_class * pixels for of_class in (each.train, each.test)]
    most = MAX_GPU_MEMORY_SHARE * free_bytes(gpu) if gpu else 0
    images = sum(part for part in parts if part < most)
    precision = resolve_precision(cell.train.precision, gpu) if gpu else "fp32"
    fixed, step, test, width = _of_method(
        cell.type,
        json.dumps(cell.model, sort_keys=True),
        cell.backbone,
        precision,
        cell.train.batch_size,
        STATES[cell.train.optimiser],
        each.classes,
        1 if cell.train.joint else cell.data.tasks,
    )
    chunk = min(IMAGES_PER_CHUNK, max(parts) / pixels)
    resampled = chunk * side * max(side, cell.backbone.image_size) * RESAMPLED_BYTES
    work = max(step, test, resampled, _aligned(cell, each.classes, width))
    return int(CONTEXT_BYTES + images + SPARE * (fixed + work))


def _aligned(cell: RunSpec, classes: int, width: int) -> int:
    """Bytes of the statistics of all classes, twice while they are put together, and of the samples
    of an epoch: the noise, the samples, and these in their order."""
    spread = {"full": classes * width**2, "shared": width**2, "diagonal": classes * width, "off": 0}
    samples = 3 * classes * cell.align.samples * width
    return 4 * (2 * spread[cell.align.covariance] + samples) if cell.data.tasks > 1 else 0


@functools.lru_cache(maxsize=1)
def _network(spec: BackboneSpec, precision: str) -> vit.FrozenViT:
    """A spec's network with zeros for weights."""
    with torch.device("meta"):
        network = vit.build_vit(spec)
    network = network.to_empty(device="cpu")
    for parameter in network.parameters():
        parameter.data.zero_()
    return vit.FrozenViT(network, "zero_one", precision)


@functools.lru_cache(maxsize=256)
def _of_method(
    kind: str,
    model: str,
    spec: BackboneSpec,
    precision: str,
    batch: int,
    states: int,
    classes: int,
    tasks: int,
) -> tuple[int, int, int, int]:
    """Bytes of weights, gradients and the optimiser; of a training step; of a test pass; the width.

    `model` holds the method's arguments as JSON.
    """
    backbone = _network(spec, precision)
    method: Any = build_method(kind, backbone, classes, tasks, json.loads(model), 0)
    size = task_sizes(classes, tasks)[0]
    width, side = backbone.width, backbone.image_size

    def images() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        yield torch.zeros(1, 3, side, side), torch.ones(1, width), torch.tensor([0])

    def queries() -> tuple[Tensor, Tensor]:
        return torch.ones(size, width), torch.arange(size)

    method.train()
    task = Task(0, 0, size, 0, queries, images)
    method.begin_task(task)
    trained = [p for group in method.param_groups() for p in group["params"]]
    modules = (method, method.network, backbone, backbone.network)
    kept = {t for module in modules for t in (*module.parameters(), *module.buffers())}
    fixed = sum(t.nbytes for t in kept) + (1 + states) * sum(t.nbytes for t in trained)
    step, test = _passes(method, task, trained, batch, side)
    return fixed, step, test, width


def _passes(
    method: Any, task: Task, trained: list[Tensor], batch: int, side: int
) -> tuple[int, int]:
    """Bytes of what lives at most in a training step, and in a pass over a chunk at test."""
    fused = functools.partial(_fused, vit.attend)  # as on a GPU
    with FakeTensorMode(allow_non_fake_inputs=True), mock.patch.object(vit, "attend", fused):

        def given(count: int) -> tuple[Tensor | None, Tensor | None]:
            images = torch.zeros(count, 3, side, side) if method.needs_images else None
            return images, torch.zeros(count, method.width) if method.needs_query else None

        with Living() as step:
            if trained:
                loss = method.loss(*given(batch), torch.zeros(batch, dtype=torch.long), task)
                torch.autograd.grad(loss.total, trained, allow_unused=True)
        method.eval()
        with Living() as test, torch.inference_mode():
            method(*given(IMAGES_PER_CHUNK))
    return step.peak, test.peak


def _fused(attend: Any, attn: Any, x: Tensor, prefix: Any, fused: bool, rows: Any = None) -> Tensor:
    return attend(attn, x, prefix, True, rows)
