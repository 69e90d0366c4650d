"""L2P: Learning to Prompt for Continual Learning (Wang et al., CVPR 2022), with prompt tokens.

Official code: google-research/l2p, models/prompt.py and models/vit.py. The numbers follow it.

Prompt. A pool holds M prompts with a key each. An image takes the N prompts whose keys are nearest
(cosine) to its query. Their tokens are put in front of [cls, patches] after the position embedding.
The head reads the mean of the prompts' output tokens.

Loss. CE - lambda * sum of the chosen cosines, the mean over images.

Deviation: selection is per image, in training and at test. The official code lets a batch vote on
N prompts for all its images. At test a batch holds one task only, so the vote leaks the task.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.method import Loss, Method, Task, register


class PromptPool(nn.Module):
    """M prompts of `length` tokens, with a key each."""

    def __init__(
        self, size: int, length: int, top_n: int, width: int, init: tuple[float, float]
    ) -> None:
        super().__init__()
        self.top_n = top_n
        self.prompts = nn.Parameter(torch.empty(size, length, width).uniform_(*init))
        self.keys = nn.Parameter(torch.empty(size, width).uniform_(*init))

    def cosine(self, query: Tensor) -> Tensor:
        """Cosines (B, M) of each query to every key."""
        return F.normalize(query, dim=1) @ F.normalize(self.keys, dim=1).T

    def shares(self, query: Tensor) -> Tensor:
        """(B, M): 1 / N at each prompt that an image gets."""
        cosine = self.cosine(query)
        places = cosine.topk(self.top_n, dim=1).indices
        return torch.zeros_like(cosine).scatter_(1, places, 1 / self.top_n)

    def forward(self, query: Tensor, forced: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Prompts (B, N, length, D) for queries (B, D), and their keys' cosines (B, N), best first.

        forced: numbers (N,) of the prompts that all images take instead.
        """
        cosine = self.cosine(query)
        if forced is not None:
            return self.prompts[forced].expand(len(query), -1, -1, -1), cosine[:, forced]
        chosen = cosine.topk(self.top_n, dim=1)
        return self.prompts[chosen.indices], chosen.values


@register
class L2P(Method):
    """pool: M. length: tokens of a prompt. top_n: N. key_loss: lambda.

    init: uniform range of prompts and keys.
    """

    needs_query = True

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        pool: int = 10,
        length: int = 10,
        top_n: int = 4,
        key_loss: float = 1.0,
        init: tuple[float, ...] = (0.0, 0.01),
    ) -> None:
        super().__init__(backbone, classes, tasks)
        if not 1 <= top_n <= pool:
            raise ValueError(f"top_n={top_n} of a pool of {pool}")
        self.key_loss = key_loss
        self.pool = PromptPool(pool, length, top_n, self.width, (init[0], init[1]))
        self.head = nn.Linear(self.width, classes)

    def layer_prompts(self) -> dict[int, Tensor]:
        return {0: self.pool.prompts.flatten(0, 1)}

    def chosen(self, query: Tensor) -> Tensor:
        return self.pool.shares(query)

    def _run(self, images: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) and the chosen keys' cosines (B, N)."""
        prompts, cosine = self.pool(query)
        tokens = prompts.flatten(1, 2)  # (B, N * length, D)
        out = self.backbone(images, tokens=tokens, rows=tokens.shape[1])
        return out.mean(dim=1), cosine

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return self._run(images, query)[0]

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        features, cosine = self._run(images, query)
        loss = self.cross_entropy(self.head(features), labels, task)
        pull = cosine.sum(dim=1).mean()
        return Loss(loss.total - self.key_loss * pull, {**loss.terms, "key_cosine": pull.detach()})
