"""What training did to prompts and features, per task and layer: a run whose prompts did not move is a linear head in disguise.

Measured beside the accuracies and never used by a method. Feature drift is 1 - cosine of the class token after each block
(from the last on, of what the head reads) for test images of earlier tasks, before a task's training against after it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.stream import TaskStream
from bench.method import Method

IMAGES = 64  # of earlier tasks, evenly spaced: enough for a mean


@torch.inference_mode()
def features(method: Method, stream: TaskStream, rows: np.ndarray, query: Tensor | None) -> Tensor:
    """(depth + 1, n, D): the class token after each block but the last, then what the head reads before and after the norm.

    Of a method that runs the network more than once the last pass counts.
    """
    network = method.network
    tokens = network.patch_embed.num_patches + network.num_prefix_tokens
    seen: dict[int, Tensor] = {}

    def keep(place: int):
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            if place == last:  # the last block may return only the tokens that the head reads
                seen[place] = x.mean(dim=1).float()
            else:  # prompt tokens stand in front
                seen[place] = x[:, x.shape[1] - tokens].float()

        return hook

    last = len(network.blocks) - 1
    following = [*(block.norm1 for block in network.blocks[1:]), network.norm]
    hooks = [norm.register_forward_pre_hook(keep(layer)) for layer, norm in enumerate(following)]
    out: list[Tensor] = []
    hooks.append(
        network.norm.register_forward_hook(lambda module, inputs, result: out.append(result))
    )
    try:
        images = torch.cat(list(stream.plain_chunks("test", rows)))
        method(method.backbone.normalise(images), query)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(
        [*(seen[layer] for layer in range(len(following))), out[-1].float().mean(dim=1)]
    ).cpu()


def old_rows(stream: TaskStream, start: int) -> np.ndarray:
    """Test images of classes before `start`, at most IMAGES of them."""
    rows = np.flatnonzero(stream.test_labels < start)
    return rows[np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).astype(int)]


def prompt_rows(before: dict[int, Tensor], after: dict[int, Tensor]) -> dict[int, dict[str, float]]:
    """Per layer: the RMS of the prompts and of their change since the task began."""
    return {
        layer: {
            "prompt_rms": round(rms(after[layer]), 6),
            "prompt_change": round(rms(after[layer] - before[layer]), 6),
        }
        for layer in after
    }


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def similarities(prompts: dict[int, Tensor]) -> list[dict[str, Any]]:
    """Cosine between the prompts of every two layers that are of one shape."""
    return [
        {
            "layer": a,
            "other": b,
            "cosine": round(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0).item(), 6),
        }
        for (a, x), (b, y) in itertools.combinations(prompts.items(), 2)
        if x.shape == y.shape
    ]


def table(
    task: int, prompts: dict[int, dict[str, float]], before: Tensor | None, after: Tensor | None
) -> list[dict[str, Any]]:
    """Rows of movement.csv for one task: a row per block, and one (the last) for what the head reads."""
    drift: dict[int, float] = {}
    if before is not None and after is not None:
        mean = 1 - torch.cosine_similarity(before, after, dim=2).mean(dim=1)
        drift = {layer: round(max(value, 0.0), 6) for layer, value in enumerate(mean.tolist())}
    return [
        {
            "task": task,
            "layer": layer,
            **prompts.get(layer, {}),
            **({"feature_drift": drift[layer]} if drift else {}),
        }
        for layer in sorted(prompts.keys() | drift.keys())
    ]
