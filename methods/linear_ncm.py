"""Linear-NCM: the head of `linear`, its task chosen by the nearest class mean. A control.

A method that selects a prompt by task also guesses the task. This row guesses the task in the
cheap way and uses no prompt. What a prompt method gains over `linear`, but not over this row, is
the gain of guessing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.backbone.vit import FrozenViT
from bench.method import Loss, Method, Task, register
from methods.ncm import ClassMeans

# Added to the logits of the chosen task: above any logit, and the order within the task stays.
ROUTED_OFFSET = 1e4


@register
class LinearNCM(Method):
    """The head of `linear`, with the classes of the nearest class mean's task ranked first."""

    needs_query = True
    needs_images = False
    task_of_class: Tensor

    def __init__(self, backbone: FrozenViT, classes: int, tasks: int) -> None:
        super().__init__(backbone, classes, tasks)
        self.head = nn.Linear(self.width, classes)
        self.class_means = ClassMeans(classes, self.width)
        self.register_buffer("task_of_class", torch.full((classes,), -1))

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        return self.cross_entropy(self.head(query), labels, task)

    def end_task(self, task: Task) -> None:
        self.class_means.learn(task)
        self.task_of_class[task.start : task.stop] = task.index

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return query

    def classify(self, features: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
        query = features
        seen = self.task_of_class >= 0
        nearest = (
            self.class_means(query).masked_fill(~seen, -2.0).argmax(dim=1)
        )  # a cosine is above -2
        chosen = self.task_of_class[None, :] == self.task_of_class[nearest][:, None]
        return head(query) + ROUTED_OFFSET * chosen
