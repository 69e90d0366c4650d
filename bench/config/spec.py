"""The frozen description of one cell (RunSpec), its checks, its canonical JSON and its run_id.

A cell is one method on one benchmark with one class order and one seed. Every setting that can
change a number is a field here. The paths `data.root` and `backbone.checkpoint` are fields too, but
no part of the canonical JSON: the run directory holds the digests of their contents instead.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.errors import UsageError

# Nothing trains at this rate, but fp32 still holds the products of two rates in an optimiser.
MAX_LEARNING_RATE = 1e18


def ranged(default: Any, low: float | None = None, high: float | None = None, doc: str = "") -> Any:
    """A dataclass field with an inclusive range that `check` enforces."""
    return field(default=default, metadata={"low": low, "high": high, "doc": doc})


def later(default: Any, doc: str, low: float | None = None) -> Any:
    """A field that was added after results had been published.

    At its default it is left out of the spec's text, so that published cells keep their digests.
    The default must be what was done before the field existed.
    """
    return field(default=default, metadata={"later": True, "doc": doc, "low": low})


@dataclass(frozen=True)
class DataSpec:
    """The data, the order of its classes, and the training views."""

    name: str = "glyphs"  # a registered dataset; 'folder' for any folder of images
    root: str = ""  # folder of a dataset on disk: a path or a name under $BENCH_DATA
    classes: int = ranged(0, 0, doc="the first n classes of the dataset; 0 = all")
    tasks: int = ranged(
        5, 1, doc="classes are dealt out evenly; a remainder goes to the first tasks"
    )
    order: Literal["coda", "pilot", "natural"] = "coda"  # how order_seed makes a class order
    # An explicit order instead: every class once; in a suite also the name of a file that holds it.
    class_order: tuple[int, ...] = ()
    evaluate: Literal["test", "validation"] = "test"  # every choice is made on validation images
    train_per_class: int = ranged(0, 0, doc="0 = all")
    test_per_class: int = ranged(0, 0, doc="0 = all")
    decode: int = ranged(
        0,
        0,
        4096,
        doc="side of the squares to which files are decoded: shorter side resized, centre cut",
    )
    crop_low: float = ranged(
        0.6, 0.01, 1.0, doc="training crops cover at least this share of the area"
    )
    flip: bool = False  # mirror half of the training views
    crops_of: Literal["square", "whole"] = later(
        "square",
        "training crops come from the decoded square, or from the whole image, resized to the "
        "shorter side `decode` (0 = not resized)",
    )
    split: str = later(
        "",
        "name of a split manifest in the root, which is read instead of its folders",
    )


@dataclass(frozen=True)
class BackboneSpec:
    """The frozen network. Sizes are read for name='vit' only; timm names bring their own."""

    name: str = "vit_glyphs"
    checkpoint: str = ""  # file; "": embedded weights, or timm's download; "random": tests only
    image_size: int = ranged(32, 0, 4096, doc="pixels; 0 = the network's own")
    normalise: Literal["zero_one", "timm"] = "zero_one"
    patch: int = ranged(8, 1)
    width: int = ranged(96, 1)
    depth: int = ranged(12, 1)
    heads: int = ranged(3, 1)


@dataclass(frozen=True)
class TrainSpec:
    """How a method is trained; a suite may set it for each method."""

    epochs: int = ranged(5, 1)
    batch_size: int = ranged(32, 1)
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    prompt_lr: float = ranged(1e-3, 0.0, MAX_LEARNING_RATE, doc="everything but the head")
    head_lr: float = ranged(1e-3, 0.0, MAX_LEARNING_RATE)
    weight_decay: float = ranged(0.0, 0.0, MAX_LEARNING_RATE)
    schedule: Literal["constant", "cosine", "cosine_step", "coda", "step", "multistep", "coswm"] = (
        "constant"
    )
    clip_norm: float = ranged(0.0, 0.0, doc="0 = no clipping")
    loss_classes: Literal["current", "seen"] = "current"  # logits in the cross-entropy
    joint: bool = False  # all classes as one task: the upper reference
    # auto: bf16 if the hardware has it, else fp32; recorded per cell.
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    threads: int = ranged(
        1, 1, 1024, doc="1 and 2 threads give other last bits, so this is part of the spec"
    )
    milestones: tuple[int, ...] = later((), "epochs of schedule=multistep after which rates fall")
    frozen: float = later(0.0, "epochs of schedule=coswm at almost no rate, after one step", 0)


@dataclass(frozen=True)
class AlignSpec:
    """The aligned head that is tested beside the trained one (bench/engine/align.py).

    No part of the run_id: training and the trained head's numbers do not depend on it. Its values
    stand in protocol.csv, and a cell with other values is run again.
    """

    covariance: Literal["full", "diagonal", "shared", "off"] = "full"  # off: no aligned head
    samples: int = ranged(256, 1, doc="of each class seen, in each epoch")
    epochs: int = ranged(5, 1)
    lr: float = ranged(0.01, 0.0, MAX_LEARNING_RATE)
    temperature: float = ranged(
        0.1, 0.0, doc="of logits that are divided by their norm; 0 = plain logits"
    )


@dataclass(frozen=True)
class RunSpec:
    """One cell."""

    suite: str
    benchmark: str
    method: str  # the row's name in the tables
    type: str  # the registered method it runs
    order_seed: int = ranged(0, 0)
    seed: int = ranged(0, 0)
    model: dict[str, Any] = field(default_factory=dict)  # arguments of the method's constructor
    data: DataSpec = field(default_factory=DataSpec)
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    align: AlignSpec = field(default_factory=AlignSpec)

    def described(self) -> dict[str, Any]:
        """All settings that can change what is trained, without later fields at their defaults."""
        tree = dataclasses.asdict(self)
        del tree["data"]["root"], tree["backbone"]["checkpoint"], tree["align"]
        for name, section in TRAINED.items():
            for entry in dataclasses.fields(section):
                if entry.metadata.get("later") and tree[name][entry.name] == entry.default:
                    del tree[name][entry.name]
        return tree

    def canonical(self) -> str:
        """The described settings as JSON with sorted keys: the same text on every machine."""
        return json.dumps(self.described(), sort_keys=True, separators=(",", ":"))

    @functools.cached_property
    def sha(self) -> str:
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @functools.cached_property
    def run_id(self) -> str:
        """Method, benchmark, order, seed and twelve digits of the spec's digest."""
        return f"{self.method}--{self.benchmark}--o{self.order_seed}--s{self.seed}--{self.sha[:12]}"


TRAINED: dict[str, type] = {"data": DataSpec, "backbone": BackboneSpec, "train": TrainSpec}
SECTIONS: dict[str, type] = {**TRAINED, "align": AlignSpec}


def plain(spec: RunSpec) -> dict[str, Any]:
    """A spec as JSON-ready values; spec_from_json reads it back."""
    return dataclasses.asdict(spec)


def spec_from_json(text: str) -> RunSpec:
    """The spec in the JSON of `plain`, or in a run's spec.json; checked like any other input."""
    tree = json.loads(text)
    tree.pop("resolved", None)
    sections = {name: make(cls, tree.get(name, {}), name) for name, cls in SECTIONS.items()}
    return RunSpec(**{**tree, **sections})


def make(cls: type, values: dict[str, Any], where: str) -> Any:
    """Build a section from plain values.

    Raises UsageError for an unknown key, a wrong type or a value out of range.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    checked = {}
    for key, value in values.items():
        if key not in known:
            raise UsageError.unknown(where, key, known)
        checked[key] = coerce(f"{where}.{key}", value, hints[key])
        _check_range(f"{where}.{key}", checked[key], known[key].metadata)
    return cls(**checked)


def _check_range(where: str, value: Any, limits: typing.Mapping[str, Any]) -> None:
    low, high = limits.get("low"), limits.get("high")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if value != value or abs(value) == float("inf"):
        raise UsageError(f"{where}={value}: a finite number is expected")
    if (low is not None and value < low) or (high is not None and value > high):
        upper = "" if high is None else f" and at most {high}"
        raise UsageError(f"{where}={value}: at least {low}{upper} is expected")


def coerce(where: str, value: Any, hint: Any) -> Any:
    """Check a value against a type hint and return it. Raises UsageError for another type.

    Hints are plain types, Literal, and tuple[X, ...]. An int becomes a float and a list a tuple;
    nothing else is converted.
    """
    origin = typing.get_origin(hint)
    if origin is Literal:
        options = typing.get_args(hint)
        if value not in options:
            raise UsageError.unknown(where, value, [str(option) for option in options])
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where}={value!r}: a list is expected")
        inner = typing.get_args(hint)[0]
        return tuple(coerce(f"{where}[{i}]", item, inner) for i, item in enumerate(value))
    boolean = isinstance(value, bool)
    if hint is float and isinstance(value, int) and not boolean:
        return float(value)
    if isinstance(value, hint) and not (boolean and hint in (int, float)):
        return value
    expected = getattr(hint, "__name__", hint)
    raise UsageError(f"{where}={value!r}: {expected} is expected, not {type(value).__name__}")
