"""The memory of a GPU that a cell takes, before it runs: without data, weights or a GPU.

Training steps, the end of a task and a test pass of the method run on fake tensors, which have a
shape and no contents, at the cell's own batch and network; what lives at once is added up.
Resampling and the aligned head follow from their sizes. No GPU has measured this yet.
"""

from __future__ import annotations

import contextlib
import functools
import json
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.backbone import vit
from bench.config.spec import BackboneSpec, RunSpec
from bench.cost.suite import counts, is_aligned, trace_of
from bench.data.orders import task_sizes
from bench.data.stream import IMAGES_PER_CHUNK, MAX_GPU_MEMORY_SHARE
from bench.hardware import free_bytes, resolve_precision
from bench.method import Task, build_method

CONTEXT_BYTES = 2**30  # for CUDA and cuBLAS themselves in each process: an allowance
SPARE = 1.2  # for the gaps between blocks of memory: an allowance
STATES = {"sgd": 1, "adam": 2, "adamw": 2}  # tensors an optimiser keeps for each that is trained
COPIES = 3  # of a matrix, for a solver: an allowance
CIFAR_SIDE = 32


class Living(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations make while it is entered.

    known: tensors that were there before. now: bytes that live. peak: the most at once.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet(
            tensor.untyped_storage() for tensor in known
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {id(v.untyped_storage()) for v in tree_leaves(args) if isinstance(v, Tensor)}
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and id(value.untyped_storage()) not in given:
                self._add(value.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        weakref.finalize(storage, self._drop, storage.nbytes())
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _drop(self, size: int) -> None:
        self.now -= size


def predictions(
    cells: Iterable[RunSpec], gpu: torch.device | None = None
) -> tuple[list[int], dict[str, str]]:
    """predicted_bytes of each cell, 0 where that fails, and why it does, by method.

    A method may do in its loss what only real tensors can.
    """
    sizes, reasons = [], {}
    for cell in cells:
        try:
            sizes.append(predicted_bytes(cell, gpu))
        except Exception as error:  # of torch, or of any method
            sizes.append(0)
            reasons[cell.method] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    _network.cache_clear()  # as large as the real one
    return sizes, reasons


def predicted_bytes(cell: RunSpec, gpu: torch.device | None = None) -> int:
    """What a cell takes of a GPU at most. None: in fp32, without images that stay there.

    Images of a part stay where they take less than a quarter of what is free (data/stream.py).
    """
    each, size = counts(cell.data), cell.backbone.image_size
    side = CIFAR_SIDE if cell.data.name == "cifar100" else cell.data.decode or round(size / 0.875)
    parts = [each.test] if cell.data.crops_of == "whole" else [each.train, each.test]
    stored = [each.classes * of_class * 3 * side**2 for of_class in parts]
    most = MAX_GPU_MEMORY_SHARE * free_bytes(gpu) if gpu else 0
    images = sum(part for part in stored if part < most)
    tasks = 1 if cell.train.joint else cell.data.tasks
    found = _of_method(
        cell.type,
        json.dumps(cell.model, sort_keys=True),
        cell.backbone,
        resolve_precision(cell.train.precision, gpu) if gpu else "fp32",
        cell.train.batch_size,
        STATES[cell.train.optimiser],
        each.classes,
        tasks,
        round(each.train * max(task_sizes(each.classes, tasks))),
    )
    # float64 planes of three colours: of the source, once squeezed, and of the result.
    resampled = IMAGES_PER_CHUNK * 24 * (2 * side**2 + 2 * side * size + 1.5 * size**2)
    aligned = 0
    if is_aligned(cell, trace_of(cell)):
        aligned = _aligned(cell.align.covariance, cell.align.samples, each.classes, found.width)
    return int(CONTEXT_BYTES + images + SPARE * (found.fixed + max(found.work, resampled, aligned)))


def _aligned(covariance: str, samples: int, classes: int, width: int) -> int:
    """Bytes of the statistics of all classes, twice while they are put together, and of the samples
    of an epoch: those of the one before, the noise, the new ones, and these in their order."""
    spread = {"full": classes * width**2, "shared": width**2, "diagonal": classes * width}
    return 4 * (2 * spread[covariance] + 4 * classes * samples * width)


class Found(NamedTuple):
    """Bytes of a method."""

    fixed: int  # weights, gradients and the optimiser
    work: int  # what lives at most beside them in a step, at a task's end or in a test pass
    width: int  # of the features, numbers


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
    images: int,
) -> Found:
    """`model` holds the method's arguments as JSON. images: of the largest task."""
    backbone = _network(spec, precision)
    with torch.random.fork_rng(devices=[]):
        method: Any = build_method(kind, backbone, classes, tasks, json.loads(model), 0)
        work, start = 0, 0
        for index, size in enumerate(task_sizes(classes, tasks)[:2]):  # the third is as the second
            task = _task(method, index, start, size, images)
            method.train()
            if method.needs_images:
                method.begin_task(task)
            trained = [p for group in method.param_groups() for p in group["params"]]
            work = max(work, _step(method, task, trained, batch))
            start += size
        fixed = sum(t.nbytes for t in _kept(method)) + (1 + states) * sum(t.nbytes for t in trained)
        work = max(work, _test(method), _end(method, task))
    return Found(fixed, work, backbone.width)


def _task(method: Any, index: int, start: int, size: int, images: int) -> Task:
    """A task whose methods' passes get one image while tensors are real, a chunk of fake ones."""

    def plain(count: int = 1) -> Iterator[tuple[Tensor | None, Tensor | None, Tensor]]:
        count = IMAGES_PER_CHUNK if _faking() else count
        yield *_given(method, count), torch.full((count,), start)

    def queries() -> tuple[Tensor, Tensor]:
        count = images if _faking() else size
        return torch.ones(count, method.width), torch.arange(count) % size + start

    return Task(index, start, start + size, start, queries, plain)


def _faking() -> bool:
    return isinstance(torch.empty(0), torch._subclasses.FakeTensor)


def _given(method: Any, count: int) -> tuple[Tensor | None, Tensor | None]:
    """Images and queries as a method takes them."""
    side = method.backbone.image_size
    images = torch.zeros(count, 3, side, side) if method.needs_images else None
    return images, torch.zeros(count, method.width) if method.needs_query else None


def _kept(method: Any) -> set[Tensor]:
    """The parameters and buffers of a method and its networks."""
    modules = (method, method.network, method.backbone, method.backbone.network)
    return {t for module in modules for t in (*module.parameters(), *module.buffers())}


@contextlib.contextmanager
def _faked(method: Any) -> Iterator[Living]:
    """Tensors without contents, and attention as on a GPU."""
    fused = functools.partial(_fused, vit.attend)
    with (
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
        mock.patch.object(vit, "attend", fused),
    ):
        kept = [mode.from_tensor(t) if mode else t for t in _kept(method)]
        with Living(kept) as living:
            yield living


def _fused(attend: Any, attn: Any, x: Tensor, prefix: Any, fused: bool, rows: Any = None) -> Tensor:
    return attend(attn, x, prefix, True, rows)


def _step(method: Any, task: Task, trained: list[Tensor], batch: int) -> int:
    """What lives at most in a training step."""
    if not trained:
        return 0
    with _faked(method) as living:
        labels = torch.full((batch,), task.start)
        loss = method.loss(*_given(method, batch), labels, task)
        torch.autograd.grad(loss.total, trained, allow_unused=True)
    return living.peak


def _test(method: Any) -> int:
    """What lives at most while a chunk is tested, or its query features are made."""
    method.eval()
    with _faked(method) as living, torch.inference_mode():
        method(*_given(method, IMAGES_PER_CHUNK))
    with _faked(method) as query, torch.inference_mode():
        if method.needs_query:
            side = method.backbone.image_size
            method.backbone.cls(torch.zeros(IMAGES_PER_CHUNK, 3, side, side))
    return max(living.peak, query.peak)


def _end(method: Any, task: Task) -> int:
    """What lives at most at a task's end. Where it needs contents to go on, what is left is taken
    to be copies of what the method keeps beside its parameters."""
    with _faked(method) as living:
        try:
            method.end_task(task)
        except Exception:  # torch has several for this
            return living.peak + COPIES * sum(buffer.nbytes for buffer in method.buffers())
    return living.peak
