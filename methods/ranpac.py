"""RanPAC: random projection, Gram matrix and ridge regression (McDonnell et al., NeurIPS 2023,
arXiv 2307.02251).

Official code: RanPAC/RanPAC, RanPAC.py and inc_net.py, at 012927f. This is its form without
training in the first task ("no Phase 1", ID 4 of its argument files). The numbers follow it.
Nothing is trained by gradients.

Features. h(x) = relu(q(x) W), q the frozen query, W (D, M) drawn once from N(0, 1).

Head. After each task, over its training images without augmentation: G += H^T H and Q += H^T Y (Y
one-hot). The logits are h(x) (G + lambda I)^{-1} Q, with G and Q of all tasks so far.

Ridge. lambda of 10^-8 ... 10^8 is chosen anew in each task, on this task alone: the first 80% of
its rows in random order fit, the rest validate by mean squared error over all columns. The rows
must be shuffled: in the order of the classes the validating rows are of classes that no fitting row
has.

Deviations:
- G, Q, the choice of lambda and the solve are fp64. In fp32 small lambdas have losses of rounding
  noise. A task that any lambda fits may choose 10^-8: there rounding of G would decide the logits.
- One eigendecomposition gives the losses of all lambdas. The official code solves 17 times.

A checkpoint holds G: 800 MB at M = 10000.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.method import Method, Task, register


def ridge_losses(h: Tensor, y: Tensor, fit: int, ridges: Tensor) -> Tensor:
    """Mean squared errors (ridges,) on the rows from `fit` on, fitted on those before.

    h: (n, M) and y: (n, C), float64. The smaller of the fitting rows' two Gram matrices is
    decomposed; both give the same predictions for lambda > 0.
    """
    fitted, targets, held_out, wanted = h[:fit], y[:fit], h[fit:], y[fit:]
    if fitted.shape[0] < fitted.shape[1]:
        values, vectors = torch.linalg.eigh(fitted @ fitted.T)
        left, right = held_out @ (fitted.T @ vectors), vectors.T @ targets
    else:
        values, vectors = torch.linalg.eigh(fitted.T @ fitted)
        left, right = held_out @ vectors, vectors.T @ (fitted.T @ targets)
    values = values.clamp(min=0)  # a negative one is rounding
    return torch.stack([F.mse_loss((left / (values + ridge)) @ right, wanted) for ridge in ridges])


@register
class RanPAC(Method):
    """projection: M; 0: the query itself, without relu. exponents: of the smallest and largest
    lambda. fit_share: of a task's rows that fit while lambda is chosen.
    """

    needs_query = True
    needs_images = False
    has_head = False
    projection: Tensor
    gram: Tensor
    sums: Tensor
    weight: Tensor
    ridge: Tensor

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        projection: int = 10000,
        exponents: tuple[int, ...] = (-8, 8),
        fit_share: float = 0.8,
    ) -> None:
        super().__init__(backbone, classes, tasks)
        if projection < 0 or len(exponents) != 2 or exponents[0] > exponents[1]:
            raise ValueError(f"projection={projection}, exponents={exponents}: from 0, and a range")
        if not 0 < fit_share < 1:
            raise ValueError(f"fit_share={fit_share}: a share between 0 and 1")
        size = projection or self.width
        self.projected, self.fit_share = projection > 0, fit_share
        self.ridges = 10.0 ** torch.arange(exponents[0], exponents[1] + 1, dtype=torch.float64)
        if projection:
            self.register_buffer("projection", torch.randn(self.width, projection))
        self.register_buffer("gram", torch.zeros(size, size, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(size, classes, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(size, classes))
        self.register_buffer("ridge", torch.zeros(()))  # the last task's lambda

    def project(self, query: Tensor) -> Tensor:
        """h (n, M) of queries (n, D), in their dtype."""
        return F.relu(query @ self.projection.to(query.dtype)) if self.projected else query

    def learn(self, h: Tensor, y: Tensor) -> None:
        """Take in a task's rows (n, M), (n, C), float64 and shuffled, and solve anew."""
        self.gram += h.T @ h
        self.sums += h.T @ y
        fit = int(self.fit_share * len(h))
        if 0 < fit < len(h):  # with one row nothing can be held out, and lambda stays
            losses = ridge_losses(h, y, fit, self.ridges.to(h.device))
            self.ridge.fill_(self.ridges[losses.argmin().cpu()])
        diagonal = self.ridge.double() * torch.eye(len(self.gram), dtype=h.dtype, device=h.device)
        self.weight.copy_(torch.linalg.solve(self.gram + diagonal, self.sums))

    def param_groups(self) -> list[dict]:
        return []

    def end_task(self, task: Task) -> None:
        queries, labels = task.plain_queries()
        order = torch.randperm(len(labels)).to(labels.device)
        y = F.one_hot(labels[order], self.classes).double()
        self.learn(self.project(queries[order].double()), y)

    def forward(self, images: Tensor, query: Tensor) -> Tensor:
        return self.project(query) @ self.weight
