"""Frozen query features q(x), computed once and shared by all methods, orders and tasks.

A view is a pure function of (seed, image, epoch), so its feature is one too: training features are
one array per (seed, epoch), test features one array for everything. They are always computed in the
same blocks, so a cold cache, a warm one and none give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import stopping
from bench.backbone.vit import FrozenViT, timm
from bench.config.spec import RunSpec
from bench.data.stream import TaskStream
from bench.hardware import device_name, processor_name
from bench.store import formats
from bench.store.cache import cached

MAX_LOOSE_ARRAYS = 4  # arrays kept in memory where the cache could not take them


class Queries:
    """Features (n, D) float32 of the training or test images, from the cache if they lie there."""

    def __init__(self, backbone: FrozenViT, stream: TaskStream, spec: RunSpec) -> None:
        self.backbone, self.stream = backbone, stream
        network = dataclasses.asdict(spec.backbone)
        del network["checkpoint"]  # a path: the digest of the weights identifies them
        self._identity = {
            "format": formats.QUERIES,
            "weights": backbone.sha256,
            "network": network,
            "data": stream.dataset.sha256,
            "view": [formats.VIEWS, backbone.image_size, stream.dataset.side],
            "precision": backbone.precision,
            "threads": spec.train.threads,
            "arithmetic": [
                torch.__version__,
                timm.__version__,
                processor_name(),
                torch.backends.cpu.get_cpu_capability(),
                device_name(stream.device),
            ],
        }
        self._held: dict[str, np.ndarray] = {}

    def train(self, epoch: int) -> np.ndarray:
        """Features of every training image in its view of this epoch."""
        view = [self.stream.seed, epoch, self.stream.spec.crop_low, self.stream.spec.flip]
        return self._get(["train", *view], lambda: self.stream.training_view_chunks(epoch))

    def plain(self, part: str) -> np.ndarray:
        """Features of the images of a part ('train' or 'test') in the test view."""
        return self._get(["plain", part], lambda: self.stream.plain_chunks(part))

    def _get(self, wanted: list[Any], chunks: Callable[[], Iterator[Tensor]]) -> np.ndarray:
        text = json.dumps([self._identity, wanted], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        if key not in self._held:
            stored = cached("queries", key, lambda: self._compute(chunks()))
            loose = [name for name, array in self._held.items() if not isinstance(array, np.memmap)]
            if len(loose) > MAX_LOOSE_ARRAYS:  # the oldest: its epoch comes again in the next task
                self._held.pop(loose[0])
            self._held[key] = stored
        return self._held[key]

    @torch.inference_mode()
    def _compute(self, chunks: Iterator[Tensor]) -> np.ndarray:
        features = []
        for images in chunks:
            stopping.check()  # nothing is lost but this array
            features.append(self.backbone.cls(self.backbone.normalise(images)).cpu().numpy())
        return np.concatenate(features)
