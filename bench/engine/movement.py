"""What training did to prompts and features, per task and layer.

A run whose prompts did not move is a linear head in disguise. This is measured beside the
accuracies and never used by a method. Feature drift is 1 - cosine of the class token after each
block (after the last block: of what the head reads), for test images of earlier tasks, before a
task's training against after it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.cost.counted import DRIFT_IMAGES
from bench.data.stream import TaskStream
from bench.method import Method


@torch.inference_mode()
def features(method: Method, stream: TaskStream, rows: np.ndarray, query: Tensor | None) -> Tensor:
    """(depth + 1, n, D): the class token after each block but the last, then what the head reads
    before and after the norm. If a method runs the network more than once, the last pass counts.
    """
    network = method.network
    tokens = network.patch_embed.num_patches + network.num_prefix_tokens
    seen: dict[int, Tensor] = {}
    last = len(network.blocks) - 1

    def keep(layer: int):
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            if layer == last:  # the last block may return only the tokens that the head reads
                seen[layer] = x.mean(dim=1).float()
            else:  # prompt tokens stand in front of the class token
                seen[layer] = x[:, x.shape[1] - tokens].float()

        return hook

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
    before_norm = [seen[layer] for layer in range(len(following))]
    return torch.stack([*before_norm, out[-1].float().mean(dim=1)]).cpu()


def old_rows(stream: TaskStream, start: int) -> np.ndarray:
    """Rows of test images of classes before `start`, evenly spaced, at most DRIFT_IMAGES."""
    rows = np.flatnonzero(stream.test_labels < start)
    return rows[np.linspace(0, len(rows) - 1, min(DRIFT_IMAGES, len(rows))).astype(int)]


def feature_drift(before: Tensor | None, after: Tensor | None) -> dict[int, float]:
    """layer -> mean drift between two (layers, n, D) sets of features; {} without them."""
    if before is None or after is None:
        return {}
    mean = 1 - torch.cosine_similarity(before, after, dim=2).mean(dim=1)
    return {layer: round(max(value, 0.0), 6) for layer, value in enumerate(mean.tolist())}


def prompt_rows(before: dict[int, Tensor], after: dict[int, Tensor]) -> dict[int, dict[str, float]]:
    """Per layer: the RMS of the prompts, and of their change since the task began."""
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
    """Rows of similarity.csv: the cosine between the prompts of every two layers of one shape."""
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
    task: int, prompts: dict[int, dict[str, float]], drift: dict[int, float]
) -> list[dict[str, Any]]:
    """Rows of movement.csv for one task: one per block, and a last one for what the head reads."""
    rows = []
    for layer in sorted(prompts.keys() | drift.keys()):
        row = {"task": task, "layer": layer, **prompts.get(layer, {})}
        if drift:
            row["feature_drift"] = drift[layer]
        rows.append(row)
    return rows
