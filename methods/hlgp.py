"""HLGP: hierarchical layer-grouped prompt tuning (arXiv 2511.12090), OUR RECONSTRUCTION.

The paper's full text was not available, and no official code exists. Where each statement is from:

| statement                                                                  | source             |
|----------------------------------------------------------------------------|--------------------|
| the prompts of all tasks so far are added together into one final prompt   | abstract           |
| a group's layers share roughly one prompt, adjusted by a position encoding | abstract           |
| one task-specific root prompt generates the sub-prompt of each layer group | abstract           |
| the generator is a set of adapters; a position embedding; "soft task       | secondary summary  |
| matching" weights the sub-prompts by inference dynamics; root and          | (likely,           |
| generator are copied from t-1; "L=10": root prompts of length 10, which    | unverified)        |
| the papers' suites take as 10 keys and 10 values                           |                    |
| groups and their borders, prompted layers, adapter shape, form of the      | our choice         |
| position encoding, formula of the weights, loss, optimiser, every number   |                    |

Prompt. The root of task t is R_t = (R_t^K, R_t^V), each P x D. Group g has the sub-prompt
S_{t,g} = R_t + A_{t,g}(R_t). A is LayerNorm, Linear D->r, GELU, Linear r->D; its last layer starts
at zero, so that all groups start as the root. Layer l has p_{t,l} = S_{t,g(l)} + e_{t,l}, rows that
are put before its keys and values. An image gets P_l(x) = sum_{i<=t} w_i(x) p_{i,l}. Prompts of
earlier tasks are frozen: after a task its p_{t,l} are stored, and inference runs no generator.

Weights w of the tasks:
- sum: 1, the abstract taken literally. mean: 1/t.
- soft (default, see docs/findings.md): a first pass with the mean prompt, the softmax over all
  classes seen, its mass per task; a second pass with these weights. Costs one forward pass more.
- prototype (our own variant): the softmax over the cosines of the frozen query to the mean query of
  each class seen, its mass per task. Costs the shared query.
"""

from __future__ import annotations

import bisect
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.method import Method, Task, register

INITIAL_STD = 0.02  # of a prompt's entries


class Generator(nn.Module):
    """Residual bottleneck adapter of one group: root (2, P, D) to sub-prompt (2, P, D)."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)

    def forward(self, root: Tensor) -> Tensor:
        return root + self.up(F.gelu(self.down(self.norm(root))))


def sinusoidal(layers: int, width: int) -> Tensor:
    """Encoding (layers, width) of layer numbers (Vaswani et al., 2017), of a new prompt's size."""
    position = torch.arange(layers).float()[:, None]
    rate = 10000 ** (-torch.arange(0, width, 2).float() / width)
    waves = torch.stack([(position * rate).sin(), (position * rate).cos()], dim=2)
    return INITIAL_STD * waves.flatten(1)[:, :width]


def groups_of_layers(layers: int, groups: int, borders: tuple[int, ...]) -> list[int]:
    """g(l), the group of each prompted layer. Raises ValueError for an impossible grouping."""
    if not borders and layers % groups:
        reason = f"does not divide the {layers} prompted layers (or give borders)"
        raise ValueError(f"groups={groups} {reason}")
    if sorted(set(borders)) != list(borders) or not set(borders) <= set(range(1, layers)):
        raise ValueError(f"borders={borders}: rising positions within 1..{layers - 1} are expected")
    starts = borders or range(layers // groups, layers, layers // groups)
    return [bisect.bisect(starts, layer) for layer in range(layers)]


@register
class HLGP(Method):
    """The reconstruction above, with a switch for each of its parts.

    groups: contiguous, of equal size; must divide the number of prompted layers. borders: instead,
    positions among the prompted layers where a new group starts, as (2, 5) for three groups.
    length: P, rows of keys and of values. bottleneck: r. layers: prompted, empty: all.
    generator=False: an independent prompt per layer and task; the abstract argues against it.
    temperature: of the softmax over cosines, for weights="prototype".
    copy=False: in every task root, generator and position encoding start anew, not as copies.
    """

    counted = ("begun", "classes_seen")
    learned: Tensor
    task_of_class: Tensor
    group_of_layer: Tensor
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
        if min(groups, length, bottleneck) < 1 or temperature <= 0:
            sizes = f"groups={groups}, length={length}, bottleneck={bottleneck}"
            raise ValueError(f"{sizes}, temperature={temperature}: positive ones")
        group_of_layer = groups_of_layers(len(self.layers), groups, borders)
        self.temperature = temperature
        self.needs_query = weights == "prototype"
        self.position_kind, self.generated = position, generator
        self.weights, self.copy = weights, copy
        self.head = nn.Linear(self.width, classes)
        shape = (len(self.layers), 2, length, self.width)
        self.register_buffer("learned", torch.zeros(tasks, *shape))  # p_{i,l} of finished tasks
        self.register_buffer("task_of_class", torch.zeros(classes, dtype=torch.long))
        self.begun = self.classes_seen = 0  # tasks begun, classes of them
        self.register_buffer("group_of_layer", torch.tensor(group_of_layer), persistent=False)
        if self.needs_query:
            self.register_buffer("prototypes", torch.zeros(classes, self.width))  # of unit norm
        if generator:
            self.root = nn.Parameter(torch.empty(2, length, self.width))  # R_t
            modules = nn.ModuleList(Generator(self.width, bottleneck) for _ in set(group_of_layer))
            self.generators = modules  # type: ignore[assignment]
        else:
            self.independent = nn.Parameter(torch.empty(*shape))
        if position == "learned" and generator:
            self.position = nn.Parameter(torch.empty(len(self.layers), self.width))  # e_{t,l}
        elif position == "sinusoidal" and generator:
            self.register_buffer("position", sinusoidal(len(self.layers), self.width))
        self.training_task = False
        self._start_prompts()

    def _start_prompts(self) -> None:
        """Prompts from N(0, 0.02); learned position encoding and adapters' output zero."""
        if not self.generated:
            nn.init.normal_(self.independent, std=INITIAL_STD)
            return
        nn.init.normal_(self.root, std=INITIAL_STD)
        for generator in self.generators:
            generator.norm.reset_parameters()
            generator.down.reset_parameters()
            nn.init.zeros_(generator.up.weight)
            nn.init.zeros_(generator.up.bias)
        if self.position_kind == "learned":
            nn.init.zeros_(self.position)

    def current_prompts(self) -> Tensor:
        """p_{t,l} of the task in training, (layers, 2, P, D), made from S_{t,g}, (G, 2, P, D)."""
        if not self.generated:
            return self.independent
        sub_prompts = torch.stack([generator(self.root) for generator in self.generators])
        prompts = sub_prompts.index_select(0, self.group_of_layer)
        if self.position_kind == "none":
            return prompts
        return prompts + self.position[:, None, None, :]

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
                self.prototypes[label] = F.normalize(queries[labels == label].mean(dim=0), dim=0)
        self.training_task = True

    def end_task(self, task: Task) -> None:
        with torch.no_grad():
            self.learned[task.index] = self.current_prompts()
        self.training_task = False

    def all_prompts(self) -> Tensor:
        """(t, layers, 2, P, D): prompts of finished tasks, and the current one's with gradients."""
        if not self.training_task:
            return self.learned[: self.begun]
        return torch.cat([self.learned[: self.begun - 1], self.current_prompts()[None]])

    def class_token(self, images: Tensor, prompts: Tensor, weights: Tensor) -> Tensor:
        """Class token (B, D) under P_l = sum_i w_i p_{i,l}. weights: (t,), or (B, t) per image."""
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
        value = 1.0 if self.weights == "sum" else 1.0 / count
        uniform = torch.full((count,), value, device=prompts.device)
        if count == 1 or self.weights in ("sum", "mean"):
            return uniform
        with torch.no_grad():
            if self.weights == "prototype":
                return self.mass(F.normalize(query, dim=1) @ self.prototypes.T / self.temperature)
            return self.mass(self.head(self.class_token(images, prompts, uniform)))

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        prompts = self.all_prompts()
        return self.class_token(images, prompts, self.task_weights(images, query, prompts))
