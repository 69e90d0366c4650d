"""Tables that a report refuses, and rows of other suites that it takes in or leaves out."""

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from report_tables import identity, run_of, write_protocol, write_suite

from bench.errors import UsageError
from bench.report import tables
from bench.report.__main__ import build, main
from bench.report.frames import load
from bench.store.collect import collect
from bench.store.facts import SuiteFacts, write_facts
from bench.store.tables import SIMILARITY, write_csv


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
        for table in (
            tables.main_table,
            tables.paired_table,
            tables.cost_table,
            tables.movement_table,
            tables.protocol_table,
        ):
            table(results)
        return
    assert str(folder) in said
    assert "\n" not in said.strip()


def test_rows_of_one_training_length_saw_the_same_batches(tmp_path):
    folder = write_suite(tmp_path / "s", lambda m, r: r[0].update(stream_sha="another"))

    def protocol(*epochs):
        write_protocol(
            folder, hlgp={"train.epochs": epochs[0]}, other_row={"train.epochs": epochs[1]}
        )

    protocol(2, 3)
    load(folder)
    protocol(2, 2)
    with pytest.raises(UsageError, match="need the same class order, batches or views"):
        load(folder)


@pytest.mark.parametrize("key", ["data.tasks", "data.crop_low", "backbone.name"])
def test_rows_of_one_benchmark_have_the_same_data_and_backbone(key, tmp_path):
    folder = write_suite(tmp_path / "s")
    write_protocol(folder, hlgp={key: 1}, other_row={key: 2})
    with pytest.raises(
        UsageError,
        match=rf"{key} differs between rows of b<script>: 1 \('hlgp'\) and 2 \('other_row'\)",
    ):
        load(folder)


@pytest.mark.parametrize("key", ["data.tasks", "train.epochs", "train.batch_size", "train.joint"])
def test_what_rows_are_compared_by_is_there_once_for_each(key, tmp_path):
    folder = write_suite(tmp_path / "s", lambda m, r: r[0].update(stream_sha="another"))
    write_protocol(folder, hlgp={}, other_row={})
    whole = (folder / "protocol.csv").read_text()
    line = next(line for line in whole.splitlines() if f",other_row,{key}," in line)
    (folder / "protocol.csv").write_text(whole.replace(line + "\n", ""))
    with pytest.raises(UsageError, match=f"no {key} of other_row on b<script> in protocol.csv"):
        load(folder)
    (folder / "protocol.csv").write_text(whole + line.replace(",2", ",3") + "\n")
    with pytest.raises(
        UsageError, match=f"two values of {key} for other_row on b<script> in protocol.csv"
    ):
        load(folder)


def two_suites(folder: Path, change=lambda metrics, runs: None) -> list[Path]:
    """`mini` with hlgp and other_row; `references` with hlgp and third, changed, on the same
    batches by its tables.
    """

    def rename(metrics, runs):
        for row in (*metrics, *runs):
            if row["method"] == "other_row":
                row.update(identity("third", row["order_seed"]))
        change(metrics, runs)

    folders = [write_suite(folder / "mini"), write_suite(folder / "references", rename)]
    write_facts(folders[0], SuiteFacts("hlgp", beside=("references",)))
    write_protocol(folders[0], hlgp={}, other_row={})
    write_protocol(folders[1], hlgp={}, third={})
    return folders


def test_rows_of_another_suite_stand_beside(tmp_path):
    folder, other = two_suites(tmp_path)
    likeness = [
        {"run_id": run_of("hlgp", o), "layer": 0, "other": 1, "cosine": 0.5} for o in (1, 2)
    ]
    write_csv(folder / "similarity.csv", SIMILARITY, likeness)  # the other has none
    results = load(folder, [other])
    assert results.methods == ["hlgp", "other_row", "third"]
    assert len(results.similarity) == 2
    assert not results.notes
    assert len(results.runs) == 6
    table = tables.main_table(results).set_index("method")
    assert table["n"].tolist() == [2, 2, 2], "a row of both is that of the first"
    assert table.loc["third", "faa_mean"] == pytest.approx(table.loc["other_row", "faa_mean"])
    assert set(tables.paired_table(results)["HLGP minus"]) == {"other_row", "third"}
    assert list(tables.protocol_table(results).columns) == ["key", "hlgp", "other_row", "third"]
    assert table["suite"].to_dict() == dict(hlgp="mini", other_row="mini", third="references")
    build(results, tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&#39;mini&#39; with rows of references, " in page
    assert "6 of 6 cells finished" in page
    assert "From suite &#39;references&#39;, run apart" in page


def elsewhere(metrics, runs):
    for row in (*metrics, *runs):
        row.update(identity(row["method"], row["order_seed"] + 2))


def unfinished(metrics, runs):
    metrics[:] = [row for row in metrics if row["method"] != "third"]
    for run in runs:
        if run["method"] == "third":
            run.update(status="missing")


NOT_BESIDE = [
    (
        lambda m, r: [run.update(data_sha="another") for run in r],
        "data_sha of .* differ: .* the same images",
    ),
    (lambda m, r: [run.update(weights_sha="another") for run in r], "the same weights"),
    (
        lambda m, r: [run.update(stream_sha=9) for run in r],
        "the same class order, batches or views",
    ),
    (
        lambda m, r: [run.update(precision="bf16") for run in r],
        "precision=bf16; those have .*train.joint=False, precision= on this",
    ),
    (elsewhere, "has no finished cell of another row on the same benchmark, order and seed"),
    (unfinished, "has no finished cell of another row"),
    (lambda m, r: m[0].update(suite="another"), "suite of rows of"),
]


@pytest.mark.parametrize(("change", "says"), NOT_BESIDE, ids=[says for _, says in NOT_BESIDE])
def test_rows_of_another_suite_that_cannot_be_compared_are_refused_or_left_out(
    change, says, tmp_path
):
    folder, other = two_suites(tmp_path, change)
    with pytest.raises(UsageError, match=says):
        load(folder, [other])
    results = load(folder, if_comparable=[other])
    assert results.methods == ["hlgp", "other_row"]
    (line,) = results.notes
    assert re.search(says, line)
    build(results, tmp_path / "out")
    assert str(escape(line)) in (tmp_path / "out" / "index.html").read_text()


def test_rows_stand_beside_a_grid_that_still_runs(tmp_path):
    """Those of an order that has not begun are left out; the others are shown."""
    folder, other = two_suites(tmp_path)

    def begun(metrics, runs):
        metrics[:] = [row for row in metrics if row["order_seed"] == 1]
        for run in runs:
            if run["order_seed"] == 2:
                run.update(status="missing")

    write_suite(folder, begun)
    write_protocol(folder, hlgp={}, other_row={})
    results = load(folder, if_comparable=[other])
    assert results.methods == ["hlgp", "other_row", "third"]
    assert tables.main_table(results).set_index("method")["n"].to_dict()["third"] == 1
    (line,) = results.notes
    assert line.endswith(f"orders or seeds than those finished in {folder} are not shown")


@pytest.mark.parametrize(
    ("key", "value"), [("train.epochs", 3), ("train.batch_size", 16), ("train.joint", True)]
)
def test_rows_that_were_trained_for_another_time_do_not_stand_beside(key, value, tmp_path):
    folder, other = two_suites(tmp_path, lambda m, r: [run.update(stream_sha=9) for run in r])
    write_protocol(other, hlgp={}, third={key: value})
    with pytest.raises(
        UsageError, match=f"third--.*{key}={value}.*; those have .*{key}=.* by --set"
    ):
        load(folder, [other])


def test_without_a_protocol_no_rows_stand_beside(tmp_path):
    for number, where in enumerate(("mini", "references")):
        folder, other = two_suites(tmp_path / str(number))
        (tmp_path / str(number) / where / "protocol.csv").unlink()
        with pytest.raises(UsageError, match=f"no .*{where}/protocol.csv, so"):
            load(folder, [other])


def test_what_of_another_suite_is_not_shown_is_said(tmp_path):
    def change(metrics, runs):
        third = [
            row for row in (*metrics, *runs) if row["method"] == "third" and row["order_seed"] == 1
        ]
        for order, method in ((3, "third"), (1, "third@0.1")):
            more = [row | identity(method, order) for row in third]
            metrics += [row for row in more if "scenario" in row]
            runs += [row for row in more if "scenario" not in row]

    folder, other = two_suites(tmp_path, change)
    write_protocol(other, **{"hlgp": {"train.prompt_lr": 1}, "third": {}, "third@0.1": {}})
    assert load(folder, [other]).notes == (
        f"{other}: rows NAME@VALUE are settings of a search and shown in its own report",
        f"{other}: 1 cells on other benchmarks, orders or seeds than those finished in {folder} "
        "are not shown",
    )
    write_protocol(folder, hlgp={"train.prompt_lr": 2}, other_row={})
    assert f"{other}: its row 'hlgp' has other settings" in load(folder, [other]).notes[0]
    write_protocol(folder, hlgp={}, other_row={})

    def fewer(metrics, runs):
        metrics[0].update(correct=1)

    folder, other = two_suites(tmp_path / "again", fewer)
    assert (
        f"{other}: its row 'hlgp' has the settings but not the counts"
        in load(folder, [other]).notes[0]
    )


def test_cells_of_another_suite_that_are_missing_are_listed(tmp_path):
    def lose(metrics, runs):
        metrics[:] = [row for row in metrics if row["run_id"] != run_of("third", 2)]
        next(run for run in runs if run["run_id"] == run_of("third", 2)).update(
            status="diverged", reason="loss nan"
        )

    folder, other = two_suites(tmp_path, lose)
    results = load(folder, [other])
    assert results.missing()["reason"].tolist() == ["loss nan"]
    build(results, tmp_path / "out")
    assert "5 of 6 cells finished" in (tmp_path / "out" / "index.html").read_text()


def test_which_suites_stand_beside(tmp_path, monkeypatch, capsys):
    _, other = two_suites(tmp_path / "results")
    monkeypatch.setattr("bench.paths.PROJECT", tmp_path)  # no published results
    monkeypatch.setattr("bench.report.figures.all_figures", lambda results: [])

    def third(*words):
        monkeypatch.setattr(
            "sys.argv",
            [
                "report",
                *words,
                "--results",
                str(tmp_path / "results"),
                "--out",
                str(tmp_path / "out"),
            ],
        )
        main()
        return "third" in capsys.readouterr().out

    assert third()
    assert not third("--alone")
    assert {f.parent.name for f in (tmp_path / "out").glob("*/index.html")} == {"mini"}
    assert third("mini", "--alone", "--with", "references")
    found = {f.parent.name for f in (tmp_path / "out").glob("*/index.html")}
    assert found == {"mini", "mini+references"}, "the suite's own report is not replaced"
    for wrong in ("reference", "", ".", "mini", f"../{(tmp_path / 'results').name}/references"):
        with pytest.raises(
            UsageError, match=r"--with, other results: unknown .*accepted: references"
        ):
            third("mini", "--with", wrong)
    with pytest.raises(UsageError, match="unknown 'references'"):
        third("mini", "--with", "references", "--with", "references")
    (other / "metrics.csv").write_text("nonsense")
    assert not third()
    assert (
        str(escape("references/metrics.csv: column 'run_id' is missing"))
        in (tmp_path / "out" / "mini" / "index.html").read_text()
    )
    with pytest.raises(UsageError, match="column 'run_id' is missing"):
        third("--with", "references")
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
    (folder / "metrics.csv").write_text(
        text.replace(line, ",".join([*rest, str(max(int(correct) - 1, 1))]))
    )
    with pytest.raises(
        UsageError, match=r"metrics.csv: rows of .* are not those of .*; run the suite again"
    ):
        load(folder)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("timing", "{run},1,quick,1,1,1,1", "Unable to parse"),
        ("timing", "{run},1,1,1,1,1,1", "two rows of {run}, 1"),
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
            "\n".join(
                line + (",n" if i == 0 else ",5")
                for i, line in enumerate(file.read_text().splitlines())
            )
            + "\n"
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
