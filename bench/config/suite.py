"""Suites: mmengine config files that name benchmarks and methods, expanded into cells (RunSpec).

A cell's values come from these sources, each over the one before: the defaults in spec.py, the
suite's `data` / `backbone` / `train`, its benchmark's entry, its method's entry, `--set` on the
command line.

`reference`, `beside` and `figure_rows` say how the report shows the rows of a file. They belong to
the file that holds them: a suite does not inherit them from `_base_`.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cli import SEED_LIMIT
from bench.config.mmengine_config import Config
from bench.config.spec import SECTIONS, RunSpec, make
from bench.errors import UsageError
from bench.paths import REFERENCE, exists

SUITES = Path(__file__).parent.parent / "suites"
REGRESSION = "smoke"  # the suite that bench.check runs itself
REPORT_KEYS = ("reference", "beside", "figure_rows")
TOP_KEYS = ("order_seeds", "seeds", "benchmarks", "methods", *SECTIONS, *REPORT_KEYS)

MAX_NAME_BYTES = 255  # of a file or folder, on every usual file system

Tree = dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """A loaded suite."""

    name: str  # of its results folder
    doc: str  # the first sentence of the file's docstring
    cells: tuple[RunSpec, ...]  # in the order in which they are run
    # The row that others are compared with in the report, "" = none. Default: the first row, and
    # none in a suite of settings (NAME@VALUE).
    reference: str
    beside: tuple[str, ...] = ()  # suites whose rows the report shows too
    # Rows, or patterns of their names (fnmatch), that are drawn if all are too many for a figure.
    figure_rows: tuple[str, ...] = ()
    file: str = ""  # the name of its file

    def select(
        self,
        methods: Iterable[str] = (),
        benchmarks: Iterable[str] = (),
        order_seeds: Iterable[int] = (),
        seeds: Iterable[int] = (),
    ) -> list[RunSpec]:
        """Cells that match; an empty choice means all. Raises UsageError for an unknown name."""
        chosen = list(self.cells)
        for option, wanted, attribute in (
            ("--methods", list(methods), "method"),
            ("--benchmarks", list(benchmarks), "benchmark"),
            ("--order-seeds", list(order_seeds), "order_seed"),
            ("--seeds", list(seeds), "seed"),
        ):
            known = list(dict.fromkeys(getattr(cell, attribute) for cell in self.cells))
            for name in wanted:
                if name not in known:
                    raise UsageError.unknown(
                        f"{option} of suite {self.name}", str(name), map(str, known)
                    )
            if wanted:
                chosen = [cell for cell in chosen if getattr(cell, attribute) in wanted]
        return chosen


def suite_names() -> list[str]:
    return sorted(file.stem for file in SUITES.glob("*.py") if not file.stem.startswith("_"))


def load_suite(name: str, overrides: dict[str, Any] | None = None, results_name: str = "") -> Suite:
    """Read a suite by name or by path (.py), apply `--set` overrides and expand it into cells.

    Overridden cells answer another question, so they get a results folder of their own:
    NAME-<digest of the overrides>, unless results_name is given.
    """
    file = Path(name).expanduser() if name.endswith(".py") else SUITES / f"{name}.py"
    if not exists(file):
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
    if label == REFERENCE:
        raise UsageError(f"results folder '{label}': it holds the published results (give --name)")
    cells = tuple(_expand(label, tree, final))
    for cell in cells:
        if (length := len(os.fsencode(cell.run_id))) > MAX_NAME_BYTES:
            raise UsageError(
                f"row '{cell.method[:60]}' on '{cell.benchmark[:60]}': the name of its run has "
                f"{length} bytes, {MAX_NAME_BYTES} fit (shorten one of the names)"
            )
    doc, own_keys = _own_text(file)
    shown = {key: tree[key] for key in REPORT_KEYS if key in own_keys and key in tree}
    choices = _report_choices(file.name, shown, list(tree["methods"]))
    return Suite(label, doc, cells, file=file.stem, **choices)


def _read(file: Path) -> Tree:
    """The config as plain dicts. Raises UsageError if it does not run or has unknown keys."""
    try:
        config = Config.fromfile(str(file), lazy_import=False)
    except Exception as error:  # the file is Python: anything may go wrong in it
        raise UsageError(f"suite {file}: {type(error).__name__}: {error}") from error
    tree = config.to_dict()
    for key in tree:
        if key not in TOP_KEYS:
            raise UsageError.unknown(f"suite {file.name}", key, TOP_KEYS)
    for key in ("benchmarks", "methods"):
        if not isinstance(tree.get(key), dict) or not tree[key]:
            raise UsageError(f"suite {file.name}: '{key}' must be a non-empty dict")
        for name, entry in tree[key].items():
            _check_name(key, name)
            _check_dict(f"{key}.{name}", entry)
    for key in SECTIONS:
        _check_dict(key, tree.get(key, {}))
    return tree


# --- what the report shows --------------------------------------------------------------------


def _own_text(file: Path) -> tuple[str, set[str]]:
    """The first sentence of a file's docstring, and the names that the file itself assigns."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    text = " ".join((ast.get_docstring(module) or "").split())
    # A sentence ends before a capital letter or a quotation mark: not after "et al." (2021).
    sentence = re.match(r".*?[.?!](?= +[A-Z\"'`(]|$)", text)
    assignments = [node for node in module.body if isinstance(node, ast.Assign)]
    targets = [target for node in assignments for target in node.targets]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    return sentence.group() if sentence else text, names


def _report_choices(where: str, given: Tree, rows: list[str]) -> Tree:
    """The fields of Suite that are for the report. Raises UsageError for other kinds of values."""
    reference = given.get("reference", "" if "@" in rows[0] else rows[0])
    if reference not in ("", *rows):
        raise UsageError.unknown(f"suite {where}: reference", reference, rows)
    lists = {}
    for key in ("beside", "figure_rows"):
        names = given.get(key, [])
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise UsageError(f"suite {where}: {key}={names!r}: a list of names is expected")
        lists[key] = tuple(names)
    return {"reference": reference, **lists}


# --- overrides --------------------------------------------------------------------------------


def _apply(tree: Tree, overrides: Tree) -> dict[str, Tree]:
    """Put `--set` values of methods and benchmarks into the tree; return those of every cell."""
    final: dict[str, Tree] = {name: {} for name in SECTIONS}
    for path, value in overrides.items():
        head, _, rest = path.partition(".")
        if head in SECTIONS and rest:
            final[head][rest] = value
        elif head in ("methods", "benchmarks") and "." in rest:
            _set_entry(tree[head], path, rest, value)
        else:
            accepted = [f"{section}.KEY" for section in SECTIONS]
            accepted += ["methods.NAME.model.KEY", "benchmarks.NAME.data.KEY"]
            raise UsageError.unknown("--set", path, accepted)
    if "root" in final["data"] or "name" in final["data"]:
        _replace_benchmarks(tree, final["data"])
    return final


def _set_entry(entries: Tree, path: str, rest: str, value: Any) -> None:
    """Set NAME.KEY...=value, where path is the whole key for messages."""
    name, _, inner = rest.partition(".")
    if name not in entries:
        raise UsageError.unknown(f"--set {path}", name, entries)
    *parents, last = inner.split(".")
    node = entries[name]
    for key in parents:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise UsageError(f"--set {path}: '{key}' has no keys")
    node[last] = value


def _replace_benchmarks(tree: Tree, data: Tree) -> None:
    """Make the user's data the benchmark, instead of the suite's benchmarks.

    A suite whose own data has a root, so is on disk, keeps its benchmarks, on the user's files.
    """
    own = tree.get("data", {})
    own_on_disk = bool(own.get("root"))
    data.setdefault("name", own.get("name", "folder") if own_on_disk else "folder")
    name = Path(str(data["root"])).resolve().name if "root" in data else str(data["name"])
    name = re.sub(r"[^A-Za-z0-9._@+-]+", "_", name).lstrip("._@+-") or "folder"
    kept = tree["benchmarks"] if own_on_disk else {name: {}}
    if len(kept) == 1:
        (only,) = kept.values()
        tree["benchmarks"] = {name: only}
    else:
        tree["benchmarks"] = {f"{name}-{old}": entry for old, entry in kept.items()}


# --- cells ------------------------------------------------------------------------------------


def _expand(label: str, tree: Tree, final: dict[str, Tree]) -> Iterable[RunSpec]:
    _check_name("name of the results folder", label)
    order_seeds = _seeds(tree, "order_seeds")
    for benchmark, on in tree["benchmarks"].items():
        _check_keys(f"benchmarks.{benchmark}", on, (*SECTIONS, "methods", "seeds"))
        # A benchmark with one fixed order may have more seeds than the others.
        seeds = _seeds({**tree, **on}, "seeds")
        _check_keys(f"benchmarks.{benchmark}.methods", on.get("methods", {}), tree["methods"])
        for method, row in tree["methods"].items():
            _check_keys(f"methods.{method}", row, ("type", "model", *SECTIONS))
            special = on.get("methods", {}).get(method, {})
            _check_keys(f"benchmarks.{benchmark}.methods.{method}", special, ("model", *SECTIONS))
            sources = (tree, on, row, special, final)
            values = {name: _merge(name, *sources) for name in SECTIONS}
            orders = _take_order_seeds(values["data"], order_seeds)
            sections = {name: make(cls, values[name], name) for name, cls in SECTIONS.items()}
            model = _merge("model", row, special)
            _check_row(method, row, model)
            kind = row.get("type", method)
            for order_seed in orders:
                for seed in seeds:
                    settings = copy.deepcopy(model)
                    yield RunSpec(
                        label, benchmark, method, kind, order_seed, seed, settings, **sections
                    )


def _check_row(method: str, row: Tree, model: Tree) -> None:
    _check_plain(f"methods.{method}.model", model)
    if not isinstance(row.get("type", ""), str):
        raise UsageError(f"methods.{method}.type={row['type']!r}: a method's name is expected")


def _take_order_seeds(data: Tree, order_seeds: list[int]) -> list[int]:
    """The order seeds of a cell; a file of a class order and a named order in `data` are read.

    One fixed order is no replicate of itself, so it has one order seed.
    """
    if isinstance(data.get("class_order"), str):
        data["class_order"] = _read_order(Path(data["class_order"]))
    named = _named_order(data)
    fixed = data.get("order") == "natural" or data.get("class_order")
    return named or (order_seeds[:1] if fixed else order_seeds)


def _seeds(tree: Tree, key: str) -> list[int]:
    """A suite's seeds. Raises UsageError for equal ones: their cells would be the same."""
    values = tree.get(key, [0])
    integers = isinstance(values, list | tuple) and all(
        type(value) is int and 0 <= value < SEED_LIMIT for value in values
    )
    if not integers or not values or len(set(values)) < len(values):
        raise UsageError(
            f"{key}={values!r}: "
            f"a list of different whole numbers from 0, below {SEED_LIMIT}, is expected"
        )
    return list(values)


def _merge(name: str, *sources: Tree) -> Tree:
    """The keys of one section, each source over the one before."""
    merged: Tree = {}
    for source in sources:
        if not isinstance(source.get(name, {}), dict):
            raise UsageError(f"{name}={source[name]!r}: a dict of its keys is expected")
        merged.update(source.get(name, {}))
    return merged


def _named_order(data: Tree) -> list[int]:
    """The order seed in data.order=pilot:1993, which becomes data.order=pilot; [] without one."""
    kind, colon, seed = str(data.get("order", "")).partition(":")
    if not colon:
        return []
    known = kind in ("coda", "pilot")
    if not known or not re.fullmatch("[0-9]{1,10}", seed) or int(seed) >= SEED_LIMIT:
        raise UsageError(
            f"data.order={data['order']}: "
            f"coda:SEED or pilot:SEED, with a seed below {SEED_LIMIT}, is expected"
        )
    data["order"] = kind
    return [int(seed)]


def _read_order(file: Path) -> list[int]:
    """A class order from a file: whole numbers between blanks, commas, brackets or line ends."""
    expected = f"data.class_order={file}: a file of whole numbers is expected"
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
        numbers = [int(word) for word in re.findall(r"[^\s,;\[\]()]+", text)]
    except (OSError, ValueError) as error:
        raise UsageError(f"{expected} ({error})") from error
    if not numbers:
        raise UsageError(f"{expected}, there are none in it")
    return numbers


# --- checks -----------------------------------------------------------------------------------


def _check_name(where: str, name: Any) -> None:
    """Names become folders, table cells and words of a command line."""
    if isinstance(name, str) and len(name.encode()) > MAX_NAME_BYTES:
        raise UsageError(f"{where}: '{name[:40]}...' has more than {MAX_NAME_BYTES} bytes")
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


def _check_plain(where: str, model: Tree) -> None:
    """A method's settings are part of the cell's identity, as JSON."""
    try:
        json.dumps(model, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{where}={model!r}: names, numbers and lists of them are expected ({error})"
        ) from error
