"""suite.json: what the report needs to know of a suite besides its tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.store import formats
from bench.store.files import write_text


@dataclass(frozen=True)
class SuiteFacts:
    """reference: the row that others are compared with; "" = none, None = the first one.

    beside: suites whose rows its report shows too. figure_rows: rows (or patterns of their names)
    that are drawn where there are too many rows for one figure. suite: the name of the suite's
    file, wherever that lies; "" = not recorded.
    """

    reference: str | None = None
    beside: tuple[str, ...] = ()
    figure_rows: tuple[str, ...] = ()
    suite: str = ""


def write_facts(folder: Path, facts: SuiteFacts) -> None:
    content = {"format": formats.TABLES, **dataclasses.asdict(facts)}
    write_text(folder / "suite.json", json.dumps(content, indent=1) + "\n")


def read_facts(folder: Path) -> SuiteFacts:
    """The facts, or their defaults where the folder has none. Raises UsageError."""
    file = folder / "suite.json"
    try:
        content = json.loads(file.read_text("utf-8"))
        number = content.pop("format")
        if number != formats.TABLES:
            raise UsageError(f"{file}: format {number}, this version reads {formats.TABLES}")
        return SuiteFacts(
            content["reference"],
            tuple(content["beside"]),
            tuple(content["figure_rows"]),
            str(content.get("suite", "")),
        )
    except FileNotFoundError:
        return SuiteFacts()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file}: cannot be read ({error})") from error


def common_facts(folders: Iterable[Path]) -> SuiteFacts | None:
    """The facts of folders with results of one suite; None where none of them has any.

    A folder whose suite is not recorded goes with every suite, and so do all of them together.
    Raises UsageError where two of them disagree.
    """
    known = {folder: read_facts(folder) for folder in folders if (folder / "suite.json").exists()}
    if not known:
        return None
    first, *_ = known
    named = [folder for folder, facts in known.items() if facts.suite]
    for folder in named[1:]:
        what = f"of the suite '{known[named[0]].suite}', {folder} of '{known[folder].suite}'"
        if known[folder].suite != known[named[0]].suite:
            raise UsageError(f"{named[0]} holds results {what}")
    for folder in known:
        for name in ("reference", "beside", "figure_rows"):
            values = [getattr(known[one], name) for one in (first, folder)]
            if values[0] != values[1]:
                what = f"'{name}' is {values[0]!r} and {values[1]!r}"
                raise UsageError(f"{first}/suite.json, {folder}/suite.json: two suites: {what}")
    whole = len(named) == len(known)
    return dataclasses.replace(known[first], suite=known[first].suite if whole else "")


def refuse_other_suite(folder: Path, suite: str) -> None:
    """Raises UsageError where a folder is known to hold the results of another suite's file."""
    known = read_facts(folder).suite
    if known and known != suite:
        what = f"holds results of the suite '{known}', not of '{suite}'"
        raise UsageError(f"{folder}: {what} (give another --name)")
