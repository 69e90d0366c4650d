"""The verdict: a run against the published one, margins from measured spreads, causes by name."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import REFERENCE, table
from scipy import stats

from bench.check import reproduction
from bench.check.reproduction import expected_of, verdict
from bench.cli import CHECK_FAILED, FINE, UNFINISHED
from bench.errors import UsageError
from bench.paths import EXPECTED
from bench.report.compare import MIN_MARGIN, Comparison, accuracies, margin, spread
from bench.report.frames import load
from bench.store.tables import ENVIRONMENTS, METRICS, RUNS, write_csv

# Suites in which something was run twice: with another order or seed.
SUITES = sorted(
    file.parent.name
    for file in REFERENCE.glob("*/runs.csv")
    if len({(row["order_seed"], row["seed"]) for row in table(file)}) > 1
)


@pytest.fixture(scope="module")
def mini():
    return load(REFERENCE / "mini")


@pytest.fixture(scope="module")
def expected():
    return pd.read_csv(EXPECTED / "mini.csv")


def changed(folder, tmp_path, metrics=lambda rows: rows, runs=lambda rows: rows):
    """A copy of published results under the user's, with other rows."""
    target = tmp_path / folder.name
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("runs"))
    write_csv(target / "metrics.csv", METRICS, metrics(table(folder / "metrics.csv")))
    write_csv(target / "runs.csv", RUNS, runs(table(folder / "runs.csv")))
    return target


def lowered(points: float, method: str, benchmark: str):
    """Every accuracy of a row lower by about so many points."""

    def change(rows):
        for row in rows:
            if (row["method"], row["benchmark"]) == (method, benchmark):
                lower = int(row["correct"]) - round(points * int(row["n"]) / 100)
                row["correct"] = max(0, lower)
        return rows

    return change


# --- expected values -------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_every_published_suite_has_expected_values(suite):
    """Means are those of the published tables, margins those of the spread beside them."""
    expected = pd.read_csv(EXPECTED / f"{suite}.csv")
    cells = accuracies([load(REFERENCE / suite)])
    means = cells.groupby(["benchmark", "method"])["faa"].mean()
    found = expected.set_index(["benchmark", "method"])
    assert set(found.index) == set(means.index)
    assert np.allclose(found["expected"], means.reindex(found.index), atol=5e-4)
    again = margin(found["std"], found["freedom"], found["cells"])
    assert np.allclose(found["margin"], again, atol=0.01)


def test_one_run_of_each_row_has_no_spread():
    with pytest.raises(UsageError, match="no spread can be measured"):
        expected_of(load(REFERENCE / "photos_tune"))


def test_a_margin_is_what_its_text_says():
    """By hand: 99.5% of the differences of two means of three, from a spread of 1 point."""
    one = margin(pd.Series([1.0]), pd.Series([6]), pd.Series([3]))[0]
    assert one == pytest.approx(stats.t.ppf(0.9975, 6) * np.sqrt(2 / 3))
    assert margin(pd.Series([0.0]), pd.Series([6]), pd.Series([3]))[0] == MIN_MARGIN


def test_a_margin_covers_what_chance_does_and_not_much_more():
    """One that is twice as wide would let a row of other settings pass."""
    random = np.random.default_rng(1)
    draws = random.normal(size=(4000, 7))
    std = pd.Series(draws[:, :7].std(1, ddof=1))
    difference = random.normal(size=(4000, 3)).mean(1) - random.normal(size=(4000, 3)).mean(1)
    inside = np.abs(difference) <= margin(std, pd.Series([6] * 4000), pd.Series([3] * 4000))
    assert 0.99 <= inside.mean() <= 0.999


def cells_of(values) -> pd.DataFrame:
    rows = [("b", method, order, seed, faa) for (method, order, seed), faa in values.items()]
    return pd.DataFrame(rows, columns=["benchmark", "method", "order_seed", "seed", "faa"])


def test_the_spread_is_that_over_seeds_of_an_order():
    own = {("m", order, seed): 10 * order + seed for order in (1, 2, 3) for seed in (1, 2, 3)}
    (row,) = spread(cells_of(own)).to_dict("records")
    assert (row["std"], row["freedom"], row["measured_over"]) == (1.0, 6, "seeds")
    few = {key: value for key, value in own.items() if key[2] < 3 and key[1] < 3}
    both = spread(cells_of(few | {("other", *key[1:]): value for key, value in own.items()}))
    assert both["measured_over"].tolist() == ["seeds, all rows", "seeds"]
    assert both["freedom"].tolist() == [8, 6], "two degrees of freedom are too few"


def test_runs_of_the_same_cells_on_several_processors_come_first():
    own = {("m", order, seed): 10 * order + seed for order in (1, 2, 3) for seed in (1, 2, 3)}
    first = cells_of(own)
    elsewhere = [first.assign(faa=first["faa"] + shift) for shift in (0.1, -0.1)]
    (row,) = spread(pd.concat([first, *elsewhere])).to_dict("records")
    assert row["std"] == pytest.approx(0.1)
    assert (row["freedom"], row["measured_over"]) == (18, "processors")
    once_more = pd.concat([first, first[:2]])
    assert set(spread(once_more)["measured_over"]) == {"seeds"}, "two cells twice are too few"


def test_without_seeds_it_is_what_rows_and_orders_leave():
    plain = {(m, order, 1): 5 * i + 7 * order for i, m in enumerate("abcd") for order in (1, 2, 3)}
    table = spread(cells_of(plain))
    assert np.allclose(table["std"], 0)
    assert set(table["measured_over"]) == {"orders, all rows"}
    plain["a", 1, 1] += 2
    assert (spread(cells_of(plain))["std"] > 0).all()
    assert set(table["freedom"]) == {6}


# --- the verdict -----------------------------------------------------------------------------


def test_the_published_results_reproduce_themselves(mini, expected, capsys, tmp_path):
    assert verdict(mini, mini, expected, tmp_path) == FINE
    said = capsys.readouterr().out
    rows = len(expected)
    assert said == (
        f"reproduced: {rows} of {rows} means (row x benchmark) within their margins; "
        "largest difference 0.0 points; "
        f"{len(mini.runs)} of {len(mini.runs)} cells equal to the byte\n"
    )


def test_a_row_outside_its_margin_fails_and_is_named(mini, expected, capsys, tmp_path):
    limit = expected.set_index(["benchmark", "method"]).loc[("glyphs-v", "hlgp"), "margin"]
    near = changed(REFERENCE / "mini", tmp_path / "near", lowered(limit / 2, "hlgp", "glyphs-v"))
    assert verdict(load(near), mini, expected, tmp_path) == FINE
    assert "most likely cause of the differences: " in capsys.readouterr().out
    far = changed(REFERENCE / "mini", tmp_path / "far", lowered(1.5 * limit, "hlgp", "glyphs-v"))
    assert verdict(load(far), mini, expected, tmp_path) == CHECK_FAILED, "half of twice the margin"
    said = capsys.readouterr().out
    assert said.startswith(f"NOT reproduced: {len(expected) - 1} of {len(expected)} means")
    assert "(HLGP (reconstructed), glyphs-v)" in said
    assert "| glyphs-v" in said


def test_a_part_of_a_suite_has_a_verdict(mini, expected, capsys, tmp_path):
    def first_order(rows):
        return [row for row in rows if row["order_seed"] == "1" and row["method"] == "linear"]

    part = changed(REFERENCE / "mini", tmp_path, first_order, first_order)
    assert verdict(load(part), mini, expected, tmp_path) == FINE
    assert (
        "5 of 5 means (row x benchmark) within their margins (the suite has 55)"
        in capsys.readouterr().out
    )
    rows = Comparison(load(part), mini, expected).rows
    whole = expected.set_index(["benchmark", "method"])["margin"]
    ours = rows.set_index(["benchmark", "method"])["margin"]
    assert (ours >= whole.reindex(ours.index) - 1e-3).all(), (
        "one cell has a wider margin than three"
    )


def test_causes_are_named_the_most_likely_first(mini, expected, capsys, tmp_path):
    def other(rows):
        for row in rows:
            row |= {"precision": "bf16", "env_sha": "e", "code_sha": "aaaaaaaa-bbbbbbbb"}
        return rows

    folder = changed(REFERENCE / "mini", tmp_path, lowered(1, "linear", "digits"), other)
    ours = dict.fromkeys(ENVIRONMENTS, "") | {"env_sha": "e", "torch": "2.6.0", "python": "3.13.0"}
    known = table(REFERENCE / "mini" / "environments.csv")[0]
    write_csv(
        folder / "environments.csv", ENVIRONMENTS, [known | {k: v for k, v in ours.items() if v}]
    )
    verdict(load(folder), mini, expected, tmp_path)
    said = capsys.readouterr().out
    order = [
        "other precision (bf16, theirs fp32)",
        "other code",
        "other python",
        "other torch (2.6.0",
    ]
    places = [said.index(text) for text in order]
    assert places == sorted(places), said


def test_nothing_that_can_be_compared_is_no_success(mini, expected, capsys, tmp_path):
    runs = mini.runs.assign(status="missing")
    nothing = replace(mini, runs=runs, cells=mini.cells.iloc[:0])
    assert verdict(nothing, mini, expected, tmp_path) == UNFINISHED


def test_the_command_gives_the_verdict(command, tmp_path):
    absent = command("bench.check", "mini", check=2)
    assert "no results of your own" in absent.stderr
    changed(REFERENCE / "mini", tmp_path / "results")
    assert command("bench.check", "mini", check=0).stdout.startswith("reproduced: 55 of 55 means")


def test_expected_values_are_made_by_one_command(command, tmp_path, monkeypatch, mini, expected):
    """From the published results, with the spread of other seeds where they are given."""
    seeds = [replace_seed(mini, seed, shift) for seed, shift in ((2, 1.0), (3, -1.0))]
    made = expected_of(mini, seeds)
    assert np.allclose(made["expected"], expected["expected"], atol=5e-4)
    assert np.allclose(made["std"], 1.0), "three seeds: 0, +1 and -1"
    assert set(made["freedom"]) == {6}
    assert set(made["measured_over"]) == {"seeds"}
    assert list(pd.read_csv(EXPECTED / "mini.csv").columns) == reproduction.COLUMNS


def replace_seed(results, seed, shift):
    cells = results.cells.assign(seed=seed, faa=results.cells["faa"] + shift)
    return replace(results, cells=cells)


# --- two folders -----------------------------------------------------------------------------


def test_two_folders_are_compared(command, tmp_path):
    def without_ncm(rows):
        return [row for row in rows if row["method"] != "ncm"]

    folder = changed(REFERENCE / "mini", tmp_path, without_ncm, without_ncm)
    same = command("bench.report", "--compare", str(folder), str(REFERENCE / "mini"), check=0)
    assert "150 cells of mini and mini are compared" in same.stdout
    assert "equal to the byte: 50 of 50 means (row x benchmark)" in same.stdout
    assert "only in mini: ncm--glyphs--o1--s1" in same.stdout
    shutil.rmtree(folder)
    changed(REFERENCE / "mini", tmp_path, lowered(30, "ncm", "digits"))
    other = command("bench.report", "--compare", str(folder), str(REFERENCE / "mini"), check=1)
    assert "differ beyond their spread: 1 means" in other.stdout
    assert "largest difference: 30." in other.stdout or "largest difference: 29." in other.stdout
