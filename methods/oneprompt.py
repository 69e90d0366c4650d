"""OnePrompt: one prefix for all tasks, without a query and without selection.

From OVOR (Huang et al., ICLR 2024). Official code: jpmorganchase/ovor. Deviations: without its
regularisation by virtual outliers; one length for all blocks and a small random start, where the
official prompts have 5, 5, 20, 20, 20 rows in blocks 0 to 4 and start in U(0, 1). With those, and
no outliers, it is `ovor` with outliers="none".

The first thing to try with prompts. Trained on all classes at once (train.joint) it is the upper
reference for prompts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.backbone.vit import FrozenViT
from bench.method import Method, register


@register
class OnePrompt(Method):
    """layers: prompted, empty: all. length: rows of keys and of values."""

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        layers: tuple[int, ...] = (),
        length: int = 5,
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*layers)
        self.layers = layers or tuple(range(backbone.depth))
        self.prompt = nn.Parameter(torch.randn(len(self.layers), 2, length, self.width) * 0.02)
        self.head = nn.Linear(self.width, classes)

    def layer_prompts(self) -> dict[int, Tensor]:
        return dict(zip(self.layers, self.prompt.flatten(1, 2), strict=True))

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return self.backbone.cls(images, dict(zip(self.layers, self.prompt, strict=True)))
