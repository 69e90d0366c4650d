"""FLOPs per image in training and at test, counted on two images of a cell's last task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.method import Method, Task

COUNTED_IMAGES = 2  # FLOPs are counted on so many images
DRIFT_IMAGES = 64  # the drift of features is measured on at most so many; enough for a mean


def _count_gflops(work: Callable[[], object]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def _query_gflops(method: Method, device: torch.device) -> float:
    """The pass of a query, per image; it is counted although it is shared through the cache."""
    if not method.needs_query:
        return 0.0
    side = method.backbone.image_size
    pixels = torch.zeros(2, 3, side, side, device=device)
    with torch.no_grad():
        return _count_gflops(lambda: method.backbone.cls(pixels)) / 2


def _first(value: Tensor | None) -> Any:
    return None if value is None else value[:COUNTED_IMAGES]


def training_gflops(method: Method, images: Any, query: Any, labels: Tensor, task: Task) -> float:
    """GFLOPs per image: forward, backward and the query's forward. Gradients are dropped."""
    first = _first(labels)

    def step() -> None:
        method.loss(_first(images), _first(query), first, task).total.backward()

    flops = _count_gflops(step) / len(first)
    for parameter in method.parameters():
        parameter.grad = None
    return round(flops + _query_gflops(method, labels.device), 6)


def inference_gflops(method: Method, images: Any, query: Any) -> float:
    """GFLOPs per image: forward and the query's forward."""
    # The counter needs gradient graphs, which inference mode does not build; no backward runs.
    with torch.inference_mode(False), torch.enable_grad():
        images, query = (None if x is None else _first(x).clone() for x in (images, query))
        some = query if images is None else images
        flops = _count_gflops(lambda: method(images, query)) / len(some)
        return round(flops + _query_gflops(method, some.device), 6)
