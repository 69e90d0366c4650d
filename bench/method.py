"""The contract of a method: what it gets, what it must give, and how it is found by its name.

A method is one file, methods/NAME.py, with one class under `@register`:

    @register
    class Mine(Method):
        needs_query = True

        def __init__(self, backbone, classes, tasks, *, length: int = 5):
            super().__init__(backbone, classes, tasks)
            self.prompt = nn.Parameter(torch.zeros(2, length, self.width))  # keys and values
            self.head = nn.Linear(self.width, classes)

        def features(self, images, query):
            return self.backbone.cls(images, {0: self.prompt})

You must write two functions:
- `__init__`. Its keyword-only arguments are the method's settings. A suite's `model=dict(...)` is
  checked against their names and types, and they appear with their values in protocol.csv. Raise
  ValueError for settings that make no sense. torch's generator is seeded before the call.
- `features(images, query)` returns (B, D), what `self.head` reads; the head has a weight
  (classes, D) and a bias (classes,). Logits (B, classes) are over all classes; the engine masks
  those that do not take part. After each task the engine also trains a copy of the head on samples
  of all classes seen (bench/engine/align.py), and tests both on the same features. A method that
  has no such head says `has_head = False` and writes `forward(images, query)` instead. An image's
  features and logits must not depend on the other images of its batch.

You may override the rest of `Method`: `loss`, `begin_task`, `after_step` (to change what the
optimiser did), `end_task`, `classify` (from features to logits), `param_groups`, `layer_prompts`
(prompts that are measured as they move), `chosen` (which prompts an image gets, to be counted),
`selection`, `settings_for`, `network`.

The order of the calls, for each task:
    begin_task(task)
    param_groups(), for a fresh optimiser
    loss(images, query, labels, task) on every batch of every epoch, then after_step()
    end_task(task)
    features(images, query) on the task's training images in the test view, for the aligned head
    features and classify on the test images of all classes seen

A method gets
- `self.backbone`, the frozen ViT (bench/backbone/vit.py). `backbone.cls(images, prefixes)` is its
  class token (B, D). prefixes: layer -> (2, P, D) for all images or (B, 2, P, D), P rows that are
  put before the keys and values of that layer's attention. Call `backbone(images, tokens=...)` for
  prompts that are tokens. Its weights never get a gradient.
- `query` (B, D), each image's class token without prompts, if `needs_query` is True. The engine
  computes it once for all methods.
- in training, `task`: its number, its classes, and, on request, its training images without
  augmentation (`plain_images`) and their queries (`plain_queries`).

A method never gets a test label, the task of a test image, or images of an earlier task.

State that must survive a stop: parameters, buffers, and the integers named in `counted`. Nothing
else is in a checkpoint. After a stop begin_task runs again, then the state is loaded over it.

`./run_all.sh test -m contract` checks every method in methods/ for what is said here.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.config.spec import coerce
from bench.errors import UsageError
from bench.paths import PROJECT


@dataclass(frozen=True)
class Task:
    """What a method may know of a task while it trains. Labels are positions in the class order."""

    index: int  # counted from 0
    start: int  # classes start..stop-1 are this task's; 0..stop-1 are those seen so far
    stop: int
    loss_start: int  # first class in the cross-entropy: start (current classes) or 0 (all seen)
    # Its n training images without augmentation: queries (n, D), labels (n,), on the device.
    plain_queries: Callable[[], tuple[Tensor, Tensor]]
    # The same images chunk by chunk: (images, query, labels), as `forward` takes them. A pass over
    # them is work, so ask once.
    plain_images: Callable[[], Iterator[tuple[Any, Any, Tensor]]] = lambda: iter(())


@dataclass
class Loss:
    """The loss of a batch, a scalar to minimise, and its terms by name, for the log."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module):
    """Base of all methods; the module's docstring is the contract."""

    needs_query: bool = False
    needs_images: ClassVar[bool] = True  # False: works on queries alone, and no pixel is touched
    has_head: ClassVar[bool] = True  # False: logits are not a head's on features, as of class means
    # Integers that are state. They stay on the host, so that no step waits for a GPU.
    counted: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str] = ""
    backbone: FrozenViT
    head: Any  # a module that the constructor sets: weight (classes, D), bias (classes,)
    configuration: dict[str, Any]  # the settings, defaults included

    def __init__(self, backbone: FrozenViT, classes: int, tasks: int) -> None:
        super().__init__()
        # Not a submodule: the backbone's weights are not state of the method.
        object.__setattr__(self, "backbone", backbone)
        self.classes, self.tasks, self.width = classes, tasks, backbone.width

    def get_extra_state(self) -> Tensor:
        """The integers named in `counted`, as part of the state_dict."""
        return torch.tensor([getattr(self, name) for name in self.counted], dtype=torch.long)

    def set_extra_state(self, state: Tensor) -> None:
        for name, value in zip(self.counted, state.tolist(), strict=True):
            setattr(self, name, value)

    def begin_task(self, task: Task) -> None:
        """Called before a task's first batch; torch's generator is seeded for (seed, task)."""

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        """(B, D), what the head reads of images (B, 3, H, W), float and normalised, with queries
        (B, D).

        An argument that the class does not need (needs_images, needs_query) is None.
        """
        raise NotImplementedError

    def classify(self, features: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (B, classes) of features (B, D) under a head: the method's own or its copy."""
        return head(features)

    def forward(self, images: Tensor, query: Tensor) -> Tensor:
        """Logits (B, classes); arguments as those of `features`."""
        return self.classify(self.features(images, query), self.head)

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        """Loss of a batch with labels (B,): here the cross-entropy over classes that take part."""
        return self.cross_entropy(self(images, query), labels, task)

    def after_step(self) -> None:
        """Called right after each step of the optimiser."""

    def end_task(self, task: Task) -> None:
        """Called after a task's last batch."""

    def param_groups(self) -> list[dict[str, Any]]:
        """What the current task trains: {'params': [...], 'kind': 'prompt' or 'head'} each.

        The suite sets a learning rate for each of the two kinds.
        """
        head = [p for n, p in self.named_parameters() if n.startswith("head.")]
        rest = [p for n, p in self.named_parameters() if not n.startswith("head.")]
        groups: list[dict[str, Any]] = [
            {"params": rest, "kind": "prompt"},
            {"params": head, "kind": "head"},
        ]
        return [group for group in groups if group["params"]]

    def layer_prompts(self) -> dict[int, Tensor]:
        """layer -> (rows, D): the prompts that the current task trains, for movement.csv."""
        return {}

    def chosen(self, query: Tensor) -> Tensor | None:
        """Which prompts each image gets at test, for selection.csv, from its query (B, D).

        (B, prompts), each row shares that sum to 1; None for a method that does not select.
        """
        return None

    @classmethod
    def selection(cls, model: dict[str, Any]) -> str:
        """How a test image gets its prompts under these settings, for protocol.csv."""
        return "per image, task unknown"

    @classmethod
    def settings_for(cls, tasks: int, width: int) -> dict[str, Any]:
        """Settings that this number of tasks or this width needs, if the defaults do not fit."""
        return {}

    @property
    def network(self) -> Any:
        """The timm ViT that forward runs, for the measurement of feature drift."""
        return self.backbone.network

    def check_layers(self, *layers: int) -> None:
        """Raises ValueError unless these are different layers of the backbone."""
        if len(set(layers)) < len(layers) or not set(layers) <= set(range(self.backbone.depth)):
            raise ValueError(
                f"layers {layers}: different layers of 0..{self.backbone.depth - 1} are expected"
            )

    @staticmethod
    def cross_entropy(logits: Tensor, labels: Tensor, task: Task) -> Loss:
        """Mean cross-entropy of logits (B, classes) over classes loss_start..stop-1 alone."""
        taking_part = logits[:, task.loss_start : task.stop]
        value = F.cross_entropy(taking_part, labels - task.loss_start)
        return Loss(value, {"ce": value.detach()})


_REGISTRY: dict[str, type[Method]] = {}


def register(cls: type[Method]) -> type[Method]:
    """Class decorator: makes a method known under the name of its file."""
    cls.name = cls.__module__.rsplit(".", 1)[-1]
    _REGISTRY[cls.name] = cls
    return cls


def _methods() -> ModuleType:
    """The package methods/ of this project, also where the working directory has another one.

    Raises UsageError if another one was imported before.
    """
    if "methods" not in sys.modules and sys.path[:1] != [str(PROJECT)]:
        sys.path.insert(0, str(PROJECT))
    package = importlib.import_module("methods")
    found = Path(package.__file__ or "").resolve().parent
    if found != PROJECT / "methods":
        raise UsageError(f"{found}: another package named 'methods' hides {PROJECT / 'methods'}")
    return package


def method_names() -> list[str]:
    """The names of all files in methods/, none of which is imported."""
    folder = Path(_methods().__path__[0])
    return sorted(f.stem for f in folder.glob("*.py") if not f.stem.startswith("_"))


def method_class(name: str) -> type[Method]:
    """The class that methods/NAME.py registers.

    Raises UsageError for an unknown name, with the nearest one, and for a file with an error.
    """
    if name not in method_names():
        raise UsageError.unknown("method type", name, method_names())
    try:
        importlib.import_module(f"methods.{name}")
    except Exception as error:  # the file is Python: anything may go wrong in it
        where = f"methods/{name}.py, line {_line_of(error)}"
        raise UsageError(f"{where}: {type(error).__name__}: {error}") from error
    if name not in _REGISTRY:
        raise UsageError(
            f"methods/{name}.py registers no method (decorate its class with @register)"
        )
    return _REGISTRY[name]


def _line_of(error: Exception) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    return traceback.extract_tb(error.__traceback__)[-1].lineno


def defaults(cls: type[Method]) -> dict[str, Any]:
    """A method's settings (its keyword-only arguments) with their default values."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def build_method(
    name: str, backbone: FrozenViT, classes: int, tasks: int, model: dict[str, Any], seed: int
) -> Method:
    """Construct a method with these settings. Raises UsageError for settings it does not take.

    torch's generator is seeded for the constructor alone: the initial weights do not depend on
    what was built before.
    """
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
        except Exception as error:  # the method's own checks, or torch's of an impossible size
            raise UsageError(f"model of {name}: {str(error) or type(error).__name__}") from error
    if cls.has_head and cls.features is Method.features:
        what = "features() for self.head, or forward() and has_head = False"
        raise UsageError(f"methods/{name}.py: write {what}")
    method.configuration = accepted | checked
    return method
