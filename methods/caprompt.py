"""CAPrompt: Cyclic Prompt Aggregation (Li and Zhou, AAAI 2025, arXiv 2412.08929).

Official code: zhoujiahuan1991/AAAI2025-CAPrompt at ca10abd, engines/capromtp_engine.py and
peft/prompt/caprompt.py. The numbers follow it. The nearest relative of HLGP: without the two terms
below its weights and its sum are those of HLGP with an independent prompt for each layer.

Prompt. Each task has one prompt for each layer, L rows of keys and of values. An image gets
P_l(x) = sum_i w_i(x) p_{i,l} over the tasks so far; prompts of earlier tasks are frozen. The prompt
of a task starts as a copy of the one before it.

Weights. The first pass has equal weights. From a pass's logits come the next weights: the softmax
over the classes seen, summed over each task's classes. No gradient flows through them. At test
there are `cycles` passes in all. The official code runs three, and its accuracy is the second's.

Loss, in task t (pi: softmax over all classes, also those not seen yet):
- cross-entropy of the pass with weights w;
- t > 0: delta times the mean of max(0, w_t pi_new[y] + w_old pi_old[y] - pi_mix[y]), for the passes
  with the new prompt alone, with the old ones alone, and with all. The head gets no gradient from
  it, nor do logits of old classes;
- t > 1: penalty times the mean over layers and rows of 1 - cos(p_{t-1} - p_0, p_t - p_0).

Deviations:
- The official code reads (keys/values, image) as (image, keys/values) without a permutation and so
  mixes the prompts of different images. reference_bug=True does the same, for the parity test.
- With tasks of unequal size it cannot run; ours takes the sum over a task's classes, not the mean.
- Official accuracies are over all classes; the engine's are over the classes seen.
- Its stage that aligns the head is the engine's (bench/engine/align.py), with the recipe that every
  row has; its own has 30 epochs, logits that are not normalised, and each class's statistics under
  the prompt of its own task alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.method import Loss, Method, Task, register

SMALLEST_MASS = 1e-12  # of all earlier tasks together; the official code divides by it as it is


@register
class CAPrompt(Method):
    """layers: prompted, empty: all. length: L. init: uniform range of the first task's prompts.

    delta, penalty: weights of the two terms. cycles: passes at test. reference_bug: the official
    code's mixed axes.
    """

    counted = ("begun", "classes_seen")
    learned: Tensor
    task_of_class: Tensor

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        layers: tuple[int, ...] = (),
        length: int = 5,
        init: tuple[float, ...] = (-1.0, 1.0),
        delta: float = 1.0,
        penalty: float = 0.2,
        cycles: int = 2,
        reference_bug: bool = False,
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*layers)
        if length < 1 or cycles < 1:
            raise ValueError(f"length={length}, cycles={cycles}: positive ones")
        self.layers = layers or tuple(range(backbone.depth))
        self.delta, self.penalty, self.cycles = delta, penalty, cycles
        self.reference_bug = reference_bug
        shape = (len(self.layers), 2, length, self.width)
        self.prompt = nn.Parameter(torch.empty(*shape).uniform_(init[0], init[1]))  # p_t
        self.register_buffer("learned", torch.zeros(tasks, *shape))  # of finished tasks
        self.register_buffer("task_of_class", torch.zeros(classes, dtype=torch.long))
        self.head = nn.Linear(self.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.begun = self.classes_seen = 0
        self.training_task = False

    @classmethod
    def selection(cls, model: dict[str, Any]) -> str:
        if str(model.get("reference_bug")) == "True":  # text where it was read from a table
            return "prompts of different images mixed"
        return super().selection(model)

    def begin_task(self, task: Task) -> None:
        self.task_of_class[task.start : task.stop] = task.index
        self.begun, self.classes_seen = task.index + 1, task.stop
        self.training_task = True  # the prompt goes on from the last task's values: its copy

    def end_task(self, task: Task) -> None:
        self.learned[task.index] = self.prompt.detach()
        self.training_task = False

    def layer_prompts(self) -> dict[int, Tensor]:
        return dict(zip(self.layers, self.prompt.flatten(1, 2), strict=True))

    def all_prompts(self) -> Tensor:
        """(t, layers, 2, L, D): prompts of the tasks so far; the current one's has gradients."""
        if not self.training_task:
            return self.learned[: self.begun]
        return torch.cat([self.learned[: self.begun - 1], self.prompt[None]])

    def run(self, images: Tensor, weights: Tensor) -> Tensor:
        """Class tokens (B, D) under prompts with weights (B, t) over the tasks."""
        mixed = torch.einsum("bt,tlkpd->lkbpd", weights, self.all_prompts())
        if self.reference_bug:
            layers, kinds, batch, *row = mixed.shape
            prefix = mixed.reshape(layers, batch, kinds, *row)
        else:
            prefix = mixed.transpose(1, 2)
        return self.backbone.cls(images, dict(zip(self.layers, prefix, strict=True)))

    def equal(self, images: Tensor) -> Tensor:
        """Weights (B, t) of the first pass."""
        return torch.full((len(images), self.begun), 1 / self.begun, device=images.device)

    def mass(self, logits: Tensor) -> Tensor:
        """(B, t): the softmax over the classes seen, summed over each task's classes."""
        seen = self.classes_seen
        mass = torch.zeros(len(logits), self.begun, device=logits.device)
        return mass.index_add(1, self.task_of_class[:seen], logits[:, :seen].softmax(dim=1))

    @torch.no_grad()
    def weights(self, images: Tensor, cycles: int) -> Tensor:
        """Weights (B, t) of the pass of this number, from 1."""
        weights = self.equal(images)
        for _ in range(cycles - 1 if self.begun > 1 else 0):
            weights = self.mass(self.head(self.run(images, weights)))
        return weights

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return self.run(images, self.weights(images, self.cycles))

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        weights = self.weights(images, 2)
        mix = self.run(images, weights)
        loss = self.cross_entropy(self.head(mix), labels, task)
        total, terms = loss.total, dict(loss.terms)
        if task.index > 0:
            concave = self.concave(images, mix, weights, labels, task)
            total = total + self.delta * concave
            terms["concave"] = concave.detach()
        if task.index > 1:
            bend = self.bend()
            total = total + self.penalty * bend
            terms["linear"] = bend.detach()
        return Loss(total, terms)

    def concave(
        self, images: Tensor, mix: Tensor, weights: Tensor, labels: Tensor, task: Task
    ) -> Tensor:
        """How far the mixed prompt is below its parts, mean over images. mix: (B, D), its pass."""
        new_weight, old_weights = weights[:, -1], weights[:, :-1]
        old_weight = old_weights.sum(dim=1)
        none = torch.zeros_like(new_weight)[:, None]
        with torch.no_grad():
            shares = old_weights / old_weight.clamp(min=SMALLEST_MASS)[:, None]
            old = self.head(self.run(images, torch.cat([shares, none], dim=1))).softmax(dim=1)
        alone = torch.cat([torch.zeros_like(old_weights), none + 1], dim=1)
        new = self.probabilities(self.run(images, alone), task)
        of_label = labels[:, None]
        apart = new_weight * new.gather(1, of_label)[:, 0]
        apart = apart + old_weight * old.gather(1, of_label)[:, 0]
        return F.relu(apart - self.probabilities(mix, task).gather(1, of_label)[:, 0]).mean()

    def probabilities(self, features: Tensor, task: Task) -> Tensor:
        """Softmax (B, classes) of features (B, D) without gradients of the head and old classes."""
        logits = F.linear(features, self.head.weight.detach(), self.head.bias.detach())
        fixed = logits[:, : task.start].detach()
        return torch.cat([fixed, logits[:, task.start :]], dim=1).softmax(dim=1)

    def bend(self) -> Tensor:
        """1 - cosine of the ways from the first task's prompt to the last one's and this one's."""
        first, before = self.learned[0], self.learned[self.begun - 2]
        return (1 - F.cosine_similarity(before - first, self.prompt - first, dim=-1)).mean()
