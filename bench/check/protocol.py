"""What a row was run with, against what a published row was run with."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.config.suite import load_suite, suite_names
from bench.errors import UsageError
from bench.method import defaults, method_class, method_names
from bench.report.frames import Results, load
from bench.store.protocol import protocol as protocol_of

FIELDS = {  # columns of published.csv by the protocol's keys
    "data.tasks": "tasks", "data.order": "order", "data.split": "split", "data.crop_low": "crop_low",
    "backbone.name": "backbone", "backbone.image_size": "image_size", "backbone.normalise": "normalise",
    "train.epochs": "epochs", "train.batch_size": "batch_size", "train.optimiser": "optimiser", "train.schedule": "schedule",
    "train.prompt_lr": "lr", "train.head_lr": "lr", "model.form": "form", "selection of prompts at test": "selection",
}  # fmt: skip
WHOLE = {"data.evaluate": "test", "data.train_per_class": "0", "data.test_per_class": "0"}
TYPES = {
    "l2p++": "l2p_plus",
    "deep-l2p++": "deep_l2p",
}  # of rows that are not named like their file
FREE = (
    "precision used",
    "weights",
    "train.precision",
    "train.threads",
)  # what may differ: hardware, and what it recorded
SOURCES = ("timm", "a file")  # of weights that can be those of the published row
Protocol = dict[tuple[str, str], dict[str, str]]


def protocol_by_row(rows: Iterable[dict[str, Any]]) -> Protocol:
    """protocol.csv's lines by benchmark and method."""
    found: Protocol = {}
    for line in rows:
        found.setdefault((line["benchmark"], line["method"]), {})[line["key"]] = str(line["value"])
    return found


def gather(suite: str, folder: Path) -> tuple[Protocol, Results | None]:
    """What a suite's rows were, or would be, run with, and its results. Raises UsageError where there is neither."""
    results = load(folder) if (folder / "runs.csv").is_file() else None
    if results is not None and len(results.protocol):
        return protocol_by_row(results.protocol.to_dict("records")), results
    if results is None:
        cells = load_suite(suite).cells
        return protocol_by_row(protocol_of(cells, [{}] * len(cells))), results
    raise UsageError(
        f"{folder}/protocol.csv: not there, so nobody can say what these results may be compared with"
    )


def differing(run: dict[str, str], row: dict[str, str]) -> list[str]:
    """What a row of the results was run with that the published one was not: 'field: ours, published theirs'.

    Beside the fields that published.csv names, all others must be those of this project's suite for that line, if it has one,
    on the same dataset: in the same number of tasks, or else in any.
    """
    run = completed(run)
    wanted = {key: row[column] for key, column in FIELDS.items() if row[column]}
    wanted |= WHOLE | {"type": TYPES.get(row["method"], row["method"].replace("-", "_"))}
    if run.get("data.classes", "0") != "0":
        wanted["data.classes"] = row["classes"]
    suite = f"{row['dataset'].replace('-', '_')}_{row['line']}"
    known = {name: of for (name, method), of in of_suite(suite).items() if method == row["method"]}
    ours = completed(known.get(f"{row['dataset']}-{row['tasks']}", next(iter(known.values()), {})))
    if run.get("weights from", "") not in ("", *SOURCES):
        wanted["weights from"] = " or ".join(SOURCES)
    free = (*FREE, "weights from", "data.tasks")  # tasks: wanted already
    others = {
        key for key in ours.keys() | run.keys() if ours and key not in wanted and key not in free
    }
    pairs = [(key, value, "published") for key, value in wanted.items()]
    pairs += [(key, ours.get(key, ""), f"in suite {suite}") for key in sorted(others)]
    return [
        f"{key}: {run.get(key) or 'none'}, {who} {value or 'none'}"
        for key, value, who in pairs
        if not same_value(run.get(key, ""), value)
    ]


def completed(run: dict[str, str]) -> dict[str, str]:
    """With the defaults of its method where it names no value of its own: a row that was run has them all."""
    if run.get("type") not in method_names():
        return run
    return {
        f"model.{key}": str(value) for key, value in defaults(method_class(run["type"])).items()
    } | run


@functools.lru_cache
def of_suite(name: str) -> Protocol:
    """What the rows of a suite of this project would be run with; nothing for a name that no suite has."""
    if name not in suite_names():
        return {}
    cells = load_suite(name).cells
    return protocol_by_row(protocol_of(cells, [{}] * len(cells)))


def same_value(ours: str, theirs: str) -> bool:
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return ours == theirs
