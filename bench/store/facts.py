"""suite.json: what the report needs to know of a suite besides its tables."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.store import formats
from bench.store.files import write_text


@dataclass(frozen=True)
class SuiteFacts:
    """reference: the row that others are compared with; "" = none, None = the first one.

    beside: suites whose rows its report shows too. figure_rows: rows (or patterns of their names)
    that are drawn where there are too many rows for one figure.
    """

    reference: str | None = None
    beside: tuple[str, ...] = ()
    figure_rows: tuple[str, ...] = ()


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
            content["reference"], tuple(content["beside"]), tuple(content["figure_rows"])
        )
    except FileNotFoundError:
        return SuiteFacts()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file}: cannot be read ({error})") from error
