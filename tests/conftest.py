"""Fixtures shared by all tests.

One thread, a cache of the tests' own, a tiny suite, and the command line as a user has it.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import warm
from dataset_files import CONTENT, serving, write
from fault_cell import files_of
from hypothesis import settings
from safetensors.torch import save_file

from bench.backbone.vit import FrozenViT, build_vit, load_backbone
from bench.config.spec import BackboneSpec, DataSpec, RunSpec, TrainSpec
from bench.engine import run as engine
from bench.launch import pool, slurm

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "tiny_suite.py"
REFERENCE = ROOT / "results" / "reference"
# Photographs that are not part of the project, in the folders that BENCH_DATA names; read now,
# since some tests change the variable.
DATA = [Path(folder) for folder in os.environ.get("BENCH_DATA", "").split(os.pathsep) if folder]
torch.set_num_threads(1)
settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

READ_AT_START = re.compile("PYTHON|LC_|HF_|BENCH_OFFLINE")
Command = Callable[..., subprocess.CompletedProcess]


def photographs(name: str) -> Path:
    """A folder of photographs. Skips the test where BENCH_DATA names none."""
    found = [folder / name for folder in DATA if (folder / name).is_dir()]
    if not found:
        pytest.skip(f"no {name} in the folders of BENCH_DATA")
    return found[0]


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(path.read_text().splitlines()))


SMALL = BackboneSpec(
    name="vit", checkpoint="random", image_size=16, patch=8, width=24, depth=2, heads=2
)


def random_model(name: str, size: int):
    torch.manual_seed(3)
    vit = build_vit(BackboneSpec(name=name, image_size=size)).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return vit


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing is read from or left in the user's cache."""
    os.environ["BENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _warm_workers():
    """Workers of a grid that a test runs in this process."""
    pool.subprocess = warm  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def small_vit() -> FrozenViT:
    """A random ViT of four blocks and 16 pixels, for shapes, invariances and gradients."""
    return load_backbone(
        BackboneSpec(
            name="vit", checkpoint="random", image_size=16, patch=8, width=24, depth=4, heads=2
        )
    )


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory) -> BackboneSpec:
    """Six blocks, as many as the methods' default layers need, in a file.

    Its matrices keep the size of what they are given, so that each image and each prompt counts.
    """
    spec = replace(SMALL, depth=6)
    vit = build_vit(spec)
    generator = torch.Generator().manual_seed(4)
    state = {
        name: torch.randn(value.shape, generator=generator) / math.sqrt(value.shape[-1])
        if value.dim() > 1
        else value
        for name, value in vit.state_dict().items()
    }
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(state, file)
    return replace(spec, checkpoint=str(file))


@pytest.fixture
def tiny_spec(tiny_vit) -> RunSpec:
    """A cell that takes a second: 6 glyph classes, 3 tasks, 2 epochs."""
    return RunSpec(
        suite="tiny",
        benchmark="glyphs",
        method="linear",
        type="linear",
        order_seed=1,
        seed=1,
        model={},
        data=DataSpec(name="glyphs", classes=6, tasks=3, train_per_class=4, test_per_class=4),
        backbone=tiny_vit,
        train=TrainSpec(epochs=2, batch_size=4, prompt_lr=0.01, head_lr=0.01),
    )


@pytest.fixture
def run(tmp_path) -> Callable[..., tuple[dict, Path]]:
    """Run a spec in this process: (state, run directory)."""

    def go(spec: RunSpec, where: str = "results") -> tuple[dict, Path]:
        state = engine.run_cell(spec, tmp_path / where)
        return state, tmp_path / where / spec.suite / "runs" / spec.run_id

    return go


@pytest.fixture
def command(tmp_path) -> Command:
    """`python -m ...` in a folder of its own, as a user runs it.

    Variables that Python or a library reads when it starts need a Python of their own; others get a
    process that has imported torch already.
    """

    def go(*words: str, check: int | None = None, **env: str) -> subprocess.CompletedProcess:
        start = subprocess.run if any(map(READ_AT_START.match, env)) else warm.run
        done = start(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        )
        if check is not None:
            assert done.returncode == check, done.stderr + done.stdout
        return done

    return go


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Callable[[RunSpec], dict[str, bytes]]:
    """The files of a cell that ran without being disturbed."""
    known: dict[str, dict[str, bytes]] = {}

    def of(spec: RunSpec) -> dict[str, bytes]:
        if spec.run_id not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            assert engine.run_cell(spec, folder)["status"] == "done"
            known[spec.run_id] = files_of(folder, spec)
        return known[spec.run_id]

    return of


# Settings for few classes: smaller pools, everything else as by default.
MODEL: dict[str, dict] = {
    # Prompts and keys far apart, so that images choose different ones.
    "l2p": {"pool": 4, "length": 2, "top_n": 2, "init": (-1.0, 1.0)},
    "l2p_plus": {"pool": 4, "length": 4, "top_n": 2},
    "deep_l2p": {"pool": 4, "length": 4, "top_n": 2},
    "coda_prompt": {"pool": 6, "length": 4},
    "nsp": {"eta1": 0.5, "eta2": 0.5},  # steps long enough to be seen
    "ovor": {"layers": (0, 1), "lengths": (2, 3), "per_class": 4},
    "ranpac": {"projection": 30},
}
UNTRAINED = ("ncm", "ranpac")  # methods that train nothing by gradients


# A method under another of its switches: its name, a word for the switch, and the settings.
FORMS = {
    "hlgp mean": {"weights": "mean"},
    "hlgp sum": {"weights": "sum"},
    "hlgp prototype": {"weights": "prototype"},
    "hlgp independent": {"generator": False},
    "hlgp no copy": {"copy": False},
    "dualprompt coda": {"form": "coda"},
    "nsp control": {"control": True},
    "nsp share": {"share": 0.9},
    "ovor paper": {"outliers": "paper"},
}


def cell_of(spec: RunSpec, name: str) -> RunSpec:
    """The same cell with another method, with settings for few classes."""
    return with_method(spec, name, **MODEL.get(name, {}))


def with_method(spec: RunSpec, kind: str, **model: object) -> RunSpec:
    return replace(spec, method=kind, type=kind, model=model)


@pytest.fixture
def data_command(tmp_path, monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """`python -m bench.data ...` in this process: exit code, stdout, stderr."""
    from bench import cli
    from bench.data.__main__ import main

    def go(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["bench.data", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.run(main)
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return int(ended.value.code or 0), said.out, said.err

    return go


@pytest.fixture
def ask(tmp_path, monkeypatch, data_command) -> Callable[..., tuple[int, str, str]]:
    """data_command with its data under tmp_path/data and without a network."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    return data_command


@pytest.fixture
def place(tmp_path) -> Callable[..., Path]:
    """Put files (dicts of content by name) into a dataset's folder."""
    return lambda name, *files: write(
        tmp_path / "data" / name, {k: v for each in files for k, v in each.items()}
    )


@pytest.fixture
def site(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "BENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxies of its first use
    with serving() as site:
        site.files["/x.tar"] = CONTENT
        yield site


# --- Slurm, without Slurm ------------------------------------------------------------------------

SLURM_SAYS = {
    "scontrol": "MaxArraySize            = 1001",
    "sinfo": "short*|1:00:00|10:00|0/2/0/2|2|(null)|1\nwide|infinite|n/a|1/7/90/98|4|(null)|98",
    "squeue": "",
}


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Path:
    """Commands of Slurm that say what a file of their name says, and note how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", *SLURM_SAYS):
        (folder / f"{name}.says").write_text(SLURM_SAYS.get(name, "7;cluster") + "\n")
        command = folder / name
        command.write_text(
            f'#!/bin/bash\nprintf "%s\\n" "$@" >> {command}.called\ncat {command}.says\n'
        )
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def slurm_arguments(tmp_path: Path, **given) -> argparse.Namespace:
    """The options of a launch, as bench.launch.options has them."""
    usual = {"suite": str(TINY), "results": tmp_path / "re sults 100%", "published": None}
    usual |= {"device": "auto", "overrides": {}, "sbatch": "", "slurm_jobs": None, "jobs": None}
    usual |= {"time_limit": None, "report": None, "scratch": "", "archive": False, "track": ""}
    usual |= {"keep": False, "methods": [], "benchmarks": [], "order_seeds": [], "seeds": []}
    usual |= {"shard": (1, 1), "keep_stale": False}
    return argparse.Namespace(**{**usual, **given})


def slurm_submit(cells, args, work=None, new=None) -> tuple[Path, str, str]:
    """The folder of what was submitted, what the launcher said of it, and the array's script."""
    folder = args.results / cells[0].suite
    said = slurm.submit(cells, work, new or cells, args, folder)
    (script,) = (file for file in folder.glob("slurm/*.sh") if "collect" not in file.name)
    return folder, said, script.read_text()


@pytest.fixture(scope="session")
def mini():
    """The published suite, with the references beside it."""
    from bench.report.frames import load  # here: other tests need no figures

    return load(REFERENCE / "mini", [], [REFERENCE / "references"])


@pytest.fixture(scope="session")
def report(mini, tmp_path_factory) -> Path:
    """Its report."""
    from bench.report.build import build

    folder = tmp_path_factory.mktemp("reports") / "mini"
    build(mini, folder)
    return folder
