"""DualPrompt: Complementary Prompting for Rehearsal-free Continual Learning (Wang et al., 2022).

Published at ECCV 2022. Official code: google-research/l2p (JAX). The numbers follow it.

Prompt. G-prompts in layers 0 and 1 are shared by all tasks. Layers 2-4 have one E-prompt per task.
Both are rows put before the layer's keys and values. One key per task serves all layers.

Selection. In training the task's own E-prompt is used, and its key is pulled to the queries. At
test each image takes the E-prompt whose key is nearest to its query (cosine).

Tasks. The E-prompt of task t starts as a copy of task t-1's; its key does not.

Loss. CE - lambda * mean cosine of the queries to the task's key.

Axes. The prefix is (image, keys/values, length, width) throughout, as in the original. Several
PyTorch ports read (keys/values, image) as (image, keys/values) without a permutation and so mix the
prompts of different images. reference_bug=True does the same.

Deviations:
- Selection at test is per image everywhere. The original lets the batch vote on CIFAR-100: a batch
  at test holds one task only, so the vote gives the task away.
- With form="coda" only keys of tasks that have begun compete at test. In the CODA repository those
  of later tasks compete too, but an untrained key means nothing.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.method import Loss, Method, Task, register


class EPrompts(nn.Module):
    """One prompt per task for all E-layers. One key per task, for all layers or for each layer."""

    def __init__(
        self, tasks: int, prompt: tuple[int, ...], key: tuple[int, int], init: tuple[float, float]
    ) -> None:
        """prompt: shape (layers, 2, P, D). key: shape (1 or layers, D). init: range of both."""
        super().__init__()

        def uniform(*shape: int) -> nn.ParameterList:
            return nn.ParameterList(
                nn.Parameter(torch.empty(*shape).uniform_(*init)) for _ in range(tasks)
            )

        # One parameter per task: the optimiser leaves those of a finished task out.
        self.prompts, self.keys = uniform(*prompt), uniform(*key)

    def cosine(self, query: Tensor, begun: int, trained: int | None = None) -> Tensor:
        """(keys per task, B, begun): cosine of each query to the keys of the first `begun` tasks.

        trained: the one task whose keys get gradients; None: all.
        """
        keys = [
            key if trained in (None, task) else key.detach()
            for task, key in enumerate(list(self.keys)[:begun])
        ]
        return F.normalize(query, dim=1) @ F.normalize(torch.stack(keys, dim=1), dim=2).mT

    def of_tasks(self, tasks: Tensor, begun: int, reference_bug: bool = False) -> Tensor:
        """Prompts (layers, B, 2, P, D) of the tasks (1 or layers, B) chosen for each image.

        reference_bug: with (layers, 2, B, ...) read as (layers, B, 2, ...), as in the ports.
        """
        pool = torch.stack(list(self.prompts)[:begun], dim=1)  # (layers, begun, 2, P, D)
        layer = torch.arange(len(pool), device=tasks.device)[:, None]
        chosen = pool[layer, tasks]
        if reference_bug:
            return chosen.transpose(1, 2).reshape(chosen.shape)
        return chosen


@register
class DualPrompt(Method):
    """g_layers, e_layers: prompted layers. g_length, e_length: rows of keys and of values in each.

    key_loss: lambda. init: uniform range of prompts and keys.
    form: "original" as above. "coda" as in GT-RIPL/CODA-Prompt models/zoo.py::DualPrompt: a key per
    task and layer, a key loss of (1 - cosine) summed over images and layers, no copied prompt.
    reference_bug: the ports' mixed axes, for the parity test only.
    """

    needs_query = True
    counted = ("begun",)

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        g_layers: tuple[int, ...] = (0, 1),
        e_layers: tuple[int, ...] = (2, 3, 4),
        g_length: int = 5,
        e_length: int = 5,
        key_loss: float = 1.0,
        init: tuple[float, ...] = (0.0, 0.01),
        form: Literal["original", "coda"] = "original",
        reference_bug: bool = False,
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*g_layers, *e_layers)
        self.g_layers, self.e_layers, self.key_loss = g_layers, e_layers, key_loss
        self.coda_form, self.reference_bug = form == "coda", reference_bug
        low, high = init
        self.g_prompt = nn.Parameter(
            torch.empty(len(g_layers), 2, g_length, self.width).uniform_(low, high)
        )
        keys = len(e_layers) if self.coda_form else 1
        self.e = EPrompts(
            tasks, (len(e_layers), 2, e_length, self.width), (keys, self.width), (low, high)
        )
        self.head = nn.Linear(self.width, classes)
        self.begun = 0  # tasks

    @classmethod
    def selection(cls, model: dict[str, Any]) -> str:
        if str(model.get("reference_bug")) == "True":  # text where it was read from a table
            return "prompts of different images mixed"
        return super().selection(model)

    def begin_task(self, task: Task) -> None:
        self.begun = task.index + 1
        if task.index and not self.coda_form:
            self.e.prompts[task.index].data.copy_(self.e.prompts[task.index - 1].data)

    def param_groups(self) -> list[dict[str, Any]]:
        current = self.begun - 1
        prompts = [self.g_prompt, self.e.prompts[current], self.e.keys[current]]
        return [
            {"params": prompts, "kind": "prompt"},
            {"params": list(self.head.parameters()), "kind": "head"},
        ]

    def layer_prompts(self) -> dict[int, Tensor]:
        layers = (*self.g_layers, *self.e_layers)
        prompts = (*self.g_prompt, *self.e.prompts[self.begun - 1])
        return {layer: prompt.flatten(0, 1) for layer, prompt in zip(layers, prompts, strict=True)}

    def prefixes(self, query: Tensor, task: int | None = None) -> dict[int, Tensor]:
        """layer -> (2, P, D), or (B, 2, P, D) where images differ.

        task: the E-prompt of this task for all images; None: that of each image's nearest key.
        """
        if task is None:
            nearest = self.e.cosine(query, self.begun).argmax(dim=2)
            e_prompt = self.e.of_tasks(nearest, self.begun, self.reference_bug)
        elif self.reference_bug:
            same = torch.full((1, len(query)), task, device=query.device)
            e_prompt = self.e.of_tasks(same, self.begun, True)
        else:
            e_prompt = self.e.prompts[task]
        g_prefixes = dict(zip(self.g_layers, self.g_prompt, strict=True))
        return g_prefixes | dict(zip(self.e_layers, e_prompt, strict=True))

    def chosen(self, query: Tensor) -> Tensor:
        """(B, tasks): 1 at the task whose E-prompt an image gets (form "coda": over the layers)."""
        nearest = self.e.cosine(query, self.begun).argmax(dim=2)
        return F.one_hot(nearest, self.tasks).float().mean(dim=0)

    def key_term(self, query: Tensor, task: int) -> Tensor:
        """The keys' term: minus the mean cosine, or in the form "coda" the summed (1 - cosine)."""
        cosine = self.e.cosine(query, self.begun, trained=task)[:, :, task]
        return (1 - cosine).sum() if self.coda_form else -cosine.mean()

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return self.backbone.cls(images, self.prefixes(query))

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        logits = self.head(self.backbone.cls(images, self.prefixes(query, task.index)))
        loss, pull = self.cross_entropy(logits, labels, task), self.key_term(query, task.index)
        return Loss(loss.total + self.key_loss * pull, {**loss.terms, "key": pull.detach()})
