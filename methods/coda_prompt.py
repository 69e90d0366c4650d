"""CODA-Prompt: COntinual Decomposed Attention-based Prompting (Smith et al., CVPR 2023).

Official code: GT-RIPL/CODA-Prompt, models/zoo.py::CodaPrompt. The numbers follow it.

Prompt. Each of layers 0-4 has M components P_m (length x D) with keys K_m and attention vectors
A_m. An image with query q weights them by alpha_m = cos(q * A_m, K_m), without a softmax. Its
prompt is sum_m alpha_m P_m: the first half of the rows are keys, the second half values.

Tasks. Each task owns M / tasks components. Those of earlier tasks are frozen, those of later tasks
do not exist yet. New rows of P, K and A start as random directions of unit norm, orthogonal to all
earlier rows (Gram-Schmidt).

Loss. CE + mu * orthogonality, with mu = 0 as in the released scripts.

Deviations, both with the same numbers:
- The weights need two matrix products instead of a (B, M, D) tensor, for a fraction of the work:
  alpha = (q @ (A * K/|K|)^T) / sqrt(q^2 @ (A^2)^T).
- New rows come from a QR of the earlier rows in fp64 and two projections. The official code runs
  Gram-Schmidt row by row in fp32 and tries again where it fails. The invariants (unit norm,
  orthogonal to all earlier rows) are the same, to 1e-6.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.backbone.vit import FrozenViT
from bench.method import Loss, Method, Task, register


def orthogonal_rows(earlier: Tensor, count: int) -> Tensor:
    """(count, N) random unit rows, orthogonal to each other and to the (m, N) earlier rows."""
    rows = earlier.double()
    basis = torch.linalg.qr(rows.T).Q if len(rows) else rows.T
    for _ in range(count):
        row = torch.randn(earlier.shape[1], dtype=torch.float64)
        for _ in range(2):  # the first projection leaves rounding in proportion to what it removed
            row = row - basis @ (basis.T @ row)
        basis = torch.cat([basis, (row / row.norm())[:, None]], dim=1)
    return basis[:, -count:].T.to(earlier.dtype).contiguous()


class Components(nn.Module):
    """One layer's P (M, length, D), K and A (M, D).

    Rows of finished tasks are buffers, those of the current task are parameters.
    """

    prompt: Tensor
    key: Tensor

    def __init__(self, per_task: int, tasks: int, length: int, width: int) -> None:
        super().__init__()
        self.per_task = per_task
        for name, shape in (
            ("prompt", (length, width)),
            ("key", (width,)),
            ("attention", (width,)),
        ):
            self.register_buffer(f"old_{name}", torch.zeros(per_task * tasks, *shape))
            self.register_parameter(name, nn.Parameter(torch.zeros(per_task, *shape)))

    def begin(self, first: int) -> None:
        """Draw new trainable rows, orthogonal to rows 0..first-1."""
        for name in ("prompt", "key", "attention"):
            old, new = getattr(self, f"old_{name}"), getattr(self, name)
            rows = orthogonal_rows(old[:first].flatten(1).cpu(), self.per_task)
            new.data.copy_(rows.view_as(new))

    def end(self, first: int) -> None:
        """Copy the trained rows to the frozen ones, from row `first` on."""
        for name in ("prompt", "key", "attention"):
            getattr(self, f"old_{name}")[first : first + self.per_task] = getattr(self, name).data

    def rows(self, name: str, first: int, training: bool) -> Tensor:
        """Rows 0..first-1 of P, K or A, and the current task's rows while training."""
        old = getattr(self, f"old_{name}")
        return torch.cat([old[:first], getattr(self, name)]) if training else old[:first]

    def forward(self, query: Tensor, first: int, training: bool) -> Tensor:
        """Prompts (B, length, D) for queries (B, D), from the same rows."""
        alpha = self.weights(query, first, training)
        return torch.einsum("bm,mld->bld", alpha, self.rows("prompt", first, training))

    def weights(self, query: Tensor, first: int, training: bool) -> Tensor:
        """alpha (B, M): the cosine of each attended query to each key."""
        key, attention = self.rows("key", first, training), self.rows("attention", first, training)
        unit_key = nn.functional.normalize(key, dim=1)
        attended_norm = (query.square() @ attention.square().T).sqrt().clamp(min=1e-12)
        return (query @ (attention * unit_key).T) / attended_norm

    def orthogonality(self, first: int) -> Tensor:
        """Sum over P, K and A of mean((T T^T - I)^2) (models/zoo.py::ortho_penalty)."""
        total = torch.zeros((), device=self.key.device)
        for name in ("prompt", "key", "attention"):
            t = self.rows(name, first, True).flatten(1)
            total = total + (t @ t.T - torch.eye(len(t), device=t.device)).square().mean()
        return total


@register
class CodaPrompt(Method):
    """pool: M, over all tasks. length: rows of a component, half keys, half values.

    layers: prompted. mu: weight of the orthogonality term.
    """

    needs_query = True
    counted = ("frozen",)
    components: list[Components]

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        pool: int = 100,
        length: int = 8,
        layers: tuple[int, ...] = (0, 1, 2, 3, 4),
        mu: float = 0.0,
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*layers)
        per_task = pool // tasks
        if length % 2 or per_task < 1 or per_task * tasks > self.width:
            raise ValueError(
                f"length={length} must be even, pool={pool} at least the {tasks} tasks and, "
                f"for rows that are orthogonal, at most the width {self.width}"
            )
        self.layers, self.rows, self.per_task, self.mu = layers, length // 2, per_task, mu
        modules = nn.ModuleList(Components(per_task, tasks, length, self.width) for _ in layers)
        self.components = modules  # type: ignore[assignment]
        self.head = nn.Linear(self.width, classes)
        self.frozen = 0  # rows of finished tasks
        self.training_task = False

    @classmethod
    def settings_for(cls, tasks: int, width: int) -> dict[str, Any]:
        """Ten components a task, as in the paper, or as many as can be orthogonal in this width."""
        return {"pool": tasks * min(10, width // tasks)}

    def begin_task(self, task: Task) -> None:
        self.frozen = task.index * self.per_task
        for components in self.components:
            components.begin(self.frozen)
        self.training_task = True

    def end_task(self, task: Task) -> None:
        for components in self.components:
            components.end(self.frozen)
        self.frozen += self.per_task
        self.training_task = False

    def layer_prompts(self) -> dict[int, Tensor]:
        return {
            layer: components.prompt.flatten(0, 1)
            for layer, components in zip(self.layers, self.components, strict=True)
        }

    def chosen(self, query: Tensor) -> Tensor:
        """|alpha| / sum |alpha|, mean over layers: its weights are soft and may be negative."""
        weights = [c.weights(query, self.frozen, self.training_task) for c in self.components]
        return torch.stack(
            [nn.functional.normalize(one, p=1, dim=1).abs() for one in weights]
        ).mean(dim=0)

    def prefixes(self, query: Tensor) -> dict[int, Tensor]:
        """layer -> (B, 2, length / 2, D)."""
        prefix = {}
        for layer, components in zip(self.layers, self.components, strict=True):
            prompt = components(query, self.frozen, self.training_task)
            prefix[layer] = torch.stack([prompt[:, : self.rows], prompt[:, self.rows :]], dim=1)
        return prefix

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return self.backbone.cls(images, self.prefixes(query))

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        loss = self.cross_entropy(self(images, query), labels, task)
        if self.mu:
            penalty = torch.stack([c.orthogonality(self.frozen) for c in self.components]).sum()
            terms = {**loss.terms, "orthogonality": penalty.detach()}
            loss = Loss(loss.total + self.mu * penalty, terms)
        return loss
