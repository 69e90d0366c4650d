"""Do two codes give the same bytes? `python -m bench.check same SUITE`.

A sample of the suite's finished cells is run again with today's code on this machine, at least one
cell of each method and of each code. Where all of them are the same bytes, the codes are recorded
as the same (bench/store/codes.py).
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bench import cli
from bench.code import code_sha
from bench.config.spec import RunSpec
from bench.errors import UsageError
from bench.launch.display import make_display
from bench.launch.pool import Pool, run_local
from bench.paths import SAME_CODE
from bench.store.codes import record_same
from bench.store.collect import TableRows, rows_of_done, rows_of_run
from bench.store.rundir import RunDir
from bench.store.tables import LATER_TABLES, TABLES, Rows

COMPARED = [name for name in TABLES if name != "timing"]


def check_same(
    folder: Path, cells: Iterable[RunSpec], count: int, seed: int, jobs: int, device: str
) -> int:
    """Run a sample of these cells again and compare it with the tables in `folder`.

    Prints a line for each cell. Returns 0 and records the codes where all are the same, else 1.
    """
    before = rows_of_done(folder, cells)
    finished = [cell for cell in cells if cell.run_id in before]
    if not finished:
        raise UsageError(f"{folder}: no finished cell of this suite's recipe")
    sample = draw(finished, before, count, seed)
    with tempfile.TemporaryDirectory() as scratch:
        fixed = [_as_before(cell, before[cell.run_id]) for cell in sample]
        failed = run_local(Pool(Path(scratch), fixed, make_display("auto")), jobs, device)
        found = [
            _difference(before[cell.run_id], RunDir.of(Path(scratch), run), failed)
            for cell, run in zip(sample, fixed, strict=True)
        ]
    for cell, difference in zip(sample, found, strict=True):
        print(f"{difference or 'the same bytes'}: {cell.run_id}")
    same = sum(not difference for difference in found)
    print(
        f"{folder.name}: {same} of {len(sample)} cells are the same bytes (drawn with seed {seed})"
    )
    if same < len(sample):
        return cli.CHECK_FAILED
    links = _links(sample, before)
    if links:
        record_same(folder.parent / SAME_CODE, links)
        print(
            f"{len(links)} code(s) recorded as the same as today's in {folder.parent / SAME_CODE}"
        )
    return cli.FINE


def draw(
    cells: list[RunSpec], before: dict[str, TableRows], count: int, seed: int
) -> list[RunSpec]:
    """At least one cell of each method and each code, and `count` in all if there are so many."""
    shuffled = list(cells)
    random.Random(seed).shuffle(shuffled)
    kinds: dict[tuple[str, str, str], RunSpec] = {}
    for cell in shuffled:
        today = code_sha(cell.type, cell.data.name)
        kinds.setdefault((cell.type, before[cell.run_id].code, today), cell)
    chosen = list(kinds.values())
    chosen += [cell for cell in shuffled if cell not in chosen][: max(0, count - len(chosen))]
    return [cell for cell in cells if cell in chosen]


def _as_before(cell: RunSpec, before: TableRows) -> RunSpec:
    """The cell in the precision that `auto` was when it ran."""
    precision = before.state.get("precision") or cell.train.precision
    return replace(cell, train=replace(cell.train, precision=precision))


def _difference(before: TableRows, run: RunDir, failed: dict[str, str]) -> str:
    """In what a cell that was run again differs from its rows; "" = in nothing."""
    if run.path.name in failed:
        return failed[run.path.name]
    again = rows_of_run(run)
    for name in COMPARED:
        old, new = before.tables[name], again.tables[name]
        if name in LATER_TABLES and not old:
            continue  # not recorded then
        if name == "metrics":  # nor were the scenarios of an aligned head
            recorded = {row["scenario"] for row in old}
            new = [row for row in new if row["scenario"] in recorded]
        different = sum(_text(a) != _text(b) for a, b in zip(old, new, strict=False))
        different += abs(len(old) - len(new))
        if different:
            return f"{different} of {max(len(old), len(new))} rows of {name}.csv differ"
    return ""


def _text(row: dict) -> list[str]:
    return [str(value) for key, value in row.items() if key != "run_id"]


def _links(sample: list[RunSpec], before: dict[str, TableRows]) -> Rows:
    """Rows of same_code.csv: for each old code, today's and how many cells showed it."""
    links: dict[tuple[str, str, str], dict] = {}
    for cell in sample:
        old, new = before[cell.run_id].code, code_sha(cell.type, cell.data.name)
        if old != new:
            row = {"suite": cell.suite, "method": cell.type, "old_code": old, "new_code": new}
            links.setdefault((cell.type, old, new), row | {"cells": 0})["cells"] += 1
    return list(links.values())
