"""The report, from CSV files alone: the committed one is made again, and its tables say what they
should.
"""

import re
import shutil
import subprocess
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import REFERENCE, ROOT
from report_tables import run_of, write_protocol, write_suite

from bench.config.suite import load_suite, suite_names
from bench.report import tables
from bench.report.__main__ import parse
from bench.report.build import all_tables, build
from bench.report.frames import load
from bench.report.protocol import differences
from bench.report.sections import all_answers
from bench.report.table_files import escape_latex
from bench.store.facts import read_facts
from bench.store.tables import MOVEMENT, PROTOCOL, write_csv

PUBLISHED = [name for name in suite_names() if (REFERENCE / name / "metrics.csv").is_file()]


# One of each kind: all rows, many orders, cells that are missing, rates, photographs.
DRAWN = ("mini", "orders", "photos_orders", "tune_hlgp", "tiny_imagenet_small")


@pytest.mark.parametrize("suite", PUBLISHED)
def test_the_published_report_comes_from_the_published_tables(suite, tmp_path, monkeypatch):
    """Tables byte for byte. Figures of a few suites are drawn, and those of one are written."""
    if suite != "mini":
        save = named_only if suite in DRAWN else not_drawn
        monkeypatch.setattr("bench.report.figures.save", save)
    beside = [REFERENCE / name for name in read_facts(REFERENCE / suite).beside]
    build(load(REFERENCE / suite, beside), tmp_path, tracked=True)
    published = ROOT / "reports" / "reference" / suite
    made = {f.relative_to(tmp_path): f for f in tmp_path.rglob("*") if f.is_file()}
    assert made.keys() == {f.relative_to(published) for f in published.rglob("*") if f.is_file()}
    tables_made = [file for file in made if file.suffix == ".md"]
    assert tables_made
    for file in tables_made:
        assert made[file].read_bytes() == (published / file).read_bytes(), file


@pytest.fixture
def no_figures(monkeypatch):
    """For tests of what the page says."""
    monkeypatch.setattr("bench.report.figures.all_figures", lambda results: iter(()))


def not_drawn(planned, folder, tracked):
    assert tracked
    folder.mkdir(exist_ok=True)
    (folder / f"{planned.name}.png").touch()
    return {folder / f"{planned.name}.png": b""}


def named_only(planned, folder, tracked):
    plt.close(planned.draw())
    return not_drawn(planned, folder, tracked)


def test_the_committed_mini_is_whole():
    results = load(REFERENCE / "mini")
    assert not len(results.missing())
    assert set(results.benchmarks) == {"glyphs", "glyphs-r", "glyphs-a", "glyphs-v", "digits"}
    rows = {
        "hlgp",
        "l2p",
        "l2p++",
        "dualprompt",
        "coda-prompt",
        "linear",
        "ncm",
        "linear-ncm",
        "finetune",
    }
    assert rows < set(results.methods)
    assert {cell.run_id for cell in load_suite("mini").cells} == set(results.runs["run_id"]), (
        "it is of the present recipe"
    )
    streams = results.runs[
        ~results.runs["method"].str.startswith("joint") & (results.runs["method"] != "ncm")
    ]
    assert (
        streams.groupby(["benchmark", "order_seed", "seed"])["stream_sha"].nunique() == 1
    ).all(), "one stream for all"
    assert results.runs["weights_sha"].nunique() == 1
    assert (results.runs.groupby("benchmark")["data_sha"].nunique() == 1).all()


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
    assert tables.for_people(tables.main_table(results))["FAA (sd)"].tolist() == [
        "70.8 ± 0.4",
        "60.8 ± 0.4",
    ]


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
    assert "b<script>" not in page
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


def test_prompts_that_hardly_moved_are_flagged(tmp_path, no_figures):
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
    assert table.loc["hlgp", "feature_drift"] == pytest.approx(0.1), (
        "of what the head reads: the last row"
    )
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
    rows += [
        {"benchmark": "y", "method": "d", "key": key, "value": value}
        for key, value in (("train.epochs", "4"), ("data.name", "y"))
    ]
    rows += [
        {"benchmark": b, "method": m, "key": "data.name", "value": b}
        for b in ("x", "y")
        for m in values
    ]
    table = tables.protocol_table(replace(load(folder), protocol=pd.DataFrame(rows))).set_index(
        "key"
    )
    assert table.loc["train.epochs"].tolist() == ["4", "4", "4", "4"]
    assert table.loc["train.prompt_lr"].tolist() == ["0.1", "0.1", "0.2 / 0.3 *", ""]
    assert table.loc["data.name"].tolist() == ["x / y", "x / y", "x / y", "y"], (
        "d is as the others are where it was run"
    )


def test_missing_cells_are_listed_and_not_counted(tmp_path, no_figures):
    def lose(metrics, runs):
        metrics[:] = [row for row in metrics if row["run_id"] != run_of("hlgp", 2)]
        runs[1].update(status="diverged", reason="loss nan at task 1")

    results = load(write_suite(tmp_path / "s", lose))
    text = build(results, tmp_path / "out")
    assert "loss nan at task 1" in (tmp_path / "out" / "index.html").read_text()
    assert tables.main_table(results).set_index("method").loc["hlgp", "n"] == 1
    assert "70.5" in text


@pytest.mark.parametrize("rows", [None, []])
def test_without_a_protocol_the_page_says_what_was_not_checked(rows, tmp_path, no_figures):
    folder = write_suite(tmp_path / "s", lambda m, r: r[0].update(stream_sha="another"))
    if rows is not None:
        write_csv(folder / "protocol.csv", PROTOCOL, rows)
    build(load(folder), tmp_path / "out")
    assert "could not be checked" in (tmp_path / "out" / "index.html").read_text()


def test_pairs_are_counted_within_a_benchmark(tmp_path, no_figures):
    def add_benchmark(metrics, runs):
        for rows in (metrics, runs):
            for row in [row for row in rows if row["order_seed"] == 1]:
                for seed in (1, 2):
                    run_id = row["run_id"].replace("b<script>", "natural").replace("s1", f"s{seed}")
                    rows.append(
                        {
                            **row,
                            "benchmark": "natural",
                            "seed": seed,
                            "run_id": run_id,
                            "stream_sha": f"n{seed}",
                        }
                        if "status" in row
                        else {**row, "benchmark": "natural", "seed": seed, "run_id": run_id}
                    )

    build(load(write_suite(tmp_path / "s", add_benchmark)), tmp_path / "out")
    assert (
        "The smallest p of the sign-flip test: 0.5 with 2 pairs; a t test knows no such limit."
        in (tmp_path / "out" / "index.html").read_text()
    )


def test_one_row_alone_is_a_report(tmp_path, no_figures):
    def keep_one(*both):
        for rows in both:
            rows[:] = [row for row in rows if row["method"] == "hlgp"]

    folder = write_suite(tmp_path / "s", keep_one)
    write_protocol(folder, hlgp={"type": "x"})
    assert "70.8" in build(load(folder), tmp_path / "out")


WIDTH = re.compile(r"WIDE (\w+) ([\d.]+)pt")


@pytest.mark.parametrize("suite", ["mini", "ablation", "odd names"])
def test_the_latex_compiles(suite, tmp_path):
    """Every table of a report, as a paper would take it in."""
    folder = REFERENCE / suite

    def rename(metrics, runs):
        for row in (*metrics, *runs):
            for key in ("method", "run_id"):
                row[key] = row[key].replace("other_row", "[50%_&#${x}~^\\ü|αο方")

    if suite == "odd names":
        folder = write_suite(tmp_path / "s", rename)
    results = load(folder)
    all_tables(results, all_answers(results), {}, tmp_path / "tables", tracked=False)
    files = sorted((tmp_path / "tables").glob("*.tex"))
    assert {"main", "paired"} <= {file.stem for file in files}
    assert "protocol" not in {file.stem for file in files}, "its differences are, which fit a page"
    for file in files:
        assert r"\toprule" in file.read_text()
        assert r"\hline" not in file.read_text()
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex here; the texts were checked")
    head = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}"
    body = "\n\n".join(rf"\input{{{file.name}}}" for file in files)
    wide = "".join(
        rf"\setbox0=\hbox{{\input{{{file.name}}}}}\typeout{{WIDE {file.stem} \the\wd0}}"
        for file in files
    )
    of_two_columns = rf"\hsize=6.75in\linewidth=6.75in\footnotesize {wide}"
    body = rf"{body}\newpage{{{of_two_columns}}}"
    page = rf"{head}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    (files[0].parent / "page.tex").write_text(page)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(
        words, cwd=files[0].parent, capture_output=True, encoding="utf-8", errors="replace"
    )
    assert not done.returncode, done.stdout[-2000:]
    inches = {name: float(points) / 72.27 for name, points in WIDTH.findall(done.stdout)}
    assert set(inches) == {file.stem for file in files}
    smaller = {"cost", "movement", "alignment"}  # with long names
    assert {name for name, width in inches.items() if width > 6.75} <= smaller


@pytest.mark.parametrize("name", ["answer", "main", "paired"])
@pytest.mark.parametrize("kind", ["md", "csv", "tex"])
def test_tables_are_the_golden_ones(name, kind, tmp_path, small_report):
    """tests/golden/report holds the tables of write_suite, read and agreed with by people."""
    golden = ROOT / "tests" / "golden" / "report" / f"{name}.{kind}"
    assert (small_report / "tables" / golden.name).read_text() == golden.read_text()


@pytest.fixture(scope="module")
def small_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    build(load(write_suite(folder / "s")), folder / "out")
    return folder / "out"


def test_the_protocol_says_what_differs(tmp_path):
    folder = write_suite(tmp_path / "s")
    write_protocol(folder, hlgp={"train.lr": 0.1}, other_row={"train.lr": 0.2})
    shared, by_benchmark, by_row = differences(load(folder).protocol)
    assert ("train.epochs", "2") in shared
    assert by_benchmark == []
    assert by_row == [
        ("train.lr", "0.1", "HLGP"),
        ("train.lr", "0.2", "other_row"),
    ]
    two = load(folder).protocol
    other = two.assign(benchmark="c", value=two["value"].replace("2", "5"))
    _, by_benchmark, by_row = differences(pd.concat([two, other]))
    assert ("train.epochs", "5", "c") in by_benchmark
    assert {key for key, *_ in by_row} == {"train.lr"}


def test_the_protocol_leaves_out_what_says_nothing(tmp_path):
    """Names that repeat themselves, and settings of one row, which are on its page."""
    folder = write_suite(tmp_path / "s")
    own = {"hlgp": {"model.groups": 3}, "other_row": {}}
    names = {"data.name": "b<script>", "model.length": 5}
    write_protocol(folder, **{m: {"type": m} | names | of for m, of in own.items()})
    shared, by_benchmark, by_row = differences(load(folder).protocol)
    keys = {key for key, *_ in (*shared, *by_benchmark, *by_row)}
    assert not keys & {"type", "data.name", "model.groups"}
    assert ("model.length", "5") in shared
    assert not by_benchmark + by_row


def test_the_overview_lists_every_report(tmp_path, no_figures):
    for name in ("a", "b<i>"):
        build(load(write_suite(tmp_path / name)), tmp_path / "out" / name)
    (tmp_path / "out" / "a" / "summary.json").write_text("{}")  # of another version
    text = (tmp_path / "out" / "index.html").read_text()
    build(load(tmp_path / "b<i>"), tmp_path / "out" / "b<i>")
    assert 'href="a/index.html"' in text
    assert 'href="b%3Ci%3E/index.html"' in text
    assert "Highest mean: HLGP on b&lt;script&gt;" in text
    assert 'href="a/index.html"' not in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    "words",
    [["--format", "pdf", "--reference"], ["--columns", "1"], ["--format", "pdf", "--columns", "3"]],
)
def test_options_that_would_do_nothing_are_refused(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["report", "mini", *words])
    with pytest.raises(SystemExit) as ended:
        parse()
    assert ended.value.code == 2
    assert words[-2 if "3" in words else 0] in capsys.readouterr().err


def test_latex_escapes_every_special_character():
    for char in "\\_%&#${}~^":
        assert escape_latex(char) != char
    assert pd.Series(["a_b"]).map(escape_latex).tolist() == [r"a\_b"]


def test_bf16_changes_less_than_another_seed():
    """The gate under which `precision=auto` may take bf16 (suite precision); what decides is the
    committed run.
    """
    cells = load(REFERENCE / "precision").cells
    rows = cells[cells["scenario"] == "class"].assign(row=cells["method"].str.split("@").str[0])
    for name, part in rows.groupby("row"):
        values = part.pivot(index=["order_seed", "seed"], columns="method", values="faa")
        fp32, bf16 = values[f"{name}@fp32"], values[f"{name}@bf16"]
        assert len(values) == 9
        spread = fp32.groupby("order_seed").var().mean() ** 0.5  # over the seeds of one order
        assert abs((bf16 - fp32).mean()) < spread, name
