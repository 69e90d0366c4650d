"""L2P++: the form of L2P in the CODA-Prompt repository (Smith et al., CVPR 2023).

Official code: GT-RIPL/CODA-Prompt, models/zoo.py::L2P. The numbers follow it.

Prompt. Prefix keys and values instead of tokens, in layer 0 ("shallow") or layers 0-4 ("deep", with
a pool and keys per layer). Each image takes the top 5 of 30 prompts: the first half of a prompt's
rows goes to the keys, the second half to the values. The head reads the class token.

Loss. CE + sum of (1 - cosine) over the image's own chosen keys.

Deviation: the official indexing sums the key loss over every pair of images in the batch, ours over
an image's own keys, as the paper says. Only keys get its gradient. But from the second step on the
moved keys choose other prompts, so the prompts differ too. reference_bug=True gives the official
sum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.backbone.vit import FrozenViT
from bench.method import Loss, Method, Task, register
from methods.l2p import PromptPool


@register
class L2PPlus(Method):
    """layers: prompted. pool: prompts. length: rows of a prompt, half keys, half values.

    top_n: prompts of an image. key_loss: weight of the key loss. init: range of prompts and keys.
    reference_bug: the official sum of the key loss.
    """

    needs_query = True
    pools: list[PromptPool]

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        layers: tuple[int, ...] = (0,),
        pool: int = 30,
        length: int = 20,
        top_n: int = 5,
        key_loss: float = 1.0,
        init: tuple[float, ...] = (0.0, 1.0),
        reference_bug: bool = False,
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*layers)
        if length % 2 or top_n > pool:
            raise ValueError(f"length={length} must be even and top_n={top_n} at most pool={pool}")
        self.layers, self.rows = layers, length // 2
        self.key_loss, self.reference_bug = key_loss, reference_bug
        modules = nn.ModuleList(
            PromptPool(pool, length, top_n, self.width, (init[0], init[1])) for _ in layers
        )
        self.pools = modules  # type: ignore[assignment]
        self.head = nn.Linear(self.width, classes)

    def layer_prompts(self) -> dict[int, Tensor]:
        return {
            layer: pool.prompts.flatten(0, 1)
            for layer, pool in zip(self.layers, self.pools, strict=True)
        }

    def chosen(self, query: Tensor) -> Tensor:
        """Mean over layers, each of which has a pool of its own."""
        return torch.stack([pool.shares(query) for pool in self.pools]).mean(dim=0)

    def prefixes(self, query: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """layer -> (B, 2, N * length / 2, D), and the key loss, a scalar."""
        prefix, distance = {}, torch.zeros((), device=query.device)
        for layer, pool in zip(self.layers, self.pools, strict=True):
            chosen, cosine = pool(query)
            keys = chosen[:, :, : self.rows].flatten(1, 2)
            values = chosen[:, :, self.rows :].flatten(1, 2)
            prefix[layer] = torch.stack([keys, values], dim=1)
            if self.reference_bug:  # each image against the chosen keys of every image
                all_cosines = pool.cosine(query)
                cosine = all_cosines[:, all_cosines.topk(pool.top_n, dim=1).indices]
            distance = distance + (1 - cosine).sum()
        return prefix, distance

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return self.backbone.cls(images, self.prefixes(query)[0])

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        prefix, pull = self.prefixes(query)
        loss = self.cross_entropy(self.head(self.backbone.cls(images, prefix)), labels, task)
        terms = {**loss.terms, "key_distance": pull.detach()}
        return Loss(loss.total + self.key_loss * pull, terms)
