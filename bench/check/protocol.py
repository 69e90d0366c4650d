"""What a row was run with, against what a published row was run with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.config.spec import TRAINED, RunSpec
from bench.config.suite import load_suite, suite_names
from bench.errors import UsageError
from bench.method import defaults, method_class, method_names
from bench.report.frames import Results, load
from bench.store.protocol import SELECTION
from bench.store.protocol import protocol as protocol_of

FIELDS = {  # columns of published.csv by the protocol's keys
    "type": "type",
    "data.tasks": "tasks",
    "data.order": "order",
    "data.split": "split",
    "data.crop_low": "crop_low",
    "backbone.name": "backbone",
    "backbone.image_size": "image_size",
    "backbone.normalise": "normalise",
    "train.epochs": "epochs",
    "train.batch_size": "batch_size",
    "train.optimiser": "optimiser",
    "train.schedule": "schedule",
    "train.prompt_lr": "lr",
    "train.head_lr": "lr",
    "model.form": "form",
    SELECTION: "selection",
}
FULL_DATASET = {"data.evaluate": "test", "data.train_per_class": "0", "data.test_per_class": "0"}
# Settings of the hardware, and what it recorded: they may differ.
FREE_KEYS = ("precision used", "weights", "train.precision", "train.threads")
PUBLISHED_SOURCES = ("timm", "a file")  # of weights that can be those of the published row
Protocol = dict[tuple[str, str], dict[str, str]]


def protocol_by_row(rows: Iterable[dict[str, Any]]) -> Protocol:
    """protocol.csv's lines by benchmark and method, without those of the aligned head.

    The trained head alone is compared with what is published.
    """
    found: Protocol = {}
    for line in rows:
        if line["key"].startswith("align."):
            continue
        found.setdefault((line["benchmark"], line["method"]), {})[line["key"]] = str(line["value"])
    return found


def planned(cells: Sequence[RunSpec]) -> Protocol:
    """What cells that were not run would be run with."""
    states = []
    for cell in cells:
        known = cell.type in method_names()
        states.append({"selection": method_class(cell.type).selection(cell.model)} if known else {})
    return protocol_by_row(protocol_of(cells, states))


def gather(suite: str, folder: Path) -> tuple[Protocol, Results | None]:
    """What a suite's rows were, or would be, run with, and its results.

    Raises UsageError if there are results without protocol.csv, or neither results nor the suite.
    """
    if not (folder / "runs.csv").is_file():
        return planned(load_suite(suite).cells), None
    results = load(folder)
    if not len(results.protocol):
        raise UsageError(
            f"{folder}/protocol.csv: not there, "
            "so nobody can say what these results may be compared with"
        )
    return protocol_by_row(results.protocol.to_dict("records")), results


def differing(run: dict[str, str], row: dict[str, str]) -> list[str]:
    """The fields in which a row of the results and a published one differ.

    Each as 'field: ours, published theirs'. Fields that published.csv does not name must be those
    of this project's suite for that line, if it has one: on the same dataset in as many tasks, or
    else in any number of tasks.
    """
    run = completed(run)
    wanted = {key: row[column] for key, column in FIELDS.items() if row[column]}
    wanted |= FULL_DATASET | {"type": row["type"]}
    if run.get("data.classes", "0") != "0":
        wanted["data.classes"] = row["classes"]
    if run.get("weights from", "") not in ("", *PUBLISHED_SOURCES):
        wanted["weights from"] = " or ".join(PUBLISHED_SOURCES)
    suite = f"{row['dataset'].replace('-', '_')}_{row['line']}"
    ours = _row_of_suite(suite, row)
    compared = {*wanted, *FREE_KEYS, "weights from", "data.tasks"}
    others = sorted((ours.keys() | run.keys()) - compared) if ours else []
    pairs = [(key, value, "published") for key, value in wanted.items()]
    pairs += [(key, ours.get(key, ""), f"in suite {suite}") for key in others]
    return [
        f"{key}: {run.get(key) or 'none'}, {who} {value or 'none'}"
        for key, value, who in pairs
        if not same_value(run.get(key, ""), value)
    ]


def _row_of_suite(suite: str, row: dict[str, str]) -> dict[str, str]:
    """What a published row's method is run with in a suite of this project; empty without one."""
    known = {
        name: run for (name, method), run in of_suite(suite).items() if method == row["method"]
    }
    name = f"{row['dataset']}-{row['tasks']}"
    return completed(known.get(name, next(iter(known.values()), {})))


def completed(run: dict[str, str]) -> dict[str, str]:
    """With defaults for what it does not name: its method's, and those of later fields."""
    if run.get("type") not in method_names():
        return run
    known = {f"model.{k}": str(v) for k, v in defaults(method_class(run["type"])).items()}
    added = {
        f"{section}.{one.name}": str(one.default)
        for section, fields in TRAINED.items()
        for one in dataclasses.fields(fields)
        if one.metadata.get("later")
    }
    return known | added | run


@functools.lru_cache
def of_suite(name: str) -> Protocol:
    """What the rows of a suite of this project would be run with; {} for an unknown suite."""
    return planned(load_suite(name).cells) if name in suite_names() else {}


def same_value(ours: str, theirs: str) -> bool:
    """Equal as numbers, or else as text."""
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return ours == theirs
