"""The HTML page: one file with its tables and figures inside, so that it can be mailed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

ENVIRONMENT = Environment(
    loader=PackageLoader("bench.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


class HtmlTable(NamedTuple):
    """A table's cells. rules: rows with a rule above; None: each new value in the first column."""

    columns: list[str]
    rows: list[tuple]
    rules: frozenset[int] | None = None


class HtmlFigure(NamedTuple):
    """An SVG element, which is not escaped, and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and what follows it: statements, a table, figures."""

    heading: str
    text: str
    table: HtmlTable | None = None
    figures: tuple[HtmlFigure, ...] = ()
    statements: tuple[str, ...] = ()
    more_tables: tuple[HtmlTable, ...] = ()

    @property
    def anchor(self) -> str:
        """Its name in a link."""
        return re.sub(r"[^a-z0-9]+", "-", self.heading.lower()).strip("-")


def html_table(table: pd.DataFrame) -> HtmlTable:
    return HtmlTable(list(table.columns), list(table.itertuples(index=False, name=None)))


def html_figure(svg: str, name: str, caption: str) -> HtmlFigure:
    """An SVG document as an element; its ids get a prefix, since several figures share the page."""
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    return HtmlFigure(body, caption)


def page(title: str, notes: Iterable[str], sections: Iterable[Section]) -> str:
    """The page as text; whatever is not a figure is escaped."""
    template = ENVIRONMENT.get_template("page.html.j2")
    return template.render(title=title, notes=list(notes), sections=list(sections))
