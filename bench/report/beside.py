"""Rows of other suites in a report: only rows that were run on the same as the suite's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bench.errors import UsageError
from bench.report import checks
from bench.report.checks import ROW_KEYS
from bench.report.rows import KINDS, ROWS, row_of

Tables = dict[str, pd.DataFrame]
PAIR_KEYS = ["benchmark", "order_seed", "seed"]
TRAINED_ALIKE = [*checks.STREAM_KEYS, "precision"]


def joined(folder: Path, ours: Tables, other: Path, theirs: Tables) -> tuple[Tables, list[str]]:
    """Our tables with the other suite's rows of new names, and a note for what is not shown.

    Rows are taken on benchmarks, orders and seeds of which we have finished cells. Each finished
    cell of theirs needs one of ours with the same training length and precision, and then the same
    digests of images, weights and batches. Raises UsageError if a cell has none, or if nothing of
    theirs can be shown.
    """
    where = f"rows of {other} beside those of {folder}"
    for source, tables in ((folder, ours), (other, theirs)):
        if not len(tables["protocol"]):
            raise UsageError(
                f"{where}: no {source}/protocol.csv, "
                "so whether they had the same batches cannot be checked"
            )
    notes = _of_known_names(folder, ours, other, theirs)
    chosen, unshown = _chosen(where, folder, ours["runs"], other, theirs["runs"])
    rows = _rows_of(theirs, chosen)
    _refuse_unmatched(where, _trained(ours), _trained(rows))
    both = {name: _stacked(table, rows[name]) for name, table in ours.items()}
    checks.refuse_mixed(where, both["runs"][both["runs"]["status"] == "done"], both["protocol"])
    return both, notes + unshown


def _chosen(
    where: str, folder: Path, ours: pd.DataFrame, other: Path, theirs: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """Their cells that can stand beside ours, and a note for each kind that cannot."""
    new = theirs[~theirs["method"].isin(ours["method"])]
    settings = new["method"].str.contains("@")
    # While a grid runs, an order of ours may not be finished: it is left out and not refused.
    finished = ours.loc[ours["status"] == "done", PAIR_KEYS].drop_duplicates()
    chosen = new[~settings].merge(finished, on=PAIR_KEYS)
    if not (chosen["status"] == "done").any():
        raise UsageError(
            f"{where}: {other} has no finished cell of another row "
            "on the same benchmark, order and seed"
        )
    notes = []
    if settings.any():
        notes.append(
            f"{other}: rows NAME@VALUE are settings of a search and shown in its own report"
        )
    elsewhere = int((~settings).sum()) - len(chosen)
    if elsewhere:
        notes.append(
            f"{other}: {elsewhere} cells on other benchmarks, orders or seeds than those "
            f"finished in {folder} are not shown"
        )
    return chosen, notes


def _rows_of(tables: Tables, runs: pd.DataFrame) -> Tables:
    """The rows of these runs in all tables."""
    rows = {
        name: table[table["run_id"].isin(runs["run_id"])]
        for name, table in tables.items()
        if "run_id" in table
    }
    protocol = tables["protocol"].merge(runs[ROW_KEYS].drop_duplicates(), on=ROW_KEYS)
    environments = tables["environments"]
    return rows | {"runs": runs, "protocol": protocol, "environments": environments}


def kinds_of(methods: Iterable[str], protocol: pd.DataFrame) -> dict[str, str]:
    """Each row's kind: joint if protocol.csv says so, else as in rows.csv."""
    joint = protocol[protocol["key"] == "train.joint"]
    of_all_classes = set(joint.loc[joint["value"] == "True", "method"])
    return {m: "joint" if m in of_all_classes else row_of(m).kind for m in methods}


def in_order(tables: Tables) -> Tables:
    """Benchmark by benchmark; methods, then reference rows, then joint ones, each in the order of
    rows.csv. Rows of equal rank keep theirs.
    """
    runs = tables["runs"]
    kinds = kinds_of(runs["method"].unique(), tables["protocol"])
    places = {name: place for place, name in enumerate(ROWS)}
    ranks = {
        "benchmark": {name: place for place, name in enumerate(runs["benchmark"].unique())},
        "method": {
            method: KINDS.index(kind) * (len(ROWS) + 1) + places.get(method, len(ROWS))
            for method, kind in kinds.items()
        },
    }

    def rank(column: pd.Series) -> pd.Series:
        return column.map(ranks[column.name])

    return {
        name: table.drop_duplicates("env_sha")
        if name == "environments"
        else table.sort_values(ROW_KEYS, key=rank, kind="stable")
        for name, table in tables.items()
    }


def _of_known_names(folder: Path, ours: Tables, other: Path, theirs: Tables) -> list[str]:
    """A note for each row of theirs that has the name of one of ours but is not equal to it."""
    notes = []
    for method in theirs["runs"]["method"].unique():
        if (ours["runs"]["method"] == method).any():
            difference = _difference(method, ours, theirs)
            if difference:
                notes.append(
                    f"{other}: its row '{method}' has {difference} that of {folder}, which is shown"
                )
    return notes


def _difference(method: str, ours: Tables, theirs: Tables) -> str:
    """In which way two rows of one name differ; empty if they are equal."""
    settings, counts = (
        [tables[name].loc[tables[name]["method"] == method] for tables in (ours, theirs)]
        for name in ("protocol", "metrics")
    )
    common = settings[0].merge(settings[1], on=[*ROW_KEYS, "key"])
    cells = counts[0].merge(counts[1], on=[*PAIR_KEYS, "scenario", "after_task", "eval_task"])
    if (common["value_x"] != common["value_y"]).any():
        return "other settings than"
    if (cells["correct_x"] != cells["correct_y"]).any():
        return "the settings but not the counts of"
    return ""


def _trained(tables: Tables) -> pd.DataFrame:
    """Finished cells with the settings that decide on their batches, beside data and seeds."""
    runs = tables["runs"]
    return runs[runs["status"] == "done"].join(checks.training(tables["protocol"]), on=ROW_KEYS)


def _refuse_unmatched(where: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Raises UsageError if no cell of ours on the same benchmark, order and seed trained alike."""
    keys = PAIR_KEYS + TRAINED_ALIKE
    matched = theirs.merge(ours[keys].drop_duplicates(), on=keys, how="left", indicator=True)
    unmatched = matched[matched["_merge"] == "left_only"]
    if len(unmatched):
        cell = unmatched.iloc[0]
        candidates = ours.merge(cell[PAIR_KEYS].to_frame().T, on=PAIR_KEYS)
        said = [_settings(row) for _, row in candidates[TRAINED_ALIKE].drop_duplicates().iterrows()]
        raise UsageError(
            f"{where}: '{cell['run_id']}' was run with {_settings(cell)}; those have "
            f"{' or '.join(said) or 'nothing finished'} on this benchmark, order and seed "
            "(run it with the same, by --set)"
        )


def _settings(cell: pd.Series) -> str:
    return ", ".join(f"{key}={cell[key]}" for key in TRAINED_ALIKE)


def _stacked(above: pd.DataFrame, below: pd.DataFrame) -> pd.DataFrame:
    """One table of two; an empty one, whose columns have no type yet, is left out."""
    if len(above) and len(below):
        return pd.concat([above, below], ignore_index=True)
    return above if len(above) else below
