"""The report, from CSV files alone: the committed one is made again, and what is wrong with a table is said."""

import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from bench.config.spec import UsageError
from bench.config.suite import load_suite
from bench.report import tables
from bench.report.__main__ import BESIDE, build, main
from bench.report.frames import load
from bench.store.rundir import collect
from bench.store.tables import METRICS, MOVEMENT, PROTOCOL, RUNS, SIMILARITY, TIMING, write_csv

COMMITTED = sorted(f.parent.name for f in (ROOT / "results").glob("*/metrics.csv"))


@pytest.mark.parametrize("suite", COMMITTED)
def test_the_committed_report_comes_from_the_committed_csv(suite, tmp_path, monkeypatch):
    """Every figure is drawn; those of one suite are enough to be written."""
    if suite != "mini":
        monkeypatch.setattr("bench.report.figures.save", named_only)
    results = load(ROOT / "results" / suite, [ROOT / "results" / name for name in BESIDE.get(suite, [])])
    assert not results.left_out
    build(results, tmp_path)
    made = sorted(f.relative_to(tmp_path) for f in tmp_path.rglob("*") if f.suffix in (".csv", ".md", ".tex"))
    assert made
    for file in made:
        assert (tmp_path / file).read_text() == (ROOT / "reports" / suite / file).read_text(), file
    figures = {f.name for f in tmp_path.glob("figures/*")}
    assert figures == {f.name for f in (ROOT / "reports" / suite).glob("figures/*")}


def named_only(figure, folder, name):
    folder.mkdir(exist_ok=True)
    for kind in ("svg", "png"):
        (folder / f"{name}.{kind}").touch()
    plt.close(figure)
    return "<svg></svg>"


def test_the_committed_mini_is_whole():
    results = load(ROOT / "results" / "mini")
    assert not len(results.missing())
    assert set(results.benchmarks) == {"glyphs", "glyphs-r", "glyphs-a", "glyphs-v", "digits"}
    rows = {"hlgp", "l2p", "l2p++", "dualprompt", "coda-prompt", "linear", "ncm", "linear-ncm", "finetune"}
    assert rows < set(results.methods)
    assert {cell.run_id for cell in load_suite("mini").cells} == set(results.runs["run_id"]), "it is of the present recipe"
    streams = results.runs[~results.runs["method"].str.startswith("joint") & (results.runs["method"] != "ncm")]
    assert (streams.groupby(["benchmark", "order_seed", "seed"])["stream_sha"].nunique() == 1).all(), "one stream for all"
    assert results.runs["weights_sha"].nunique() == 1
    assert (results.runs.groupby("benchmark")["data_sha"].nunique() == 1).all()


SPEC = "f" * 64


def run_of(method, order):
    return f"{method}--b<script>--o{order}--s1--{SPEC[:12]}"


def identity(method, order):
    return {"run_id": run_of(method, order), "suite": "s", "benchmark": "b<script>", "method": method,
            "order_seed": order, "seed": 1}  # fmt: skip


def write_suite(folder: Path, change=lambda metrics, runs: None) -> Path:
    """Two methods, two orders, two tasks; hlgp 80/60 then better by ten points each than `other_row`."""
    metrics, runs, timing = [], [], []
    for method, bonus in (("hlgp", 10), ("other_row", 0)):
        for order in (1, 2):
            name = identity(method, order)
            runs.append(
                {
                    **name,
                    "status": "done",
                    "spec_sha": SPEC,
                    "stream_sha": order,
                    "tasks": 2,
                    "classes": 4,
                    "params_trainable": 100,
                    "gflops_train": 1,
                    "gflops_infer": 1,
                }
            )
            timing += [{"run_id": name["run_id"], "task": t, "train_seconds": 1, "eval_seconds": 1} for t in (1, 2)]
            for scenario in ("class", "task"):
                for after, eval_task, correct in ((1, 1, 80), (2, 1, 50 + order), (2, 2, 70)):
                    metrics.append({**name, "scenario": scenario, "after_task": after, "eval_task": eval_task,
                                    "n": 100, "correct": correct + bonus})  # fmt: skip
    change(metrics, runs)
    write_csv(folder / "metrics.csv", METRICS, metrics)
    write_csv(folder / "runs.csv", RUNS, runs)
    write_csv(folder / "timing.csv", TIMING, timing)
    return folder


def test_tables_by_hand(tmp_path):
    results = load(write_suite(tmp_path / "s"))
    table = tables.main_table(results).set_index("method")
    assert table.loc["hlgp", "faa_mean"] == pytest.approx((70.5 + 71) / 2)
    assert table.loc["hlgp", "faa_std"] == pytest.approx(np.std([70.5, 71], ddof=1))
    assert table.loc["hlgp", "caa_mean"] == pytest.approx((90 + 70.75) / 2)
    assert table.loc["hlgp", "forgetting_mean"] == pytest.approx(28.5)
    assert table.loc["hlgp", "n"] == 2
    paired = tables.paired_table(results).iloc[0]
    assert paired["difference"] == pytest.approx(10)
    assert paired["half_width_95"] == pytest.approx(0, abs=1e-9)
    assert tables.for_people(tables.main_table(results))["FAA"].tolist() == ["70.8 ± 0.4", "60.8 ± 0.4"]


def test_pooled_metrics_weigh_images(tmp_path):
    def change(metrics, runs):
        for row, (n, correct) in zip(metrics, 8 * [(100, 100), (100, 50), (300, 30)], strict=True):
            row.update(n=n, correct=correct)

    cell = load(write_suite(tmp_path / "s", change)).cells.iloc[0]
    assert cell["faa"] == pytest.approx((50 + 10) / 2)
    assert cell["pooled_last"] == pytest.approx(100 * 80 / 400)
    assert cell["pooled_mean"] == pytest.approx((100 + 20) / 2)


def test_names_are_escaped_everywhere(tmp_path):
    build(load(write_suite(tmp_path / "s")), tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script>" not in page
    assert "b&lt;script&gt;" in page
    assert r"other\_row" in (tmp_path / "out" / "tables" / "main.tex").read_text()
    assert "$\\pm$" in (tmp_path / "out" / "tables" / "main.tex").read_text()


def test_the_same_csv_gives_the_same_bytes(tmp_path):
    results = load(write_suite(tmp_path / "s"))
    build(results, tmp_path / "a")
    build(results, tmp_path / "b")
    files = sorted(f.relative_to(tmp_path / "a") for f in (tmp_path / "a").rglob("*.*"))
    assert any(f.suffix == ".svg" for f in files)
    assert any(f.suffix == ".png" for f in files)
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_prompts_that_hardly_moved_are_flagged(tmp_path):
    folder = write_suite(tmp_path / "s")
    rows = [
        {
            "run_id": run_id,
            "task": task,
            "layer": layer,
            "prompt_rms": 0.2,
            "prompt_change": change,
            "feature_drift": 0.1 * layer,
        }
        for run_id, change in ((run_of("hlgp", 1), 0.01), (run_of("other_row", 1), 0.1))
        for task in (1, 2)
        for layer in (0, 1)
    ]
    write_csv(folder / "movement.csv", MOVEMENT, rows)
    table = tables.movement_table(load(folder)).set_index("method")
    assert table.loc["hlgp", "relative_change"] == pytest.approx(0.05)
    assert table.loc["hlgp", "feature_drift"] == pytest.approx(0.1), "of what the head reads: the last row"
    assert table["flag"].to_dict() == {"hlgp": "HARDLY MOVED (1 of 1 runs)", "other_row": ""}
    build(load(folder), tmp_path / "out")
    assert "HARDLY MOVED" in (tmp_path / "out" / "index.html").read_text()


def test_differences_between_protocols_are_marked(tmp_path):
    folder = write_suite(tmp_path / "s")
    values = {"hlgp": ("4", "0.1"), "b": ("4", "0.1"), "c": ("4", "0.2")}
    rows = [
        {"benchmark": benchmark, "method": method, "key": key, "value": value}
        for benchmark in ("x", "y")
        for method, both in values.items()
        for key, value in zip(("train.epochs", "train.prompt_lr"), both, strict=True)
    ]
    rows[-1]["value"] = "0.3"  # c on benchmark y
    write_csv(folder / "protocol.csv", PROTOCOL, rows)
    table = tables.protocol_table(load(folder)).set_index("key")
    assert table.loc["train.epochs"].tolist() == ["4", "4", "4"]
    assert table.loc["train.prompt_lr"].tolist() == ["0.1", "0.1", "0.2 / 0.3 *"]


def test_rows_with_a_value_get_a_figure_per_name(tmp_path):
    def rename(metrics, runs):
        for row in (*metrics, *runs):
            for key in ("method", "run_id"):
                row[key] = row[key].replace("other_row", "groups@4")

    results = load(write_suite(tmp_path / "s", rename))
    build(results, tmp_path / "out")
    drawn = {"setting-groups", "parameters"}  # of HLGP and its switches also what they cost
    assert {f.name for f in (tmp_path / "out" / "figures").iterdir()} == {f"{n}.{k}" for n in drawn for k in ("svg", "png")}


def test_missing_cells_are_listed_and_not_counted(tmp_path):
    def lose(metrics, runs):
        metrics[:] = [row for row in metrics if row["run_id"] != run_of("hlgp", 2)]
        runs[1].update(status="diverged", reason="loss nan at task 1")

    results = load(write_suite(tmp_path / "s", lose))
    text = build(results, tmp_path / "out")
    assert "loss nan at task 1" in (tmp_path / "out" / "index.html").read_text()
    assert tables.main_table(results).set_index("method").loc["hlgp", "n"] == 1
    assert "70.5" in text


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


def test_without_a_protocol_the_page_says_what_was_not_checked(tmp_path):
    folder = write_suite(tmp_path / "s", lambda m, r: r[0].update(stream_sha="another"))
    build(load(folder), tmp_path / "out")
    assert "could not be checked" in (tmp_path / "out" / "index.html").read_text()


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


def test_pairs_are_counted_within_a_benchmark(tmp_path):
    def add_benchmark(metrics, runs):
        for rows in (metrics, runs):
            for row in [row for row in rows if row["order_seed"] == 1]:
                for seed in (1, 2):
                    run_id = row["run_id"].replace("b<script>", "natural").replace("s1", f"s{seed}")
                    rows.append(
                        {**row, "benchmark": "natural", "seed": seed, "run_id": run_id, "stream_sha": f"n{seed}"}
                        if "status" in row
                        else {**row, "benchmark": "natural", "seed": seed, "run_id": run_id}
                    )

    build(load(write_suite(tmp_path / "s", add_benchmark)), tmp_path / "out")
    assert "With 2 pairs the sign-flip test cannot go below p = 0.5." in (tmp_path / "out" / "index.html").read_text()


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


def test_one_row_alone_is_a_report(tmp_path):
    def keep_one(*both):
        for rows in both:
            rows[:] = [row for row in rows if row["method"] == "hlgp"]

    folder = write_suite(tmp_path / "s", keep_one)
    rows = [{"benchmark": "b<script>", "method": "hlgp", "key": key, "value": "x"} for key in ("type", "train.epochs")]
    write_csv(folder / "protocol.csv", PROTOCOL, rows)
    assert "70.8" in build(load(folder), tmp_path / "out")


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


def test_latex_escapes_every_special_character():
    for char in "\\_%&#${}~^":
        assert tables.escape_latex(char) != char
    assert pd.Series(["a_b"]).map(tables.escape_latex).tolist() == [r"a\_b"]


def test_bf16_changes_less_than_another_class_order():
    """The gate under which `precision=auto` may take bf16 (suite precision); what decides is the committed run."""
    cells = load(ROOT / "results" / "precision").cells
    rows = cells[cells["scenario"] == "class"].assign(row=cells["method"].str.split("@").str[0])
    for name, part in rows.groupby("row"):
        values = part.pivot(index="order_seed", columns="method", values="faa")
        fp32, bf16 = values[f"{name}@fp32"], values[f"{name}@bf16"]
        assert len(values) == 3
        assert abs((bf16 - fp32).mean()) < fp32.std(), name
