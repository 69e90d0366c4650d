"""OVOR: OnePrompt with virtual outlier regularisation (Huang et al., ICLR 2024, arXiv 2402.04129).

Official code: jpmorganchase/ovor at 4f59b75, models/zoo.py::OnePrompt, learners/default.py and
learners/ood.py. The numbers follow it.

Prompt. One prefix for all tasks, without a query; layers 0, 1 have 5 rows of keys and 5 of values,
layers 2, 3, 4 have 20.

Second phase. After a task's training its head's rows alone are trained further, on features of the
task's images and on outliers, each batch of one with a batch of the other:
CE + lambda (mean h(max(0, E(x) - bound_id)) + mean h(max(0, bound_ood - E(o)))), the energy
E = -logsumexp of the task's logits, h the Huber loss.

Outliers. Candidates are cov * z, z from N(0, I). Those farthest from u = f / |f| of the task's
features f are kept, by the distance to the K-th nearest. As released they lie around zero. In the
paper they lie around the features f at the boundary, those whose u is itself farthest
(outliers="paper"; the released code computes that boundary and does not use it,
jpmorganchase/ovor issue 5).

Deviations:
- Features are of the test view and computed once, not of each epoch's augmented views.
- The second phase has a fresh Adam, and its own rate `lr`. It runs at the rates of the last fifth
  of a cosine, as 4 of 20 and 10 of 50 epochs do in the official scripts. In the embedded suites it
  is one epoch after two: a third of all epochs.
- The first phase has the suite's schedule to its end. The official cosine runs through both phases.
- The form with squared errors, to which the released code's `--huber` switches, is absent.
- A task with fewer images than `neighbours` takes the last neighbour.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.method import Method, Task, register

BATCH = 128  # features in a batch of the second phase
PHASES = 5  # the second phase is one of so many parts of the schedule


def farthest(points: Tensor, unit: Tensor, neighbours: int, count: int) -> Tensor:
    """Rows of points (m, D) with the largest distance to their K-th nearest of unit (n, D)."""
    distances = torch.cdist(points, unit, compute_mode="donot_use_mm_for_euclid_dist")
    kth = distances.kthvalue(min(neighbours, len(unit)), dim=1).values
    return kth.argsort(descending=True, stable=True)[:count]


def released_outliers(
    features: Tensor, noise: Tensor, neighbours: int, select: int, count: int
) -> Tensor:
    """(count, D): the farthest candidates of noise (m, D), each `select` times in a row."""
    chosen = farthest(noise, F.normalize(features, dim=1), neighbours, -(-count // select))
    return noise[chosen].repeat_interleave(select, dim=0)[:count]


def paper_outliers(
    features: Tensor, noise: Tensor, neighbours: int, select: int, count: int
) -> Tensor:
    """(count, D): the farthest of noise (m, D) around each of `select` features at the boundary."""
    unit = F.normalize(features, dim=1)
    boundary = features[farthest(unit, unit, neighbours, select)]
    around = (boundary[:, None] + noise[None]).flatten(0, 1)
    return around[farthest(around, unit, neighbours, count)]


def energy_loss(own: Tensor, outliers: Tensor, bound_id: float, bound_ood: float) -> Tensor:
    """Of the logits of images and of outliers, before its weight lambda."""
    above = (-own.logsumexp(dim=1) - bound_id).clamp(min=0)
    below = (bound_ood + outliers.logsumexp(dim=1)).clamp(min=0)
    return F.huber_loss(above, torch.zeros_like(above)) + F.huber_loss(
        below, torch.zeros_like(below)
    )


def rates(epochs: int) -> list[float]:
    """Of the second phase's epochs, relative to the first rate of the whole schedule."""
    whole = PHASES * epochs  # one epoch late, as in CODA-Prompt's scheduler
    late = range(whole - epochs - 1, whole - 1)
    return [math.cos(99 * math.pi * epoch / (200 * (whole - 1))) for epoch in late]


@register
class OVOR(Method):
    """layers: prompted. lengths: rows of keys and of values in each. init: uniform range.

    outliers: released, paper, or none (OnePrompt alone, with these lengths). epochs, lr: of the
    second phase. weight: lambda. cov: scale of the candidates. neighbours: K. select: boundary
    features. candidates: m. per_class: outliers for each class.
    """

    prompts: list[nn.Parameter]

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        layers: tuple[int, ...] = (0, 1, 2, 3, 4),
        lengths: tuple[int, ...] = (5, 5, 20, 20, 20),
        init: tuple[float, ...] = (0.0, 1.0),
        outliers: str = "released",
        epochs: int = 4,
        lr: float = 0.001,
        weight: float = 0.1,
        bound_id: float = -15.0,
        bound_ood: float = -3.0,
        cov: float = 0.1,
        neighbours: int = 50,
        select: int = 50,
        candidates: int = 600,
        per_class: int = 40,
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*layers)
        if len(lengths) != len(layers) or min(lengths) < 1:
            raise ValueError(f"lengths={lengths}: one for each of {len(layers)} layers, from 1")
        if outliers not in ("released", "paper", "none"):
            raise ValueError(f"outliers={outliers}: released, paper or none")
        if min(neighbours, select, candidates, per_class) < 1 or epochs < 0:
            raise ValueError("neighbours, select, candidates, per_class: from 1; epochs: from 0")
        self.layers, self.outliers, self.epochs, self.lr = layers, outliers, epochs, lr
        self.weight, self.bounds, self.cov = weight, (bound_id, bound_ood), cov
        self.neighbours, self.select = neighbours, select
        self.candidates, self.per_class = candidates, per_class
        tensors = (torch.empty(2, n, self.width).uniform_(init[0], init[1]) for n in lengths)
        self.prompts = nn.ParameterList(tensors)  # type: ignore[assignment]
        self.head = nn.Linear(self.width, classes)

    def layer_prompts(self) -> dict[int, Tensor]:
        return {n: p.flatten(0, 1) for n, p in zip(self.layers, self.prompts, strict=True)}

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return self.backbone.cls(images, dict(zip(self.layers, self.prompts, strict=True)))

    def end_task(self, task: Task) -> None:
        if self.outliers == "none" or not self.epochs:
            return
        with torch.no_grad():
            seen = [(self.features(x, query), y) for x, query, y in task.plain_images()]
        features, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
        noise = self.cov * torch.randn(self.candidates, self.width)  # on the host: as on any device
        draw = released_outliers if self.outliers == "released" else paper_outliers
        count = self.per_class * (task.stop - task.start)
        outliers = draw(features, noise.to(features.device), self.neighbours, self.select, count)
        parts = -(-len(labels) // BATCH)
        batches = outliers.split(max(len(outliers) // parts, 1))[:parts]
        rows = slice(task.start, task.stop)
        weight, bias = (p.detach()[rows].clone().requires_grad_() for p in self.head.parameters())
        adam = torch.optim.Adam([weight, bias], lr=self.lr)
        for rate in rates(self.epochs):
            adam.param_groups[0]["lr"] = self.lr * rate
            order = torch.randperm(len(labels)).to(labels.device)
            of_ids = zip(features[order].split(BATCH), labels[order].split(BATCH), strict=True)
            for (x, y), around in zip(of_ids, batches, strict=False):
                self.second_step(adam, weight, bias, x, y - task.start, around)
        with torch.no_grad():
            self.head.weight[rows], self.head.bias[rows] = weight, bias

    def second_step(
        self, adam: torch.optim.Adam, weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, o: Tensor
    ) -> None:
        """A step on features x (B, D) of classes y (B,), from 0, and outliers o (b, D)."""
        own = F.linear(x, weight, bias)
        apart = energy_loss(own, F.linear(o, weight, bias), *self.bounds)
        adam.zero_grad()
        (F.cross_entropy(own, y) + self.weight * apart).backward()
        adam.step()
