"""The CSV tables: their columns, reading with checks, and collection from run directories.

Only counts are stored; every aggregate is derived. metrics.csv holds nothing that two runs of one spec could differ in.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.store.files import write_text

METRICS = ("run_id", "suite", "benchmark", "method", "order_seed", "seed", "scenario", "after_task", "eval_task",
           "n", "correct")  # fmt: skip
RUNS = ("run_id", "suite", "benchmark", "method", "order_seed", "seed", "status", "reason", "spec_sha", "env_sha",
        "precision", "weights_sha", "data_sha", "stream_sha", "tasks", "classes", "params_trainable", "params_total",
        "gflops_train", "gflops_infer")  # fmt: skip
TIMING = (
    "run_id",
    "task",
    "train_seconds",
    "eval_seconds",
    "train_images_per_second",
    "peak_memory_mib",
)
MOVEMENT = ("run_id", "task", "layer", "prompt_rms", "prompt_change", "feature_drift")
SIMILARITY = ("run_id", "layer", "other", "cosine")
LOSSES = ("run_id", "task", "epoch", "part", "value")
TABLES = {  # of one cell, and of a suite
    "metrics": METRICS,
    "timing": TIMING,
    "losses": LOSSES,
    "movement": MOVEMENT,
    "similarity": SIMILARITY,
}
KEYS = {  # what tells the rows of a cell's table apart
    "timing": ["run_id", "task"],
    "losses": ["run_id", "task", "epoch", "part"],
    "movement": ["run_id", "task", "layer"],
    "similarity": ["run_id", "layer", "other"],
}
SCENARIOS = ("class", "task")
PROTOCOL = ("benchmark", "method", "key", "value")
STATUSES = ("done", "diverged", "oom", "error", "interrupted", "missing")

Rows = list[dict[str, Any]]


def to_csv(columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> str:
    """CSV text with unix line ends; a missing value is an empty cell."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, to_csv(columns, rows))


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows as text. Raises UsageError for a missing file or column."""
    try:
        with path.open(newline="") as stream:
            reader = csv.DictReader(stream)
            names = list(reader.fieldnames or [])
            missing = [name for name in columns if name not in names]
            if missing:
                raise UsageError(f"{path}: column '{missing[0]}' is missing")
            if len(set(names)) < len(names):
                raise UsageError(
                    f"{path}: column '{next(name for name in names if names.count(name) > 1)}' is there twice"
                )
            rows = list(reader)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); run the suite first"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a CSV file ({error})") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UsageError(f"{path}: line {number} has another number of cells than the header")
    return rows


def whole(text: str) -> int:
    """A whole number in plain digits. Raises ValueError for anything else that Python would take for one."""
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise ValueError(f"'{text}' is no whole number")
    return int(text)


def read_runs(path: Path) -> Rows:
    """runs.csv as text. Raises UsageError for a number or a status that cannot be."""
    rows = read_csv(path, RUNS)
    for number, row in enumerate(rows, start=2):
        if row["status"] not in STATUSES:
            raise UsageError(
                f"{path}: line {number}: status '{row['status']}' (accepted: {', '.join(STATUSES)})"
            )
        done = row["status"] == "done"
        try:
            for name in (
                "order_seed",
                "seed",
                *(("tasks", "classes", "params_trainable") if done else ()),
            ):
                if whole(row[name]) < 0:
                    raise ValueError(f"{name}={row[name]}")
        except ValueError as error:
            raise UsageError(f"{path}: line {number}: {error}") from error
    return rows


def read_metrics(path: Path) -> Rows:
    """metrics.csv with its numbers as int. Raises UsageError naming the line of a value that cannot be."""
    rows: Rows = []
    seen: dict[tuple, int] = {}
    for number, row in enumerate(read_csv(path, METRICS), start=2):
        try:
            numbers = {
                name: whole(row[name])
                for name in ("order_seed", "seed", "after_task", "eval_task", "n", "correct")
            }
        except ValueError as error:
            raise UsageError(f"{path}: line {number}: {error}") from error
        if not 0 <= numbers["correct"] <= numbers["n"] or numbers["n"] < 1:
            raise UsageError(
                f"{path}: line {number}: correct={numbers['correct']} of n={numbers['n']}"
            )
        if not 1 <= numbers["eval_task"] <= numbers["after_task"]:
            raise UsageError(
                f"{path}: line {number}: eval_task={numbers['eval_task']} after_task={numbers['after_task']}"
            )
        if row["scenario"] not in SCENARIOS:
            raise UsageError(
                f"{path}: line {number}: scenario '{row['scenario']}' (accepted: {', '.join(SCENARIOS)})"
            )
        key = (row["run_id"], row["scenario"], numbers["after_task"], numbers["eval_task"])
        if key in seen:
            raise UsageError(f"{path}: line {number} repeats line {seen[key]}")
        seen[key] = number
        rows.append({**row, **numbers})
    return rows
