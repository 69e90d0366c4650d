"""Linear: a head on the frozen features, trained task after task.

What a prompt method gains is measured against this row.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.backbone.vit import FrozenViT
from bench.method import Method, register


@register
class Linear(Method):
    """No prompts: the query is the feature."""

    needs_query = True
    needs_images = False

    def __init__(self, backbone: FrozenViT, classes: int, tasks: int) -> None:
        super().__init__(backbone, classes, tasks)
        self.head = nn.Linear(self.width, classes)

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return query
