"""Fine-tuning: the whole network is trained task after task, and nothing is frozen.

The lower reference: it forgets. With the masked loss it is the row FT++ of the CODA-Prompt paper,
with the loss over all classes seen (train.loss_classes="seen") naive fine-tuning.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from bench.backbone.vit import FrozenViT, run_vit
from bench.method import Method, register


@register
class Finetune(Method):
    """A trainable copy of the backbone, and a head. The shared backbone stays frozen."""

    def __init__(self, backbone: FrozenViT, classes: int, tasks: int) -> None:
        super().__init__(backbone, classes, tasks)
        self.vit = copy.deepcopy(backbone.vit).requires_grad_(True)
        self.head = nn.Linear(self.width, classes)

    @property
    def network(self) -> nn.Module:
        return self.vit

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return run_vit(self.vit, images, precision=self.backbone.precision, rows=1)[:, 0]
