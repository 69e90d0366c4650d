"""From the CSV files to data frames: accuracy matrices and metrics of every finished cell. Nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench import metrics
from bench.config.spec import UsageError
from bench.store.tables import PROTOCOL, RUNS, TABLES, TIMING, read_csv, read_metrics

CELL = ["run_id", "benchmark", "method", "order_seed", "seed"]
LABELS = {
    "hlgp": "HLGP (reconstructed)",
    "hlgp-independent": "independent prompts",
    "l2p": "L2P",
    "l2p++": "L2P++",
    "deep-l2p++": "deep L2P++",
    "dualprompt": "DualPrompt",
    "coda-prompt": "CODA-Prompt",
    "oneprompt": "one prompt (OnePrompt)",
    "linear": "linear",
    "ncm": "class means (NCM)",
    "linear-ncm": "linear + NCM routing",
    "finetune++": "fine-tuning, masked loss (FT++)",
    "finetune": "fine-tuning",
    "joint-linear": "joint, linear head",
    "joint-prompt": "joint, prompts",
}


def label(method: str) -> str:
    """A row's name for people; a method that is not listed keeps its own."""
    return LABELS.get(method, method)


@dataclass(frozen=True)
class Results:
    """What the CSV files hold, as frames with benchmark and method in every one; those not recorded are empty.

    runs: a row per cell (text). cells: a row per finished cell and scenario, every metric in percent; matrices: its accuracy
    matrix. curve: average accuracy after each task, in percent. losses: mean of each part of the loss in each epoch.
    movement, similarity: what training did to prompts and features (bench/movement.py). protocol: what each row was run with.
    """

    suite: str
    runs: pd.DataFrame
    timing: pd.DataFrame
    cells: pd.DataFrame
    curve: pd.DataFrame
    losses: pd.DataFrame
    movement: pd.DataFrame
    similarity: pd.DataFrame
    protocol: pd.DataFrame
    matrices: dict[tuple[str, str], np.ndarray]

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.runs["method"]))

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(self.runs["benchmark"]))

    def missing(self) -> pd.DataFrame:
        """Cells without a result, with status and reason."""
        return self.runs.loc[self.runs["status"] != "done", [*CELL[1:], "status", "reason"]]


def load(folder: Path) -> Results:
    """Read results/<suite>. Raises UsageError if the tables are absent, malformed or contradict each other."""
    runs = pd.DataFrame(read_csv(folder / "runs.csv", RUNS), columns=list(RUNS))
    rows = read_metrics(folder / "metrics.csv")
    if not len(runs):
        raise UsageError(f"{folder}/runs.csv: no cells")
    timing = pd.DataFrame(read_csv(folder / "timing.csv", TIMING), columns=list(TIMING))
    finished = set(runs.loc[runs["status"] == "done", "run_id"])
    foreign = sorted({row["run_id"] for row in rows} - finished)
    if foreign:
        raise UsageError(f"{folder}/metrics.csv: rows of '{foreign[0]}', which runs.csv does not list as done")
    silent = sorted(finished - {row["run_id"] for row in rows})
    if silent:
        raise UsageError(f"{folder}/runs.csv: '{silent[0]}' is done but metrics.csv has no rows of it")
    twice = runs[runs.duplicated(CELL[1:], keep=False)]
    if len(twice):
        raise UsageError(f"{folder}/runs.csv: two runs of one cell: {', '.join(twice['run_id'][:2])}")
    protocol = _protocol(folder)
    _refuse_mixed(folder, runs[runs["status"] == "done"], protocol)
    frame = pd.DataFrame(rows)
    cells, curves, matrices = [], [], {}
    for (run_id, scenario), part in frame.groupby(["run_id", "scenario"], sort=False) if len(frame) else []:
        try:
            matrix = metrics.check(_square(part, part["correct"] / part["n"], np.nan))
        except ValueError as error:
            raise UsageError(f"{folder}/metrics.csv: rows of '{run_id}' are not whole ({error})") from error
        matrices[run_id, scenario] = matrix
        first = part.iloc[0]
        name = {key: first[key] for key in CELL} | {"scenario": scenario, "tasks": len(matrix)}
        pooled = 100 * metrics.pooled_accuracy_curve(_square(part, part["n"], 0), _square(part, part["correct"], 0))
        images = int(part.loc[part["after_task"] == len(matrix), "n"].sum())
        more = {"pooled_last": pooled[-1], "pooled_mean": pooled.mean(), "test_images": images}
        cells.append(name | {key: 100 * compute(matrix) for key, compute in metrics.METRICS.items()} | more)
        for task, value in enumerate(metrics.average_accuracy_curve(matrix), start=1):
            curves.append(name | {"after_task": task, "accuracy": 100 * value})
    beside = {name: _beside(folder, name, runs) for name in ("losses", "movement", "similarity")}
    curve = pd.DataFrame(curves)
    return Results(folder.name, runs, timing, pd.DataFrame(cells), curve, **beside, protocol=protocol, matrices=matrices)


STREAM = ("train.epochs", "train.batch_size", "train.joint")  # what the batches served depend on besides data and seeds


def _refuse_mixed(folder: Path, done: pd.DataFrame, protocol: pd.DataFrame) -> None:
    """Raises UsageError where cells of one table were not run on the same images, weights and views.

    Rows of one benchmark must share data and weights; rows of one order, seed and training length the digest of every batch.
    """
    keys = protocol[protocol["key"].str.startswith("data.") | protocol["key"].isin(STREAM)]
    served = keys.groupby(["benchmark", "method"])["value"].agg(tuple).rename("served")
    wanted = protocol[protocol["key"] == "train.precision"].set_index(["benchmark", "method"])["value"].rename("wanted")
    done = done.join(served, on=["benchmark", "method"]).join(wanted, on=["benchmark", "method"]).fillna({"wanted": ""})
    groups = {
        "data_sha": ("images", ["benchmark"]),
        "weights_sha": ("weights", ["benchmark"]),
        "precision": ("precision", ["benchmark", "wanted"]),
        "stream_sha": ("class order, batches or views", ["benchmark", "order_seed", "seed", "served"]),
    }
    for column, (what, by) in groups.items():
        for _, part in done.groupby(by, sort=False):
            if part[column].nunique() > 1:
                one = part.drop_duplicates(column)
                raise UsageError(
                    f"{folder}/runs.csv: {column} of '{one['run_id'].iloc[0]}' and '{one['run_id'].iloc[1]}' differ: "
                    f"rows of one table need the same {what} (run the suite anew under another --name)"
                )


def _protocol(folder: Path) -> pd.DataFrame:
    """protocol.csv as text; empty where there is none."""
    file = folder / "protocol.csv"
    return pd.DataFrame(read_csv(file, PROTOCOL) if file.is_file() else [], columns=list(PROTOCOL))


def _beside(folder: Path, name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """A table of numbers, with benchmark and method of each row; empty where there is no such file."""
    columns = TABLES[name]
    rows = read_csv(folder / f"{name}.csv", columns) if (folder / f"{name}.csv").is_file() else []
    frame = pd.DataFrame(rows, columns=list(columns))
    numbers = [column for column in columns if column not in ("run_id", "part")]
    try:
        frame[numbers] = frame[numbers].apply(pd.to_numeric)
    except ValueError as error:
        raise UsageError(f"{folder}/{name}.csv: {error}") from error
    return frame.merge(runs[["run_id", "benchmark", "method"]], on="run_id")


def _square(part: pd.DataFrame, values: pd.Series, elsewhere: float) -> np.ndarray:
    """(tasks, tasks): the values of a run's rows by after_task and eval_task."""
    tasks = int(part["after_task"].max())
    square = np.full((tasks, tasks), float(elsewhere))
    square[part["after_task"] - 1, part["eval_task"] - 1] = values
    return square
