"""The CSV tables: their columns, and reading them with checks.

Accuracies are stored as counts, and every aggregate is derived from them. metrics.csv holds nothing
in which two runs of one spec could differ.
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

CELL = ("run_id", "suite", "benchmark", "method", "order_seed", "seed")  # name a cell
METRICS = (*CELL, "scenario", "after_task", "eval_task", "n", "correct")
DIGESTS = ("spec_sha", "code_sha", "env_sha", "precision", "weights_sha", "data_sha", "stream_sha")
COSTS = ("params_trainable", "params_total", "gflops_train", "gflops_infer")
# Of the project: version, commit ("": no git checkout); the day on which the cell ended (UTC).
ORIGIN = ("version", "commit", "finished")
RUNS = (*CELL, "status", "reason", *DIGESTS, "tasks", "classes", *COSTS, *ORIGIN)
NOT_RECORDED = "not recorded"  # what tables say of a fact that their version did not write down
LATER_IN_RUNS = ("code_sha", *ORIGIN)  # columns that older tables do not have
SECONDS = ("train_seconds", "eval_seconds")
ALIGNING = "align_seconds"  # statistics of the classes and training of the aligned head
TIMING = ("run_id", "task", *SECONDS, "train_images_per_second", "peak_memory_mib", ALIGNING)
MOVEMENT = ("run_id", "task", "layer", "prompt_rms", "prompt_change", "feature_drift")
SIMILARITY = ("run_id", "layer", "other", "cosine")
SELECTION = ("run_id", "eval_task", "prompt", "share")
LOSSES = ("run_id", "task", "epoch", "part", "value")
TABLES = {  # those that a cell writes and a suite collects
    "metrics": METRICS,
    "timing": TIMING,
    "losses": LOSSES,
    "movement": MOVEMENT,
    "similarity": SIMILARITY,
    "selection": SELECTION,
}
LATER_TABLES = ("selection",)  # that older runs do not have
LATER_COLUMNS = {"timing": (ALIGNING,)}  # of these tables
KEYS = {  # columns that together are different in every row
    "timing": ["run_id", "task"],
    "losses": ["run_id", "task", "epoch", "part"],
    "movement": ["run_id", "task", "layer"],
    "similarity": ["run_id", "layer", "other"],
    "selection": ["run_id", "eval_task", "prompt"],
}
SCENARIOS = ("class", "task")
LATER_SCENARIOS = ("class-aligned", "task-aligned")  # that older runs and some methods do not have
PROTOCOL = ("benchmark", "method", "key", "value")
CLASSES = ("benchmark", "order_seed", "position", "task", "class")
ENVIRONMENTS = (  # of bench/environment.py
    "env_sha",
    *("python", "torch", "timm", "numpy", "machine", "processor", "instructions"),
    *("cores", "threads", "system", "device", "driver"),
)
PUBLISHED = "published.csv"  # in a suite's folder: what bench.check found of it, for its page
COMPARED_COLUMNS = (
    *("what", "benchmark", "method", "metric", "published", "measured", "n"),
    *("difference", "verdict", "detail"),
)
FAILED = ("diverged", "oom", "error")
STATUSES = ("done", *FAILED, "interrupted", "running", "missing")

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


def read_csv(
    path: Path, columns: tuple[str, ...], later: tuple[str, ...] = ()
) -> list[dict[str, str]]:
    """Rows as text. Raises UsageError as `read_columns`."""
    by_name = read_columns(path, columns, later)
    return [dict(zip(by_name, row, strict=True)) for row in zip(*by_name.values(), strict=True)]


def read_columns(
    path: Path, columns: tuple[str, ...], later: tuple[str, ...] = ()
) -> dict[str, tuple[str, ...]]:
    """The texts of each column of the file. Raises UsageError for a missing file or column.

    later: columns that may be missing; their values are then NOT_RECORDED.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:  # Excel puts a mark in front
            lines = csv.reader(stream)
            names = next((line for line in lines if line), [])
            absent = [name for name in later if name not in names]
            _check_header(path, names, tuple(name for name in columns if name not in absent))
            rows = [line for line in lines if line]
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); run the suite first"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a CSV file ({error})") from error
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise UsageError(f"{path}: line {number} has another number of cells than the header")
    values = list(zip(*rows, strict=True)) or [()] * len(names)
    missing = dict.fromkeys(absent, (NOT_RECORDED,) * len(rows))
    return dict(zip(names, values, strict=True)) | missing


def _check_header(path: Path, names: list[str], columns: tuple[str, ...]) -> None:
    for name in columns:
        if name not in names:
            raise UsageError(f"{path}: column '{name}' is missing")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{path}: column '{name}' is there twice")


def parse_integer(text: str) -> int:
    """An integer in plain digits. Raises ValueError for other spellings that Python accepts."""
    if len(text) <= 18 and text.isascii() and text.isdecimal():
        return int(text)
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise ValueError(f"'{text}' is no whole number")
    return int(text)


def read_runs(path: Path) -> Rows:
    """runs.csv as text. Raises UsageError for an impossible number or an unknown status."""
    rows = read_csv(path, RUNS, LATER_IN_RUNS)
    for number, row in enumerate(rows, start=2):
        where = f"{path}: line {number}"
        if row["status"] not in STATUSES:
            accepted = ", ".join(STATUSES)
            raise UsageError(f"{where}: status '{row['status']}' (accepted: {accepted})")
        counted = ("tasks", "classes", "params_trainable") if row["status"] == "done" else ()
        try:
            for name in ("order_seed", "seed", *counted):
                if parse_integer(row[name]) < 0:
                    raise ValueError(f"{name}={row[name]}")
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error
    return rows


def read_metrics(path: Path) -> Rows:
    """metrics.csv with its numbers as int. Raises UsageError naming the line with a wrong value."""
    rows: Rows = []
    seen: dict[tuple, int] = {}
    numeric = ("order_seed", "seed", "after_task", "eval_task", "n", "correct")
    for number, row in enumerate(read_csv(path, METRICS), start=2):
        try:
            numbers = {name: parse_integer(row[name]) for name in numeric}
            _check_counts(row["scenario"], numbers)
        except ValueError as error:
            raise UsageError(f"{path}: line {number}: {error}") from error
        key = (row["run_id"], row["scenario"], numbers["after_task"], numbers["eval_task"])
        if key in seen:
            raise UsageError(f"{path}: line {number} repeats line {seen[key]}")
        seen[key] = number
        rows.append({**row, **numbers})
    return rows


def _check_counts(scenario: str, row: dict[str, int]) -> None:
    if not 0 <= row["correct"] <= row["n"] or row["n"] < 1:
        raise ValueError(f"correct={row['correct']} of n={row['n']}")
    if not 1 <= row["eval_task"] <= row["after_task"]:
        raise ValueError(f"eval_task={row['eval_task']} after_task={row['after_task']}")
    if scenario not in (*SCENARIOS, *LATER_SCENARIOS):
        accepted = ", ".join((*SCENARIOS, *LATER_SCENARIOS))
        raise ValueError(f"scenario '{scenario}' (accepted: {accepted})")
