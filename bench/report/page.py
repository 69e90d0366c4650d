"""HTML pages from blocks: each page is one file with its style, script and figures inside."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

ENVIRONMENT = Environment(
    loader=PackageLoader("bench.report", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


class Files(NamedTuple):
    """Files of one thing, one click away: its name in their folder, and their endings."""

    folder: str
    name: str
    kinds: tuple[str, ...] = ("csv", "md", "tex")
    kind: str = "files"

    def links(self) -> list[tuple[str, str]]:
        return [(kind.upper(), link(self.folder, f"{self.name}.{kind}")) for kind in self.kinds]


class HtmlTable(NamedTuple):
    """A table's cells. rules: rows with a rule above; None: each new value in the first column.

    turned: the heads stand upright, so that many narrow columns fit.
    """

    columns: list[str]
    rows: list[tuple]
    rules: frozenset[int] | None = None
    files: Files | None = None
    turned: bool = False
    kind: str = "table"


class Switch(NamedTuple):
    """Tables of which one is seen, by the names of the buttons that show them."""

    name: str
    choices: list[tuple[str, HtmlTable]]
    kind: str = "switch"


class HtmlFigure(NamedTuple):
    """An SVG element, which is not escaped, its caption, and its files."""

    svg: str
    caption: str
    files: Files
    kind: str = "figure"


class Items(NamedTuple):
    """A list of sentences; important: set apart as a note."""

    items: list[Any]
    important: bool = False
    kind: str = "items"


class Text(NamedTuple):
    text: str
    kind: str = "text"


class Code(NamedTuple):
    """Lines as they are: a command, a log."""

    text: str
    kind: str = "code"


class Rows(NamedTuple):
    """Which rows figures show: (method, label, colour, its line's dashes, its marker as a path one
    unit wide, shown at first). where: the names of these figures.
    """

    where: str
    rows: list[tuple[str, str, str, tuple[float, ...], str, bool]]
    kind: str = "rows"


class More(NamedTuple):
    """Blocks that are seen after a click."""

    summary: str
    blocks: list[Any]
    kind: str = "more"


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    heading: str
    blocks: list[Any]

    @property
    def anchor(self) -> str:
        """Its name in a link."""
        return re.sub(r"[^a-z0-9]+", "-", self.heading.lower()).strip("-")


def link(*parts: str) -> str:
    """A relative address of a file."""
    return "/".join(quote(part) for part in parts)


def file_name(name: str) -> str:
    """A name for a file that any system takes; names that differ keep different ones."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "-", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def anchor(address: str, text: str) -> Markup:
    """A link as HTML."""
    return Markup('<a href="{}">{}</a>').format(address, text)


def long(text: str) -> Markup:
    """Text of a table's cell that may take several lines."""
    return Markup('<span class="long">{}</span>').format(text)


def html_table(table: pd.DataFrame, files: Files | None = None) -> HtmlTable:
    rows = list(table.itertuples(index=False, name=None))
    return HtmlTable(list(table.columns), rows, files=files)


def html_figure(svg: str, name: str, caption: str) -> HtmlFigure:
    """An SVG document as an element; its ids get a prefix, since several figures share the page."""
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    said = Markup('<svg role="img" aria-label="{}" ').format(caption)
    body = body.replace("<svg ", said, 1)
    return HtmlFigure(body, caption, Files("figures", name, ("png", "svg", "csv")))


def page(
    title: str,
    sections: Iterable[Section],
    lead: Iterable[Any] = (),
    back: tuple[str, str] | None = None,
) -> str:
    """The page as text; whatever is not a figure is escaped.

    lead: blocks above the first section. back: address and name of the page above this one.
    """
    template = ENVIRONMENT.get_template("page.html.j2")
    return template.render(title=title, lead=list(lead), sections=list(sections), back=back)
