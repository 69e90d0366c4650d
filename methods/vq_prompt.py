"""VQ-Prompt: Vector Quantization Prompting (Jiao et al., NeurIPS 2024, arXiv 2410.20444).

Official code: jiaolifengmi/VQ-Prompt at 63e0220, models/zoo.py::VQPrompt. The numbers follow it.

Prompt. Each of layers 0-4 has a pool of N prompts P_n with keys K_n, which all tasks share and
train. An image with query q gets weights alpha = softmax(q . K_n / |K_n| / tau) and the soft prompt
p' = sum_n alpha_n P_n. What is used is the pool's entry nearest to p', with p' for its gradient:
p' + sg[P_k - p'], sg the stop of gradients. The first half of its rows goes to the keys, the second
half to the values. The head reads the class token.

Loss. CE + sum over layers of soft |p' - sg[P_k]|^2 + entry |P_k - sg[p']|^2, means over all values.
The paper and the code have the two coefficients the other way round; the defaults are the code's
(0.4 and 0.1), soft=0.1 with entry=0.4 is the paper's.

Deviations:
- The stage that aligns the head is the engine's (bench/engine/align.py), with the recipe that every
  row has. The official one draws from diagonal Gaussians of training views, and the next task
  trains on from its head.
- The schedule coswm has as many updates as a task really makes. The official code guesses their
  number (40 an epoch on CIFAR-100, where 780 of 800 are made); beyond it the rate rests at 1e-6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.method import Loss, Method, Task, register


class QuantisedPool(nn.Module):
    """N prompts of `length` rows with a key each; an image gets the one nearest to a soft sum."""

    def __init__(
        self, size: int, length: int, width: int, temperature: float, init: tuple[float, float]
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.prompts = nn.Parameter(torch.empty(size, length, width).uniform_(*init))
        self.keys = nn.Parameter(torch.empty(size, width).uniform_(*init))

    def soft(self, query: Tensor) -> Tensor:
        """p' (B, length, D) of queries (B, D), which are not normalised."""
        scores = query @ F.normalize(self.keys, dim=1).T / self.temperature
        return torch.einsum("bn,nld->bld", scores.softmax(dim=1), self.prompts)

    def nearest(self, soft: Tensor) -> Tensor:
        """(B,): the entry at the smallest Euclidean distance over all rows."""
        return (soft[:, None] - self.prompts).square().sum(dim=(2, 3)).argmin(dim=1)

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts (B, length, D) as used, p', and the chosen entries, of the same shape."""
        soft = self.soft(query)
        entry = self.prompts[self.nearest(soft.detach())]
        return soft + (entry - soft).detach(), soft, entry


@register
class VQPrompt(Method):
    """layers: prompted. pool: N. length: rows of a prompt, half keys, half values.

    temperature: tau. soft, entry: weights of the two terms. init: uniform range of prompts and
    keys.
    """

    needs_query = True
    pools: list[QuantisedPool]

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        layers: tuple[int, ...] = (0, 1, 2, 3, 4),
        pool: int = 10,
        length: int = 8,
        temperature: float = 1.0,
        soft: float = 0.4,
        entry: float = 0.1,
        init: tuple[float, ...] = (0.0, 1.0),
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*layers)
        if length < 2 or length % 2 or pool < 1 or temperature <= 0:
            sizes = f"length={length}, pool={pool}, temperature={temperature}"
            raise ValueError(f"{sizes}: an even length, and positive ones")
        self.layers, self.rows = layers, length // 2
        self.soft, self.entry = soft, entry
        modules = nn.ModuleList(
            QuantisedPool(pool, length, self.width, temperature, (init[0], init[1])) for _ in layers
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
        shares = [
            F.one_hot(pool.nearest(pool.soft(query)), len(pool.keys)).float() for pool in self.pools
        ]
        return torch.stack(shares).mean(dim=0)

    def prefixes(self, query: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """layer -> (B, 2, length / 2, D), and the two terms of the loss, weighted and summed."""
        prefix, term = {}, torch.zeros((), device=query.device)
        for layer, pool in zip(self.layers, self.pools, strict=True):
            used, soft, entry = pool(query)
            prefix[layer] = torch.stack([used[:, : self.rows], used[:, self.rows :]], dim=1)
            term = term + self.soft * F.mse_loss(soft, entry.detach())
            term = term + self.entry * F.mse_loss(entry, soft.detach())
        return prefix, term

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return self.backbone.cls(images, self.prefixes(query)[0])

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        prefix, term = self.prefixes(query)
        loss = self.cross_entropy(self.head(self.backbone.cls(images, prefix)), labels, task)
        return Loss(loss.total + term, {**loss.terms, "quantisation": term.detach()})
