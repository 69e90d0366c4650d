"""The cache of arrays: what is in it is used, what passes its limit goes, longest unused first."""

import os
import threading
import time

import numpy as np
import pytest

from bench.errors import UsageError
from bench.store import cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path


def test_made_once(folder):
    calls = []

    def make():
        calls.append(1)
        return np.arange(12.0).reshape(3, 4)

    first, second = (cache.cached("queries", "key", make) for _ in range(2))
    assert len(calls) == 1
    assert np.array_equal(first, second)
    assert isinstance(first, np.memmap), "it takes no memory of the process"
    assert isinstance(second, np.memmap)


def test_made_once_by_all_who_want_it_at_once(folder):
    calls = []

    def make():
        calls.append(1)
        time.sleep(0.3)
        return np.arange(3.0)

    threads = [
        threading.Thread(target=cache.cached, args=("queries", "key", make)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert [file.name for file in (folder / "queries").iterdir()] == ["key.npy"]


def test_what_was_not_used_for_longest_goes_first(folder, monkeypatch):
    size = (1 << 20) / 4
    monkeypatch.setenv("BENCH_CACHE_LIMIT", str(2.5 / 1024))  # two and a half MiB
    for age, name in ((30, "a"), (20, "b"), (10, "c")):
        if name == "c":
            cache.cached(
                "queries", "a", lambda: pytest.fail("it is there")
            )  # now b is the longest unused
        cache.cached("queries", name, lambda: np.zeros(int(size), dtype=np.float32))
        if name != "c":
            os.utime(folder / "queries" / f"{name}.npy", (1e9 - age, 1e9 - age))
    assert {file.stem for file, _, _ in cache.entries()} == {"a", "c"}


def test_what_another_process_is_writing_stays(folder):
    cache.cached("queries", "key", lambda: np.zeros(3))
    young, old = (folder / "queries" / f".{name}.npy.x1" for name in ("young", "old"))
    for file in (young, old):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * cache.MAX_WRITING_SECONDS,) * 2)
    assert cache.trim(0) == 1
    assert list((folder / "queries").iterdir()) == [young]


def test_with_no_room_nothing_is_written(folder, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE_LIMIT", "0")
    assert np.array_equal(cache.cached("queries", "key", lambda: np.arange(3.0)), np.arange(3.0))
    assert not [file for file in folder.rglob("*") if file.is_file()]


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number(folder, monkeypatch, text):
    monkeypatch.setenv("BENCH_CACHE_LIMIT", text)
    with pytest.raises(UsageError, match="a number of GiB"):
        cache.cached("queries", "key", lambda: np.zeros(3))
    assert not list(folder.iterdir())


def test_the_command_shows_and_clears(folder, command):
    cache.cached("images", "one", lambda: np.zeros((8, 4, 4, 3), dtype=np.uint8))
    said = command("bench.data", "cache", check=0).stdout
    assert "limit 50 GiB" in said
    assert "images        1 entries" in said
    assert "1 entries dropped" in command("bench.data", "cache", "--clear", check=0).stdout
    assert cache.entries() == []
