"""Rows of one comparison that were made by different codes."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from bench.store.codes import Codes
from bench.store.tables import NOT_RECORDED

OTHER = "Another engine code than that of most rows"
PROVED = "; {} of {} methods were run again under it and gave the same bytes"
MIXED = "Cells of one row were made by different codes"


def of_other_code(
    runs: pd.DataFrame, protocol: pd.DataFrame, codes: Codes
) -> dict[tuple[str, str], str]:
    """OTHER or MIXED by benchmark and method; codes known to give the same bytes count as one.

    Rows of a benchmark share the engine's half of their code_sha (bench/code.py). Those that do not
    have the half that most rows have are marked. OTHER says of how many methods that have it both
    halves were proved to give the same bytes. The row stays marked, since what holds for one method
    need not for another.
    """
    types = (
        protocol[protocol["key"] == "type"].set_index(["benchmark", "method"])["value"].to_dict()
    )
    marked: dict[tuple[str, str], str] = {}
    done = runs[runs["status"] == "done"]
    for benchmark, rows in done.groupby("benchmark", sort=False):
        engines: dict[str, frozenset[str]] = {}
        kinds = {method: types.get((benchmark, method), method) for method in rows["method"]}
        for method, cells in rows.groupby("method", sort=False):
            pairs = cells[["suite", "code_sha"]].drop_duplicates().itertuples(index=False)
            known = {codes.known(suite, kinds[method], code) for suite, code in pairs}
            if len(known) > 1:
                marked[benchmark, method] = MIXED
            engines[method] = frozenset(_engine(name) for names in known for name in names)
        counts = Counter(engine for each in engines.values() for engine in each)
        usual = max(counts, key=lambda engine: counts[engine])
        for method, each in engines.items():
            if usual not in each:
                under = {m: others for m, others in engines.items() if usual in others}
                same = {kinds[m] for m, others in under.items() if each & others}
                said = PROVED.format(len(same), len({kinds[m] for m in under})) if same else ""
                marked.setdefault((benchmark, method), OTHER + said)
    return marked


def _engine(name: str) -> str:
    """The engine's half of a code; what was not recorded is one, since nothing else is known."""
    return NOT_RECORDED if name.startswith(NOT_RECORDED) else name.partition("-")[0]
