"""Did a run reproduce the published one? The sentence that the page and the overview say."""

from __future__ import annotations

import pandas as pd

from bench.paths import EXPECTED, REFERENCE, reference_folders
from bench.report.compare import Comparison
from bench.report.frames import Results, load


def verdict(results: Results) -> str:
    """In a sentence; "" where nothing is published to compare with, or no cell is of its recipe."""
    folder = results.folders.get(results.suite)
    if folder is None or folder.parent.name == REFERENCE:
        return "These are the results that this repository holds" if folder else ""
    found = reference_folders(folder.parent, results.suite)
    file = EXPECTED / f"{results.suite}.csv"
    if not found or not file.is_file():
        return ""
    said = Comparison(results, load(found[0], whole=False), pd.read_csv(file))
    return said.sentence() if len(said.rows) else ""
