"""Both heads in the report: what alignment gains by hand, and values that papers publish."""

import copy

import pytest
from report_tables import write_protocol, write_suite

from bench.check.published import published
from bench.report import alignment
from bench.report.build import build
from bench.report.frames import load
from bench.store.tables import COMPARED_COLUMNS, MOVEMENT, PUBLISHED, write_csv


def with_aligned(metrics, runs):
    """Aligned heads: four more correct answers in each line for hlgp, none for the other."""
    for row in copy.deepcopy(metrics):
        more = 4 if row["method"] == "hlgp" else 0
        scenario = f"{row['scenario']}-aligned"
        metrics.append({**row, "scenario": scenario, "correct": row["correct"] + more})


@pytest.fixture
def folder(tmp_path):
    folder = write_suite(tmp_path / "s", with_aligned)
    write_protocol(folder, hlgp={}, other_row={})
    return folder


def test_gain_is_aligned_minus_trained(folder):
    results = load(folder)
    table = alignment.gains(results).set_index("method")
    assert table.loc["hlgp", "faa_aligned"] - table.loc["hlgp", "faa"] == pytest.approx(4)
    assert table["gain"].to_dict() == pytest.approx({"hlgp": 4, "other_row": 0})
    assert (table["n"] == 2).all()


def test_drift_stands_beside_the_gain(folder):
    runs = load(folder).runs["run_id"]
    rows = [
        {"run_id": run, "task": 2, "layer": layer, "feature_drift": drift}
        for run in runs
        for layer, drift in ((0, 0.5), (1, 0.25 if run.startswith("hlgp") else 0.125))
    ]
    write_csv(folder / "movement.csv", MOVEMENT, rows)
    drift = alignment.gains(load(folder)).set_index("method")["feature_drift"]
    assert drift.to_dict() == {"hlgp": 0.25, "other_row": 0.125}, "of what the head reads"


def test_a_report_of_one_head_says_nothing_of_another(tmp_path):
    folder = write_suite(tmp_path / "s")
    write_protocol(folder, hlgp={}, other_row={})
    results = load(folder)
    assert not len(alignment.gains(results))
    build(results, tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Aligned heads" not in page
    assert "Published values" not in page


def test_the_page_has_both_heads_and_published_values(folder, tmp_path):
    row = {
        "what": "published (pilot)",
        "benchmark": "b<script>",
        "method": "hlgp",
        "metric": "faa",
        "published": "80.1 ± 0.3 (n=5)",
        "verdict": "reproduced",
    }
    far = {**row, "published": "", "verdict": "not comparable", "detail": "train.epochs: <2>"}
    write_csv(folder / PUBLISHED, COMPARED_COLUMNS, [row, far])
    build(load(folder), tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Aligned heads" in page
    assert "80.1 ± 0.3 (n=5)" in page
    assert "1 reproduced, 1 not comparable" in page
    assert "train.epochs: &lt;2&gt;" in page
    assert (tmp_path / "r" / "figures" / "gain.svg").is_file()
    assert "+4.0" in (tmp_path / "r" / "tables" / "alignment.md").read_text()


def test_a_published_head_is_the_trained_one_slcas_or_none_of_ours():
    assert set(published()["head"]) == {"", "slca", "own stage"}
