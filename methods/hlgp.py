"""HLGP: hierarchical layer-grouped prompt tuning (arXiv 2511.12090), reconstructed from its abstract.

The paper's full text was not available and there is no official code. What follows is OUR RECONSTRUCTION:

| statement                                                                        | source               |
|----------------------------------------------------------------------------------|----------------------|
| the prompts of all tasks so far are added together into one final prompt           | abstract             |
| layers of a group share roughly the same prompt, adjusted by a position encoding   | abstract             |
| one task-specific root prompt generates the sub-prompt of every layer group        | abstract             |
| the generator is a set of adapters; a position embedding; "soft task matching"     | secondary summary    |
| weights the sub-prompts by inference dynamics; root and generator copied from t-1  | (likely, unverified) |
| groups and their borders, prompted layers, adapter shape, form of the position     | our choice           |
| encoding, formula of the weights, loss, optimiser, every number                    |                      |

Root R_t = (R_t^K, R_t^V), each P x D. Sub-prompt of group g: S_{t,g} = R_t + A_{t,g}(R_t), with A = LayerNorm,
Linear D->r, GELU, Linear r->D whose last layer starts at zero, so that all groups start as the root. Layer prompt:
p_{t,l} = S_{t,g(l)} + e_{t,l}, put before the layer's keys and values. Prompt of an image: P_l(x) = sum_{i<=t} w_i(x) p_{i,l},
prompts of earlier tasks frozen. After a task its layer prompts are materialised; inference never runs a generator.

Weights w: `sum` (1: the abstract taken literally), `mean` (1/t), `soft` (a first pass with the mean prompt; the softmax
over all seen classes, its mass per task; a second pass with these weights), `prototype` (our own variant: the softmax over
the cosines of the frozen query to the mean query of every class seen, its mass per task; a mean per task would need a
temperature at which it is hardly more than `mean`). `soft` is the default: see README.
Cost: one forward more than the others where `soft`, the shared query where `prototype`, nothing where `sum` or `mean`.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from bench.backbone.vit import FrozenViT
from bench.method import Method, Task, register


class Generator(nn.Module):
    """Residual bottleneck adapter of one group: root (2, P, D) to sub-prompt (2, P, D)."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, root: Tensor) -> Tensor:
        return root + self.up(nn.functional.gelu(self.down(self.norm(root))))


def sinusoidal(layers: int, width: int) -> Tensor:
    """(layers, width) fixed encoding of the layer's number (Vaswani et al. 2017), scaled to a prompt's initial size."""
    position = torch.arange(layers).float()[:, None]
    rate = 10000 ** (-torch.arange(0, width, 2).float() / width)
    return (
        0.02
        * torch.stack([(position * rate).sin(), (position * rate).cos()], dim=2).flatten(1)[
            :, :width
        ]
    )


@register
class HLGP(Method):
    """The reconstruction above, with a switch for each of its parts.

    groups: G, contiguous and of equal size, must divide the number of prompted layers; or borders: the positions among the
    prompted layers at which a new group starts, e.g. (2, 5) for three groups.
    length: P, rows of keys and of values. bottleneck: r. layers: prompted layers, empty = all.
    generator=False: one independent prompt per layer and task, the control that the abstract argues against.
    temperature: of the softmax over cosines, for weights='prototype'.
    copy=False: root, generator and position encoding start anew in every task instead of as copies of task t-1.
    """

    counted = ("begun", "classes_seen")
    learned: Tensor
    task_of_class: Tensor
    group_of_layer: Tensor
    position: Tensor
    prototypes: Tensor
    generators: list[Generator]

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        groups: int = 3,
        borders: tuple[int, ...] = (),
        length: int = 5,
        bottleneck: int = 16,
        layers: tuple[int, ...] = (),
        position: Literal["learned", "sinusoidal", "none"] = "learned",
        generator: bool = True,
        weights: Literal["soft", "mean", "sum", "prototype"] = "soft",
        temperature: float = 0.01,
        copy: bool = True,
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*layers)
        self.layers = layers or tuple(range(backbone.depth))
        count = len(self.layers)
        if min(groups, length, bottleneck) < 1 or temperature <= 0:
            raise ValueError(
                f"groups={groups}, length={length}, bottleneck={bottleneck}, temperature={temperature}: positive ones"
            )
        if not borders and count % groups:
            raise ValueError(
                f"groups={groups} does not divide the {count} prompted layers (or give borders)"
            )
        if sorted(set(borders)) != list(borders) or not set(borders) <= set(range(1, count)):
            raise ValueError(
                f"borders={borders}: rising positions within 1..{count - 1} are expected"
            )
        edges = [0, *(borders or range(count // groups, count, count // groups)), count]
        self.group_sizes = [stop - start for start, stop in itertools.pairwise(edges)]
        self.length, self.bottleneck, self.temperature = length, bottleneck, temperature
        self.needs_query = weights == "prototype"
        self.position_kind, self.generated, self.weights, self.copy = (
            position,
            generator,
            weights,
            copy,
        )
        self.head = nn.Linear(self.width, classes)
        shape = (len(self.layers), 2, length, self.width)
        self.register_buffer("learned", torch.zeros(tasks, *shape))  # p_{i,l} of finished tasks
        self.register_buffer("task_of_class", torch.zeros(classes, dtype=torch.long))
        self.begun = self.classes_seen = 0  # tasks begun, classes of them
        group_of_layer = [
            group for group, size in enumerate(self.group_sizes) for _ in range(size)
        ]  # g(l)
        self.register_buffer("group_of_layer", torch.tensor(group_of_layer), persistent=False)
        if self.needs_query:
            self.register_buffer(
                "prototypes", torch.zeros(classes, self.width)
            )  # mean query of each class seen, unit norm
        if generator:
            self.root = nn.Parameter(torch.empty(2, length, self.width))  # R_t
            parts = nn.ModuleList(Generator(self.width, bottleneck) for _ in self.group_sizes)
            self.generators = parts  # type: ignore[assignment]
        else:
            self.independent = nn.Parameter(torch.empty(*shape))
        if position == "learned" and generator:
            self.position = nn.Parameter(torch.empty(len(self.layers), self.width))  # e_{t,l}
        elif position == "sinusoidal" and generator:
            self.register_buffer("position", sinusoidal(len(self.layers), self.width))
        self.training_task = False
        self._start_prompts()

    def _start_prompts(self) -> None:
        """Initial values: N(0, 0.02) for prompts, zero for the learned position encoding and the adapters' output."""
        if not self.generated:
            nn.init.normal_(self.independent, std=0.02)
            return
        nn.init.normal_(self.root, std=0.02)
        for generator in self.generators:
            for module in (generator.norm, generator.down):
                module.reset_parameters()
            nn.init.zeros_(generator.up.weight)
            nn.init.zeros_(generator.up.bias)
        if self.position_kind == "learned":
            nn.init.zeros_(self.position)

    def current_prompts(self) -> Tensor:
        """p_{t,l} of the task in training, (layers, 2, P, D), through the generator."""
        if not self.generated:
            return self.independent
        subs = torch.stack(
            [generator(self.root) for generator in self.generators]
        )  # S_{t,g}: (G, 2, P, D)
        prompts = subs.index_select(0, self.group_of_layer)
        return (
            prompts if self.position_kind == "none" else prompts + self.position[:, None, None, :]
        )

    def layer_prompts(self) -> dict[int, Tensor]:
        return dict(zip(self.layers, self.current_prompts().flatten(1, 2), strict=True))

    def begin_task(self, task: Task) -> None:
        if task.index and not self.copy:
            self._start_prompts()
        self.task_of_class[task.start : task.stop] = task.index
        self.begun, self.classes_seen = task.index + 1, task.stop
        if self.needs_query:
            queries, labels = task.plain_queries()
            for label in range(task.start, task.stop):
                self.prototypes[label] = nn.functional.normalize(
                    queries[labels == label].mean(dim=0), dim=0
                )
        self.training_task = True

    def end_task(self, task: Task) -> None:
        with torch.no_grad():
            self.learned[task.index] = self.current_prompts()
        self.training_task = False

    def all_prompts(self) -> Tensor:
        """(t, layers, 2, P, D): the finished tasks' prompts, and the current one's with its gradient."""
        if not self.training_task:
            return self.learned[: self.begun]
        return torch.cat([self.learned[: self.begun - 1], self.current_prompts()[None]])

    def features(self, images: Tensor, prompts: Tensor, weights: Tensor) -> Tensor:
        """Class token under P_l = sum_i w_i p_{i,l}. weights: (t,) for the batch or (B, t) per image."""
        mixed = torch.einsum("...t,tlkpd->l...kpd", weights, prompts)
        return self.backbone.cls(images, dict(zip(self.layers, mixed, strict=True)))

    def mass(self, scores: Tensor) -> Tensor:
        """(B, t): the softmax of scores over the classes seen, summed over each task's classes."""
        seen = self.classes_seen
        mass = torch.zeros(len(scores), self.begun, device=scores.device)
        return mass.index_add(1, self.task_of_class[:seen], scores[:, :seen].softmax(dim=1))

    def task_weights(self, images: Tensor, query: Tensor, prompts: Tensor) -> Tensor:
        """w: (t,) for sum and mean, (B, t) for soft and prototype."""
        count = len(prompts)
        uniform = torch.full(
            (count,), 1.0 if self.weights == "sum" else 1.0 / count, device=prompts.device
        )
        if count == 1 or self.weights in ("sum", "mean"):
            return uniform
        with torch.no_grad():
            if self.weights == "prototype":
                return self.mass(
                    nn.functional.normalize(query, dim=1) @ self.prototypes.T / self.temperature
                )
            return self.mass(self.head(self.features(images, prompts, uniform)))

    def forward(self, images: Tensor, query: Tensor) -> Tensor:
        prompts = self.all_prompts()
        return self.head(self.features(images, prompts, self.task_weights(images, query, prompts)))
