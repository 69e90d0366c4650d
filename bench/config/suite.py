"""Suites: mmengine config files that name benchmarks and methods, expanded into cells (RunSpec).

A cell's values come from, each over the one before: the defaults in spec.py, the suite's `data` / `backbone` / `train`, its
benchmark's entry, its method's entry, `--set` on the command line.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.mmengine_config import Config, DictAction
from bench.config.spec import SECTIONS, SEEDS, RunSpec, make
from bench.errors import UsageError

SUITES = Path(__file__).parent.parent / "suites"
ON_DISK = ("folder", "cifar100")  # data.name of what is read from data.root
TOP = ("order_seeds", "seeds", "benchmarks", "methods", *SECTIONS)


@dataclass(frozen=True)
class Suite:
    """A loaded suite: its results folder's name and all of its cells, in the order in which they are run."""

    name: str
    doc: str
    cells: tuple[RunSpec, ...]

    def select(
        self,
        methods: Iterable[str] = (),
        benchmarks: Iterable[str] = (),
        order_seeds: Iterable[int] = (),
        seeds: Iterable[int] = (),
    ) -> list[RunSpec]:
        """Cells that match; an empty choice means all. Raises UsageError for a name that no cell has."""
        chosen = list(self.cells)
        for option, wanted, attribute in (
            ("--methods", list(methods), "method"),
            ("--benchmarks", list(benchmarks), "benchmark"),
            ("--order-seeds", list(order_seeds), "order_seed"),
            ("--seeds", list(seeds), "seed"),
        ):
            there = list(dict.fromkeys(getattr(cell, attribute) for cell in self.cells))
            for name in wanted:
                if name not in there:
                    raise UsageError.unknown(
                        f"{option} of suite {self.name}", str(name), map(str, there)
                    )
            if wanted:
                chosen = [cell for cell in chosen if getattr(cell, attribute) in wanted]
        return chosen


def suite_names() -> list[str]:
    return sorted(f.stem for f in SUITES.glob("*.py") if not f.stem.startswith("_"))


def load_suite(name: str, overrides: dict[str, Any] | None = None, results_name: str = "") -> Suite:
    """Read a suite by name or by path (.py) and expand it, with `--set` overrides applied.

    Overridden cells answer another question, so they get a results folder of their own: NAME-<digest of the
    overrides>, unless results_name says otherwise.
    """
    file = Path(name) if name.endswith(".py") else SUITES / f"{name}.py"
    if not file.is_file():
        if name.endswith(".py"):
            raise UsageError(f"suite: no file {name}")
        raise UsageError.unknown("suite", name, suite_names())
    tree = _read(file)
    overrides = overrides or {}
    final = _apply(tree, overrides)
    label = results_name or file.stem
    if overrides and not results_name:
        text = json.dumps(overrides, sort_keys=True, default=str)
        label += "-" + hashlib.sha256(text.encode()).hexdigest()[:6]
    cells = tuple(_expand(label, tree, final))
    return Suite(label, tree.get("doc", ""), cells)


def _read(file: Path) -> dict[str, Any]:
    """The config as plain dicts. Raises UsageError for a file that does not run or has unknown top-level keys."""
    try:
        config = Config.fromfile(str(file), lazy_import=False)
    except Exception as error:  # the file is python: anything may go wrong in it, and its name is what the user needs
        raise UsageError(f"suite {file}: {type(error).__name__}: {error}") from error
    tree = config.to_dict()
    for key in tree:
        if key not in TOP:
            raise UsageError.unknown(f"suite {file.name}", key, TOP)
    for key in ("benchmarks", "methods"):
        if not isinstance(tree.get(key), dict) or not tree[key]:
            raise UsageError(f"suite {file.name}: '{key}' must be a non-empty dict")
        for name, entry in tree[key].items():
            _check_name(key, name)
            _check_dict(f"{key}.{name}", entry)
    for key in SECTIONS:
        _check_dict(key, tree.get(key, {}))
    return tree


def _apply(tree: dict[str, Any], overrides: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Put `--set` values for methods and benchmarks into the tree; return those that go over every cell."""
    final: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for path, value in overrides.items():
        head, _, rest = path.partition(".")
        if head in SECTIONS and rest:
            final[head][rest] = value
        elif head in ("methods", "benchmarks") and rest.count(".") >= 1:
            name, _, inner = rest.partition(".")
            if name not in tree[head]:
                raise UsageError.unknown(f"--set {path}", name, tree[head])
            keys = inner.split(".")
            node = tree[head][name]
            for key in keys[:-1]:
                node = node.setdefault(key, {})
                if not isinstance(node, dict):
                    raise UsageError(f"--set {path}: '{key}' has no keys")
            node[keys[-1]] = value
        else:
            accepted = [f"{s}.KEY" for s in SECTIONS] + [
                "methods.NAME.model.KEY",
                "benchmarks.NAME.data.KEY",
            ]
            raise UsageError.unknown("--set", path, accepted)
    if "root" in final["data"] or "name" in final["data"]:
        _replace_benchmarks(tree, final["data"])
    return final


def _replace_benchmarks(tree: dict[str, Any], data: dict[str, Any]) -> None:
    """The user's data are the benchmark, instead of the suite's; a suite on disk keeps its benchmarks, on the other files."""
    own = tree.get("data", {}).get("name")
    data.setdefault("name", own if own in ON_DISK else "folder")
    name = Path(str(data["root"])).resolve().name if "root" in data else str(data["name"])
    name = re.sub(r"[^A-Za-z0-9._@+-]+", "_", name).lstrip("._@+-") or "folder"
    kept = tree["benchmarks"] if own in ON_DISK else {name: {}}
    if len(kept) == 1:
        (only,) = kept.values()
        tree["benchmarks"] = {name: only}
    else:
        tree["benchmarks"] = {f"{name}-{old}": how for old, how in kept.items()}


def _expand(
    label: str, tree: dict[str, Any], final: dict[str, dict[str, Any]]
) -> Iterable[RunSpec]:
    _check_name("name of the results folder", label)
    order_seeds = _seeds(tree, "order_seeds")
    for benchmark, on in tree["benchmarks"].items():
        _check_keys(f"benchmarks.{benchmark}", on, (*SECTIONS, "methods", "seeds"))
        seeds = _seeds(
            {**tree, **on}, "seeds"
        )  # a benchmark with one fixed order may have more seeds than the others
        _check_keys(f"benchmarks.{benchmark}.methods", on.get("methods", {}), tree["methods"])
        for method, how in tree["methods"].items():
            _check_keys(f"methods.{method}", how, ("type", "model", *SECTIONS))
            special = on.get("methods", {}).get(method, {})
            _check_keys(f"benchmarks.{benchmark}.methods.{method}", special, ("model", *SECTIONS))
            values = {name: _merge(name, tree, on, how, special, final) for name in SECTIONS}
            if isinstance(values["data"].get("class_order"), str):
                values["data"]["class_order"] = _read_order(Path(values["data"]["class_order"]))
            named = _named_order(values["data"])
            sections = {name: make(cls, values[name], name) for name, cls in SECTIONS.items()}
            if len(sections["data"].root) and sections["data"].name not in ON_DISK:
                raise UsageError(
                    f"data.root is for data.name=folder or cifar100, not '{sections['data'].name}'"
                )
            model = _merge("model", how, special)
            _check_plain(f"methods.{method}.model", model)
            if not isinstance(how.get("type", ""), str):
                raise UsageError(
                    f"methods.{method}.type={how['type']!r}: a method's name is expected"
                )
            fixed = sections["data"].order == "natural" or sections["data"].class_order
            for order_seed in named or (
                order_seeds[:1] if fixed else order_seeds
            ):  # one order is not several replicates
                for seed in seeds:
                    yield RunSpec(
                        label,
                        benchmark,
                        method,
                        how.get("type", method),
                        order_seed,
                        seed,
                        copy.deepcopy(model),
                        **sections,
                    )


def _seeds(tree: dict[str, Any], key: str) -> list[int]:
    """A suite's seeds: different whole numbers, or cells would repeat each other."""
    values = tree.get(key, [0])
    whole = isinstance(values, list | tuple) and all(
        type(v) is int and 0 <= v < SEEDS for v in values
    )
    if not whole or not values or len(set(values)) < len(values):
        raise UsageError(
            f"{key}={values!r}: a list of different whole numbers from 0, below {SEEDS}, is expected"
        )
    return list(values)


def _merge(name: str, *sources: dict[str, Any]) -> dict[str, Any]:
    """The keys of one section, each source over the one before."""
    merged: dict[str, Any] = {}
    for source in sources:
        if not isinstance(source.get(name, {}), dict):
            raise UsageError(f"{name}={source[name]!r}: a dict of its keys is expected")
        merged.update(source.get(name, {}))
    return merged


def _named_order(data: dict[str, Any]) -> list[int]:
    """The order seed that data.order names, as 'pilot:1993' does, and data.order without it; [] where it names none."""
    kind, colon, seed = str(data.get("order", "")).partition(":")
    if not colon:
        return []
    if kind not in ("coda", "pilot") or not re.fullmatch("[0-9]{1,10}", seed) or int(seed) >= SEEDS:
        raise UsageError(
            f"data.order={data['order']}: coda:SEED or pilot:SEED, with a seed below {SEEDS}, is expected"
        )
    data["order"] = kind
    return [int(seed)]


def _read_order(file: Path) -> list[int]:
    """A class order from a file: whole numbers between anything else (commas, brackets, line ends)."""
    try:
        numbers = [int(word) for word in re.findall(r"[^\s,;\[\]()]+", file.read_text())]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"data.class_order={file}: a file of whole numbers is expected ({error})"
        ) from error
    if not numbers:
        raise UsageError(
            f"data.class_order={file}: a file of whole numbers is expected, there are none in it"
        )
    return numbers


def _check_name(where: str, name: Any) -> None:
    """Names become folders, table cells and words of a command line."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+-]*", name):
        raise UsageError(f"{where}: '{name}' is no usable name (letters, digits and . _ @ + - are)")


def _check_keys(where: str, values: Any, accepted: Iterable[str]) -> None:
    _check_dict(where, values)
    for key in values:
        if key not in accepted:
            raise UsageError.unknown(where, key, accepted)


def _check_dict(where: str, values: Any) -> None:
    if not isinstance(values, dict):
        raise UsageError(f"{where}={values!r}: a dict is expected")


def _check_plain(where: str, model: dict[str, Any]) -> None:
    """A method's settings are part of the cell's identity, as JSON."""
    try:
        json.dumps(model, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{where}={model!r}: names, numbers and lists of them are expected ({error})"
        ) from error


# --- the command line, the same for every command that takes a suite ------------------------------------------------


def assignment(text: str) -> str:
    """argparse type of one `--set` item."""
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"'{text}': KEY=VALUE is expected")
    return text


class SetAction(DictAction):
    """mmengine's KEY=VALUE, but paths and names stay as they are: DictAction drops blanks and splits at commas."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for item in values:
            key, _, text = item.partition("=")
            try:
                verbatim = key.endswith(("data.root", "data.split", "backbone.checkpoint"))
                options[key] = text if verbatim else self._parse_iterable(text)
            except AssertionError:  # brackets that do not match
                parser.error(f"argument --set: '{item}': a value that can be read is expected")
        setattr(namespace, self.dest, options)


def add_suite_arguments(parser: argparse.ArgumentParser) -> None:
    """SUITE, --set, --name and --results."""
    parser.add_argument(
        "suite", nargs="?", default="mini", help="a name in bench/suites, or a config file (.py)"
    )
    parser.add_argument("--set", nargs="+", action=SetAction, type=assignment, default={}, metavar="KEY=VALUE",
                        dest="overrides", help="e.g. train.epochs=2 data.root=DIR methods.hlgp.model.groups=6")  # fmt: skip
    parser.add_argument(
        "--name", default="", help="name of the results folder (default: the suite's)"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of results (default: results)"
    )
