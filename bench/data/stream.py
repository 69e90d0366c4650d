"""The task stream: class order, tasks, batches and views, identical for every method by construction.

Labels are positions in the class order, so that task t holds a contiguous range of them. Nothing here depends on the
method: the order comes from order_seed, the batches from (seed, task, epoch), the view of an image from
(seed, image, epoch). `digest` chains the data, the order and every batch served, and each cell stores it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.config.spec import DataSpec
from bench.data.datasets import Dataset
from bench.data.keyed import derive
from bench.data.orders import class_order, task_sizes
from bench.data.views import (
    CPU,
    Views,
    Whole,
    centre_views,
    resample,
    resample_on_device,
    to_device,
    training_views,
)
from bench.errors import UsageError
from bench.hardware import free_bytes

Array = np.ndarray
SHARE = 0.25  # of a GPU's free memory that the images of one part may take; larger ones stay with the host
CHUNK = 256  # images of one block when a whole part is read: fixed, so that cached and fresh features are equal


@dataclass(frozen=True)
class Batch:
    """images (b, H, W, 3) uint8 or None where a method needs only queries; labels (b,); rows (b,) of the part.

    Images and labels lie on the stream's device, rows with the host.
    """

    images: Tensor | None
    labels: Tensor
    rows: Array


@dataclass(frozen=True)
class TaskSlice:
    """One task: classes start..stop-1 (positions in the class order) and its rows of the training part."""

    index: int
    start: int
    stop: int
    rows: Array


class TaskStream:
    """Serves one cell's images. joint=True trains all classes as one task but evaluates on the tasks of the order."""

    def __init__(
        self,
        dataset: Dataset,
        spec: DataSpec,
        order_seed: int,
        seed: int,
        image_size: int,
        batch: int,
        joint: bool,
        device: torch.device = CPU,
    ) -> None:
        classes = len(dataset.classes)
        self.device = device
        self._resident: dict[
            str, Tensor | None
        ] = {}  # images of a part that lie on the GPU; None: too many, they stay
        self.dataset, self.spec, self.seed, self.image_size, self.batch = (
            dataset,
            spec,
            seed,
            image_size,
            batch,
        )
        self.order = list(spec.class_order) or class_order(
            spec.order, order_seed, classes, dataset.domains
        )
        if sorted(self.order) != list(range(classes)):
            raise UsageError(
                f"data.class_order: each of 0..{classes - 1} once is expected, not {len(self.order)} numbers"
            )
        position = np.empty(classes, dtype=np.int64)
        position[self.order] = np.arange(classes)
        self.train_labels = position[dataset.train.labels]
        self.test_labels = position[dataset.test.labels]
        bounds = np.cumsum([0, *task_sizes(classes, spec.tasks)])
        self.eval_tasks = [
            self._slice(t, a, b) for t, (a, b) in enumerate(itertools.pairwise(bounds))
        ]
        self.tasks = [self._slice(0, 0, classes)] if joint else self.eval_tasks
        self.task_of_class = np.repeat(np.arange(spec.tasks), np.diff(bounds))
        self.digest = hashlib.sha256(
            dataset.sha256.encode() + np.array(self.order).astype("<i8").tobytes()
        ).hexdigest()

    def _slice(self, index: int, start: int, stop: int) -> TaskSlice:
        rows = np.flatnonzero((self.train_labels >= start) & (self.train_labels < stop))
        return TaskSlice(index, int(start), int(stop), rows)

    def batches(
        self, task: TaskSlice, epoch: int, with_images: bool = True, skip: int = 0
    ) -> Iterator[Batch]:
        """One epoch of a task in its keyed order; the last, smaller batch is kept (dropping it could drop a task).

        skip: batches served before, which the digest holds already.
        """
        shuffle = np.random.default_rng(derive(self.seed, "data", task.index, epoch))
        rows = task.rows[shuffle.permutation(len(task.rows))]
        for start in range(skip * self.batch, len(rows), self.batch):
            chosen = rows[start : start + self.batch]
            views = self._views(chosen, epoch)
            served = self.digest.encode() + chosen.astype("<i8").tobytes() + views.bytes()
            self.digest = hashlib.sha256(served).hexdigest()
            images = self._resampled("train", chosen, views) if with_images else None
            yield Batch(images, to_device(self.train_labels[chosen], self.device), chosen)

    def _views(self, rows: Array, epoch: int) -> Views:
        train = self.dataset.train
        return training_views(
            self.seed,
            train.numbers[rows],
            epoch,
            train.sizes(rows),
            self.spec.crop_low,
            self.spec.flip,
        )

    def _resampled(self, part: str, rows: Array, views: Views) -> Tensor:
        """On the stream's device, where the pixels are resampled too."""
        images, size = getattr(self.dataset, part).images, self.image_size
        if self.device.type == "cpu":
            return resample(images, rows, views, size)
        if isinstance(images, Whole):
            out = torch.empty(len(rows), size, size, 3, dtype=torch.uint8, device=self.device)
            for group in views.alike():
                squares, moved = images.cut(rows[group], views[group])
                out[to_device(group, self.device)] = resample_on_device(
                    to_device(squares, self.device), moved, size
                )
            return out
        if part not in self._resident:
            fits = images.nbytes < SHARE * free_bytes(self.device)
            self._resident[part] = to_device(images, self.device) if fits else None
        there = self._resident[part]
        chosen = (
            to_device(images[rows], self.device)
            if there is None
            else there[to_device(rows, self.device)]
        )
        return resample_on_device(chosen, views, size)

    def training_view_chunks(self, epoch: int) -> Iterator[Tensor]:
        """All training images in stored order, each in its view of this epoch, in blocks of CHUNK."""
        for rows in self._chunks(len(self.train_labels)):
            yield self._resampled("train", rows, self._views(rows, epoch))

    def plain_chunks(self, part: str, rows: Array | None = None) -> Iterator[Tensor]:
        """Images of 'train' or 'test' in the test view, in blocks of CHUNK."""
        held = getattr(self.dataset, part)
        rows = np.arange(len(held.labels)) if rows is None else rows
        share = min(1.0, self.image_size / self.dataset.side)
        for block in self._chunks(len(rows)):
            chosen = rows[block]
            yield self._resampled(part, chosen, centre_views(held.sizes(chosen), share))

    @staticmethod
    def _chunks(count: int) -> Iterator[Array]:
        for start in range(0, count, CHUNK):
            yield np.arange(start, min(start + CHUNK, count))

    def test_batches(self, stop: int, with_images: bool = True) -> Iterator[Batch]:
        """Test images of classes 0..stop-1 once, in stored order, in blocks of CHUNK."""
        rows = np.flatnonzero(self.test_labels < stop)
        blocks = [rows[block] for block in self._chunks(len(rows))]
        pixels = self.plain_chunks("test", rows) if with_images else [None] * len(blocks)
        for block, images in zip(blocks, pixels, strict=True):
            yield Batch(images, to_device(self.test_labels[block], self.device), block)
