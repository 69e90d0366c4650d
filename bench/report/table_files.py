"""A table's files: Markdown for people, CSV with every digit, LaTeX for a paper."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tabulate import tabulate

from bench.store.files import write_text

WITHOUT_LATEX = ("protocol",)  # a column a row: no page is so wide
MAX_CHARACTERS = 60  # in a column of LaTeX; more are broken into lines
PAGE_CHARACTERS = 105  # in a line across a page, in the size of footnotes
NAME_COLUMNS = ("benchmark", "method")  # in a table made for LaTeX all but names is LaTeX already
LAST_OF_LATIN = 0x180  # of letters that pdflatex's fonts have
TYPOGRAPHY = "–—‘’“”…±†"
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
} | {char: "\\" + char for char in "_%&#${}"}


class ReportTable(NamedTuple):
    """A table with every digit, as people read it, and its LaTeX if that is not made from it."""

    name: str
    exact: pd.DataFrame
    shown: pd.DataFrame
    latex: pd.DataFrame | None = None


def markdown(table: pd.DataFrame) -> str:
    """A table of GitHub's kind; a bar in a name is no border."""
    escaped = table.rename(columns=_without_bars).map(_without_bars)
    return tabulate(
        escaped, headers="keys", tablefmt="github", showindex=False, disable_numparse=True
    )


def _without_bars(value: object) -> object:
    return value.replace("|", "\\|") if isinstance(value, str) else value


def csv_text(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format=_digits, lineterminator="\n")


def _digits(value: float) -> str:
    """Six decimals, and at least four digits that say something: drift is often below 0.0001."""
    return f"{value:.6f}" if value == 0 or abs(value) >= 0.001 else f"{value:.4g}"


def latex(table: ReportTable) -> str:
    r"""A tabular environment of booktabs, for \input, every name escaped."""
    source = (table.shown if table.latex is None else table.latex).astype(str)
    for column in source:
        if table.latex is None or column in NAME_COLUMNS or column.endswith(" minus"):
            source[column] = source[column].map(escape_latex)
    source.columns = [escape_latex(str(column)) for column in source.columns]
    text = tabulate(
        source, headers="keys", tablefmt="latex_raw", showindex=False, disable_numparse=True
    )
    longest = {column: max(map(len, (column, *source[column]))) for column in source}
    if wide := [column for column in source if longest[column] > MAX_CHARACTERS]:
        taken = sum(longest[column] + 2 for column in source if column not in wide)
        share = max(1 - taken / PAGE_CHARACTERS, 0.2) / len(wide)
        broken = rf"p{{{share:.2f}\linewidth}}"
        spec = "".join(broken if column in wide else "l" for column in source)
        text = text.replace("{" + "l" * source.shape[1] + "}", "{" + spec + "}", 1)
    for rule in ("toprule", "midrule", "bottomrule"):
        text = text.replace(r"\hline", "\\" + rule, 1)
    return text.replace("±", r"$\pm$").replace("–", "--").replace("†", r"$\dagger$")


def escape_latex(text: str) -> str:
    """A name as LaTeX text that compiles, with any characters; those that no font of pdflatex has
    are said by their numbers. At the start of a row [ and * would belong to the row before.
    """
    start = "{}" if text[:1] in ("[", "*") else ""
    return start + "".join(map(_latex_char, text))


def _latex_char(char: str) -> str:
    if char in LATEX_SPECIAL or ord(char) < LAST_OF_LATIN or char in TYPOGRAPHY:
        return LATEX_SPECIAL.get(char, char)
    name = unicodedata.name(char, "").lower()
    letter = name.removeprefix("greek small letter ").replace("lamda", "lambda")
    if letter != name and letter.isalpha() and letter != "omicron":  # which LaTeX does not have
        return rf"\ensuremath{{\{letter}}}"
    return f"U+{ord(char):04X}"


def write(folder: Path, table: ReportTable, tracked: bool = False) -> list[Path]:
    """Write folder/NAME.md, and .csv and .tex unless tracked; return the files."""
    texts = {"md": markdown(table.shown) + "\n"}
    if not tracked:
        texts["csv"] = csv_text(table.exact)
        if table.name not in WITHOUT_LATEX:
            texts["tex"] = latex(table) + "\n"
    files = []
    for kind, text in texts.items():
        files.append(folder / f"{table.name}.{kind}")
        write_text(files[-1], text)
    return files
