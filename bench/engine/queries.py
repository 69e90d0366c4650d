"""Frozen query features q(x), computed once and shared by all methods, orders and tasks.

A view is a pure function of (seed, image, epoch), so its feature is too: training features are one array per
(seed, epoch), test features one array for everything. They are always computed in the same blocks, so a cold, a warm
and no cache give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from bench import stopping
from bench.backbone.vit import FrozenViT, timm
from bench.config.spec import RunSpec
from bench.data.stream import TaskStream
from bench.data.views import FORM
from bench.hardware import device_name, processor_name
from bench.store.cache import cached


class Queries:
    """Features (n, D) float32 of a part, from the cache where they are there."""

    def __init__(self, backbone: FrozenViT, stream: TaskStream, spec: RunSpec) -> None:
        self.backbone, self.stream = backbone, stream
        self._identity = {
            "format": 1,
            "weights": backbone.sha256,
            "network": {k: v for k, v in dataclasses.asdict(spec.backbone).items() if k != "checkpoint"},
            "data": stream.dataset.sha256,
            "view": [FORM, backbone.image_size, stream.dataset.side],
            "precision": backbone.precision,
            "threads": spec.train.threads,
            "arithmetic": [torch.__version__, timm.__version__, processor_name(), torch.backends.cpu.get_cpu_capability(),
                           device_name(stream.device)],
        }  # fmt: skip
        self._held: dict[str, np.ndarray] = {}

    def train(self, epoch: int) -> np.ndarray:
        """Of every training image in its view of this epoch."""
        view = [self.stream.seed, epoch, self.stream.spec.crop_low, self.stream.spec.flip]
        return self._get(["train", *view], lambda: self.stream.training_view_chunks(epoch))

    def plain(self, part: str) -> np.ndarray:
        """Of 'train' or 'test' images in the test view."""
        return self._get(["plain", part], lambda: self.stream.plain_chunks(part))

    def _get(self, what: list, chunks: Callable[[], Iterator[Tensor]]) -> np.ndarray:
        key = hashlib.sha256(
            json.dumps([self._identity, what], sort_keys=True).encode()
        ).hexdigest()
        if key not in self._held:
            stored = cached("queries", key, lambda: self._compute(chunks()))
            loose = [name for name, array in self._held.items() if not isinstance(array, np.memmap)]
            if (
                len(loose) > 4
            ):  # not in the cache: an epoch's features are not needed again before the next task
                self._held.pop(loose[0])
            self._held[key] = stored
        return self._held[key]

    @torch.inference_mode()
    def _compute(self, chunks: Iterator[Tensor]) -> np.ndarray:
        parts = []
        for images in chunks:
            stopping.check()  # nothing is lost but this array
            parts.append(self.backbone.cls(self.backbone.normalise(images)).cpu().numpy())
        return np.concatenate(parts)
