"""SLCA: slow learner with classifier alignment (Zhang et al., ICCV 2023, arXiv 2303.05118).

Official code: GengDavid/SLCA at 169d4e6, models/slca.py::_stage1_training and convs/vits.py. The
numbers follow it.

The whole network is trained task after task, at a rate that is a hundredth of the head's, with the
cross-entropy over the current task's classes. Rows of the head that are not in the loss rest: in
the official code each task has a head of its own, and the others are not in the optimiser. The
official network has a fresh last norm in place of the pretrained one.

Its second stage, classifier alignment, is the engine's (bench/engine/align.py), and every row has
it: SLCA itself is the aligned head of this row, the trained head is the slow learner alone.

SGD with momentum .9 and weight decay 5e-4 comes from the suite, as the rates do: train.prompt_lr is
the network's.

Deviations:
- One head whose resting rows are put back stands for the official heads of single tasks.
- The aligned head has the setting that a suite gives every row. A class's mean is scaled by its own
  task; the official code takes its number over the newest task's size, wrong where sizes differ.
- Views and normalisation are the suite's. The official ones normalise by mean and sd, and jitter
  the brightness on CIFAR-100.
- Rates and schedule of the embedded suites are the suites' own; the official ones are in
  bench/suites/_base_/recipe_original.py.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bench.backbone.vit import FrozenViT, run_vit
from bench.method import Method, Task, register


@register
class SLCA(Method):
    """fresh_norm: a new last norm, as in the official code; else the pretrained one goes on."""

    def __init__(
        self, backbone: FrozenViT, classes: int, tasks: int, *, fresh_norm: bool = True
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.vit = copy.deepcopy(backbone.vit).requires_grad_(True)
        if fresh_norm:
            self.vit.norm = nn.LayerNorm(self.width, eps=1e-5)
        self.head = nn.Linear(self.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def network(self) -> nn.Module:
        return self.vit

    def begin_task(self, task: Task) -> None:
        rows = torch.arange(self.classes, device=self.head.bias.device)
        self.resting = (rows < task.loss_start) | (rows >= task.stop)
        self.rested = [p.detach()[self.resting] for p in self.head.parameters()]

    @torch.no_grad()
    def after_step(self) -> None:
        """Weight decay would change the rows that rest."""
        for parameter, values in zip(self.head.parameters(), self.rested, strict=True):
            parameter[self.resting] = values

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return run_vit(self.vit, images, precision=self.backbone.precision, rows=1)[:, 0]
