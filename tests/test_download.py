"""One file from a local server that misbehaves in every way we know."""

import hashlib

import pytest
from dataset_files import CONTENT, write

from bench.data.prepare import download
from bench.errors import UsageError
from bench.store.locks import locked

MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def get(site, tmp_path):
    """Fetch x.tar into a folder: its path. Fast tries."""

    def go(**how):
        target = tmp_path / "data" / "x.tar"
        download.fetch(
            f"{site.url}/x.tar", target, **{"pause": 0.01, "timeout": 0.3, "tries": 4, **how}
        )
        return target

    return go


def part_of(tmp_path, content):
    write(tmp_path / "data", {"x.tar.part": content})


def test_a_download_arrives_whole(get, site):
    target = get(size=len(CONTENT), md5=MD5)
    assert target.read_bytes() == CONTENT
    assert [f.name for f in target.parent.iterdir()] == ["x.tar"]
    assert site.asked == [("/x.tar", None)]


def test_what_is_there_is_not_fetched_again(get, site, tmp_path):
    part_of(tmp_path, CONTENT[:300_000])
    assert get(md5=MD5).read_bytes() == CONTENT
    assert site.asked == [("/x.tar", "bytes=300000-")]


def test_a_server_without_ranges_starts_again(get, site, tmp_path):
    site.ranges = False
    part_of(tmp_path, b"other bytes")
    assert get(md5=MD5).read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_a_part_that_is_whole_is_taken(get, site, tmp_path):
    part_of(tmp_path, CONTENT)
    assert get(md5=MD5).read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_a_part_longer_than_the_file_is_dropped(get, site, tmp_path):
    part_of(tmp_path, CONTENT + b"more")
    assert get(md5=MD5).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "change",
    [
        "none",
        "another file",
        "another address",
        "no version",
        "a part of something else",
        "a damaged note",
    ],
)
def test_without_a_digest_only_the_same_file_is_continued(change, get, site, tmp_path):
    """Nothing would tell afterwards that its beginning was another file's."""
    site.tags = change != "no version"
    site.faults = ["cut"]
    with pytest.raises(UsageError, match="1 tries"):
        get(tries=1)
    part = tmp_path / "data" / "x.tar.part"
    assert part.stat().st_size == len(CONTENT) // 2
    wanted = CONTENT
    if change == "another file":
        site.files["/x.tar"] = wanted = CONTENT[::-1]
    if change == "another address":
        site.files["/y.tar"] = wanted = CONTENT[::-1]
        download.fetch(f"{site.url}/y.tar", tmp_path / "data" / "x.tar", tries=1)
    elif change == "a part of something else":
        part.with_name("x.tar.part.from").unlink()
        part_of(tmp_path, b"other bytes")
    elif change == "a damaged note":
        part.with_name("x.tar.part.from").write_bytes(b"\xff\n")
    target = get(tries=1) if change != "another address" else tmp_path / "data" / "x.tar"
    assert target.read_bytes() == wanted
    assert [f.name for f in target.parent.iterdir()] == ["x.tar"]
    assert site.asked[1][1] == (
        f"bytes={len(CONTENT) // 2}-" if change in ("none", "another file") else None
    )


@pytest.mark.parametrize(
    "length", [len(CONTENT), len(CONTENT) // 2]
)  # the part is a beginning; it is as long as the new file
def test_a_server_that_ignores_the_condition(length, get, site):
    site.faults, site.conditions = ["cut"], False
    with pytest.raises(UsageError):
        get(tries=1)
    site.files["/x.tar"] = CONTENT[::-1][:length]
    assert get(tries=2).read_bytes() == CONTENT[::-1][:length]


def test_two_processes_do_not_write_one_file(get, site, tmp_path):
    part_of(tmp_path, b"")
    busy = r"x.tar.part: another process is downloading it"
    with locked(tmp_path / "data" / ".x.tar.part.lock"), pytest.raises(UsageError, match=busy):
        get()
    assert get().read_bytes() == CONTENT


def test_what_another_process_has_continued_is_asked_for_again(get, site, tmp_path, monkeypatch):
    """It wrote between this one's look at the part and its first byte."""
    part_of(tmp_path, CONTENT[:1000])
    extent = download._extent

    def meanwhile(answer, have):
        if have == 1000:
            part_of(tmp_path, CONTENT[:5000])
        return extent(answer, have)

    monkeypatch.setattr(download, "_extent", meanwhile)
    assert get(md5=MD5).read_bytes() == CONTENT
    assert [asked for _, asked in site.asked] == ["bytes=1000-", "bytes=5000-"]


@pytest.mark.parametrize("fault", ["cut", "stall", 503, 429, 500])
def test_what_passes_is_tried_again(fault, get, site, capsys):
    site.faults = [fault, fault]
    assert get(size=len(CONTENT), md5=MD5).read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert said.count("again in") == 2
    assert said.index("0.01 s") < said.index("0.02 s"), "the pause doubles"
    assert "timed out" in said or fault != "stall"
    if fault in ("cut", "stall"):
        assert site.asked[1][1] == f"bytes={len(CONTENT) // 2}-", "and continues where it was"


@pytest.mark.parametrize("fault", ["cut", "stall", 503])
def test_what_does_not_pass_is_said_and_kept(fault, get, site, tmp_path):
    site.faults = [fault] * 9
    with pytest.raises(UsageError, match=r"2 tries, \d+ bytes are kept in .*x.tar.part") as said:
        get(tries=2)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "data" / "x.tar").exists()


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_refusal_is_not_tried_again(code, get, site, tmp_path):
    site.faults = [code]
    with pytest.raises(UsageError, match=f"HTTP {code}"):
        get()
    assert len(site.asked) == 1
    assert not (tmp_path / "data").exists()


def test_another_length_than_published_is_refused(get, site, tmp_path):
    with pytest.raises(UsageError, match="1024000 bytes are offered instead of 7"):
        get(size=7)
    assert not (tmp_path / "data" / "x.tar").exists()


def test_other_bytes_than_published_are_refused_and_removed(get, tmp_path):
    with pytest.raises(UsageError, match=f"md5 {MD5} instead of 0000"):
        get(md5="0000")
    assert not list((tmp_path / "data").iterdir())


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="2 tries"):
        download.fetch("http://127.0.0.1:9/x", tmp_path / "x", tries=2, pause=0.01)


def test_a_proxy_is_honoured(site, monkeypatch, tmp_path):
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.setattr("urllib.request._opener", None)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    site.files["http://data.invalid/x.tar"] = CONTENT
    download.fetch("http://data.invalid/x.tar", tmp_path / "x.tar", tries=1)
    assert (tmp_path / "x.tar").read_bytes() == CONTENT
