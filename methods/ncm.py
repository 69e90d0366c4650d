"""NCM: nearest class mean of the frozen features by cosine. Nothing is trained.

The same as SimpleCIL (Zhou et al., IJCV 2024) in LAMDA-PILOT.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.method import Method, Task, register


class ClassMeans(nn.Module):
    """Mean query of each class seen so far, from training images without augmentation."""

    means: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, width))

    def learn(self, task: Task) -> None:
        """Add a finished task's classes."""
        queries, labels = task.plain_queries()
        for label in range(task.start, task.stop):
            self.means[label] = queries[labels == label].mean(dim=0)

    def forward(self, query: Tensor) -> Tensor:
        """Cosines (B, classes); 0 for classes not seen yet."""
        return F.normalize(query, dim=1) @ F.normalize(self.means, dim=1).T


@register
class NCM(Method):
    """Cosine to the class means as logits."""

    needs_query = True
    needs_images = False
    has_head = False

    def __init__(self, backbone: FrozenViT, classes: int, tasks: int) -> None:
        super().__init__(backbone, classes, tasks)
        self.class_means = ClassMeans(classes, self.width)

    def end_task(self, task: Task) -> None:
        self.class_means.learn(task)

    def forward(self, images: Tensor, query: Tensor) -> Tensor:
        return self.class_means(query)
