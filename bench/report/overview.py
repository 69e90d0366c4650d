"""reports/index.html: every report of a folder with its headline, size and verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from bench.report.page import HtmlTable, Section, Text, anchor, link, long, page
from bench.store.files import write_text

FILE = "summary.json"


class Summary(NamedTuple):
    """One line of the overview. finished: a day, "" where it is not known."""

    headline: str
    size: str
    finished: str
    verdict: str


def write_summary(out: Path, summary: Summary) -> None:
    """Write a report's summary, and the overview of the folder it lies in."""
    write_text(out / FILE, json.dumps(summary._asdict(), indent=1, ensure_ascii=False) + "\n")
    lines = []
    for file in sorted(out.parent.glob(f"*/{FILE}")):
        try:
            one = Summary(**json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            continue  # of another version: its report will be drawn again
        name = anchor(link(file.parent.name, "index.html"), file.parent.name)
        said = one.verdict or "not compared"
        lines.append((name, long(one.headline), one.size, one.finished, long(said)))
    heads = ["suite", "result", "size", "finished", "against the published results"]
    text = Text(
        "A suite stands here once its report is drawn into this folder (python -m bench.report "
        "SUITE). The project's published tables and figures are in its folder reports/reference."
    )
    table = HtmlTable(heads, lines, frozenset())
    write_text(out.parent / "index.html", page("Reports", [Section("Suites", [text, table])]))
