"""Draw tables, figures and the HTML page of a suite from its CSV files: `python -m bench.report SUITE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import cli
from bench.errors import UsageError
from bench.report import figures, tables
from bench.report.frames import Results, load
from bench.report.labels import label
from bench.report.page import figure_html, page, table_html
from bench.store.files import write_text

RECONSTRUCTION = (
    "HLGP is this project's reconstruction from the paper's abstract (arXiv 2511.12090): the full text was not "
    "available and there is no official code. Its published numbers are unknown here."
)


UNCHECKED = "No protocol.csv: whether rows were trained on the same batches could not be checked."


BESIDE = {
    "mini": ["references"]
}  # reference rows that `mini`, which has to stay short, leaves to another suite


def other_suites(results: Results) -> str:
    """Which rows were run as part of another suite; nothing where none was."""
    others = (
        results.runs[results.runs["suite"] != results.suite]
        .groupby("suite", sort=False)["method"]
        .unique()
    )
    return " ".join(
        f"From suite '{suite}', run apart on the same images, class orders, batches and views (digests compared): "
        f"{', '.join(map(label, methods))}."
        for suite, methods in others.items()
    )


def scale_note(results: Results) -> str:
    """What the numbers are and are not, from the runs themselves."""
    done = results.runs[results.runs["status"] == "done"]
    orders = done["order_seed"].nunique()
    seeds = done["seed"].nunique()
    precisions = " and ".join(sorted(set(done["precision"]) - {""})) or "unknown"
    mixed = (
        " (NOT the same for all cells: rows may differ by that too)"
        if " and " in precisions
        else ""
    )
    others = [suite for suite in results.runs["suite"].unique() if suite != results.suite]
    beside = f" with rows of {' and '.join(others)}" if others else ""
    return (
        f"Suite '{results.suite}'{beside}: {len(done)} of {len(results.runs)} cells finished; {orders} class order(s) x "
        f"{seeds} seed(s), precision {precisions}{mixed}. Accuracies in percent, mean ± sample standard deviation. These runs "
        "are at this suite's own scale (backbone, images and training length as in spec.json of each run): not comparable with "
        "a paper's numbers."
    )


def build(results: Results, out: Path) -> str:
    """Write everything under out and return the main table as Markdown."""
    main_exact = tables.main_table(results)
    shown = tables.for_people(main_exact)
    tables.write(
        out / "tables", "main", main_exact, shown, tables.for_people(main_exact, latex=True)
    )
    task = tables.main_table(results, "task")
    tables.write(
        out / "tables",
        "task_scenario",
        task,
        tables.for_people(task),
        tables.for_people(task, latex=True),
    )
    paired = tables.paired_table(results)
    paired_shown = tables.paired_for_people(paired)
    tables.write(
        out / "tables", "paired", paired, paired_shown, tables.paired_for_people(paired, latex=True)
    )
    cost, missing = tables.cost_table(results), results.missing()
    moved, protocol = tables.movement_table(results).round(3), tables.protocol_table(results)
    cost, moved = (table.astype(object).where(table.notna(), "–") for table in (cost, moved))
    for name, table in (
        ("cost", cost),
        ("movement", moved),
        ("protocol", protocol),
        ("missing", missing),
    ):
        tables.write(out / "tables", name, table, table)
    drawn = [
        figure_html(figures.save(figure, out / "figures", name), name, caption)
        for name, caption, figure in figures.all_figures(results)
    ]
    few = int(paired["n"].max()) if len(paired) else 0
    sections = [
        ("Results", "FAA: final average accuracy. CAA: mean of the average accuracy after each task. Forgetting: max "
         "form. Class-incremental, the task is never known at test.", table_html(shown)),
        ("HLGP against each row", "Paired over the same class orders and seeds, final average accuracy, 95% t interval. "
         f"With {few} pairs the sign-flip test cannot go below p = {2 ** (1 - few) if few > 1 else 1:.4g}.",
         table_html(paired_shown)),
        ("Figures", figures.what_is_left_out(results), "".join(drawn)),
        ("Task known", "The same logits, restricted to the classes of the image's own task.",
         table_html(tables.for_people(task))),
        ("Cost", "FLOPs count the query's forward pass although it is shared between methods. Times are of the machine "
         "that ran the cells, with the query cache as it happened to be.", table_html(cost)),
        ("Movement", "What training did: size of the prompts after the last task, how much a task changes them relative to it, "
         "and drift (1 - cosine) of earlier tasks' features as the head reads them. A row flagged HARDLY MOVED is a linear "
         "head in disguise.", table_html(moved)),
        ("Protocol", "What every row was run with, from its spec. * marks what differs from most other rows; values that "
         "differ between benchmarks stand in their order.", table_html(protocol)),
        ("Missing cells", f"{len(missing)} cell(s) without a result.", table_html(missing)),
    ]  # fmt: skip
    notes = [scale_note(results), RECONSTRUCTION, other_suites(results), *results.notes]
    notes += [] if len(results.protocol) else [UNCHECKED]
    write_text(
        out / "index.html",
        page(f"Results: {results.suite}", [note for note in notes if note], sections),
    )
    return tables.markdown(shown)


def _folder(results: Path, name: str) -> Path:
    if not (results / name).is_dir():
        raise UsageError.unknown(f"results in {results}", name, _there(results))
    return results / name


def _there(results: Path) -> list[str]:
    return sorted(f.name for f in results.glob("*") if f.is_dir()) if results.is_dir() else []


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("suite", nargs="?", default="mini", help="name of a folder in --results")
    parser.add_argument("--with", action="append", default=[], dest="beside", metavar="SUITE", help="show rows of this one "
                        "too, if they were run on the same images, orders, batches and views; may be repeated")  # fmt: skip
    parser.add_argument(
        "--alone",
        action="store_true",
        help="without the rows of references, which stand in mini's report",
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reports"),
        help="folder of reports; rows of others: SUITE+OTHER in it",
    )
    args = parser.parse_args()
    folder = _folder(args.results, args.suite)
    for name in args.beside:
        if name not in _there(args.results) or name == args.suite or args.beside.count(name) > 1:
            raise UsageError.unknown(
                "--with, other results", name, [n for n in _there(args.results) if n != args.suite]
            )
    more = [] if args.alone else BESIDE.get(args.suite, [])
    by_default = [
        args.results / name
        for name in more
        if name not in args.beside and (args.results / name).is_dir()
    ]
    results = load(folder, [args.results / name for name in args.beside], by_default)
    for line in (*results.notes, *([] if len(results.protocol) else [UNCHECKED])):
        print(line, file=sys.stderr)
    out = args.out / "+".join([folder.resolve().name, *args.beside])
    print(build(results, out))
    if note := other_suites(results):
        print(f"\n{note}")
    if len(results.missing()):
        print(f"\n{len(results.missing())} cell(s) missing: see the report")
    print(f"\n{out / 'index.html'}")
    return cli.FINE


if __name__ == "__main__":
    cli.run(main)
