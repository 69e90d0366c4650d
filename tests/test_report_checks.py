"""Tables that a report refuses because they contradict themselves, and rows of other suites that it takes in or leaves out."""

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_tables import identity, run_of, write_suite

from bench.config.spec import UsageError
from bench.report import tables
from bench.report.__main__ import build, main
from bench.report.frames import load
from bench.store.rundir import collect
from bench.store.tables import PROTOCOL, SIMILARITY, write_csv


def put_in_row(metrics, runs):
    for row in metrics:
        if row["run_id"] == run_of("other_row", 1):
            row["method"] = "hlgp"


BROKEN = [
    (lambda m, r: m.__delitem__(slice(1, 3)), r"not whole \(scenario class, 2 tasks\)"),
    (lambda m, r: m.__delitem__(slice(3, 6)), r"not whole \(scenario task, 2 tasks\)"),
    (lambda m, r: m.__delitem__(2), "not whole"),
    (lambda m, r: m[2].update(after_task=100_000), "not whole"),
    (lambda m, r: m[2].update(n=200), "different numbers of images: 200 .* and 100"),
    (put_in_row, "method of rows of .* is not the one in runs.csv"),
    (lambda m, r: m[0].update(order_seed=7), "order_seed of rows of"),
    (lambda m, r: m[0].update(suite="another"), "suite of rows of"),
    (lambda m, r: r[0].update(spec_sha="e" * 64), "is not what its row says"),
    (lambda m, r: r[0].update(seed=2), "is not what its row says"),
    (lambda m, r: r[0].update(status="finished"), "line 2: status 'finished' .accepted: done, "),
    (lambda m, r: r[0].update(params_trainable=""), "line 2: '' is no whole number"),
    (lambda m, r: [row.update(tasks=3) for row in r[:1]], "not whole"),
    (lambda m, r: m[0].update(n="1_00"), "line 2: '1_00' is no whole number"),
    (lambda m, r: m[0].update(n="\u0661\u0660\u0660"), "is no whole number"),
    (lambda m, r: m.append(dict(m[0])), "repeats line"),
    (lambda m, r: m[0].update(correct=101), "correct=101 of n=100"),
    (lambda m, r: m[0].update(correct=-1), "correct=-1"),
    (lambda m, r: m[0].update(n="many"), "line 2"),
    (lambda m, r: m[0].update(eval_task=3), "eval_task=3"),
    (lambda m, r: m[0].update(scenario="domain"), "accepted: class, task"),
    (lambda m, r: r.pop(0), "does not list as done"),
    (lambda m, r: m[:] == [] or m.__delitem__(slice(0, 6)), "has no rows of it"),
    (lambda m, r: r.append({**r[0], "status": "missing"}), "two runs of one cell"),
    (lambda m, r: r[0].update(data_sha="another"), "data_sha of .* differ"),
    (lambda m, r: r[0].update(weights_sha="another"), "need the same weights"),
    (lambda m, r: r[0].update(precision="bf16"), "need the same precision"),
]


@pytest.mark.parametrize(("change", "says"), BROKEN, ids=[says for _, says in BROKEN])
def test_tables_that_contradict_themselves_are_refused(change, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        load(write_suite(tmp_path / "s", change))


@given(
    where=st.floats(0, 1),
    what=st.binary(max_size=3),
    cut=st.integers(0, 4),
    name=st.sampled_from(["metrics", "runs", "timing"]),
)
def test_a_damaged_table_is_read_or_refused_in_one_line(where, what, cut, name, tmp_path_factory):
    folder = write_suite(tmp_path_factory.mktemp("s"))
    file = folder / f"{name}.csv"
    content = file.read_bytes()
    at = int(where * len(content))
    file.write_bytes(content[:at] + what + content[at + cut :])
    try:
        results = load(folder)
    except UsageError as error:
        said = str(error)
    else:
        assert (results.cells[["faa", "caa"]].to_numpy() <= 100).all()
        for table in (tables.main_table, tables.paired_table, tables.cost_table, tables.movement_table, tables.protocol_table):
            table(results)
        return
    assert str(folder) in said
    assert "\n" not in said.strip()


def test_rows_of_one_training_length_saw_the_same_batches(tmp_path):
    folder = write_suite(tmp_path / "s", lambda m, r: r[0].update(stream_sha="another"))

    def protocol(*epochs):
        rows = [("hlgp", epochs[0]), ("other_row", epochs[1])]
        write_csv(folder / "protocol.csv", PROTOCOL,
                  [{"benchmark": "b<script>", "method": m, "key": "train.epochs", "value": e} for m, e in rows])  # fmt: skip

    protocol(2, 3)
    load(folder)
    protocol(2, 2)
    with pytest.raises(UsageError, match="need the same class order, batches or views"):
        load(folder)


@pytest.mark.parametrize("key", ["data.tasks", "data.crop_low", "backbone.name"])
def test_rows_of_one_benchmark_have_the_same_data_and_backbone(key, tmp_path):
    folder = write_suite(tmp_path / "s")
    rows = [{"benchmark": "b<script>", "method": m, "key": key, "value": v} for m, v in (("hlgp", "1"), ("other_row", "2"))]
    write_csv(folder / "protocol.csv", PROTOCOL, rows)
    with pytest.raises(UsageError, match=rf"{key} differs between rows of b<script>: 1 \('hlgp'\) and 2 \('other_row'\)"):
        load(folder)


def two_suites(folder: Path, change=lambda metrics, runs: None) -> list[Path]:
    """`mini` with hlgp and other_row; `references` with hlgp and third, changed, on the same batches by its tables."""

    def rename(metrics, runs):
        for row in (*metrics, *runs):
            if row["method"] == "other_row":
                row.update(identity("third", row["order_seed"]))
        change(metrics, runs)

    folders = [write_suite(folder / "mini"), write_suite(folder / "references", rename)]
    for place, second in zip(folders, ("other_row", "third"), strict=True):
        rows = [(method, key) for method in ("hlgp", second) for key in ("train.epochs", "data.tasks")]
        write_csv(place / "protocol.csv", PROTOCOL,
                  [{"benchmark": "b<script>", "method": m, "key": key, "value": 2} for m, key in rows])  # fmt: skip
    return folders


def test_rows_of_another_suite_stand_beside(tmp_path):
    folder, other = two_suites(tmp_path)
    likeness = [{"run_id": run_of("hlgp", o), "layer": 0, "other": 1, "cosine": 0.5} for o in (1, 2)]
    write_csv(folder / "similarity.csv", SIMILARITY, likeness)  # the other has none
    results = load(folder, [other])
    assert results.methods == ["hlgp", "other_row", "third"]
    assert len(results.similarity) == 2
    assert not results.left_out
    assert len(results.runs) == 6
    assert results.runs.groupby("method")["suite"].unique().str[0].to_dict() == dict(
        hlgp="mini", other_row="mini", third="references"
    )
    table = tables.main_table(results).set_index("method")
    assert table["n"].tolist() == [2, 2, 2], "a row of both is that of the first"
    assert table.loc["third", "faa_mean"] == pytest.approx(table.loc["other_row", "faa_mean"])
    assert set(tables.paired_table(results)["HLGP minus"]) == {"other_row", "third"}
    assert list(tables.protocol_table(results).columns) == ["key", "hlgp", "other_row", "third"]
    build(results, tmp_path / "out")
    assert "Rows of suite &#x27;references&#x27;, run apart" in (tmp_path / "out" / "index.html").read_text()


def elsewhere(metrics, runs):
    for row in (*metrics, *runs):
        row.update(run_id=row["run_id"].replace("b<script>", "c"), benchmark="c")


NOT_BESIDE = [
    (lambda m, r: [run.update(data_sha="another") for run in r], "data_sha of .* differ: .* the same images"),
    (lambda m, r: [run.update(weights_sha="another") for run in r], "the same weights"),
    (lambda m, r: [run.update(precision="bf16") for run in r], "the same precision"),
    (lambda m, r: [run.update(stream_sha=9) for run in r], "the same class order, batches or views"),
    (elsewhere, "no finished row that .*mini has not"),
    (lambda m, r: m[0].update(suite="another"), "suite of rows of"),
]


@pytest.mark.parametrize(("change", "says"), NOT_BESIDE, ids=[says for _, says in NOT_BESIDE])
def test_rows_of_another_suite_that_cannot_be_compared_are_left_out(change, says, tmp_path):
    folder, other = two_suites(tmp_path, change)
    results = load(folder, [other])
    assert results.methods == ["hlgp", "other_row"]
    (line,) = results.left_out
    assert re.search(says, line)
    build(results, tmp_path / "out")
    assert "references are left out: " in (tmp_path / "out" / "index.html").read_text()


def test_without_a_protocol_no_rows_stand_beside(tmp_path):
    folder, other = two_suites(tmp_path)
    (other / "protocol.csv").unlink()
    assert "references/protocol.csv, so" in load(folder, [other]).left_out[0]


def test_which_suites_stand_beside(tmp_path, monkeypatch, capsys):
    _, other = two_suites(tmp_path)

    def third(*words):
        monkeypatch.setattr("sys.argv", ["report", *words, "--results", str(tmp_path), "--out", str(tmp_path / "out")])
        main()
        return "third" in capsys.readouterr().out

    monkeypatch.setattr("bench.report.figures.all_figures", lambda results: [])
    assert third()
    assert not third("mini", "--with")
    assert third("mini", "--with", "references")
    with pytest.raises(UsageError, match="unknown 'reference'; did you mean 'references'"):
        third("mini", "--with", "reference")
    shutil.rmtree(other)
    assert not third()


def test_rows_that_the_runs_did_not_end_with_are_refused(run, tiny_spec):
    """Where the runs are there, one count more or less is noticed."""
    _, cell = run(tiny_spec)
    folder = cell.parents[1]
    collect(folder.parent, [tiny_spec])
    load(folder)
    text = (folder / "metrics.csv").read_text()
    line = text.splitlines()[1]
    *rest, correct = line.split(",")
    (folder / "metrics.csv").write_text(text.replace(line, ",".join([*rest, str(max(int(correct) - 1, 1))])))
    with pytest.raises(UsageError, match=r"metrics.csv: rows of .* are not those of .*; run the suite again"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("timing", "{run},1,quick,1,1,1", "Unable to parse"),
        ("timing", "{run},1,1,1,1,1", "two rows of {run}, 1"),
        ("metrics", None, "column 'n' is there twice"),
    ],
)
def test_the_tables_beside_are_checked_too(name, text, says, tmp_path):
    folder = write_suite(tmp_path / "s")
    file = folder / f"{name}.csv"
    run_id = run_of("hlgp", 1)
    if text:
        file.write_text(file.read_text() + text.format(run=run_id) + "\n")
    else:
        file.write_text(
            "\n".join(line + (",n" if i == 0 else ",5") for i, line in enumerate(file.read_text().splitlines())) + "\n"
        )
    with pytest.raises(UsageError, match=re.escape(says.format(run=run_id))):
        load(folder)


def test_missing_columns_and_torn_files(tmp_path):
    folder = write_suite(tmp_path / "s")
    text = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(text.replace("correct", "right"))
    with pytest.raises(UsageError, match="column 'correct' is missing"):
        load(folder)
    (folder / "metrics.csv").write_text(text[: len(text) // 2 - 3])
    with pytest.raises(UsageError, match="line"):
        load(folder)
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="run the suite first"):
        load(folder)
