"""Measured against published: a verdict for each kind of result, and nothing that is not comparable
beside a paper's number.
"""

import ast
import csv
import sys
from dataclasses import replace

import pytest
from conftest import REFERENCE, ROOT
from paper_tables import write_results

from bench.check import __main__ as check
from bench.check import claims, published
from bench.check.protocol import FIELDS, differing, gather, of_suite, protocol_by_row
from bench.config.suite import SUITES, load_suite, suite_names
from bench.errors import UsageError
from bench.paths import EXPECTED
from bench.store.protocol import protocol

# --- the published values


def test_published_values_are_well_formed():
    with (EXPECTED / "published.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    keys = [(r["line"], r["dataset"], r["tasks"], r["method"], r["metric"]) for r in rows]
    assert len(set(keys)) == len(keys)
    assert set(FIELDS.values()) <= set(rows[0])
    for row in rows:
        assert row["definition"]
        assert row["source"]
        assert row["metric"] in (
            "faa",
            "caa",
            "forgetting",
            "coda_forgetting",
            "pooled_mean",
            "pooled_last",
        )
        assert not row["value"] or (0 < float(row["value"]) < 100 and row["backbone"])
        assert row["value"] or not (row["std"] or row["n"]), (
            "nothing is said of a number that is not there"
        )
        assert row["order"] in ("", "coda", "pilot", "natural", "pcg64"), "the last is NSP's own"


def test_the_published_values_are_those_of_the_tables():
    """Sums of the tables' columns, added up by hand, and every HLGP cell empty."""
    table = published.published()
    values = table[table["value"] != ""].assign(value=lambda t: t["value"].astype(float))
    counts = {"coda": 21 + 10 + 3, "original": 8, "pilot": 40, "ranpac": 5, "caprompt": 6, "vq": 6}
    counts |= {"vq-stage": 10, "slca": 6, "slca-slow": 3, "nsp": 16, "ovor": 8}
    assert values.groupby("line").size().to_dict() == counts
    coda = values[
        (values["line"] == "coda")
        & (values["metric"] == "faa")
        & (values["dataset"] == "imagenet-r")
    ]
    assert coda.groupby("method")["value"].sum().round(2).to_dict() == {
        "l2p++": 206.01,
        "deep-l2p++": 214.01,
        "dualprompt": 212.24,
        "coda-prompt": 224.33,
        "joint": 246.18,
    }
    pilot = values[values["line"] == "pilot"]
    assert pilot.groupby("metric")["value"].sum().round(2).to_dict() == {
        "pooled_mean": 1474.82,
        "pooled_last": 1332.01,
    }
    later = values[~values["line"].isin(["coda", "original", "pilot"])]
    assert later.groupby(["line", "metric"])["value"].sum().round(2).to_dict() == {
        ("caprompt", "faa"): 264.44,
        ("caprompt", "forgetting"): 6.59,
        ("nsp", "faa"): 630.02,
        ("nsp", "forgetting"): 58.45,
        ("ovor", "faa"): 408.53,
        ("ovor", "forgetting"): 20.39,
        ("ranpac", "faa"): 399.90,
        ("slca", "pooled_last"): 253.24,
        ("slca", "pooled_mean"): 266.20,
        ("slca-slow", "pooled_last"): 160.66,
        ("slca-slow", "pooled_mean"): 92.01,
        ("vq", "caa"): 247.15,
        ("vq", "faa"): 232.71,
        ("vq-stage", "caa"): 432.07,
        ("vq-stage", "faa"): 411.49,
    }
    assert (table.loc[table["method"] == "hlgp", "value"] == "").all()
    assert set(table.loc[table["method"] == "hlgp", "dataset"]) >= set(claims.CLAIMED_ON)


@pytest.mark.parametrize(
    ("suite", "line", "count"),
    [
        ("cifar100_coda", "coda", 5),
        ("imagenet_r_coda", "coda", 24),
        ("domainnet_coda", "coda", 0),  # published on another split
        (
            "imagenet_a_pilot",
            "pilot",
            4,
        ),  # LAMDA-PILOT's L2P lets a batch vote, its DualPrompt mixes the prompts of images
        ("vtab_pilot", "pilot", 4),
        (
            "cifar100_original",
            "original",
            0,
        ),  # both originals let a batch vote, which ours never does
        ("imagenet_r_original", "original", 2),
        ("cub200_pilot", "", 0),
    ],
)
def test_the_suites_are_run_as_the_published_values_were(suite, line, count, tmp_path):
    """Before anything is run each value of a suite's own line is missing, not incomparable."""
    rows = published.compare(*gather(suite, tmp_path))
    missing = [row for row in rows if row["verdict"] == "missing"]
    assert len(missing) == count
    assert {row["what"] for row in missing} <= {f"published ({line})"}


@pytest.mark.parametrize(
    ("suite", "changed", "count"),
    [
        ("cub200_pilot", {"data.split": "pilot"}, 4),
        ("domainnet_coda", {"data.split": "coda"}, 1),
        (
            "cifar100_pilot",
            {"benchmarks.cifar100-10.data.tasks": 20},
            2,
        ),  # CODA-Prompt has other crops there
        (
            "imagenet_r_pilot",
            {
                "benchmarks.imagenet-r-10.data.tasks": 40,
                "benchmarks.imagenet-r-10.data.split": "pilot",
            },
            2,
        ),
    ],
)
def test_as_published_they_would_be_compared(suite, changed, count):
    """With the options that their docstrings name."""
    assert all(
        f"{key}={value}" in (ROOT / f"bench/suites/{suite}.py").read_text()
        for key, value in changed.items()
    )
    cells = load_suite(suite, changed).cells
    rows = published.compare(protocol_by_row(protocol(cells, [{}] * len(cells))), None)
    assert [row["verdict"] for row in rows].count("missing") == count


def test_a_docstring_has_what_was_published():
    """Each value, with its standard deviation where one is known, in the suite of its line and
    dataset.
    """
    lacking = []
    for row in published.published().to_dict("records"):
        name = f"{row['dataset'].replace('-', '_')}_{row['line']}"
        if row["value"] and name in suite_names():
            text = " ".join(
                ast.get_docstring(ast.parse((SUITES / f"{name}.py").read_text())).split()
            )
            benchmarks = {cell.benchmark for cell in load_suite(name).cells}
            value = f"{row['value']} ± {row['std']}" if row["std"] else row["value"]
            if f"{row['dataset']}-{row['tasks']}" in benchmarks and value not in text:
                lacking.append((name, row["method"], row["metric"], value))
    assert not lacking


# --- verdicts ---


@pytest.fixture
def checked(tmp_path, monkeypatch, capsys):
    """`python -m bench.check SUITE` on such a folder: exit code and rows by (method, metric)."""

    def go(accuracies, suite="cifar100_coda", line="coda", whole=True, **how):
        if whole:  # as if all test images had been counted: published values have two decimals
            for module in (claims, published):
                monkeypatch.setattr(module, "partial_test", lambda *given: "")
        write_results(tmp_path / suite, accuracies, suite, **how, images=10_000)
        monkeypatch.setattr(sys, "argv", ["check", suite, "--results", str(tmp_path)])
        code = check.main()
        text = capsys.readouterr().out
        lines = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in text.splitlines()
            if line.startswith("|")
        ]
        rows = [dict(zip(check.COLUMNS, line, strict=True)) for line in lines[2:]]
        return code, {
            (row["method"], row["metric"]): row
            for row in rows
            if row["what"] == f"published ({line})"
        }

    return go


def test_reproduced_differs_and_inconclusive(checked):
    accuracies = {
        "coda-prompt": [86.2, 86.3, 86.25, 86.2, 86.3],  # published 86.25 ± 0.74
        "dualprompt": [70.1, 70.2, 70.3, 70.2, 70.1],  # published 83.05
        "deep-l2p++": [84.3, 81.0, 87.0],  # published 84.30 ± 1.03
    }
    code, rows = checked(accuracies)
    assert code == 1, "something differs"
    assert rows["coda-prompt", "faa"]["verdict"] == "reproduced"
    assert rows["coda-prompt", "faa"]["difference"].startswith("+0.00 ± ")
    assert rows["dualprompt", "faa"]["verdict"] == "differs"
    assert rows["dualprompt", "faa"]["measured"] == "70.18"
    assert rows["deep-l2p++", "faa"]["verdict"] == "inconclusive"
    assert (
        rows["deep-l2p++", "faa"]["detail"].startswith("needs n=")
        or "no number of runs" in rows["deep-l2p++", "faa"]["detail"]
    )
    assert rows["l2p++", "faa"]["verdict"] == "not comparable", "no row of it was run"
    assert rows["joint", "faa"]["verdict"] == "not comparable"


def test_nothing_decided_is_exit_code_3(checked, tmp_path):
    assert checked({"coda-prompt": [86.2]})[0] == 3, "one run has no spread"
    assert check.report("cifar100_coda", tmp_path / "nothing") == 3, "nothing was run"


def test_reproduced_alone_is_exit_code_0(checked):
    assert checked({"coda-prompt": [86.2, 86.3, 86.25, 86.2, 86.3]})[0] == 0


@pytest.mark.parametrize(
    ("section", "field", "value", "says"),
    [
        (
            "backbone",
            "name",
            "vit_small_patch14_dinov2",
            "backbone.name: vit_small_patch14_dinov2, published vit_base",
        ),
        ("data", "tasks", 5, "data.tasks: 5, published 10"),
        ("data", "order", "pilot", "data.order: pilot, published coda"),
        ("data", "classes", 50, "data.classes: 50, published 100"),
        ("data", "train_per_class", 10, "data.train_per_class: 10, published 0"),
        ("data", "evaluate", "validation", "data.evaluate: validation, published test"),
        ("train", "epochs", 2, "train.epochs: 2, published 20"),
        ("train", "batch_size", 16, "train.batch_size: 16, published 128"),
        ("train", "prompt_lr", 0.1, "train.prompt_lr: 0.1, published 0.001"),
        ("train", "schedule", "cosine", "train.schedule: cosine, published coda"),
        (
            "train",
            "loss_classes",
            "seen",
            "train.loss_classes: seen, in suite cifar100_coda current",
        ),
        ("train", "joint", True, "train.joint: True, in suite cifar100_coda False"),
        ("train", "clip_norm", 1.0, "train.clip_norm: 1.0, in suite cifar100_coda 0.0"),
        ("data", "flip", False, "data.flip: False, in suite cifar100_coda True"),
        ("data", "name", "folder", "data.name: folder, in suite cifar100_coda cifar100"),
    ],
)
def test_another_protocol_is_not_compared(section, field, value, says, checked):
    def change(spec):
        return replace(spec, **{section: replace(getattr(spec, section), **{field: value})})

    code, rows = checked({"coda-prompt": [86.2, 86.3, 86.2]}, change=change)
    row = rows["coda-prompt", "faa"]
    assert (code, row["verdict"]) == (3, "not comparable")
    assert says in row["detail"]
    assert row["published"] == row["measured"] == "", "no number beside another"


def test_weights_from_a_file_are_taken_at_their_word_and_it_is_said(checked):
    def change(spec):
        return replace(spec, backbone=replace(spec.backbone, checkpoint="vit_b.safetensors"))

    _, rows = checked({"coda-prompt": [86.2, 86.3, 86.2]}, change=change)
    assert rows["coda-prompt", "faa"]["verdict"] == "reproduced"
    assert (
        "from a file, taken for those of vit_base_patch16_224.augreg_in21k_ft_in1k"
        in rows["coda-prompt", "faa"]["detail"]
    )
    _, rows = checked({"coda-prompt": [86.2, 86.3, 86.2]})
    assert "from a file" not in rows["coda-prompt", "faa"]["detail"]


def test_another_size_of_the_method_is_not_compared(checked):
    _, rows = checked(
        {"coda-prompt": [86.2, 86.3, 86.2]},
        change=lambda spec: replace(spec, model=dict(spec.model, length=2)),
    )
    assert "model.length: 2, in suite cifar100_coda 8" in rows["coda-prompt", "faa"]["detail"]
    _, rows = checked(
        {"coda-prompt": [86.2, 86.3, 86.2]}, change=lambda spec: replace(spec, model={})
    )
    assert rows["coda-prompt", "faa"]["verdict"] == "reproduced", "its defaults are those sizes"


def test_a_part_of_a_dataset_is_not_compared(checked):
    code, rows = checked({"coda-prompt": [86.2, 86.3, 86.2]}, whole=False)
    assert (code, rows["coda-prompt", "faa"]["detail"]) == (
        3,
        "test images: 100000, the dataset has 10000",
    )


def test_another_protocol_is_not_compared_where_no_suite_has_as_many_tasks():
    """Published for 20 tasks of CIFAR-100; the suite of that line has ten, and everything but their
    number is compared.
    """
    named = {"line": "pilot", "dataset": "cifar100", "method": "coda-prompt", "tasks": "20"}
    entry = next(row for row in published.published().to_dict("records") if row | named == row)
    run = of_suite("cifar100_pilot")["cifar100-10", "coda-prompt"] | {
        "data.tasks": "20",
        "data.crop_low": "0.08",
    }
    assert differing(run, entry) == []
    for key, value in (
        ("backbone.image_size", "32"),
        ("train.epochs", "1"),
        ("weights from", "random"),
        ("data.tasks", "10"),
    ):
        assert [line.partition(":")[0] for line in differing(run | {key: value}, entry)] == [key]


def test_votes_of_a_batch_and_mixed_prompts_are_other_protocols():
    rows = published.compare(*gather("cifar100_original", ROOT / "nowhere"))
    assert any(
        "selection of prompts at test: per image, task unknown, published a vote of the batch"
        in row["detail"]
        for row in rows
        if row["method"] == "l2p"
    )
    rows = published.compare(*gather("imagenet_a_pilot", ROOT / "nowhere"))
    assert any(
        "published prompts of different images mixed" in row["detail"]
        for row in rows
        if row["method"] == "dualprompt"
    )
    voted = [row for row in rows if row["method"] == "l2p" and row["benchmark"] == "imagenet-a-10"]
    assert [row["verdict"] for row in voted] == ["not comparable"] * 2
    assert all("published a vote of the batch" in row["detail"] for row in voted)


def test_how_prompts_were_selected_is_known_of_every_published_row_that_has_prompts():
    for row in published.published().to_dict("records"):
        if row["value"] and row["method"] not in ("joint", "ncm", "ranpac"):
            assert row["selection"], row


def test_another_split_is_not_compared(checked):
    def change(spec):
        return replace(spec, data=replace(spec.data, split="seeded"))

    code, rows = checked({"coda-prompt": [76.5, 76.4]}, "imagenet_r_coda", change=change)
    assert code == 3
    assert "data.split: seeded, published coda" in rows["coda-prompt", "faa"]["detail"]


def test_results_of_before_protocols_were_kept_are_compared_with_nothing(monkeypatch, tmp_path):
    folder = write_results(tmp_path / "cifar100_coda", {"coda-prompt": [86.2]})
    (folder / "protocol.csv").unlink()
    monkeypatch.setattr(sys, "argv", ["check", "cifar100_coda", "--results", str(tmp_path)])
    with pytest.raises(UsageError, match="nobody can say"):
        check.main()


def test_small_scale_results_are_never_set_beside_a_paper(capsys):
    assert check.report("mini", REFERENCE / "mini") == 3
    text = capsys.readouterr().out
    assert "reproduced: the same" in text
    rows = [line for line in text.splitlines() if line.startswith("| published")]
    assert rows
    assert all("not comparable" in line and "dataset: " in line for line in rows)


def test_one_published_run_has_no_spread_of_its_own(checked):
    """PILOT's pooled accuracies, seed 1993: their standard deviation is taken to be ours."""
    code, rows = checked({"ncm": [48.90, 48.91, 48.92]}, "imagenet_a_pilot", line="pilot")
    assert code == 1
    assert rows["ncm", "pooled_last"]["verdict"] == "reproduced", "published 48.91"
    assert rows["ncm", "pooled_mean"]["verdict"] == "differs", "published 59.77"
    assert (
        "not known of the published: batch_size, crop_low, epochs"
        in rows["ncm", "pooled_last"]["detail"]
    )
