"""Unpacking: archives that are harmful, damaged or too large, and stopped extractions."""

import os
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from dataset_files import picture, tar_of, write, zip_of

from bench.data.prepare import archives
from bench.errors import UsageError


def special(kind, name, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


EVIL_TAR = {
    "parent": (special(tarfile.REGTYPE, "in/../../marker"), "would leave"),
    "absolute": (special(tarfile.REGTYPE, "{outside}/marker"), "would leave"),
    "windows": (special(tarfile.REGTYPE, "in\\..\\..\\marker"), "would leave"),
    "symlink": (special(tarfile.SYMTYPE, "in/link", "../.."), "a link or a device"),
    "inner symlink": (special(tarfile.SYMTYPE, "in/link", "a.txt"), "a link or a device"),
    "hard link": (special(tarfile.LNKTYPE, "in/link", "../../secret"), "a link or a device"),
    "device": (special(tarfile.CHRTYPE, "in/null"), "a link or a device"),
    "fifo": (special(tarfile.FIFOTYPE, "in/fifo"), "a link or a device"),
}


@pytest.mark.parametrize("kind", EVIL_TAR)
def test_a_tar_that_means_harm_is_refused_by_name(kind, tmp_path):
    member, says = EVIL_TAR[kind]
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    name = member.name.replace("{outside}", str(tmp_path))
    with tarfile.open(root / "x.tar", "w") as archive:
        good = tarfile.TarInfo("in/a.txt")
        archive.addfile(good)
        if kind.endswith("symlink"):
            member.name = name
            archive.addfile(member)
            through = tarfile.TarInfo("in/link/marker")
            archive.addfile(through)
        else:
            member.name = name
            archive.addfile(member)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=says) as said:
        archives.unpack(root / "x.tar", "")
    assert name.encode("unicode_escape").decode() in str(said.value)
    assert sorted(tmp_path.rglob("*")) == before, "nothing appeared, inside or outside"


@pytest.mark.parametrize(
    ("name", "mode", "says"),
    [
        ("../marker", 0, "would leave"),
        ("in/../../marker", 0, "would leave"),
        ("/tmp/marker-of-hlgp-bench", 0, "would leave"),
        ("C:\\marker", 0, "would leave"),
        ("link", stat.S_IFLNK, "a link or a device"),
        ("null", stat.S_IFCHR, "a link or a device"),
    ],
)
def test_a_zip_that_means_harm_is_refused_by_name(name, mode, says, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with zipfile.ZipFile(root / "x.zip", "w") as archive:
        archive.writestr("a.txt", b"")
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, b"..")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=says):
        archives.unpack(root / "x.zip", "")
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/marker-of-hlgp-bench").exists()


ARCHIVES = {"x.tar": tar_of, "x.tgz": lambda files: tar_of(files, "w:gz"), "x.zip": zip_of}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_named(name, tmp_path):
    content = ARCHIVES[name]({f"in/{i}.jpg": picture(i) for i in range(20)})
    for damaged in (content[: len(content) // 2], b"", b"no archive"):
        root = write(tmp_path / "root", {name: damaged})
        with pytest.raises(UsageError, match="not a readable archive"):
            archives.unpack(root / name, "in")
        assert [f.name for f in root.iterdir()] == [name]


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_is_there_already_stays(name, tmp_path):
    root = write(
        tmp_path / "root",
        {
            name: ARCHIVES[name]({"in/a/x": b"theirs", "in/b/x": b"theirs"}),
            "a/x": b"mine",
            "b": b"mine",
        },
    )
    archives.unpack(root / name, "in")
    assert {
        f.relative_to(root).as_posix(): f.read_bytes()
        for f in root.rglob("*")
        if f.is_file() and f.name != name
    } == {
        "a/x": b"mine",
        "b": b"mine",
    }


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("where", ["unpacking", "moving"])
def test_a_stopped_extraction_is_finished_by_the_next(where, name, tmp_path, monkeypatch):
    files = {f"in/{c}/{i}.txt": f"{c}{i}".encode() for c in "abc" for i in range(3)}
    root = write(tmp_path / "root", {name: ARCHIVES[name](files)})
    renamed = []

    def stop(self, target):
        renamed.append(target)
        if len(renamed) == (1 if where == "unpacking" else 3):
            os._exit(9)
        return os.rename(self, target)

    pid = os.fork()
    if not pid:  # killed, so that nothing is tidied up
        try:
            Path.rename = stop  # type: ignore[method-assign]
            archives.unpack(root / name, "in")
        finally:
            os._exit(0)  # whatever happened: this copy of pytest must not go on
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert archives.pending(root / name) == (where == "moving")
    if where == "moving":
        (root / name).unlink()  # no longer needed
    archives.unpack(root / name, "in")
    assert {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*.txt")} == {
        file.removeprefix("in/"): content for file, content in files.items()
    }
    assert not [f for f in root.iterdir() if f.name.startswith(".")]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_larger_than_the_disk_is_refused_first(name, tmp_path, monkeypatch):
    root = write(tmp_path / "root", {name: ARCHIVES[name]({"in/a": bytes(3_000_000)})})
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2_000_000))
    with pytest.raises(UsageError, match="GB when unpacked"):
        archives.unpack(root / name, "in")
    assert [f.name for f in root.iterdir()] == [name]


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize(
    "members",
    [("in/a", "in/a/b"), ("in/a/b", "in/a"), ("in/" + "x" * 300,)],
    ids=["file", "folder", "long"],
)
def test_a_member_that_no_disk_can_hold_is_named(members, name, tmp_path):
    root = write(tmp_path / "root", {name: ARCHIVES[name](dict.fromkeys(members, b"."))})
    with pytest.raises(UsageError, match=rf"{name}: member '\w+' cannot be unpacked here"):
        archives.unpack(root / name, "in")
    assert [f.name for f in root.iterdir()] == [name]
