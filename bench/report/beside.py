"""Rows of other suites in a report: taken in only where they were run on what the suite's own rows were run on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.errors import UsageError
from bench.report import checks
from bench.report.labels import LABELS

Tables = dict[str, pd.DataFrame]
PLACE = ["benchmark", "order_seed", "seed"]
ROW = ["benchmark", "method"]


def joined(folder: Path, ours: Tables, other: Path, theirs: Tables) -> tuple[Tables, list[str]]:
    """Our tables with their rows of other names, on our benchmarks, orders and seeds; and what is not among them, in words.

    Each finished cell of theirs needs one of ours with the same training length and precision, and with it the same digests
    of images, weights and batches. Raises UsageError where one has none, or where nothing of theirs can be shown.
    """
    where = f"rows of {other} beside those of {folder}"
    for place, tables in ((folder, ours), (other, theirs)):
        if not len(tables["protocol"]):
            raise UsageError(
                f"{where}: no {place}/protocol.csv, so whether they had the same batches cannot be checked"
            )
    runs = theirs["runs"]
    notes = _of_known_names(folder, ours, other, theirs)
    new = runs[~runs["method"].isin(ours["runs"]["method"])]
    settings = new["method"].str.contains("@")
    placed = new[~settings].merge(ours["runs"][PLACE].drop_duplicates(), on=PLACE)
    if not (placed["status"] == "done").any():
        raise UsageError(
            f"{where}: {other} has no finished cell of another row on the same benchmark, order and seed"
        )
    if settings.any():
        notes.append(
            f"{other}: rows NAME@VALUE are settings of a search and shown in its own report"
        )
    elsewhere = int((~settings).sum()) - len(placed)
    if elsewhere:
        notes.append(
            f"{other}: {elsewhere} cells on other benchmarks, orders or seeds than those of {folder} are not shown"
        )
    rows = {
        name: table[table["run_id"].isin(placed["run_id"])]
        for name, table in theirs.items()
        if "run_id" in table
    }
    rows["runs"] = placed
    rows["protocol"] = theirs["protocol"].merge(placed[ROW].drop_duplicates(), on=ROW)
    _refuse_unmatched(where, _trained(ours), _trained(rows))
    both = {name: _stacked(table, rows[name]) for name, table in ours.items()}
    checks.refuse_mixed(where, both["runs"][both["runs"]["status"] == "done"], both["protocol"])
    ranks = {"benchmark": [*ours["runs"]["benchmark"].unique()], "method": [*LABELS]}
    rank = {
        name: {value: number for number, value in enumerate(values)}
        for name, values in ranks.items()
    }
    for (
        name,
        table,
    ) in both.items():  # benchmark by benchmark, known names first; the order of equals stays
        both[name] = table.sort_values(
            ROW, key=lambda column: column.map(rank[column.name]).fillna(len(LABELS)), kind="stable"
        )
    return both, notes


def _of_known_names(folder: Path, ours: Tables, other: Path, theirs: Tables) -> list[str]:
    """A line for each row of theirs that has the name of one of ours but other settings or other counts."""
    notes = []
    for method in theirs["runs"]["method"].unique():
        if not (ours["runs"]["method"] == method).any():
            continue
        settings, counts = (
            [tables[name].loc[tables[name]["method"] == method] for tables in (ours, theirs)]
            for name in ("protocol", "metrics")
        )
        common = settings[0].merge(settings[1], on=[*ROW, "key"])
        cells = counts[0].merge(counts[1], on=[*PLACE, "scenario", "after_task", "eval_task"])
        if (common["value_x"] != common["value_y"]).any():
            notes.append(
                f"{other}: its row '{method}' has other settings than that of {folder}, which is shown"
            )
        elif (cells["correct_x"] != cells["correct_y"]).any():
            notes.append(
                f"{other}: its row '{method}' has the settings but not the counts of that of {folder}, which is shown"
            )
    return notes


def _trained(tables: Tables) -> pd.DataFrame:
    """Finished cells with what their batches and numbers depend on besides data, weights and seeds."""
    runs = tables["runs"]
    return runs[runs["status"] == "done"].join(checks.training(tables["protocol"]), on=ROW)


def _refuse_unmatched(where: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Raises UsageError where a cell has none of ours on its benchmark, order and seed that was trained alike."""
    same = [*checks.STREAM, "precision"]
    alike = theirs.merge(
        ours[PLACE + same].drop_duplicates(), on=PLACE + same, how="left", indicator=True
    )
    alone = alike[alike["_merge"] == "left_only"]
    if len(alone):
        cell = alone.iloc[0]
        there = ours.merge(cell[PLACE].to_frame().T, on=PLACE)[same].drop_duplicates()
        said = [", ".join(f"{key}={row[key]}" for key in same) for _, row in there.iterrows()]
        its = ", ".join(f"{key}={cell[key]}" for key in same)
        raise UsageError(
            f"{where}: '{cell['run_id']}' was run with {its}; those have {' or '.join(said) or 'nothing finished'} on this "
            "benchmark, order and seed (run it with the same, by --set)"
        )


def _stacked(above: pd.DataFrame, below: pd.DataFrame) -> pd.DataFrame:
    """One table of two; an empty one, whose columns have no type yet, takes no part."""
    return (
        pd.concat([above, below], ignore_index=True)
        if len(above) and len(below)
        else above
        if len(above)
        else below
    )
