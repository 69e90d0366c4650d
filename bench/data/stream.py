"""The task stream: class order, tasks, batches and views, the same for every method.

Labels are positions in the class order, so the labels of a task are a contiguous range. Nothing
here depends on the method: the order comes from order_seed, the batches from (seed, task, epoch),
the view of an image from (seed, image, epoch). `digest` chains the data, the order and every batch
that was served. Each cell stores it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.config.spec import DataSpec
from bench.data.ahead import ahead
from bench.data.datasets import Dataset
from bench.data.keyed import derive
from bench.data.orders import class_order, task_sizes
from bench.data.views import (
    CPU,
    RaggedImages,
    Views,
    centre_views,
    resample,
    resample_on_device,
    to_device,
    training_views,
)
from bench.errors import UsageError
from bench.hardware import free_bytes

Array = np.ndarray
# The share of a GPU's free memory that the images of one part may take. Larger parts stay in the
# host's memory.
MAX_GPU_MEMORY_SHARE = 0.25
THREADS_AHEAD = 2  # cut whole photographs while a GPU trains (docs/speed.md)
# Images read at once where all images of a part are read. It is fixed, so that cached and fresh
# features are equal.
IMAGES_PER_CHUNK = 256


@dataclass(frozen=True)
class Batch:
    """images (b, H, W, 3) uint8, or None for a method that needs only queries; labels (b,).

    rows: (b,) the images' rows in their part. Images and labels lie on the stream's device, rows in
    the host's memory.
    """

    images: Tensor | None
    labels: Tensor
    rows: Array


@dataclass(frozen=True)
class TaskSlice:
    """One task: classes start..stop-1 (positions in the class order) and its training rows."""

    index: int
    start: int
    stop: int
    rows: Array


class Cut(NamedTuple):
    """rows: places in a batch, (n,). squares: their boxes, (n, S, S, 3). views: these, in there."""

    rows: Array
    squares: Array
    views: Views


class TaskStream:
    """Serves the images of one cell.

    joint=True trains all classes as one task and still evaluates on the tasks of the order.
    Raises UsageError for a class order that does not name each class once, or too many tasks.
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: DataSpec,
        *,
        order_seed: int,
        seed: int,
        image_size: int,
        batch: int,
        joint: bool,
        device: torch.device = CPU,
    ) -> None:
        self.dataset, self.spec, self.device = dataset, spec, device
        self.seed, self.image_size, self.batch = seed, image_size, batch
        # The images of a part on the GPU, or None if they are too large for it.
        self._resident: dict[str, Tensor | None] = {}
        classes = len(dataset.classes)
        self.order = self._class_order(order_seed)
        position = np.empty(classes, dtype=np.int64)
        position[self.order] = np.arange(classes)
        self.train_labels = position[dataset.train.labels]
        self.test_labels = position[dataset.test.labels]
        bounds = np.cumsum([0, *task_sizes(classes, spec.tasks)])
        ranges = enumerate(itertools.pairwise(bounds))
        self.eval_tasks = [self._slice(index, start, stop) for index, (start, stop) in ranges]
        self.tasks = [self._slice(0, 0, classes)] if joint else self.eval_tasks
        self.task_of_class = np.repeat(np.arange(spec.tasks), np.diff(bounds))
        identity = dataset.sha256.encode() + np.array(self.order).astype("<i8").tobytes()
        self.digest = hashlib.sha256(identity).hexdigest()

    def _class_order(self, order_seed: int) -> list[int]:
        classes, spec = len(self.dataset.classes), self.spec
        order = list(spec.class_order)
        if not order:
            order = class_order(spec.order, order_seed, classes, self.dataset.domains)
        if sorted(order) != list(range(classes)):
            raise UsageError(
                f"data.class_order: each of 0..{classes - 1} once is expected, "
                f"not {len(order)} numbers"
            )
        return order

    def _slice(self, index: int, start: int, stop: int) -> TaskSlice:
        rows = np.flatnonzero((self.train_labels >= start) & (self.train_labels < stop))
        return TaskSlice(index, int(start), int(stop), rows)

    def batches(
        self, task: TaskSlice, epoch: int, with_images: bool = True, skip: int = 0
    ) -> Iterator[Batch]:
        """One epoch of a task, shuffled by its key.

        The last, smaller batch is kept: without it a small task could have no batch at all.
        skip: batches that were served before; the digest holds them already.
        """
        shuffle = np.random.default_rng(derive(self.seed, "data", task.index, epoch))
        rows = task.rows[shuffle.permutation(len(task.rows))]
        starts = range(skip * self.batch, len(rows), self.batch)
        batches = [rows[start : start + self.batch] for start in starts]
        views_of = partial(self._views, epoch=epoch)
        for chosen, views, cuts in self._prepared("train", batches, views_of, with_images):
            served = self.digest.encode() + chosen.astype("<i8").tobytes() + views.bytes()
            self.digest = hashlib.sha256(served).hexdigest()
            images = self._drawn("train", chosen, views, cuts) if with_images else None
            yield Batch(images, to_device(self.train_labels[chosen], self.device), chosen)

    def _views(self, rows: Array, epoch: int) -> Views:
        train, low, flip = self.dataset.train, self.spec.crop_low, self.spec.flip
        return training_views(self.seed, train.numbers[rows], epoch, train.sizes(rows), low, flip)

    def _prepared(
        self,
        part: str,
        batches: Iterable[Array],
        views_of: Callable[[Array], Views],
        with_images: bool = True,
    ) -> Iterator[tuple[Array, Views, list[Cut]]]:
        """Rows of each batch, their views, and the boxes that the host cuts out for a GPU.

        These are cut in threads, so that the GPU does not wait.
        """
        images = getattr(self.dataset, part).images
        cuts = with_images and self.device.type != "cpu" and isinstance(images, RaggedImages)

        def prepare(rows: Array) -> tuple[Array, Views, list[Cut]]:
            views = views_of(rows)
            groups = views.similar_sizes() if cuts else ()
            return rows, views, [Cut(g, *images.cut(rows[g], views[g])) for g in groups]

        return ahead(prepare, batches, THREADS_AHEAD if cuts else 0)

    def _drawn(self, part: str, rows: Array, views: Views, cuts: list[Cut]) -> Tensor:
        """The views (n, size, size, 3) uint8, resampled on the stream's device."""
        images, size = getattr(self.dataset, part).images, self.image_size
        if self.device.type == "cpu":
            return resample(images, rows, views, size)
        if not isinstance(images, RaggedImages):
            return resample_on_device(self._on_device(part, images, rows), views, size)
        out = torch.empty(len(rows), size, size, 3, dtype=torch.uint8, device=self.device)
        for group, squares, moved in cuts:
            drawn = resample_on_device(to_device(squares, self.device), moved, size)
            out[to_device(group, self.device)] = drawn
        return out

    def _on_device(self, part: str, images: Array, rows: Array) -> Tensor:
        """images[rows] on the GPU. All images of the part stay there if they are small enough."""
        if part not in self._resident:
            fits = images.nbytes < MAX_GPU_MEMORY_SHARE * free_bytes(self.device)
            self._resident[part] = to_device(images, self.device) if fits else None
        resident = self._resident[part]
        if resident is None:
            return to_device(images[rows], self.device)
        return resident[to_device(rows, self.device)]

    def training_view_chunks(self, epoch: int) -> Iterator[Tensor]:
        """All training images in stored order, each in its view of this epoch, chunk by chunk."""
        chunks, views_of = self._chunks(len(self.train_labels)), partial(self._views, epoch=epoch)
        for prepared in self._prepared("train", chunks, views_of):
            yield self._drawn("train", *prepared)

    def plain_chunks(self, part: str, rows: Array | None = None) -> Iterator[Tensor]:
        """Images of 'train' or 'test' (all, or these rows) in the test view, chunk by chunk."""
        stored = getattr(self.dataset, part)
        rows = np.arange(len(stored.labels)) if rows is None else rows
        share = min(1.0, self.image_size / self.dataset.side)
        chunks = (rows[chunk] for chunk in self._chunks(len(rows)))
        for prepared in self._prepared(
            part, chunks, lambda chosen: centre_views(stored.sizes(chosen), share)
        ):
            yield self._drawn(part, *prepared)

    def plain_batches(self, rows: Array, with_images: bool = True) -> Iterator[Batch]:
        """These training images once in the test view, in this order, chunk by chunk."""
        chunks = [rows[chunk] for chunk in self._chunks(len(rows))]
        pixels = self.plain_chunks("train", rows) if with_images else [None] * len(chunks)
        for chunk, images in zip(chunks, pixels, strict=True):
            yield Batch(images, to_device(self.train_labels[chunk], self.device), chunk)

    @staticmethod
    def _chunks(count: int) -> Iterator[Array]:
        for start in range(0, count, IMAGES_PER_CHUNK):
            yield np.arange(start, min(start + IMAGES_PER_CHUNK, count))

    def test_batches(self, stop: int, with_images: bool = True) -> Iterator[Batch]:
        """Test images of classes 0..stop-1 once, in stored order, chunk by chunk."""
        rows = np.flatnonzero(self.test_labels < stop)
        chunks = [rows[chunk] for chunk in self._chunks(len(rows))]
        pixels = self.plain_chunks("test", rows) if with_images else [None] * len(chunks)
        for chunk, images in zip(chunks, pixels, strict=True):
            yield Batch(images, to_device(self.test_labels[chunk], self.device), chunk)
