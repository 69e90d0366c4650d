"""The paper-scale suites: what they hold, and that all that is missing is said at once."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import save_file

from bench.backbone.vit import build_vit, load_backbone
from bench.config.spec import BackboneSpec
from bench.config.suite import load_suite
from bench.data.missing import require_files
from bench.errors import UsageError

FOUR = {"hlgp", "l2p", "dualprompt", "coda-prompt"}
REFERENCES = {
    "linear",
    "ncm",
    "ranpac",
    "linear-ncm",
    "finetune",
    "joint-linear",
    "joint-prompt",
    "deep-l2p++",
    "oneprompt",
    "hlgp-independent",
}


def test_paper_is_four_benchmarks_by_all_rows_by_five():
    cells = load_suite("paper").cells
    groups: dict[tuple[str, str], list] = {}
    for cell in cells:
        groups.setdefault((cell.benchmark, cell.method), []).append(cell)
    assert {benchmark for benchmark, _ in groups} == {
        "cifar100-10",
        "imagenet-r-10",
        "imagenet-a-10",
        "vtab-5",
    }
    assert {method for _, method in groups} >= FOUR | REFERENCES
    assert all(len(part) == 5 for part in groups.values())
    assert {cell.backbone.name for cell in cells} == {"vit_base_patch16_224.augreg_in21k"}
    vtab = groups["vtab-5", "hlgp"]
    assert {cell.data.order for cell in vtab} == {"natural"}, (
        "as PILOT has it: not shuffled, so seeds instead of orders"
    )
    assert sorted(cell.seed for cell in vtab) == [1, 2, 3, 4, 5]
    assert sorted(cell.order_seed for cell in groups["imagenet-a-10", "hlgp"]) == [
        1993,
        1994,
        1995,
        1996,
        1997,
    ]


@pytest.mark.parametrize("benchmark", ["cifar100-10", "imagenet-r-10", "imagenet-a-10", "vtab-5"])
def test_the_single_suites_are_parts_of_paper(benchmark):
    name = {"vtab-5": "vtab_pilot"}.get(
        benchmark, benchmark.removesuffix("-10").replace("-", "_") + "_pilot"
    )

    def described(suite):
        return [
            {**cell.described(), "suite": ""}
            for cell in load_suite(suite).cells
            if cell.benchmark == benchmark
        ]

    assert described(name) == described("paper")


CODA = {
    "optimiser": "adam",
    "prompt_lr": 0.001,
    "head_lr": 0.001,
    "schedule": "coda",
    "batch_size": 128,
    "clip_norm": 0.0,
}


@pytest.mark.parametrize(
    ("suite", "row", "model", "train"),
    [
        (
            "cifar100_original",
            "l2p",
            {"pool": 10, "length": 10, "top_n": 4},
            {
                "optimiser": "adam",
                "prompt_lr": 0.03 * 128 / 256,
                "head_lr": 0.03 * 128 / 256,
                "schedule": "constant",
                "batch_size": 128,
                "epochs": 5,
                "clip_norm": 1.0,
            },
        ),
        (
            "cifar100_original",
            "dualprompt",
            {"g_length": 5, "e_length": 5},
            {
                "optimiser": "adam",
                "prompt_lr": 0.03 * 24 / 256,
                "head_lr": 0.03 * 24 / 256,
                "schedule": "constant",
                "batch_size": 24,
                "epochs": 5,
                "clip_norm": 1.0,
            },
        ),
        (
            "imagenet_r_original",
            "dualprompt",
            {"g_length": 5, "e_length": 20},
            {
                "prompt_lr": 0.005 * 24 / 256,
                "head_lr": 0.005 * 24 / 256,
                "schedule": "constant",
                "batch_size": 24,
                "epochs": 50,
            },
        ),
        ("cifar100_coda", "l2p++", {"pool": 30, "length": 20, "top_n": 5}, {**CODA, "epochs": 20}),
        (
            "cifar100_coda",
            "dualprompt",
            {"g_length": 3, "e_length": 10, "init": (0.0, 1.0), "form": "coda"},
            {**CODA, "epochs": 20},
        ),
        ("cifar100_coda", "coda-prompt", {"pool": 100, "length": 8}, {**CODA, "epochs": 20}),
        ("imagenet_r_coda", "coda-prompt", {"pool": 100, "length": 8}, {**CODA, "epochs": 50}),
        ("domainnet_coda", "coda-prompt", {"pool": 100, "length": 8}, {**CODA, "epochs": 5}),
    ],
)
def test_recipes_are_the_official_ones(suite, row, model, train):
    """Number by number, from the repositories and papers that the recipes' docstrings name."""
    cells = [cell for cell in load_suite(suite).cells if cell.method == row]
    assert cells
    for cell in cells:
        assert {key: cell.model.get(key) for key in model} == model
        assert {key: getattr(cell.train, key) for key in train} == pytest.approx(train)
    assert {cell.data.crop_low for cell in cells} == {0.08}


def test_a_benchmark_may_have_seeds_of_its_own(tmp_path):
    suite = tmp_path / "own.py"
    suite.write_text(
        TINY.read_text().replace('"glyphs": dict()', '"glyphs": dict(seeds=[4, 5, 6])')
    )
    cells = load_suite(str(suite)).cells
    assert {cell.seed for cell in cells if cell.benchmark == "glyphs"} == {4, 5, 6}
    assert {cell.seed for cell in cells if cell.benchmark == "glyphs-r"} == {1}
    suite.write_text(TINY.read_text().replace('"glyphs": dict()', '"glyphs": dict(seeds=[4, 4])'))
    with pytest.raises(UsageError, match="different whole numbers"):
        load_suite(str(suite))


def test_all_that_is_missing_is_listed_at_once(command, tmp_path):
    began = time.perf_counter()
    words = (
        "bench.grid",
        "paper",
        "--device",
        "cuda",
        "--set",
        "backbone.checkpoint=vit_b.safetensors",
    )
    done = command(*words, BENCH_DATA="", BENCH_WEIGHTS="", check=2)
    assert time.perf_counter() - began < 10, "before torch is imported; seconds on a busy machine"
    for name in (
        "'cifar100' not found",
        "'imagenet-r' not found",
        "'imagenet-a' not found",
        "'vtab' not found",
        "'vit_b.safetensors' not found",
        "split coda, for imagenet-r-10",
        "split pilot, for vtab-5",
    ):
        assert done.stderr.count(name) == 1
    assert done.stderr.startswith("error: 5 things are missing")
    assert len(done.stderr.splitlines()) == 6
    assert "GPU" not in done.stderr, "data first"
    assert not (tmp_path / "results").exists(), "nothing was begun"


@pytest.mark.parametrize("variable", ["BENCH_OFFLINE", "HF_HUB_OFFLINE"])
def test_weights_that_cannot_be_fetched_are_missing_too(variable, command, tmp_path):
    """The file lies in the cache of Hugging Face in the second try; random values do for a list."""
    words, tag = (
        ("bench.grid", "vtab_pilot", "--methods", "ncm"),
        "vit_base_patch16_224.augreg_in21k",
    )
    done = command(
        *words, **{variable: "1", "BENCH_DATA": "", "HF_HOME": str(tmp_path / "hf")}, check=2
    )
    assert done.stderr.startswith("error: 2 things are missing")
    assert done.stderr.count(f"https://huggingface.co/timm/{tag} (model.safetensors)") == 1
    place_pretrained(tmp_path / "hf", tag)
    done = command(
        *words, **{variable: "1", "BENCH_DATA": "", "HF_HOME": str(tmp_path / "hf")}, check=2
    )
    assert "'vtab' not found" in done.stderr
    assert "huggingface" not in done.stderr


def test_the_list_is_there_before_torch_is(monkeypatch, tmp_path):
    """Where data are missing anyway, nobody waits seconds for timm's word on the weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(sys.modules, "bench.backbone.vit", None)  # importing it would be an error
    with pytest.raises(UsageError, match="2 things are missing"):
        require_files(load_suite("vtab_pilot").cells)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vit_base_patch16_22", "did you mean"),
        ("vit_base_patch16_224", "which weights? Give the full tag"),
        ("timm/vit_small", "unknown 'timm/vit_small'"),
        ("vit_base_patch16_224.augreg_in22k", "backbone.name=vit_base_patch16_224.augreg_in22k"),
        (
            "vit_base_patch16_clip_quickgelu_224.openai",
            "https://huggingface.co/timm/vit_base_patch16_clip_224.openai",
        ),
    ],
)
def test_names_of_backbones_are_checked_offline_too(name, says, monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = BackboneSpec(name=name, image_size=0)

    def both():
        require_files([replace(load_suite("mini").cells[0], backbone=spec)])
        load_backbone(spec)

    with pytest.raises(UsageError) as said:
        both()
    assert says in str(said.value)
    assert "\n" not in str(said.value)


def place_pretrained(home: Path, tag: str) -> Path:
    """Where the hub's client would put the weights of a tag."""
    repository = home / "hub" / f"models--timm--{tag}"
    place(repository, "snapshots/abc/model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    return repository / "snapshots" / "abc" / "model.safetensors"


def test_weights_in_the_cache_need_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = BackboneSpec(name="vit_tiny_patch16_224.augreg_in21k", image_size=32)
    with pytest.raises(UsageError, match=r"vit_tiny.* the network is off"):
        load_backbone(spec)
    vit = build_vit(BackboneSpec(name=spec.name, image_size=224))
    state = {key: value + 1.5 for key, value in vit.state_dict().items()}
    save_file(state, place_pretrained(tmp_path, spec.name))
    loaded = load_backbone(spec).network.state_dict()
    assert torch.equal(loaded["blocks.3.attn.qkv.weight"], state["blocks.3.attn.qkv.weight"])
    assert loaded["pos_embed"].shape[1] == 5, "resized"


def test_no_torch_before_the_list(command):
    done = command("bench.grid", "paper", PYTHONPROFILEIMPORTTIME="1", BENCH_DATA="", check=2)
    imported = {
        line.split("|")[-1].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "bench.data.missing" in imported
    assert "torch" not in imported


def place(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def place_split(folder: Path, split: str) -> None:
    """A manifest of four images, and the images."""
    names = [f"{part}/{label}/0.jpg" for part in ("train", "test") for label in "ab"]
    place(folder, *names)
    lines = [f"{name},{'0' * 64},{name.split('/')[1]},{name.split('/')[0]}" for name in names]
    (folder / f"split-{split}.csv").write_text("path,sha256,label,part\n" + "\n".join(lines) + "\n")


def test_a_folder_without_its_split_or_files_is_missing_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "here"))
    cells = load_suite("paper").cells
    for name, split in (("imagenet-r", "seeded"), ("imagenet-a", "pilot"), ("vtab", "pilot")):
        place_split(tmp_path / "here" / name, split)
    place(tmp_path / "here", "cifar100/cifar-100-python/test")
    with pytest.raises(UsageError) as caught:
        require_files(cells)
    said = str(caught.value).splitlines()
    assert len(said) == 3
    assert "has no cifar-100-python/train" in said[1]
    assert "(there: seeded; python -m bench.data prepare imagenet-r --split coda)" in said[2]
    place(tmp_path / "here", "cifar100/cifar-100-python/train")
    place_split(tmp_path / "here" / "imagenet-r", "coda")
    require_files(cells)
    (tmp_path / "here" / "vtab" / "train" / "b" / "0.jpg").unlink()
    with pytest.raises(
        UsageError,
        match=r"vtab/split-pilot.csv: 1 of its images are not there .train/b/0.jpg. .for vtab-5.$",
    ):
        require_files(cells)


def test_one_missing_thing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(UsageError) as caught:
        require_files(load_suite("vtab_pilot").cells)
    assert len(str(caught.value).splitlines()) == 1
    require_files(load_suite("mini").cells)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_is_one_line(command):
    done = command("bench.grid", str(TINY), "--device", "cuda", check=2)
    assert done.stderr.splitlines()[-1].startswith(
        "error: --device cuda: this machine has no usable GPU"
    )
