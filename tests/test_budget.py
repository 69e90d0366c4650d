"""A cell costs what the dry run says: every forward pass is counted, FLOPs agree to a percent."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, UNTRAINED, cell_of, with_method
from torch.utils.flop_counter import FlopCounterMode

from bench.backbone.vit import FrozenViT, load_backbone
from bench.config.spec import BackboneSpec, RunSpec
from bench.config.suite import load_suite
from bench.cost import predicted as passes
from bench.cost import suite as budget
from bench.cost.counted import COUNTED_IMAGES
from bench.data import datasets
from bench.engine import run as engine

KINDS = (
    "hlgp",
    "l2p",
    "l2p_plus",
    "deep_l2p",
    "dualprompt",
    "coda_prompt",
    "oneprompt",
    "linear",
    "ncm",
    "ranpac",
    "caprompt",
    "vq_prompt",
    "nsp",
    "ovor",
    "slca",
    "linear_ncm",
    "finetune",
)
COSTED = sorted(
    f.stem for f in (ROOT / "bench" / "suites").glob("*.py") if "Cost: " in f.read_text()
)


SMALL = BackboneSpec(
    name="vit", checkpoint="random", image_size=64, patch=8, width=192, depth=3, heads=3
)


@pytest.fixture
def tiny_spec(tiny_spec) -> RunSpec:
    """On a network beside which a method's small products cost nothing."""
    return replace(tiny_spec, backbone=replace(SMALL, image_size=32, depth=6))


@pytest.fixture
def images(monkeypatch, tmp_path):
    """Images that go through any network in this process, with an empty cache."""
    from timm.layers import PatchEmbed

    seen = []
    forward = PatchEmbed.forward
    monkeypatch.setattr(
        PatchEmbed, "forward", lambda self, x: seen.append(len(x)) or forward(self, x)
    )
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return seen


def run_all(cells: list[RunSpec], folder: Path) -> list[dict]:
    states = [engine.run_cell(cell, folder) for cell in cells]
    assert all(state["status"] == "done" for state in states)
    return states


def predicted(cells: list[RunSpec]) -> budget.Work:
    return budget.suite_work(cells)["all", "total"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_forward_pass_is_predicted(kind, tiny_spec, images, tmp_path):
    cell = cell_of(tiny_spec, kind)
    expected = predicted([cell])
    images.clear()
    (state,) = run_all([cell], tmp_path)
    assert sum(images) == expected.forwards
    per_image = passes.flops(passes.shape(cell.backbone), passes.Call(rows=1)) * (
        kind not in ("hlgp", "oneprompt", "finetune", "caprompt", "nsp", "ovor", "slca")
    )
    head = 2 * 30 * (96 + 6) if kind == "ranpac" else 2 * 96 * 6  # W, then the head
    # The keys and values of 4 tokens in 6 layers, once for all counted images.
    own = 2 * 6 * 4 * 192 * 384 / COUNTED_IMAGES if kind == "nsp" else 0
    done = budget.trace_of(cell)
    infer = (
        sum(passes.flops(passes.shape(cell.backbone), call) for call in done.test[1])
        + per_image
        + own
        + head
    )
    assert infer / 1e9 == pytest.approx(state["gflops_infer"], rel=0.01)
    if kind not in UNTRAINED:
        train = (
            sum(passes.flops(passes.shape(cell.backbone), call) for call in done.loss[1])
            + per_image
            + 2 * own
            + 3 * head
        )
        assert train / 1e9 == pytest.approx(state["gflops_train"], rel=0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"weights": "mean"}},
        {"model": {"weights": "prototype"}},
        {"model": {"generator": False, "layers": (2, 5), "groups": 2}},
        {"train": {"joint": True}},
        {"train": {"epochs": 1, "batch_size": 1}},
        {"data": {"evaluate": "validation", "test_per_class": 0}},
        {"data": {"tasks": 1}},
        {"data": {"name": "glyphs-v", "train_per_class": 0, "classes": 8, "tasks": 2}},
    ],
    ids=str,
)
def test_other_settings_are_predicted_too(change, tiny_spec, images, tmp_path):
    cell = with_method(tiny_spec, "hlgp", **change.get("model", {}))
    cell = replace(
        cell,
        data=replace(cell.data, **change.get("data", {})),
        train=replace(cell.train, **change.get("train", {})),
    )
    expected = predicted([cell])
    images.clear()
    run_all([cell], tmp_path)
    assert sum(images) == expected.forwards


def test_query_features_are_shared(tiny_spec, images, tmp_path):
    """Training features are computed once per seed and epoch, test features once."""
    cells = [
        replace(cell_of(tiny_spec, kind), order_seed=order, seed=seed)
        for kind in ("linear", "linear_ncm")
        for order, seed in ((1, 1), (2, 1), (1, 2))
    ]
    expected = predicted(cells)
    assert budget.shared_work(cells).forwards == 24 * 2 * 2 + 24 + 24
    images.clear()
    run_all(cells, tmp_path)
    assert sum(images) == expected.forwards


@pytest.mark.parametrize(
    ("prefix", "tokens"),
    [({}, 0), ({0: 4}, 0), ({1: 3}, 0), ({0: 2, 1: 2, 2: 2}, 0), ({2: 6}, 0), ({}, 5)],
    ids=str,
)
@pytest.mark.parametrize("rows", [None, 1, 3])
def test_flops_of_a_pass_are_those_of_the_counter(prefix, tokens, rows):
    """The plain attention of a CPU: the counter misses the fused one."""
    backbone: FrozenViT = load_backbone(SMALL)
    images = torch.randn(2, 3, 64, 64)
    inserted = {
        layer: torch.zeros(2, length, 192, requires_grad=True) for layer, length in prefix.items()
    }
    front = torch.zeros(2, tokens, 192, requires_grad=True) if tokens else None
    for backward in (False, bool(prefix or tokens)):
        with FlopCounterMode(display=False) as counter:
            out = backbone(images, inserted, front, rows)
            if backward:
                out.square().sum().backward()
        call = passes.Call(tuple(prefix.items()), tokens, rows, backward)
        assert passes.flops(passes.shape(SMALL), call) == pytest.approx(
            counter.get_total_flops() / 2, rel=0.01
        )


def test_flops_of_a_vit_b_by_hand():
    """12 blocks of width 768 on 197 tokens, and the patches.

    Products per token and block: 12 D^2, and 2 x 197 D for attention.
    """
    s = passes.shape(BackboneSpec(name="vit_base_patch16_224.augreg_in21k", image_size=224))
    products = 12 * 197 * (12 * 768**2 + 2 * 197 * 768) + 196 * 768 * 768
    assert passes.flops(s, passes.Call()) == 2 * products
    spared = 196 * (
        9 * 768**2 + 2 * 197 * 768
    )  # in the last block only the class token asks, and goes on
    assert passes.flops(s, passes.Call(rows=1)) == 2 * (products - spared)


@pytest.mark.parametrize("suite", COSTED)
def test_the_cost_in_a_docstring_is_the_dry_runs(suite, monkeypatch):
    monkeypatch.setattr(
        datasets, "prepared_sizes", lambda root, split: None
    )  # whatever was prepared on this machine
    work = predicted(list(load_suite(suite).cells))
    text = (ROOT / "bench" / "suites" / f"{suite}.py").read_text()
    found = re.search(r"Cost: (at least )?([\d,]+) PFLOP, ([\d,]+) forward passes", text)
    assert found
    assert found.groups() == (
        None if work.known else "at least ",
        f"{work.flops / 1e15:,.0f}",
        f"{work.forwards:,.0f}",
    )
    assert "Not run by this project" in text
    assert f"./run_all.sh {suite} --device cuda" in text


def test_every_paper_suite_states_its_cost():
    lines = ("pilot", "coda", "original")
    assert {
        f.stem for f in (ROOT / "bench" / "suites").glob("*.py") if f.stem.endswith(lines)
    } < set(COSTED)
    assert {"paper", "tiny_imagenet"} < set(COSTED)


def test_the_dry_run_needs_no_data(command):
    done = command("bench.grid", str(TINY), "--dry-run", "--rate", "0.5", "--jobs", "2", check=0)
    total = done.stdout.splitlines()[-1].replace(",", "").split("|")
    assert "left to run: 8 of 8 cells" in done.stdout
    work = predicted(list(load_suite(str(TINY)).cells))
    assert [cell.strip() for cell in total[2:6]] == [
        "total",
        "8",
        f"{work.train_images:.0f}",
        f"{work.forwards:.0f}",
    ]
    paper = command(
        "bench.grid", "imagenet_a_pilot", "--methods", "hlgp", "--dry-run", BENCH_DATA="", check=0
    )
    assert "598,100" in paper.stdout, "5 orders x 20 epochs x 5,981 images"


def test_hours_are_flops_over_the_rate(tiny_spec):
    cells = [cell_of(tiny_spec, "linear")]
    flops = predicted(cells).flops
    for workers in (1, 4):
        hours = (
            budget.table(cells, rate=flops / 1e12 / 3600, workers=workers)
            .splitlines()[-1]
            .split("|")[-2]
        )
        assert float(hours) == pytest.approx(1 / workers, abs=0.01)


def test_a_prepared_split_is_counted(tiny_spec, tmp_path):
    """By its manifest, not by what is known of a dataset in full."""
    lines = [
        f"{part}/{label}/{i}.jpg,{'0' * 64},{label},{part}"
        for label in "abcd"
        for part, images in (("train", 5), ("test", 2))
        for i in range(images)
    ]
    (tmp_path / "split-pilot.csv").write_text("path,sha256,label,part\n" + "\n".join(lines) + "\n")
    data = replace(
        tiny_spec.data, name="folder", root=str(tmp_path), split="pilot", classes=0, tasks=2
    )
    data = replace(data, train_per_class=0, test_per_class=0)
    assert budget.counts(data) == budget.Counts(4, 5.0, 2.0, True)
    assert budget.counts(replace(data, split="other")).known is False


@pytest.mark.parametrize("root", ["mine", "/home/me/grocery", "own/imagenet-r"])
def test_an_unknown_dataset_is_a_lower_bound(root, tiny_spec):
    """A known dataset goes by its bare name; a path leads to a folder of the user's."""
    cell = replace(
        cell_of(tiny_spec, "linear"),
        data=replace(tiny_spec.data, name="folder", root=root, classes=0),
    )
    text = budget.table([cell])
    assert "| >= 0 |" in re.sub(" +", " ", text)
    assert "lower bound" in text
