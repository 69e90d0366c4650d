"""Splits: each format as it is distributed, manifests that are exchanged, and training on one."""

import csv
import hashlib
import os
import pickle
import random
import shutil
from dataclasses import replace

import dataset_files as make
import numpy as np
import pytest
from conftest import ROOT
from dataset_files import picture, write

from bench import cli, grid
from bench.config.spec import DataSpec, UsageError
from bench.data import catalogue, manifest, splits
from bench.data.catalogue import CATALOGUE
from bench.data.datasets import load_dataset
from bench.data.folder import load_folder, load_split
from bench.data.stream import class_order

SHARED = ROOT.parent / "shared" / "data"
HEAD = """n01910747/tattoo_75.jpg
n02437616/painting_1.jpg
n03773504/videogame_20.jpg
n02099601/misc_41.jpg
n01986214/art_2.jpg
n01843383/deviantart_70.jpg
n02097298/misc_46.jpg
n02486410/cartoon_18.jpg
n02099601/misc_95.jpg
n03124170/sculpture_1.jpg
n02814860/cartoon_15.jpg
n04389033/videogame_5.jpg
n02106166/sculpture_1.jpg
n02108089/misc_22.jpg
n01514859/graphic_1.jpg
n03888257/videogame_5.jpg"""


@pytest.fixture
def ask(tmp_path, monkeypatch, data_command):
    """The command in a folder of its own, without a network."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    return data_command


@pytest.fixture
def place(tmp_path):
    return lambda name, *files: write(tmp_path / "data" / name, {k: v for each in files for k, v in each.items()})


@pytest.fixture
def listed(monkeypatch):
    """The small list is the published one, with its counts."""
    images, lists = make.imagenet_r()
    head = "\n".join(name for name in images if name in lists["imagenet-r_test.yaml"])
    monkeypatch.setattr(catalogue, "CODA_HEAD", hashlib.sha256(head.encode()).hexdigest())
    entry = CATALOGUE["imagenet-r"]
    coda = replace(entry.splits[0], classes=3, train=12, test=3)
    monkeypatch.setitem(CATALOGUE, "imagenet-r", replace(entry, splits=(coda, *entry.splits[1:])))
    return images, lists


def rows_of(root, split):
    with (root / f"split-{split}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def parts_of(root, split):
    rows = rows_of(root, split)
    return {part: {row["path"]: row["label"] for row in rows if row["part"] == part} for part in ("train", "test")}


# --- the formats ------------------------------------------------------------------------------------------------------


def test_the_coda_list(ask, place, listed):
    images, lists = listed
    root = place("imagenet-r", images, lists)
    code, said, _ = ask("prepare", "imagenet-r")
    assert code == 0, said
    parts = parts_of(root, "coda")
    assert parts["test"] == {f"{name}/art_0.jpg": name for name in ("n01", "n02", "n03")}
    assert len(parts["train"]) == 12
    for row in rows_of(root, "coda"):
        assert row["sha256"] == hashlib.sha256((root / row["path"]).read_bytes()).hexdigest()


def test_the_published_numbering_becomes_class_orders(ask, place, listed):
    """The list says n03 = 0, n01 = 1, n02 = 2; here they are 2, 0, 1."""
    root = place("imagenet-r", *listed)
    ask("prepare", "imagenet-r")
    published = ["n03", "n01", "n02"]
    for trial in range(5):
        shuffled = list(range(3))
        if trial:
            random.seed(trial)
            random.shuffle(shuffled)
        expected = [sorted(published).index(published[number]) for number in shuffled]
        assert [int(x) for x in (root / f"order-coda-{trial}.txt").read_text().split(",")] == expected
    assert class_order("coda", 0, 3) == [0, 1, 2]


def test_the_list_is_known_by_its_first_entries(tmp_path):
    """The names that both copies of the published list begin with."""
    names = HEAD.splitlines()
    numbers = {name: number for number, name in enumerate(sorted({name.split("/")[0] for name in names}))}
    targets = "".join(f"- {numbers[name.split('/')[0]]}\n" for name in names)
    paths = "".join(f"- data/imagenet-r/{name}\n" for name in names)
    text = f"data:\n{paths}targets:\n{targets}"
    make.write(tmp_path, {"imagenet-r_train.yaml": text, "imagenet-r_test.yaml": text})
    assert [path for path, _, part in splits.coda(tmp_path).images if part == "test"] == names
    make.write(tmp_path, {"imagenet-r_test.yaml": text.replace("misc_22", "misc_23")})
    with pytest.raises(UsageError, match="not the published list"):
        splits.coda(tmp_path)


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (lambda text: text.replace("n01/art_0", "n01/art_2"), "not the published list"),
        (lambda text: text.replace("targets", "labels"), "'data' and 'targets'"),
        (lambda text: text.replace("- 0", "- a"), "whole numbers do not fit"),
        (lambda text: text + "- 0\n", "whole numbers do not fit"),
        (lambda text: "!!python/object/apply:os.mkdir [ran]", "could not determine a constructor"),
        (lambda text: "data: [", "is expected"),
        (lambda text: "", "is expected"),
    ],
)
def test_another_list_is_refused(breaks, says, ask, place, listed, tmp_path):
    root = place("imagenet-r", *listed)
    file = root / "imagenet-r_test.yaml"
    file.write_text(breaks(file.read_text()))
    code, _, said = ask("prepare", "imagenet-r")
    assert (code, said.count("\n")) == (2, 1)
    assert says in said
    assert not list(tmp_path.rglob("ran"))
    assert not list(root.glob("split-*"))


def test_a_pickle_is_not_read(ask, place, listed, tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    place("imagenet-r", *listed, {"imagenet-r_train.yaml": pickle.dumps(Runs())})
    assert ask("prepare", "imagenet-r")[0] == 2
    assert not (tmp_path / "ran").exists()


def test_the_coda_lists_counts_are_checked(ask, place, listed, monkeypatch):
    entry = CATALOGUE["imagenet-r"]
    monkeypatch.setitem(CATALOGUE, "imagenet-r", replace(entry, splits=(replace(entry.splits[0], train=24_000, test=6_000),)))
    place("imagenet-r", *listed)
    code, said, _ = ask("prepare", "imagenet-r")
    assert code == 1
    assert "train 12 instead of 24000" in said


def test_imagenet_a_as_pilot_distributes_it_and_seeded(ask, place):
    root = place(
        "imagenet-a", make.pilot(("n01", "n02")), make.pictures(f"{n}/{i}.jpg" for n in ("n01", "n02") for i in range(5))
    )
    assert ask("prepare", "imagenet-a", "--partial")[0] == 0
    assert parts_of(root, "pilot")["test"] == {f"test/{n}/{i}.jpg": n for n in ("n01", "n02") for i in range(2)}
    assert ask("prepare", "imagenet-a", "--split", "seeded", "--partial")[0] == 0
    seeded = parts_of(root, "seeded")
    assert [len(seeded[part]) for part in ("train", "test")] == [8, 2]
    assert not any(path.startswith("t") for path in (*seeded["train"], *seeded["test"]))


def test_the_seeded_split_is_that_of_a_flat_folder(ask, place, tmp_path):
    images = make.pictures(f"{n}/{i}.jpg" for n in ("n01", "n02") for i in range(10))
    root = place("imagenet-a", images)
    ask("prepare", "imagenet-a", "--split", "seeded", "--partial")
    flat = load_folder(write(tmp_path / "flat", images), 16)
    ours = load_split(root, "seeded", 16)
    assert all(
        np.array_equal(a, b) for mine, other in zip(ours[1:3], flat[1:], strict=True) for a, b in zip(mine, other, strict=True)
    )


def test_vtab_folders(ask, place):
    root = place("vtab", make.pilot())
    assert ask("prepare", "vtab", "--partial")[0] == 0
    classes, train, _, _ = load_split(root, "pilot", 16)
    assert classes == ("10", "11", "20", "21")
    assert train[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_cub_in_the_official_format(ask, place):
    root = place("cub200", make.cub())
    assert ask("prepare", "cub200", "--partial")[0] == 0
    test = parts_of(root, "official")["test"]
    assert test == {
        "images/001.Black_footed_Albatross/Black_footed_Albatross_0003.jpg": "001.Black_footed_Albatross",
        "images/002.Laysan_Albatross/Laysan_Albatross_0003.jpg": "002.Laysan_Albatross",
    }
    assert len(rows_of(root, "official")) == 8


def test_domainnet_lists(ask, place):
    root = place("domainnet", make.domainnet(catalogue.DOMAINS))
    assert ask("prepare", "domainnet", "--partial")[0] == 0
    parts = parts_of(root, "official")
    assert [len(parts[part]) for part in ("train", "test")] == [24, 12]
    assert set(parts["train"].values()) == {"airplane", "The_Mona_Lisa"}
    assert (root / "order-official-0.txt").read_text() == "1,0\n", "the list counts airplane first, sorted names the other"


def test_domainnet_as_coda_lists_it(ask, place):
    files = make.domainnet(("clipart", "real"))
    names = [name for name in files if name.endswith(".jpg")]
    lists = {}
    for part, chosen in (("train", names[::2]), ("test", names[1::2])):
        numbers = "".join(f"- {int('Mona' in name)}\n" for name in chosen)
        lists[f"domainnet_{part}.yaml"] = (
            "data:\n" + "".join(f"- data/DomainNet/{n}\n" for n in chosen) + "targets:\n" + numbers
        )
    root = place("domainnet", make.domainnet(catalogue.DOMAINS), lists)
    assert ask("prepare", "domainnet", "--split", "coda", "--partial")[0] == 0
    assert set(parts_of(root, "coda")["test"]) == set(names[1::2])


def test_tiny_imagenet_in_the_official_layout(ask, place):
    root = place("tiny-imagenet", make.tiny())
    assert ask("prepare", "tiny-imagenet", "--partial")[0] == 0
    parts = parts_of(root, "official")
    assert parts["test"] == {f"val/images/val_{i}.JPEG": ("n02", "n01")[i % 2] for i in range(4)}
    assert len(parts["train"]) == 6


BROKEN = [
    ("cub200", make.cub, "images.txt", "1 a b\n", "line 1: 2 words are expected"),
    ("cub200", make.cub, "train_test_split.txt", "1 1\n", "for each of the 8 images"),
    ("cub200", make.cub, "train_test_split.txt", "".join(f"{i} 2\n" for i in range(1, 9)), "0 or 1 for each"),
    ("tiny-imagenet", make.tiny, "val/val_annotations.txt", "val_0.JPEG\tn01\n", "6 words are expected"),
    ("tiny-imagenet", make.tiny, "val/val_annotations.txt", "../../x.JPEG n01 0 0 1 1\n", "without .. is expected"),
    (
        "tiny-imagenet",
        make.tiny,
        "val/val_annotations.txt",
        "none.JPEG n01 0 0 1 1\nval_1.JPEG n02 0 0 1 1\n",
        "cannot be read",
    ),
    ("tiny-imagenet", make.tiny, "val/val_annotations.txt", "val_0.JPEG n09 0 0 1 1\n", "is in train only"),
    (
        "domainnet",
        lambda: make.domainnet(catalogue.DOMAINS),
        "real_test.txt",
        "real/airplane/real_2.jpg zero\n",
        "a class number",
    ),
    (
        "domainnet",
        lambda: make.domainnet(catalogue.DOMAINS),
        "real_test.txt",
        "real/airplane/real_2.jpg 1\n",
        "the numbers 0 and 1",
    ),
]


@pytest.mark.parametrize(("name", "files", "file", "content", "says"), BROKEN, ids=[says for *_, says in BROKEN])
def test_a_broken_list_is_named(name, files, file, content, says, ask, place):
    root = place(name, files(), {file: content})
    code, _, said = ask("prepare", name, "--partial")
    assert (code, said.count("\n")) == (2, 1), said
    assert says in said
    assert not list(root.glob("split-*"))


# --- manifests --------------------------------------------------------------------------------------------------------


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
    swapped = [row.replace(",train", ",?").replace(",test", ",train").replace(",?", ",test") for row in rows]
    theirs.write_text("\n".join([head, *reversed(swapped)]) + "\n")
    assert ask("prepare", "vtab", "--manifest", str(theirs))[0] == 0
    assert parts_of(vtab, "theirs")["train"] == parts_of(vtab, "pilot")["test"]
    assert (vtab / "split-theirs.csv").read_text().splitlines()[1:] == sorted(swapped)
    assert ask("prepare", "vtab", "--manifest", str(theirs), "--split", "again")[0] == 0
    assert ask("prepare", "vtab", "--manifest", str(theirs), "--split", "pilot")[0] == 2, "another one has that name"


def test_what_differs_from_another_users_split_is_said(vtab, ask, tmp_path):
    theirs = shutil.copy(vtab / "split-pilot.csv", tmp_path / "split-theirs.csv")
    (vtab / "train/10/0.jpg").write_bytes(picture(77))
    for name in ("0", "1"):
        for label in ("20", "21"):
            (vtab / f"test/{label}/{name}.jpg").unlink()
    code, said, _ = ask("prepare", "vtab", "--manifest", str(theirs))
    assert code == 1
    assert "vtab: missing: 4 files (test/20/0.jpg, test/20/1.jpg, test/21/0.jpg, ...)\n" in said
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
        "vtab pilot: missing: 1 files (train/10/0.jpg)",
        "vtab pilot: altered: 2 files (test/11/0.jpg, train/11/0.jpg)",
        "vtab pilot: not decodable: 2 files (test/11/0.jpg, train/11/0.jpg)",
    ]


# --- loading ----------------------------------------------------------------------------------------------------------


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
    file.write_text("\n".join([head, *(row.replace("train/10/0.jpg", "train/10/copy.jpg") for row in rows)]) + "\n")
    assert load_dataset(spec_of(vtab), 16).sha256 != first, "same pixels, another file"


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (lambda root: (root / "train/10/0.jpg").unlink(), "missing: 1 files (train/10/0.jpg)"),
        (lambda root: (root / "train/10/0.jpg").write_bytes(picture(77)), "altered: 1 files (train/10/0.jpg)"),
        (lambda root: (root / "split-pilot.csv").write_text("path\n"), "the columns path,sha256,label,part"),
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
    words = ("bench.grid", str(ROOT / "tests" / "tiny_suite.py"), "--methods", "linear", "--order-seeds", "1", "--jobs", "1",
             "--name", "own", "--set", "data.root=vtab", "data.decode=36", "data.train_per_class=0", "data.test_per_class=0",
             "data.classes=4")  # fmt: skip
    env = {"BENCH_DATA": str(vtab.parent)}
    command(*words, "data.split=pilot", check=0, **env)
    with (tmp_path / "results" / "own" / "metrics.csv").open() as stream:
        assert (
            sum(int(row["n"]) for row in csv.DictReader(stream) if row["scenario"] == "class" and row["after_task"] == "2") == 8
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the grid's workers
    monkeypatch.setattr("sys.argv", [*words, "data.split=nothere"])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.run(grid.main)
    error = capfd.readouterr().err.partition("error: ")[2]
    assert ended.value.code == 2
    assert error.endswith("unknown 'nothere' (accepted: pilot)\n")
    assert error.count("\n") == 1


def test_a_split_of_what_has_none(tmp_path):
    make.write(tmp_path, make.pilot())
    with pytest.raises(UsageError, match="no split is prepared"):
        load_dataset(spec_of(tmp_path), 16)
    with pytest.raises(UsageError, match="no usable name"):
        load_dataset(spec_of(tmp_path, "../x"), 16)
    with pytest.raises(UsageError, match=r"for data\.name=folder"):
        load_dataset(DataSpec(name="glyphs", split="coda"), 16)


# --- real photographs, where they are there ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "tiny-imagenet-200").is_dir(), reason="the photographs are not here")
def test_tiny_imagenet_for_real(ask, tmp_path):
    root = tmp_path / "data" / "tiny-imagenet"
    root.mkdir(parents=True)
    for entry in (SHARED / "tiny-imagenet-200").iterdir():
        (root / entry.name).symlink_to(entry)
    code, said, _ = ask("prepare", "tiny-imagenet", "--partial")
    assert (code, "200 classes, train 12000, test 4000" in said) == (0, True)
    data = load_dataset(DataSpec(name="folder", root=str(root), split="official", decode=32, classes=3), 56)
    assert (len(data.train.labels), len(data.test.labels)) == (180, 60)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "grocery").is_dir(), reason="the photographs are not here")
def test_folders_for_real(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for folder in sorted((SHARED / "grocery" / part).iterdir())[:3]:
            (tmp_path / part / folder.name).symlink_to(folder)
    rows = manifest.hashed(tmp_path, splits.folders(tmp_path).images, progress=False)
    manifest.write(manifest.path_of(tmp_path, "pilot"), rows)
    ours, folder = (load_dataset(spec_of(tmp_path, split), 16) for split in ("pilot", ""))
    assert np.array_equal(ours.test.images, folder.test.images)
