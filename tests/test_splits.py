"""Splits: each format as it is distributed, manifests that are exchanged, and training on one."""

import hashlib
import os
import pickle
import random
from dataclasses import replace

import dataset_files as make
import numpy as np
import pytest
from dataset_files import parts_of, rows_of, write

from bench.data import catalogue
from bench.data.catalogue import CATALOGUE
from bench.data.folder import load_folder, load_split
from bench.data.orders import class_order
from bench.data.prepare import splits
from bench.errors import UsageError

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
def listed(monkeypatch):
    """The small list is the published one, with its counts."""
    images, lists = make.imagenet_r()
    head = "\n".join(name for name in images if name in lists["imagenet-r_test.yaml"])
    monkeypatch.setattr(
        catalogue, "CODA_TEST_LIST_SHA256", hashlib.sha256(head.encode()).hexdigest()
    )
    entry = CATALOGUE["imagenet-r"]
    coda = replace(entry.splits[0], classes=3, train=12, test=3)
    monkeypatch.setitem(CATALOGUE, "imagenet-r", replace(entry, splits=(coda, *entry.splits[1:])))
    return images, lists


# --- the formats ------------------------------------------------------------------------------


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
        assert [
            int(x) for x in (root / f"order-coda-{trial}.txt").read_text().split(",")
        ] == expected
    assert class_order("coda", 0, 3) == [0, 1, 2]


def test_the_list_is_known_by_its_first_entries(tmp_path):
    """The names that both copies of the published list begin with."""
    names = HEAD.splitlines()
    numbers = {
        name: number for number, name in enumerate(sorted({name.split("/")[0] for name in names}))
    }
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
    monkeypatch.setitem(
        CATALOGUE,
        "imagenet-r",
        replace(entry, splits=(replace(entry.splits[0], train=24_000, test=6_000),)),
    )
    place("imagenet-r", *listed)
    code, said, _ = ask("prepare", "imagenet-r")
    assert code == 1
    assert "train 12 instead of 24000" in said


def test_imagenet_a_as_pilot_distributes_it_and_seeded(ask, place):
    root = place(
        "imagenet-a",
        make.pilot(("n01", "n02")),
        make.pictures(f"{n}/{i}.jpg" for n in ("n01", "n02") for i in range(5)),
    )
    (root / "test/n01/._0.jpg").write_bytes(b"what macOS puts beside a file")
    assert ask("prepare", "imagenet-a", "--partial")[0] == 0
    assert parts_of(root, "pilot")["test"] == {
        f"test/{n}/{i}.jpg": n for n in ("n01", "n02") for i in range(2)
    }
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
        np.array_equal(a, b)
        for mine, other in zip(ours[1:3], flat[1:], strict=True)
        for a, b in zip(mine, other, strict=True)
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
    names = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    test = parts_of(root, "official")["test"]
    assert test == {f"images/{name}/{name[4:]}_0003.jpg": name for name in names}
    assert len(rows_of(root, "official")) == 8


def test_domainnet_lists(ask, place):
    root = place("domainnet", make.domainnet(catalogue.DOMAINS))
    assert ask("prepare", "domainnet", "--partial")[0] == 0
    parts = parts_of(root, "official")
    assert [len(parts[part]) for part in ("train", "test")] == [24, 12]
    assert set(parts["train"].values()) == {"airplane", "The_Mona_Lisa"}
    assert (root / "order-official-0.txt").read_text() == "1,0\n", (
        "the list counts airplane first, sorted names the other"
    )


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
    (
        "cub200",
        make.cub,
        "images.txt",
        "1 a b\n",
        "line 1: 2 words are expected, found 3; where it was downloaded, remove it",
    ),
    ("cub200", make.cub, "train_test_split.txt", "1 1\n", "for each of the 8 images"),
    (
        "cub200",
        make.cub,
        "train_test_split.txt",
        "".join(f"{i} 2\n" for i in range(1, 9)),
        "0 or 1 for each",
    ),
    (
        "tiny-imagenet",
        make.tiny,
        "val/val_annotations.txt",
        "val_0.JPEG\tn01\n",
        "6 words are expected",
    ),
    (
        "tiny-imagenet",
        make.tiny,
        "val/val_annotations.txt",
        "../../x.JPEG n01 0 0 1 1\n",
        "without .. is expected",
    ),
    (
        "tiny-imagenet",
        make.tiny,
        "val/val_annotations.txt",
        "none.JPEG n01 0 0 1 1\nval_1.JPEG n02 0 0 1 1\n",
        "cannot be read",
    ),
    (
        "tiny-imagenet",
        make.tiny,
        "val/val_annotations.txt",
        "val_0.JPEG n09 0 0 1 1\n",
        "is in train only",
    ),
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


@pytest.mark.parametrize(
    ("name", "files", "file", "content", "says"), BROKEN, ids=[says for *_, says in BROKEN]
)
def test_a_broken_list_is_named(name, files, file, content, says, ask, place):
    root = place(name, files(), {file: content})
    code, _, said = ask("prepare", name, "--partial")
    assert (code, said.count("\n")) == (2, 1), said
    assert says in said
    assert not list(root.glob("split-*"))
