"""Split manifests: written once, exchanged, verified, loaded, trained on."""

import csv
import json
import os
import shutil

import dataset_files as make
import numpy as np
import pytest
from conftest import ROOT, photographs
from dataset_files import parts_of, picture

from bench import cli, grid
from bench.config.spec import DataSpec
from bench.data import manifest
from bench.data.datasets import load_dataset
from bench.data.prepare import splits
from bench.errors import UsageError


@pytest.fixture
def vtab(ask, place):
    root = place("vtab", make.pilot())
    assert ask("prepare", "vtab", "--partial")[0] == 0
    return root


def test_a_manifest_is_written_once(vtab, ask):
    file = vtab / "split-pilot.csv"
    before = file.read_bytes(), file.stat().st_mtime_ns
    assert "the same" in ask("prepare", "vtab", "--partial")[1]
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    (vtab / "train/10/0.jpg").write_bytes(picture(77))
    code, _, said = ask("prepare", "vtab", "--partial")
    assert (code, said.count("\n")) == (2, 1)
    assert "another split is there (1 files differ: train/10/0.jpg)" in said
    assert file.read_bytes() == before[0]


def test_another_users_split_is_rebuilt(vtab, ask, tmp_path):
    theirs = tmp_path / "split-theirs.csv"
    lines = (vtab / "split-pilot.csv").read_text().splitlines()
    head, *rows = lines
    swapped = [
        row.replace(",train", ",?").replace(",test", ",train").replace(",?", ",test")
        for row in rows
    ]
    theirs.write_text("\n".join([head, *reversed(swapped)]) + "\n")
    assert ask("prepare", "vtab", "--manifest", str(theirs))[0] == 0
    assert parts_of(vtab, "theirs")["train"] == parts_of(vtab, "pilot")["test"]
    assert (vtab / "split-theirs.csv").read_text().splitlines()[1:] == sorted(swapped)
    assert ask("prepare", "vtab", "--manifest", str(theirs), "--split", "again")[0] == 0
    assert ask("prepare", "vtab", "--manifest", str(theirs), "--split", "pilot")[0] == 2, (
        "another one has that name"
    )


def test_what_differs_from_another_users_split_is_said(vtab, ask, tmp_path):
    theirs = shutil.copy(vtab / "split-pilot.csv", tmp_path / "split-theirs.csv")
    (vtab / "train/10/0.jpg").write_bytes(picture(77))
    for name in ("0", "1"):
        for label in ("20", "21"):
            (vtab / f"test/{label}/{name}.jpg").unlink()
    code, said, _ = ask("prepare", "vtab", "--manifest", str(theirs))
    assert code == 1
    assert (
        "vtab: missing: 4 files (test/20/0.jpg, test/20/1.jpg, test/21/0.jpg, test/21/1.jpg)\n"
        in said
    )
    assert "vtab: altered: 1 files (train/10/0.jpg)\n" in said
    assert not (vtab / "split-theirs.csv").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("../x.jpg,{sha},a,train", "without .. is expected"),
        ("/etc/passwd,{sha},a,train", "without .. is expected"),
        ("a\\..\\x.jpg,{sha},a,train", "without .. is expected"),
        ("./x.jpg,{sha},a,train", "without .. is expected"),
        ("x.jpg,1234,a,train", "line 2: path, sha256"),
        ("x.jpg,{sha},a", "line 2: path, sha256"),
        ("x.jpg,{sha},a,val", "part 'val'"),
        ("x.jpg,{sha},,train", "must be printable"),
        ("x.jpg,{sha},a\x07,train", "must be printable"),
        ("x.jpg,{sha},z,train", "class 'z' is in train only"),
        ("train/10/0.jpg,{sha},10,train", "is there twice"),
        ('"x.jpg,{sha},a,train', "not a readable split manifest"),
    ],
)
def test_a_broken_manifest_is_named(line, says, vtab, ask, tmp_path):
    head, *rows = (vtab / "split-pilot.csv").read_text().splitlines()
    given = tmp_path / "split-given.csv"
    given.write_text("\n".join([head, line.replace("{sha}", "0" * 64), *rows]) + "\n")
    code, _, said = ask("prepare", "vtab", "--manifest", str(given))
    assert (code, said.count("\n")) == (2, 1)
    assert says in said


def test_verify_says_one_line_per_kind(vtab, ask):
    assert ask("verify", "vtab", "--partial")[0] == 0
    (vtab / "train/10/0.jpg").unlink()
    (vtab / "train/11/0.jpg").write_bytes(b"no image")
    (vtab / "test/11/0.jpg").write_bytes(b"")
    code, said, _ = ask("verify", "vtab")
    assert code == 1
    assert said.splitlines() == [
        "vtab pilot: counts: classes 4 instead of 50",
        "vtab pilot: counts: test 8 instead of 8619",
        "vtab pilot: missing: 1 files (train/10/0.jpg)",
        "vtab pilot: altered: 2 files (test/11/0.jpg, train/11/0.jpg)",
        "vtab pilot: not decodable: 2 files (test/11/0.jpg, train/11/0.jpg)",
    ]


# --- loading ----------------------------------------------------------------------------------


def spec_of(root, split="pilot", **more):
    return DataSpec(name="folder", root=str(root), split=split, decode=24, **more)


def test_a_split_is_loaded(vtab):
    data = load_dataset(spec_of(vtab), 16)
    folder = load_dataset(spec_of(vtab, ""), 16)
    assert data.classes == folder.classes
    assert np.array_equal(data.train.images, folder.train.images)
    assert data.sha256 != folder.sha256, "the manifest is part of the digest"


def test_the_digest_follows_from_the_manifest(vtab, ask):
    first = load_dataset(spec_of(vtab), 16).sha256
    file = vtab / "split-pilot.csv"
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *reversed(rows)]) + "\n")
    assert load_dataset(spec_of(vtab), 16).sha256 == first, "the order of its lines means nothing"
    file.write_text("\n".join([head, *rows[:-1]]) + "\n")
    assert load_dataset(spec_of(vtab), 16).sha256 != first
    shutil.copy(vtab / "train/10/0.jpg", vtab / "train/10/copy.jpg")
    file.write_text(
        "\n".join([head, *(row.replace("train/10/0.jpg", "train/10/copy.jpg") for row in rows)])
        + "\n"
    )
    assert load_dataset(spec_of(vtab), 16).sha256 != first, "same pixels, another file"


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (lambda root: (root / "train/10/0.jpg").unlink(), "missing: 1 files (train/10/0.jpg)"),
        (
            lambda root: (root / "train/10/0.jpg").unlink() or os.mkfifo(root / "train/10/0.jpg"),
            "missing: 1 files (train/10/0.jpg)",
        ),
        (
            lambda root: (root / "train/10/0.jpg").write_bytes(picture(77)),
            "altered: 1 files (train/10/0.jpg)",
        ),
        (
            lambda root: (root / "split-pilot.csv").write_text("path\n"),
            "the columns path,sha256,label,part",
        ),
    ],
)
def test_a_split_that_is_not_as_its_manifest_says(breaks, says, vtab):
    load_dataset(spec_of(vtab), 16)  # now everything is in the cache
    breaks(vtab)
    with pytest.raises(UsageError) as said:
        load_dataset(spec_of(vtab), 16)
    assert says in str(said.value)
    assert "\n" not in str(said.value)


def test_one_cell_end_to_end(vtab, command, tmp_path, monkeypatch, capfd):
    words = ["bench.grid", str(ROOT / "tests" / "tiny_suite.py"), "--name", "own"]
    words += ["--methods", "linear", "--order-seeds", "1", "--jobs", "1"]
    words += ["--set", "data.root=vtab", "data.decode=36", "data.classes=4"]
    words += ["data.train_per_class=0", "data.test_per_class=0"]
    env = {"BENCH_DATA": str(vtab.parent)}
    command(*words, "data.split=pilot", check=0, **env)
    with (tmp_path / "results" / "own" / "metrics.csv").open() as stream:
        assert (
            sum(
                int(row["n"])
                for row in csv.DictReader(stream)
                if row["scenario"] == "class" and row["after_task"] == "2"
            )
            == 8
        )
    (spec,) = (tmp_path / "results" / "own" / "runs").glob("*/spec.json")
    manifest_sha = manifest.digest_of(manifest.read(vtab / "split-pilot.csv"))
    assert json.loads(spec.read_text())["resolved"]["manifest_sha"] == manifest_sha
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the grid's workers
    monkeypatch.setattr("sys.argv", [*words, "data.split=nothere"])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.run(grid.main)
    error = capfd.readouterr().err.partition("error: ")[2]
    assert ended.value.code == 2
    assert "data.split=nothere: not prepared in" in error
    assert "(there: pilot; python -m bench.data prepare vtab --split nothere) [for " in error
    assert error.count("\n") == 1


def test_a_split_of_what_has_none(tmp_path):
    make.write(tmp_path, make.pilot())
    with pytest.raises(UsageError, match=r"not prepared in .*there: none"):
        load_dataset(spec_of(tmp_path), 16)
    with pytest.raises(UsageError, match="no usable name"):
        load_dataset(spec_of(tmp_path, "../x"), 16)
    with pytest.raises(UsageError, match=r"for data\.name=folder"):
        load_dataset(DataSpec(name="glyphs", split="coda"), 16)


# --- real photographs, where they are there ---------------------------------------------------


@pytest.mark.slow
@pytest.mark.shared
def test_tiny_imagenet_for_real(ask, tmp_path):
    root = tmp_path / "data" / "tiny-imagenet"
    root.mkdir(parents=True)
    for entry in photographs("tiny-imagenet-200").iterdir():
        (root / entry.name).symlink_to(entry)
    code, said, _ = ask("prepare", "tiny-imagenet", "--partial")
    assert (code, "200 classes, train 12000, test 4000" in said) == (0, True)
    data = load_dataset(
        DataSpec(name="folder", root=str(root), split="official", decode=32, classes=3), 56
    )
    assert (len(data.train.labels), len(data.test.labels)) == (180, 60)


@pytest.mark.shared
def test_folders_for_real(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for folder in sorted((photographs("grocery") / part).iterdir())[:3]:
            (tmp_path / part / folder.name).symlink_to(folder)
    rows = manifest.hashed(tmp_path, splits.folders(tmp_path).images, progress=False)
    manifest.write(manifest.path_of(tmp_path, "pilot"), rows)
    ours, folder = (load_dataset(spec_of(tmp_path, split), 16) for split in ("pilot", ""))
    assert np.array_equal(ours.test.images, folder.test.images)
