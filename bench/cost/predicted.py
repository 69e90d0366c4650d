"""What one image costs in a method: its passes through the network, and their FLOPs.

The passes are observed: a method is built at its real width on a network of one patch with zero
weights, and its calls of the backbone are recorded in its first and its second task; those between
tasks also in the last one. That needs no list of methods, no weights and no data. The FLOPs follow
from the network's sizes. They are those of the matrix products, 2 per multiply-add, as torch's
FlopCounterMode counts them. A method's own small products (keys, mixing of prompts) are left out,
about 0.1% at the papers' scale.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.backbone.vit import FrozenViT, VisionTransformer, build_vit
from bench.config.spec import BackboneSpec
from bench.data.orders import task_sizes
from bench.method import Task, build_method


@dataclass(frozen=True)
class Call:
    """One pass of an image through a network."""

    prefix: tuple[tuple[int, int], ...] = ()  # layer, prompt rows there
    tokens: int = 0  # prompt tokens in front
    rows: int | None = None  # rows that are computed in the last block; None: all
    backward: bool = False  # gradients flow back through the pass
    own_network: bool = False  # the method's network, all of whose weights are trained


@dataclass
class Trace:
    """What a method does with an image in its first task (index 0) and in later ones (1).

    plain may have a third entry, of the last task.
    """

    needs_images: bool
    needs_query: bool
    trains: bool
    has_head: bool  # one that can be aligned
    plain_queries: bool = False  # it asks for features of training images without augmentation
    loss: list[list[Call]] = field(default_factory=list)  # calls of a training step
    test: list[list[Call]] = field(default_factory=list)  # calls at test
    # Calls for each of a task's training images in the test view, in begin_task and end_task.
    plain: list[list[Call]] = field(default_factory=list)


class _Recorder(FrozenViT):
    """Writes down each call of the backbone."""

    calls: list[Call]

    def forward(
        self, images: Tensor, prefix: Any = None, tokens: Any = None, rows: int | None = None
    ) -> Tensor:
        lengths = tuple(
            (layer, prompt.shape[-2]) for layer, prompt in sorted((prefix or {}).items())
        )
        count = 0 if tokens is None else tokens.shape[1]
        backward = torch.is_grad_enabled() and (bool(lengths) or count > 0)
        self.calls.append(Call(lengths, count, rows, backward))
        return super().forward(images, prefix, tokens, rows)


@functools.lru_cache(maxsize=4)
def _toy(width: int, depth: int) -> _Recorder:
    """A network of one patch with zero weights, and with the width and depth of a real one."""
    torch.set_num_threads(1)  # its products are too small for two threads
    with torch.device("meta"):
        vit = VisionTransformer(
            img_size=8,
            patch_size=8,
            embed_dim=width,
            depth=depth,
            num_heads=1,
            mlp_ratio=1 / width,
            num_classes=0,
        )
    vit = vit.to_empty(device="cpu")
    for parameter in vit.parameters():
        parameter.data.zero_()
    return _Recorder(vit)


@functools.lru_cache(maxsize=256)
def trace(kind: str, model: str, spec: BackboneSpec, classes: int, tasks: int) -> Trace:
    """The calls of a method; `model` holds its arguments as JSON.

    Raises UsageError for an unknown method or arguments that it refuses.
    """
    real = shape(spec)
    backbone = _toy(real.width, real.depth)
    backbone.calls = []
    method: Any = build_method(kind, backbone, classes, tasks, json.loads(model), 0)
    found = Trace(method.needs_images, method.needs_query, True, method.has_head)
    if method.network is not backbone.network:
        method.network.norm.register_forward_hook(
            lambda module, given, out: backbone.calls.append(
                Call(rows=out.shape[1], backward=torch.is_grad_enabled(), own_network=True)
            )
        )
    sizes = task_sizes(classes, tasks)
    for index, size in enumerate(sizes):
        start = sum(sizes[:index])
        plain = functools.partial(_queries, found, real.width, start, size)
        images = functools.partial(_images, method, start)
        task = Task(index, start, start + size, start, plain, images)
        if index < 2:
            _observe(method, backbone, task, found)
        elif index == tasks - 1 and found.plain[1]:
            # After it nothing is trained: what serves the next task may be left out.
            method.train()
            method.begin_task(task)
            method.end_task(task)
            found.plain.append(backbone.calls.copy())
    return found


class _Asked(Exception):
    """A method without images has asked for queries: the rest of its work calls no network."""


def _queries(found: Trace, width: int, start: int, count: int) -> tuple[Tensor, Tensor]:
    found.plain_queries = True
    if not found.needs_images:
        raise _Asked
    return torch.ones(count, width), torch.arange(start, start + count)


def _images(method: Any, start: int) -> Iterator[tuple[Tensor | None, Tensor | None, Tensor]]:
    yield *_one_image(method), torch.tensor([start])


def _one_image(method: Any) -> tuple[Tensor | None, Tensor | None]:
    images = torch.zeros(1, 3, 8, 8) if method.needs_images else None
    return images, torch.ones(1, method.width) if method.needs_query else None


def _observe(method: Any, backbone: _Recorder, task: Task, found: Trace) -> None:
    """Record the calls for one image of a task in training, and at test after it."""
    calls = backbone.calls
    images, query = _one_image(method)
    method.train()
    if not method.needs_images:
        with contextlib.suppress(_Asked):
            method.begin_task(task)
            found.trains = bool(method.param_groups())
            method.end_task(task)
        for of_tasks in (found.loss, found.plain, found.test):
            of_tasks.append([])
        return
    method.begin_task(task)
    plain = calls.copy()
    calls.clear()
    found.trains = bool(method.param_groups())
    if found.trains:
        method.loss(images, query, torch.tensor([task.start]), task)
    found.loss.append(calls.copy())
    calls.clear()
    method.end_task(task)
    found.plain.append(plain + calls.copy())
    calls.clear()
    method.eval()
    with torch.no_grad():
        method(images, query)
    found.test.append(calls.copy())
    calls.clear()


# --- FLOPs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A ViT's sizes."""

    width: int
    depth: int
    hidden: int  # width inside the MLP
    tokens: int  # class token and registers
    patches: int
    pixels: int  # values of a patch, all channels


@functools.lru_cache(maxsize=64)
def shape(spec: BackboneSpec) -> Shape:
    """The sizes of the network that a spec names; its weights take no memory."""
    with torch.device("meta"):
        vit: Any = build_vit(spec)
    embed, hidden = vit.patch_embed, vit.blocks[0].mlp.fc1.out_features
    pixels = 3 * embed.patch_size[0] * embed.patch_size[1]
    return Shape(
        vit.embed_dim, len(vit.blocks), hidden, vit.num_prefix_tokens, embed.num_patches, pixels
    )


def flops(s: Shape, call: Call) -> int:
    """FLOPs of one image's pass, with the backward pass if gradients flow back.

    Gradients of weights are computed only in a network that is trained.
    """
    length = s.tokens + s.patches + call.tokens
    prefix = dict(call.prefix)
    patches = 2 * s.patches * s.pixels * s.width
    total = patches * (1 + call.own_network * call.backward)
    # The first block with a prompt: its input has no gradient.
    first = -1 if call.tokens or call.own_network else min(prefix, default=s.depth)
    for layer in range(s.depth):
        rows = call.rows if layer == s.depth - 1 and call.rows else length
        keys = length + prefix.get(layer, 0)
        qkv = 6 * length * s.width**2
        attention = 2 * rows * keys * s.width  # needed twice: for the scores and for the values
        after = 2 * rows * s.width**2 + 4 * rows * s.width * s.hidden
        total += qkv + 2 * attention + after
        if call.backward and call.own_network:
            total += 2 * (qkv + 2 * attention + after)
        elif call.backward and layer > first:
            total += qkv + 4 * attention + after
        elif call.backward and layer == first:  # of the scores only the keys have a gradient
            total += 3 * attention + after
    return total
