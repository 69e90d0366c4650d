"""bench.speed says what it measured; how fast this machine is, no test asserts."""

import sys

import pandas as pd
import pytest
import torch

from bench import speed
from bench.backbone.vit import load_backbone
from bench.errors import UsageError
from bench.method import method_names


def test_every_step_is_in_the_table(tmp_path, monkeypatch, capsys):
    words = [
        "speed",
        "--backbone",
        "vit_glyphs",
        "--image-size",
        "32",
        "--batch",
        "2",
        "--repeats",
        "1",
    ]
    monkeypatch.setattr(
        sys,
        "argv",
        [*words, "--methods", "hlgp", "l2p_plus", "ncm", "--out", str(tmp_path / "speed.csv")],
    )
    assert speed.main() == 0
    table = pd.read_csv(tmp_path / "speed.csv").set_index("step")
    assert set(table.index) == {
        "plain forward",
        "floor: forward + backward",
        "hlgp train",
        "hlgp eval",
        "l2p_plus train warm",
        "l2p_plus train cold",
        "l2p_plus eval warm",
        "l2p_plus eval cold",
        "ncm eval warm",
        "ncm eval cold",
        "views 32 to 32 pixels",
        "views 37 to 32 pixels",
        "input 32 to 32 pixels",
        "input 37 to 32 pixels",
    }
    assert table.loc["plain forward", "ratio"] == 1
    assert (table["ms"] > 0).all()
    forward = table.loc["plain forward", "gflops_per_image"]
    assert forward == pytest.approx(0.046, rel=0.05), "12 blocks of width 96 on 17 tokens"
    assert table.loc["l2p_plus train cold", "gflops_per_image"] == pytest.approx(
        2.9 * forward, rel=0.05
    ), "no weight gradient"
    assert table.loc["l2p_plus eval warm", "gflops_per_image"] == pytest.approx(forward, rel=0.1), (
        "one forward pass"
    )
    assert table.loc["hlgp eval", "gflops_per_image"] == pytest.approx(2 * forward, rel=0.1), (
        "soft: two"
    )
    rate = (
        2 * forward / table.loc["plain forward", "ms"]
    )  # of a batch of two; 10^9 a millisecond are 10^12 a second
    assert table.loc["plain forward", "tflops"] == pytest.approx(rate, rel=0.05, abs=1e-4)
    assert "peak memory" in capsys.readouterr().out


@pytest.mark.contract
@pytest.mark.parametrize("name", method_names())
def test_every_method_has_steps_that_run(name, tiny_vit):
    images = torch.randn(2, 3, tiny_vit.image_size, tiny_vit.image_size)
    words = f"{name}@projection=50" if name == "ranpac" else name  # 10,000 take minutes
    steps = list(speed.method_steps(load_backbone(tiny_vit), words, 2, images))
    for step in steps:
        step.run()
    assert {step.name.split()[1] for step in steps} <= {"train", "eval"}
    assert any("eval" in step.name for step in steps)


def test_settings_of_a_method(monkeypatch, capsys):
    words = [
        "speed",
        "--backbone",
        "vit_glyphs",
        "--image-size",
        "32",
        "--batch",
        "2",
        "--repeats",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", [*words, "--methods", "l2p", "l2p@length=5,top_n=5"])
    assert speed.main() == 0
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines()]
    spent = {words[4].strip(): float(words[8]) for words in lines if "eval warm" in "".join(words)}
    assert spent["l2p eval warm"] / spent["l2p@length=5,top_n=5 eval warm"] == pytest.approx(
        (17 + 40) / (17 + 25), rel=0.05
    )


def test_growth_with_the_tasks_is_drawn(tmp_path, monkeypatch):
    words = [
        "speed",
        "--backbone",
        "vit_glyphs",
        "--image-size",
        "32",
        "--batch",
        "2",
        "--repeats",
        "1",
        "--tasks",
        "2,4",
    ]
    monkeypatch.setattr(
        sys, "argv", [*words, "--methods", "coda_prompt", "--out", str(tmp_path / "growth.csv")]
    )
    assert speed.main() == 0
    table = pd.read_csv(tmp_path / "growth.csv")
    assert table["tasks"].unique().tolist() == [2, 4]
    warm = table[table["step"] == "coda_prompt train warm"]
    assert (warm["kept_mib"] > 0).all()
    assert warm["gflops_per_image"].is_monotonic_increasing
    assert (tmp_path / "growth.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--methods", "hlpg"], "did you mean 'hlgp'"),
        (["--precision", "fp8"], "accepted: fp32, bf16"),
        (["--tasks", "5,some"], "whole numbers from 1 to 50"),
        (["--methods", "hlgp@weights=maen"], "did you mean 'mean'"),
        (["--methods", "hlgp@wieghts=mean"], "did you mean 'weights'"),
        (["--tasks", "51"], "whole numbers from 1 to 50"),
        (["--tasks", "²"], "whole numbers from 1 to 50"),
        (["--methods", "hlgp@groups=²"], "int is expected"),
        (["--image-size", "-8"], "backbone.image_size=-8: at least 0"),
    ],
)
def test_wrong_words(words, says, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["speed", "--backbone", "vit_glyphs", "--image-size", "32", *words]
    )
    with pytest.raises(UsageError, match=says):
        speed.main()
