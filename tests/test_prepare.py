"""Splits fetched from a local server and built: the commands around a download."""

import hashlib
import shutil
from dataclasses import replace

import pytest
from dataset_files import CONTENT, imagenet_r, tar_of, tiny, write, zip_of
from test_datasets import write_cifar

from bench.config.spec import DataSpec
from bench.data import catalogue, cifar
from bench.data.catalogue import CATALOGUE
from bench.data.datasets import load_dataset
from bench.errors import UsageError


@pytest.fixture
def small(monkeypatch):
    """A dataset of the catalogue with the counts of a fixture, and no digests."""

    def change(name, **counts):
        entry = CATALOGUE[name]
        splits = tuple(
            replace(s, **{"classes": None, "train": None, "test": None, "images": None, **counts})
            for s in entry.splits
        )
        made = tuple(replace(archive, md5="", bytes=None) for archive in entry.archives)
        monkeypatch.setitem(CATALOGUE, name, replace(entry, splits=splits, archives=made))

    return change


@pytest.fixture
def ask(tmp_path, monkeypatch, data_command):
    """The command with a network, which is `site`."""
    monkeypatch.delenv("BENCH_OFFLINE", raising=False)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    return data_command


def test_prepare_fetches_unpacks_and_splits(ask, small, site, tmp_path):
    images, _ = imagenet_r()
    site.files["/m/imagenet-r.tar"] = tar_of(
        {f"imagenet-r/{name}": content for name, content in images.items()}
    )
    small("imagenet-r", classes=3, images=15)
    code, said, _ = ask("prepare", "imagenet-r", "--split", "seeded", "--mirror", f"{site.url}/m/")
    assert (code, site.asked) == (0, [("/m/imagenet-r.tar", None)])
    assert "3 classes, train 12, test 3" in said
    root = tmp_path / "data" / "imagenet-r"
    assert sorted(f.name for f in root.iterdir()) == [
        "imagenet-r.tar",
        "n01",
        "n02",
        "n03",
        "split-seeded.csv",
    ]
    assert ask("prepare", "imagenet-r", "--split", "seeded", "--offline")[0] == 0, (
        "nothing more is needed"
    )
    assert len(site.asked) == 1
    assert ask("verify", "imagenet-r")[:2] == (
        0,
        f"imagenet-r seeded: fine; {said.splitlines()[0].split('; ')[1]}\n",
    )


@pytest.mark.parametrize("in_place", ["val/", "nothing"])
def test_prepare_finishes_a_stopped_extraction(in_place, ask, tmp_path):
    """val in place is what tells that the archive is unpacked; train was not when it stopped."""
    files = tiny()
    val = {name: content for name, content in files.items() if name.startswith(in_place)}
    rest = {
        f".unpacked-tiny-imagenet-200.zip/tiny-imagenet-200/{name}": files[name]
        for name in files.keys() - val.keys()
    }
    write(tmp_path / "data" / "tiny-imagenet", val | rest)
    code, said, _ = ask(
        "prepare", "tiny-imagenet", "--partial", "--offline"
    )  # the archive is not needed for it
    assert (code, "train 6, test 4" in said) == (0, True)


@pytest.mark.parametrize("how", ["--offline", "BENCH_OFFLINE"])
def test_offline_touches_nothing(how, ask, site, monkeypatch):
    if how == "BENCH_OFFLINE":
        monkeypatch.setenv(how, "1")
    words = ["--offline"] if how == "--offline" else []
    code, _, said = ask("prepare", "tiny-imagenet", "--mirror", site.url, *words)
    assert code == 2
    assert "the network is off" in said
    assert not site.asked


def test_offline_names_all_files_at_once(ask, tmp_path):
    code, _, said = ask("prepare", "domainnet", "--offline")
    assert code == 2
    assert "18 files are not there" in said
    assert said.count("fetch: http") == 18
    assert len(said.splitlines()) == 20


def test_a_full_disk_is_no_mistake_of_the_user(site, ask, small, tmp_path):
    site.files["/tiny-imagenet-200.zip"] = CONTENT
    part = tmp_path / "data" / "tiny-imagenet" / "tiny-imagenet-200.zip.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    small("tiny-imagenet")
    code, _, said = ask("prepare", "tiny-imagenet", "--mirror", site.url)
    assert (code, said.count("\n")) == (3, 1)
    assert f"{part}: No space left" in said


@pytest.mark.parametrize(
    "mirror",
    [
        "file:///etc",
        "ftp://x/y",
        "nonsense",
        "http://",
        "http://[x",
        "http://..",
        "http://x:99999",
        "http://x/ä",
    ],
)
def test_a_mirror_is_a_web_address(mirror, ask):
    code, _, said = ask("prepare", "tiny-imagenet", "--mirror", mirror)
    assert (code, said.count("\n")) == (2, 1)
    assert "an http or https address is expected" in said


def test_what_is_fetched_by_hand_is_said_in_three_lines(ask, tmp_path):
    for name in ("vtab", "imagenet-r", "imagenet-a"):
        code, _, said = ask("prepare", name)
        lines = said.splitlines()
        assert (code, len(lines)) == (2, 3)
        assert "missing:" in lines[0]
        assert lines[1].startswith("fetch: ")
        assert str(tmp_path / "data" / name) in lines[2]


def test_a_file_placed_by_hand_is_checked(ask, tmp_path):
    write(tmp_path / "data" / "tiny-imagenet", {"tiny-imagenet-200.zip": zip_of(tiny())})
    code, _, said = ask("prepare", "tiny-imagenet")
    assert code == 2
    assert "instead of 248100043" in said
    assert (tmp_path / "data" / "tiny-imagenet" / "tiny-imagenet-200.zip").exists(), (
        "a user's file is not removed"
    )


def test_counts_that_are_not_the_catalogues(ask, small, tmp_path):
    root = write(tmp_path / "data" / "tiny-imagenet", tiny())
    code, said, _ = ask("prepare", "tiny-imagenet")
    assert code == 1
    wrong = ("classes 2 instead of 200", "train 6 instead of 100000", "test 4 instead of 10000")
    assert "".join(f"counts: {line}\n" for line in wrong) in said
    assert not (root / "split-official.csv").exists()
    assert ask("prepare", "tiny-imagenet", "--partial")[0] == 0
    assert ask("verify", "tiny-imagenet")[0] == 1
    assert ask("verify", "tiny-imagenet", "--partial")[0] == 0


def test_list_says_what_is_here_and_what_is_missing(ask, tmp_path):
    write(tmp_path / "data" / "tiny-imagenet", tiny())
    ask("prepare", "tiny-imagenet", "--partial")
    code, said, _ = ask("list")
    assert code == 0
    assert [block.split(":")[0] for block in said.split("\n\n")] == list(CATALOGUE)
    for line in (
        "splits official",
        "missing train/*/* (by hand)",
        "missing 18 files (download)",
        "imagenet-r.tar of unknown size",
    ):
        assert line in said
    assert "tiny-imagenet-200.zip (download)" not in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("prepare", "imagenet-q"), "did you mean 'imagenet-r'"),
        (("prepare", "imagenet-r", "--split", "cod"), "did you mean 'coda'"),
        (("verify", "vtab"), "no split is prepared"),
        (("verify", "cifar100"), "no split is prepared"),
        (("prepare", "vtab", "--manifest", "none.csv"), "not a readable split manifest"),
        (("verify", "vtab", "--split", "../x"), "no usable name"),
    ],
)
def test_wrong_words(words, says, ask):
    code, _, said = ask(*words)
    assert (code, said.count("\n")) == (2, 1)
    assert says in said


def test_the_catalogue_is_whole():
    assert list(CATALOGUE) == [
        "cifar100",
        "imagenet-r",
        "imagenet-a",
        "vtab",
        "cub200",
        "domainnet",
        "tiny-imagenet",
    ]
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        assert len({split.name for split in entry.splits}) == len(entry.splits) > 0
        for split in entry.splits:
            assert split.download or split.needs
            assert bool(split.needs) == bool(split.fetch) == bool(split.put)
        for archive in entry.archives:
            assert archive.source or not (archive.md5 or archive.bytes), (
                "no number without its source"
            )
    assert len({archive.url for archive in catalogue.DOMAINNET.archives}) == 18


def test_cifar_is_checked_file_by_file(ask, tmp_path, monkeypatch):
    entry = CATALOGUE["cifar100"]
    root = write(tmp_path / "data" / "cifar100", {name: name.encode() for name in entry.files})
    assert ask("verify", "cifar100")[0] == 1
    digests = {name: hashlib.md5(name.encode()).hexdigest() for name in entry.files}
    monkeypatch.setitem(CATALOGUE, "cifar100", replace(entry, files=digests))
    assert ask("prepare", "cifar100", "--offline")[0] == 0
    (root / "cifar-100-python" / "meta").unlink()
    code, said, _ = ask("verify", "cifar100")
    assert (code, said.count("\n"), "missing" in said) == (1, 1, True)


def test_cifar_is_fetched_for_a_cell_that_needs_it(site, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    base = write_cifar(tmp_path / "theirs")
    site.files["/cifar.tar.gz"] = tar_of(
        {f"cifar-100-python/{f.name}": f.read_bytes() for f in base.iterdir()}, "w:gz"
    )
    small("cifar100")
    entry = CATALOGUE["cifar100"]
    archive = replace(entry.archives[0], url=f"{site.url}/cifar.tar.gz")
    monkeypatch.setattr(cifar, "ENTRY", replace(entry, archives=(archive,)))
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    with pytest.raises(UsageError, match="the network is off") as said:
        load_dataset(DataSpec(name="cifar100"), 32)
    assert "\n" not in str(said.value)
    assert not site.asked
    monkeypatch.delenv("BENCH_OFFLINE")
    fetched = load_dataset(DataSpec(name="cifar100"), 32)
    assert fetched.sha256 == load_dataset(DataSpec(name="cifar100", root=str(base)), 32).sha256


def test_another_users_split_is_fetched_too(ask, small, site, tmp_path):
    """Of a manifest alone: no lists, only what can be downloaded."""
    images, _ = imagenet_r()
    small("imagenet-r")
    site.files["/imagenet-r.tar"] = tar_of(
        {f"imagenet-r/{name}": content for name, content in images.items()}
    )
    root = write(tmp_path / "data" / "imagenet-r", images)
    assert ask("prepare", "imagenet-r", "--split", "seeded")[0] == 0
    given = (root / "split-seeded.csv").rename(tmp_path / "split-coda.csv")
    shutil.rmtree(root)
    code, said, _ = ask("prepare", "imagenet-r", "--manifest", str(given), "--mirror", site.url)
    assert (code, (root / "split-coda.csv").read_bytes()) == (0, given.read_bytes()), said
