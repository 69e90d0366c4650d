"""What a report draws: which rows, what is said on hover, how wide and high for a paper."""

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REFERENCE
from PIL import Image
from report_tables import identity, run_of, write_protocol, write_suite

from bench.report import figures, matrices, plots, tables
from bench.report.build import build
from bench.report.frames import load
from bench.report.look import MARKERS, decades, looks, plt
from bench.report.rows import ROWS
from bench.store.facts import SuiteFacts, write_facts
from bench.store.tables import SELECTION, write_csv


def renamed(**names):
    """A change of write_suite: rows under other names."""

    def change(metrics, runs):
        for row in (*metrics, *runs):
            row.update(identity(names.get(row["method"], row["method"]), row["order_seed"]))

    return change


def drawn(results):
    return [one.name for one in figures.all_figures(results)]


def test_rows_with_a_value_get_a_figure_per_name(tmp_path):
    def rename(metrics, runs):
        for row in (*metrics, *runs):
            for key in ("method", "run_id"):
                row[key] = row[key].replace("other_row", "groups@4")

    folder = write_suite(tmp_path / "s", rename)
    write_facts(folder, SuiteFacts("hlgp", figure_rows=("hlgp", "groups@*")))
    build(load(folder), tmp_path / "out")
    drawn = {"setting-groups", "cost"}  # the second for the figure's rows alone
    assert {f.name for f in (tmp_path / "out" / "figures").iterdir()} == {
        f"{n}.{k}" for n in drawn for k in ("svg", "png", "csv")
    }
    page = (tmp_path / "out" / "index.html").read_text()
    assert 'type="checkbox"' not in page, "these figures leave no row out"


def test_a_figure_of_selection(tmp_path):
    folder = write_suite(tmp_path / "s")
    rows = [
        {"run_id": run_of("hlgp", order), "eval_task": task, "prompt": prompt, "share": 0.5}
        for order in (1, 2)
        for task in (1, 2)
        for prompt in (1, 3)
    ]
    write_csv(folder / "selection.csv", SELECTION, rows)
    build(load(folder), tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "selection.csv").read_text().count("\n") == 9
    page = (tmp_path / "out" / "index.html").read_text()
    assert "task 2, prompt 3: 0.500" in page
    assert "prompt 2: " not in page, "of a prompt never chosen"


def test_rows_on_the_pareto_front():
    cost, accuracy = pd.Series([1, 2, 3, 3, np.nan]), pd.Series([50, 60, 60, 70, 99])
    assert tables.pareto_front(cost, accuracy).tolist() == [True, True, False, True, False]


def test_seconds_of_another_machine_are_not_compared(tmp_path):
    def ran_on(metrics, runs):
        for run in runs:
            run["env_sha"] = "there" if run["method"] == "other_row" else "here"

    table = tables.cost_of_rows(load(write_suite(tmp_path / "s", ran_on))).set_index("method")
    assert table.loc["hlgp", "train_seconds"] == 2.0
    assert np.isnan(table.loc["other_row", "train_seconds"])
    assert table["parameters"].notna().all()


def test_no_finished_cell_is_a_report(tmp_path):
    def lose(metrics, runs):
        metrics.clear()
        for run in runs:
            run.update(status="missing")

    build(load(write_suite(tmp_path / "s", lose)), tmp_path / "out")
    assert "No cell has finished yet" in (tmp_path / "out" / "summary.json").read_text()
    assert "<li>No cell has finished yet.</li>" in (tmp_path / "out" / "index.html").read_text()


def many_rows(folder: Path, *rows: str) -> Path:
    """A suite whose tables hold the cells of `hlgp` once under each name."""

    def change(metrics, runs):
        for table in (metrics, runs):
            first = [row for row in table if row["method"] == "hlgp"]
            table[:] = [
                {**row, **identity(method, row["order_seed"])} for method in rows for row in first
            ]

    return write_suite(folder, change)


def test_a_row_that_was_asked_for_is_drawn(tmp_path):
    """`--with mine` beside a suite that draws some of its rows alone."""
    own = [f"row{number}" for number in range(20)]
    suite = many_rows(tmp_path / "s", "hlgp", *own)
    write_facts(suite, SuiteFacts("hlgp", figure_rows=("hlgp", "row1")))
    write_protocol(suite, hlgp={}, **{row: {} for row in own})
    mine = many_rows(tmp_path / "t", "hlgp", "mine")
    write_protocol(mine, hlgp={}, mine={})
    asked, by_default = load(suite, [mine]), load(suite, [], [mine])
    assert "mine" in asked.methods
    assert "mine" in by_default.methods
    assert "mine" not in figures.which_rows(asked)
    assert "mine" in figures.which_rows(by_default)


def test_many_rows_without_a_choice_are_drawn_in_part(tmp_path):
    results = load(many_rows(tmp_path / "s", *(f"row{number}" for number in range(25))))
    assert "accuracy" in drawn(results)
    assert "drift and gain have 16 of the 25 rows" in figures.which_rows(results)


def test_a_panel_of_rows_that_are_shown_later_has_their_limits(tmp_path):
    """All rows of its benchmark are such: ticked, they were points in a corner."""
    rows = [f"row{number}" for number in range(20)]
    folder = many_rows(tmp_path / "s", *rows)

    for name in ("metrics", "runs"):
        table = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        last = table["method"].isin(rows[16:])
        table.loc[last, "benchmark"] = "another"
        named = table.loc[last, "run_id"].str.replace("b<script>", "another", regex=False)
        table.loc[last, "run_id"] = named
        table.to_csv(folder / f"{name}.csv", index=False)
    figure = plots.accuracy_curves(load(folder))
    (panel,) = (axis for axis in figure.axes if axis.get_title() == "another")
    low, high = panel.get_ylim()
    values = np.concatenate([line.get_ydata() for line in panel.lines if len(line.get_ydata())])
    assert low <= values.min() < values.max() <= high
    plt.close(figure)


def test_methods_stand_before_reference_rows_and_those_before_joint_ones(tmp_path):
    names = ("joint-linear", "linear", "mine", "l2p", "hlgp")
    suite = many_rows(tmp_path / "s", *names)
    write_protocol(suite, **{name: {"train.joint": name == "joint-linear"} for name in names})
    results = load(suite)
    ordered = ["hlgp", "l2p", "mine", "linear", "joint-linear"]
    assert results.methods == ordered
    assert tables.main_table(results)["method"].tolist() == ordered
    assert [*looks(results)] == ordered


def test_rows_differ_in_colour_and_in_shape(tmp_path):
    """Where dots alone are drawn, as against costs; also of rows that rows.csv does not list."""
    methods = [row for row in ROWS.values() if row.kind != "joint"]
    assert len({row.marker for row in methods}) == len(methods)
    assert len({row.colour for row in methods}) == len(methods)
    look = looks(load(many_rows(tmp_path / "s", *(f"row{number}" for number in range(12)))))
    assert len({one.colour for one in look.values()}) == 12
    assert [one.marker for one in look.values()] == [*MARKERS]


def test_costs_are_of_the_machine_of_finished_cells(tmp_path):
    """Cells that are missing have no machine, and may be the most."""

    def change(metrics, runs):
        metrics[:] = [row for row in metrics if row["run_id"] == run_of("hlgp", 1)]
        for run in runs:
            run["env_sha"] = "here" if run["run_id"] == run_of("hlgp", 1) else ""
            run["status"] = "done" if run["env_sha"] else "missing"

    results = load(write_suite(tmp_path / "s", change))
    assert tables.cost_of_rows(results)["train_seconds"].tolist() == [2.0]


def test_every_cost_has_its_pareto_front_and_measured_ones_are_dashed():
    """Seconds depend on a cache and memory on the process: their fronts say less."""
    results = load(REFERENCE / "mini")
    table = tables.cost_of_rows(results).set_index("method")
    figure = plots.accuracy_against_cost(results, table.reset_index())
    shown = {axis.get_xlabel(): axis for axis in figure.axes if axis.get_visible()}
    plt.close(figure)
    for column, title in plots.COSTS.items():
        own = table[table[f"front_{column}"]]
        assert len(own), column
        for method, row in own.iterrows():
            others = table[(table["faa"] > row["faa"]) & (table[column] < row[column])]
            assert not [m for m in others.index if results.kinds[m] != "joint"], (column, method)
        lines = shown[title].lines
        assert any(line.get_markersize() == 11 for line in lines), "its rows are ringed"
        (front,) = (line for line in lines if line.get_drawstyle() == "steps-post")
        assert front.is_dashed() == (column not in tables.COUNTED_COSTS)


def test_rows_without_a_cost_are_named(mini):
    said = tables.what_has_no_cost(tables.cost_of_rows(mini))
    assert said.startswith("Without a training step, and so without its FLOPs: RanPAC, NCM; ")


def test_few_colours_are_near_those_of_all(tmp_path):
    """With a median cut the marks of VPT-NSP2's control were grey in the published figure."""
    (planned,) = (f for f in figures.all_figures(load(REFERENCE / "orders")) if f.name == "cost")
    pixels = []
    for tracked in (False, True):
        figures.save(planned, tmp_path, tracked)
        with Image.open(tmp_path / "cost.png") as image:
            pixels.append(np.asarray(image.convert("RGB"), dtype=int))
    assert len(np.unique(pixels[1].reshape(-1, 3), axis=0)) <= 256
    assert np.abs(pixels[0] - pixels[1]).max() < 16


def test_rows_that_are_shown_later_are_in_the_svg_alone(tmp_path):
    """Hidden there until they are chosen; no panel is wider for them."""
    results = load(REFERENCE / "mini", [REFERENCE / "references"])
    every, all_rows = (replace(results, figure_rows=named) for named in (("*",), ()))
    named = all_rows.methods[:16]
    by_default = {m for m, one in looks(all_rows).items() if not one.later}
    assert by_default == set(named)
    (planned,) = (one for one in figures.all_figures(all_rows) if one.name == "accuracy")
    figures.save(planned, tmp_path)
    svg = (tmp_path / "accuracy.svg").read_text()
    for method in all_rows.methods:
        groups = re.findall(rf'<g data-row="{re.escape(method)}"( display="none")?>', svg)
        assert len(groups) >= len(all_rows.benchmarks), method
        assert all(bool(hidden) == (method not in named) for hidden in groups), method
    without = figures._only(all_rows, named)
    (planned,) = (one for one in figures.all_figures(without) if one.name == "accuracy")
    figures.save(planned, tmp_path / "16")
    same = [(folder / "accuracy.png").read_bytes() for folder in (tmp_path, tmp_path / "16")]
    assert same[0] == same[1], "a picture has the first rows alone"
    assert not [m for m, one in looks(every).items() if one.later], "all are named"


def test_what_trains_nothing_stands_at_0():
    results = load(REFERENCE / "mini")
    figure = plots.accuracy_against_cost(results, tables.cost_of_rows(results))
    figure.canvas.draw()
    axis = figure.axes[0]
    ticks = [tick.get_text() for tick in axis.get_xticklabels()]
    assert ticks[:2] == ["0", "1k"]
    assert any(text.get_text() == "//" for text in axis.texts), "the axis is broken there"
    plt.close(figure)


def test_the_last_place_of_drift_is_the_head():
    results = load(REFERENCE / "mini")
    figure = plots.feature_drift(results)
    figure.canvas.draw()
    for axis in figure.axes[: len(results.benchmarks)]:
        ticks = {tick.get_text(): tick.get_position()[0] for tick in axis.get_xticklabels()}
        assert ticks["head"] == 13, "twelve blocks"
        assert "13" not in ticks
        assert axis.get_yscale() == "symlog"
        assert axis.get_yticks()[0] == 0
    plt.close(figure)


def test_values_of_two_decades_stay_on_a_plain_axis():
    figure, axis = plt.subplots()
    decades(axis, "y", pd.Series([0, 0.01, 1]))
    assert axis.get_yscale() == "linear"
    decades(axis, "y", pd.Series([0, 0.009, 1]))
    assert axis.get_yscale() == "symlog"
    plt.close(figure)


def test_matrices_have_a_scale():
    figure = matrices.accuracy_matrices(load(REFERENCE / "mini"))
    *_, bar = figure.axes
    assert bar.get_ylabel() == "accuracy (%)"
    assert bar.get_ylim() == (0, 100)
    plt.close(figure)


def test_a_cost_that_nobody_measured_has_no_panel():
    results = load(REFERENCE / "headroom")
    bare = replace(results, timing=results.timing[:0])
    counts = []
    for one in (results, bare):
        figure = plots.accuracy_against_cost(one, tables.cost_of_rows(one))
        counts.append(sum(axis.get_visible() for axis in figure.axes))
        plt.close(figure)
    assert counts == [5, 3]


@pytest.mark.parametrize("name", ["a$\\frac$b", "it's", "a|b", 'say "no"', "50%", "ä&<b>"])
def test_any_name_can_be_drawn_and_chosen(name, tmp_path):
    suite = write_suite(tmp_path / "s", renamed(other_row=name))
    build(load(suite), tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    rows = re.findall(r'data-row="([^"]*)"', page)
    assert name in map(html.unescape, rows)
    assert name in map(html.unescape, re.findall(r'type="checkbox" value="([^"]*)"', page))
    titles = [html.unescape(title) for title in re.findall(r"<title>([^<]*)</title>", page)]
    assert any(title.startswith(f"{name}: after task 1: ") for title in titles)
    assert any(title.startswith(f"{name}: order 1 seed 1") for title in titles)


def test_an_interval_of_two_cells_stays_among_the_accuracies(tmp_path):
    def apart(metrics, runs):
        for row in metrics:
            row["correct"] = 10 if row["order_seed"] == 1 else 90

    figure = plots.orders(load(write_suite(tmp_path / "s", apart)))
    low, high = figure.axes[0].get_xlim()
    assert -10 < low < high < 110
    plt.close(figure)


def test_rows_in_front_may_have_no_cell_yet(tmp_path):
    def lose(metrics, runs):
        metrics[:] = [row for row in metrics if row["method"] != "hlgp"]
        for run in runs:
            run["status"] = "done" if run["method"] != "hlgp" else "missing"

    build(load(write_suite(tmp_path / "s", lose)), tmp_path / "out", tracked=True)
    assert (tmp_path / "out" / "figures" / "matrices.png").is_file()
