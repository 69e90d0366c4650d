"""The answer as a paper prints it: methods as rows, benchmarks as columns, and a sentence for each.

On each benchmark the methods are compared with the best of them, over the class orders and seeds
that both have: t test over pairs, corrected at 5% (Holm) for all pairs of methods, since the same
numbers say which is the best. Reference and joint rows stand below a rule and take no part.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from bench.report.frames import Results
from bench.report.page import HtmlTable
from bench.report.rows import KINDS, label, row_of
from bench.report.table_files import escape_latex
from bench.report.tables import MARK, by_order_and_seed, in_common, select
from bench.stats import half_width, holm, paired_t, summarise

LEVEL = 0.05
UNDECIDED = ("level", "untested")  # ranks of which it cannot be said that the best is above them


@dataclass(frozen=True)
class Standing:
    """A row on a benchmark: mean and half width of its 95% t interval in percent, and cells.

    p: of the comparison with the best method, corrected; NaN for the best and for rows that take no
    part. rank: "best", "level" (no difference from the best can be told), "below", "untested"
    (fewer than two pairs with the best: neither level nor below) or "".
    """

    mean: float
    half_width: float
    n: int
    p: float = float("nan")
    rank: str = ""


class Answer(NamedTuple):
    """standings by (benchmark, method); the methods of each kind, in order; their printed names.

    ps: of each two methods of a benchmark, corrected.
    """

    standings: dict[tuple[str, str], Standing]
    rows: dict[str, list[str]]
    names: dict[str, str]
    ps: dict[str, dict[frozenset[str], float]]


def answer(results: Results, metric: str = "faa", scenario: str = "class") -> Answer:
    """How the rows stand by one metric. For every metric but forgetting more is better."""
    sign = -1 if metric == "forgetting" else 1
    rows: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for method in results.methods:
        rows[results.kinds[method]].append(method)
    standings: dict[tuple[str, str], Standing] = {}
    corrected = {}
    for benchmark in results.benchmarks:
        cells = {m: select(results, benchmark, m, scenario) for m in results.methods}
        known = {m: _standing(c[metric].to_numpy()) for m, c in cells.items() if len(c)}
        known = {m: standing for m, standing in known.items() if standing.n}
        methods = [m for m in rows["method"] if m in known]
        if len(methods) > 1:
            # A mean of one cell cannot be tested, so it is the best only where all are such.
            several = [m for m in methods if known[m].n > 1] or methods
            best = max(several, key=lambda m: sign * known[m].mean)
            ps = corrected[benchmark] = _of_pairs({m: cells[m] for m in methods}, metric)
            for method in methods:
                p = ps.get(frozenset((best, method)), float("nan"))
                rank = "best" if method == best else _rank(p)
                known[method] = replace(known[method], p=p, rank=rank)
        standings |= {(benchmark, m): standing for m, standing in known.items()}
    marked = {method for _, method in results.of_other_code}
    names = {m: label(m) + (MARK if m in marked else "") for m in results.methods}
    return Answer(standings, rows, names, corrected)


def _rank(p: float) -> str:
    if np.isnan(p):
        return "untested"
    return "below" if p < LEVEL else "level"


def _standing(values: np.ndarray) -> Standing:
    mean, _, n = summarise(values)
    return Standing(mean, float(half_width(values[~np.isnan(values)])), n)


def _of_pairs(cells: dict[str, pd.DataFrame], metric: str) -> dict[frozenset[str], float]:
    """p of each two rows over the orders and seeds of both, corrected for the number of pairs."""
    values = {
        m: {key: value for key, value in by_order_and_seed(of, metric).items() if value == value}
        for m, of in cells.items()
    }
    pairs = list(itertools.combinations(values, 2))
    ps = [paired_t(*in_common(values[first], values[second]).T) for first, second in pairs]
    return dict(zip(map(frozenset, pairs), holm(np.array(ps)).tolist(), strict=True))


def exact(found: Answer) -> pd.DataFrame:
    """A row per benchmark and method, every digit."""
    kinds = {method: kind for kind, methods in found.rows.items() for method in methods}
    return pd.DataFrame(
        [
            {
                "benchmark": benchmark,
                "method": method,
                "kind": kinds[method],
                "mean": standing.mean,
                "half_width_95": standing.half_width,
                "n": standing.n,
                "p_holm": standing.p,
                "rank": standing.rank,
            }
            for (benchmark, method), standing in found.standings.items()
        ]
    )


def cell(standing: Standing | None, dash: str = "–", sign: str = "±") -> str:
    """mean ± half width; the mean alone where one cell has no interval."""
    if standing is None:
        return dash
    if np.isnan(standing.half_width):
        return f"{standing.mean:.1f}"
    return f"{standing.mean:.1f} {sign} {standing.half_width:.1f}"


def shown(found: Answer, benchmarks: list[str]) -> pd.DataFrame:
    """For Markdown: best in bold, level with it underlined, a line of dashes between the kinds."""
    marks = {"best": "**{}**", "level": "<ins>{}</ins>"}
    lines: list[list[str]] = []
    for methods in (methods for methods in found.rows.values() if methods):
        if lines:
            lines.append(["" for _ in range(len(benchmarks) + 1)])
        for method in methods:
            standings = [found.standings.get((benchmark, method)) for benchmark in benchmarks]
            texts = [marks.get(s.rank if s else "", "{}").format(cell(s)) for s in standings]
            lines.append([found.names[method], *texts])
    return pd.DataFrame(lines, columns=["mean ± 95% interval", *benchmarks])


def latex(found: Answer, benchmarks: list[str]) -> str:
    r"""A tabular of booktabs, for \input: best in bold, level with it underlined."""
    marks = {"best": r"\textbf{{{}}}", "level": r"\underline{{{}}}"}
    head = " & ".join([r"mean $\pm$ 95\% interval", *map(escape_latex, benchmarks)])
    lines = [rf"\begin{{tabular}}{{l{'r' * len(benchmarks)}}}", r"\toprule", rf"{head} \\"]
    for methods in (methods for methods in found.rows.values() if methods):
        lines.append(r"\midrule")
        for method in methods:
            standings = [found.standings.get((benchmark, method)) for benchmark in benchmarks]
            texts = [
                marks.get(s.rank if s else "", "{}").format(cell(s, "--", r"$\pm$"))
                for s in standings
            ]
            lines.append(
                " & ".join([escape_latex(found.names[method]).replace("†", r"$\dagger$"), *texts])
                + r" \\"
            )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def html(found: Answer, benchmarks: list[str], names: Mapping[str, str] | None = None) -> HtmlTable:
    """For the page: best in bold, level with it underlined, a rule between the kinds.

    names: how the rows are called there, with links.
    """
    rows: list[tuple] = []
    rules = set()
    for methods in (methods for methods in found.rows.values() if methods):
        rules.add(len(rows))
        for method in methods:
            standings = [found.standings.get((benchmark, method)) for benchmark in benchmarks]
            rows.append(((names or found.names)[method], *map(_html_cell, standings)))
    return HtmlTable(["row: mean ± 95% interval", *benchmarks], rows, frozenset(rules))


def _html_cell(standing: Standing | None) -> Markup:
    """On hover: p of the comparison with the best method."""
    rank = standing.rank if standing else ""
    tag = {
        "best": "<b>{}</b>",
        "level": '<u title="{1}">{0}</u>',
        "below": '<span title="{1}">{0}</span>',
        "untested": '<span title="{1}">{0}</span>',
    }
    p = standing.p if standing else np.nan
    said = "not tested: fewer than two pairs" if np.isnan(p) else f"p = {p:.2g}, corrected"
    return Markup(tag.get(rank, "{}")).format(cell(standing), said)


def sentences(found: Answer, benchmarks: list[str]) -> list[str]:
    """One sentence for each benchmark, from the numbers."""
    return [_sentence(found, benchmark) for benchmark in benchmarks]


def best(found: Answer) -> dict[str, str]:
    """The method with the best mean, by benchmark; none where fewer than two methods are."""
    return {on: m for (on, m), standing in found.standings.items() if standing.rank == "best"}


def headline(found: Answer) -> str:
    """Who stands best where, and whether that can be told, in a line."""
    first = best(found)
    if not first:
        return "One method, so nothing is compared"
    undecided = {on for (on, _), one in found.standings.items() if one.rank in UNDECIDED}
    told = [benchmark for benchmark in first if benchmark not in undecided]
    above = {on: rows[0] for on in first if (rows := _references_above(found, on))}
    said = f"Highest mean: {_where(found, first)}"
    if above:
        said = f"Highest mean of all rows but joint ones: {_where(found, first | above)}"
        said += f"; of the methods: {_where(found, first)}"
    return f"{said}. Above every other method at 5%: {', '.join(told) or 'nowhere'}."


def _where(found: Answer, rows: dict[str, str]) -> str:
    """Rows with the benchmarks on which each stands, and its mean there."""
    where: dict[str, list[str]] = {}
    for benchmark, method in rows.items():
        mean = found.standings[benchmark, method].mean
        where.setdefault(row_of(method).short, []).append(f"{benchmark} ({mean:.1f})")
    return "; ".join(f"{name} on {', '.join(of)}" for name, of in where.items())


def _references_above(found: Answer, benchmark: str) -> list[str]:
    """Reference rows with a higher mean than the best method, the highest first."""
    means = {
        m: one.mean
        for m in found.rows["reference"]
        if (one := found.standings.get((benchmark, m))) is not None
    }
    limit = found.standings[benchmark, best(found)[benchmark]].mean
    return sorted((m for m in means if means[m] > limit), key=lambda m: -means[m])


def resolution(found: Answer) -> str:
    """How much the tests can tell, from the numbers; "" where nothing counts as level."""
    ranked = {key: one for key, one in found.standings.items() if one.rank in ("level", "below")}
    first = best(found)
    gaps = {
        (on, m): abs(found.standings[on, first[on]].mean - one.mean)
        for (on, m), one in ranked.items()
        if one.rank == "level"
    }
    if not gaps:
        return ""
    on, method = max(gaps, key=lambda key: gaps[key])
    cells = _range([one.n for one in ranked.values()])
    decided = len(ranked) - len(gaps)
    return (
        f"Level does not mean alike: {cells} a row decide {decided} of {len(ranked)} comparisons "
        f"with the best method, and up to {gaps[on, method]:.1f} points count as level "
        f"({row_of(first[on]).short} above {row_of(method).short} on {on})."
    )


def _sentence(found: Answer, benchmark: str) -> str:
    ranked = {m: found.standings.get((benchmark, m)) for m in found.rows["method"]}
    known = {m: standing for m, standing in ranked.items() if standing is not None}
    if len(known) < 2:
        return f"{benchmark}: fewer than two methods have finished cells."
    first = best(found)[benchmark]
    of = {
        rank: [m for m, standing in known.items() if standing.rank == rank]
        for rank in ("level", "below", "untested")
    }
    tested = [first, *of["level"], *of["below"]]
    compared = tested if len(tested) > 1 else [*known]
    runs = f"{_range([known[m].n for m in compared])} a row"
    said = f"{benchmark}: of {len(compared)} methods {row_of(first).short} has the highest mean "
    said += f"({known[first].mean:.1f}% FAA; {runs}); {_told(of['level'], of['below'])}."
    if compared is tested and of["untested"]:
        said += f" Not tested, with fewer than two pairs: {_names(of['untested'])}."
    if above := _references_above(found, benchmark):
        highest = f"{row_of(above[0]).short} ({found.standings[benchmark, above[0]].mean:.1f}%)"
        said += f" Reference rows with a higher mean: {len(above)}, the highest {highest}."
    empty = [m for m in ranked if m not in known]
    return said + (f" Without a finished cell: {_names(empty)}." if empty else "")


def _told(level: list[str], below: list[str]) -> str:
    """What the tests say of the others; by the shorter list of names."""
    if not level and not below:
        return "with fewer than two pairs no other is tested against it"
    if not level:
        return "every other is below it at 5%"
    if not below:
        return "no other can be told from it"
    if len(below) < len(level):
        return f"only {_names(below)} can be told from it, at 5%"
    return f"it cannot be told from {_names(level)}"


def _names(methods: list[str]) -> str:
    return _listed([row_of(method).short for method in methods])


def _range(counts: Sequence[int]) -> str:
    """3 cells; 2 to 3 cells."""
    low, high = min(counts), max(counts)
    return f"{high if low == high else f'{low} to {high}'} cell{'s' if high > 1 else ''}"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
