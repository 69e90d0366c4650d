"""What an image costs: FLOPs per image in training and at test, counted in a cell's last task on two images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.method import Method, Task


def _count_gflops(work: Callable[[], object]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def _query_gflops(method: Method, device: torch.device) -> float:
    """The pass that a query costs, counted even though it is shared."""
    if not method.needs_query:
        return 0.0
    pixels = torch.zeros(
        2, 3, method.backbone.image_size, method.backbone.image_size, device=device
    )
    with torch.no_grad():
        return _count_gflops(lambda: method.backbone.cls(pixels)) / 2


def _two(value: Tensor | None) -> Any:
    return None if value is None else value[:2]


def training_gflops(method: Method, images: Any, query: Any, labels: Tensor, task: Task) -> float:
    """Per image: forward, backward and the query's own forward. Gradients are thrown away."""
    two = labels[:2]
    flops = _count_gflops(
        lambda: method.loss(_two(images), _two(query), two, task).total.backward()
    ) / len(two)
    for parameter in method.parameters():
        parameter.grad = None
    return round(flops + _query_gflops(method, labels.device), 6)


def inference_gflops(method: Method, images: Any, query: Any) -> float:
    """Per image: forward and the query's own forward."""
    # The counter follows gradient graphs, which inference mode does not make; nothing runs backward here.
    with torch.inference_mode(False), torch.enable_grad():
        images, query = (None if x is None else x[:2].clone() for x in (images, query))
        some = query if images is None else images
        flops = _count_gflops(lambda: method(images, query)) / len(some)
        return round(flops + _query_gflops(method, some.device), 6)
