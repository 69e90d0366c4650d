"""The method contract: everything that a method sees, and the registry that finds methods by name.

A method is one file in `methods/`, named like the method, holding one class with the `@register` decorator:

    @register
    class MyMethod(Method):
        needs_query = True                      # whether the engine provides frozen query features

        def __init__(self, backbone, classes, tasks, *, length: int = 5): ...
        def forward(self, images, query): ...   # (B, classes) logits over all classes; the engine masks

The keyword-only arguments of the constructor are the method's configuration: their names, types and defaults are
what a suite's `model=dict(...)` is checked against. State lives in parameters, buffers and the whole numbers that `counted`
names, so resuming is generic.
A method never sees a test label, and never the task id at test.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.config.spec import coerce
from bench.errors import UsageError

MASKED = -1e9  # logit of a class that does not take part


@dataclass(frozen=True)
class Task:
    """What a method may know of a task while training: its number, its classes, the classes seen so far."""

    index: int
    start: int  # classes start..stop-1 are this task's: labels are positions in the class order
    stop: int
    loss_start: int  # first class in the cross-entropy: start (current classes) or 0 (all seen)
    plain_queries: Callable[
        [], tuple[Tensor, Tensor]
    ]  # its training images un-augmented: (n, D) queries, (n,) labels


@dataclass
class Loss:
    """The total to descend, and its named parts for the log."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module):
    """Base of all methods; see the module's docstring for the contract."""

    needs_query: bool = False
    needs_images: ClassVar[bool] = True  # False: works on queries alone, and no pixel is touched
    counted: ClassVar[
        tuple[str, ...]
    ] = ()  # whole numbers that are state: kept by the host, so that no step waits for a GPU
    name: ClassVar[str] = ""
    backbone: FrozenViT
    configuration: dict[str, Any]  # the constructor's keyword arguments, defaults included

    def __init__(self, backbone: FrozenViT, classes: int, tasks: int) -> None:
        super().__init__()
        object.__setattr__(
            self, "backbone", backbone
        )  # not a submodule: its weights are no state of the method
        self.classes, self.tasks, self.width = classes, tasks, backbone.width

    def get_extra_state(self) -> Tensor:
        """What `counted` names, beside parameters and buffers in the state that checkpoints hold."""
        return torch.tensor([getattr(self, name) for name in self.counted], dtype=torch.long)

    def set_extra_state(self, state: Tensor) -> None:
        for name, value in zip(self.counted, state.tolist(), strict=True):
            setattr(self, name, value)

    def begin_task(self, task: Task) -> None:
        """Called before a task's first batch, after torch's generator was seeded for (seed, task)."""

    def forward(self, images: Tensor, query: Tensor) -> Tensor:
        """images (B, 3, H, W) float as the backbone takes them, query (B, D). Returns (B, classes) logits.

        What the class says it does not need (needs_images, needs_query) is None.
        """
        raise NotImplementedError

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        """Cross-entropy over the classes that take part, unless a method adds its own terms."""
        return self.cross_entropy(self(images, query), labels, task)

    def end_task(self, task: Task) -> None:
        """Called after a task's last batch."""

    def param_groups(self) -> list[dict[str, Any]]:
        """Trainables of the current task as {'params': [...], 'kind': 'prompt' | 'head'}; the engine sets the rates."""
        head = [p for n, p in self.named_parameters() if n.startswith("head.")]
        rest = [p for n, p in self.named_parameters() if not n.startswith("head.")]
        groups: list[dict[str, Any]] = [
            {"params": rest, "kind": "prompt"},
            {"params": head, "kind": "head"},
        ]
        return [group for group in groups if group["params"]]

    def layer_prompts(self) -> dict[int, Tensor]:
        """layer -> (rows, D): the prompts that the current task trains, for the log of their movement; {} = none."""
        return {}

    @property
    def network(self) -> Any:
        """The timm ViT that this method's forward runs."""
        return self.backbone.network

    def check_layers(self, *layers: int) -> None:
        """Raises ValueError unless these are different layers of the backbone: a prompt elsewhere would do nothing."""
        if len(set(layers)) < len(layers) or not set(layers) <= set(range(self.backbone.depth)):
            raise ValueError(
                f"layers {layers}: different layers of 0..{self.backbone.depth - 1} are expected"
            )

    @staticmethod
    def cross_entropy(logits: Tensor, labels: Tensor, task: Task) -> Loss:
        """Mean cross-entropy with every class outside loss_start..stop-1 masked."""
        taking_part = logits[:, task.loss_start : task.stop]
        value = F.cross_entropy(taking_part, labels - task.loss_start)
        return Loss(value, {"ce": value.detach()})


_REGISTRY: dict[str, type[Method]] = {}


def register(cls: type[Method]) -> type[Method]:
    """Class decorator: a method is known by the name of its file."""
    cls.name = cls.__module__.rsplit(".", 1)[-1]
    _REGISTRY[cls.name] = cls
    return cls


def method_names() -> list[str]:
    """All methods, by scanning methods/ without importing anything."""
    folder = Path(importlib.import_module("methods").__path__[0])
    return sorted(f.stem for f in folder.glob("*.py") if not f.stem.startswith("_"))


def method_class(name: str) -> type[Method]:
    """The class registered by methods/<name>.py. Raises UsageError with the nearest name."""
    if name not in method_names():
        raise UsageError.unknown("method type", name, method_names())
    try:
        importlib.import_module(f"methods.{name}")
    except Exception as error:  # the file is python: anything may go wrong in it
        line = (
            error.lineno
            if isinstance(error, SyntaxError)
            else traceback.extract_tb(error.__traceback__)[-1].lineno
        )
        raise UsageError(
            f"methods/{name}.py, line {line}: {type(error).__name__}: {error}"
        ) from error
    if name not in _REGISTRY:
        raise UsageError(
            f"methods/{name}.py registers no method (decorate its class with @register)"
        )
    return _REGISTRY[name]


def defaults(cls: type[Method]) -> dict[str, Any]:
    """The keyword arguments that are a method's configuration, with what they are where nothing is said."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def build_method(
    name: str, backbone: FrozenViT, classes: int, tasks: int, model: dict[str, Any], seed: int
) -> Method:
    """Construct a method under its own generator state, so that nothing built before it moves its weights."""
    cls = method_class(name)
    accepted = defaults(cls)
    hints = typing.get_type_hints(cls.__init__)
    checked = {}
    for key, value in model.items():
        if key not in accepted:
            raise UsageError.unknown(f"model of {name}", key, accepted)
        checked[key] = coerce(f"model.{key}", value, hints[key])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            method = cls(backbone, classes, tasks, **checked)
        except (
            Exception
        ) as error:  # a method's own checks, or whatever torch makes of an impossible size
            raise UsageError(f"model of {name}: {str(error) or type(error).__name__}") from error
    method.configuration = accepted | checked
    return method
