"""DualPrompt: Complementary Prompting for Rehearsal-free Continual Learning (Wang et al., ECCV 2022).

Numerics after google-research/l2p (the original JAX code): G-prompts shared by all tasks in layers 0 and 1, one E-prompt per
task in layers 2-4, both as prefix keys and values. One key per task serves all layers. In training the E-prompt of the
task is used and its key pulled to the queries; at test each image takes the E-prompt whose key is nearest (cosine). The
E-prompt of task t starts as a copy of task t-1's, its key does not. Loss = CE - lambda * mean cosine.

Axes: the prefix is (image, keys/values, length, width) all the way. Several PyTorch ports reshape (keys/values, image) to
(image, keys/values) without a permutation and so mix the prompts of different images.
Deviation: selection at test is per image everywhere (the original lets the batch vote on CIFAR-100).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone import FrozenViT
from bench.method import Loss, Method, Task, register


@register
class DualPrompt(Method):
    """g_layers, e_layers: prompted blocks; g_length, e_length: rows of keys and of values in each."""

    needs_query = True
    begun: Tensor

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
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*g_layers, *e_layers)
        self.g_layers, self.e_layers, self.key_loss = g_layers, e_layers, key_loss

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(init[0], init[1]))

        self.g_prompt = uniform(len(g_layers), 2, g_length, self.width)
        # One parameter per task, so that a finished task's prompt and key are simply not trained any more.
        self.e_prompts = nn.ParameterList(uniform(len(e_layers), 2, e_length, self.width) for _ in range(tasks))
        self.keys = nn.ParameterList(uniform(self.width) for _ in range(tasks))
        self.head = nn.Linear(self.width, classes)
        self.register_buffer("begun", torch.zeros((), dtype=torch.long))

    def begin_task(self, task: Task) -> None:
        self.begun.fill_(task.index + 1)
        if task.index:
            self.e_prompts[task.index].data.copy_(self.e_prompts[task.index - 1].data)

    def param_groups(self) -> list[dict]:
        current = int(self.begun) - 1
        prompts = [self.g_prompt, self.e_prompts[current], self.keys[current]]
        return [{"params": prompts, "kind": "prompt"}, {"params": list(self.head.parameters()), "kind": "head"}]

    def _logits(self, images: Tensor, e_prompt: Tensor) -> Tensor:
        """e_prompt: (e_layers, 2, P, D) for the batch or (e_layers, B, 2, P, D) per image."""
        prefix = dict(zip(self.g_layers, self.g_prompt, strict=True)) | dict(zip(self.e_layers, e_prompt, strict=True))
        return self.head(self.backbone.cls(images, prefix))

    def nearest(self, query: Tensor) -> Tensor:
        """(B,) number of the task whose key is nearest to each query, among the tasks begun."""
        keys = torch.stack(list(self.keys)[: int(self.begun)])
        return (F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T).argmax(dim=1)

    def forward(self, images: Tensor, query: Tensor) -> Tensor:
        pool = torch.stack(list(self.e_prompts)[: int(self.begun)], dim=1)  # (layers, tasks, 2, P, D)
        return self._logits(images, pool[:, self.nearest(query)])

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        loss = self.cross_entropy(self._logits(images, self.e_prompts[task.index]), labels, task)
        cosine = F.cosine_similarity(query, self.keys[task.index][None], dim=1).mean()
        return Loss(loss.total - self.key_loss * cosine, {**loss.parts, "key_cosine": cosine.detach()})
