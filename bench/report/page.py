"""The HTML page: one file with its tables and figures inside, so that it can be mailed."""

from __future__ import annotations

import re
from html import escape

import pandas as pd

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; } tr.first td { border-top: 2px solid #bbb; }
figure { margin: 2rem 0; } figure svg { max-width: 100%; height: auto; } figcaption { color: #555; }
.note { background: #fff6dd; padding: .6rem 1rem; border-left: 4px solid #e0b000; }
"""


def table_html(table: pd.DataFrame) -> str:
    """A table with every value escaped; a new benchmark starts with a rule."""
    if not len(table):
        return "<p>none</p>"
    head = "".join(f"<th>{escape(str(column))}</th>" for column in table.columns)
    rows, previous = [], None
    for values in table.itertuples(index=False):
        first = values[0] != previous
        previous = values[0]
        cells = "".join(f"<td>{escape(str(value))}</td>" for value in values)
        rows.append(f"<tr{' class=first' if first else ''}>{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def inline_svg(svg: str, prefix: str) -> str:
    """An SVG document as an element; its ids get a prefix, since several figures share the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    return re.sub(r'href="#', f'href="#{prefix}-', body)


def page(title: str, notes: list[str], sections: list[tuple[str, str, str]]) -> str:
    """sections: (heading, text, html)."""
    parts = [
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
    ]
    parts.append(f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>")
    parts += [f"<p class=note>{escape(note)}</p>" for note in notes]
    for heading, text, html in sections:
        parts.append(f"<section><h2>{escape(heading)}</h2><p>{escape(text)}</p>{html}</section>")
    return "\n".join(parts) + "\n</body></html>\n"


def figure_html(svg: str, name: str, caption: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9]+", "-", name)
    return f"<figure>{inline_svg(svg, slug)}<figcaption>{escape(caption)}</figcaption></figure>"
