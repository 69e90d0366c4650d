"""What users met with folders, weights, paths, disks and terminals: nothing is dropped without a
word, and nothing ends in a traceback. The numbers are those of the list of faults.
"""

import errno
import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, table
from dataset_files import picture, write
from PIL import Image

from bench import cli, paths
from bench.backbone.weights import read_weights
from bench.config.arguments import add_suite_arguments
from bench.config.suite import load_suite
from bench.data import folder as folder_of
from bench.data.folder import list_classes, load_folder, parts_of
from bench.data.manifest import hashed
from bench.errors import UsageError
from bench.launch import pool
from bench.paths import what_it_is
from bench.store import cache, files
from bench.store.files import write_text
from bench.store.tables import read_runs

FLAT = {f"{name}/{i}.png": picture(i, "PNG") for name in ("a", "b") for i in range(4)}
PARTED = {f"{part}/{name}": content for part in ("train", "test") for name, content in FLAT.items()}


@pytest.fixture
def flat(tmp_path):
    return write(tmp_path / "flat", FLAT)


@pytest.fixture
def open_folder():
    """A folder that every user may read: pytest's own is for root alone."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def as_ordinary_user(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess:
    """`python -m ...` as a user whom permissions concern. Skips where root cannot become one."""
    start = [sys.executable, "-m", *words]
    if os.getuid() == 0:  # permissions do not concern root, until it gives up these capabilities
        if not shutil.which("setpriv"):
            pytest.skip("no setpriv, with which root can be made an ordinary user")
        start = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *start]
    given = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(start, cwd=folder, capture_output=True, text=True, env=given, timeout=120)


def one_line(done: subprocess.CompletedProcess, *said: str) -> None:
    assert done.returncode == 2, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    for text in said:
        assert text in done.stderr


# --- folders of images -----------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "@eaDir", "__MACOSX", "x/.cache"])
def test_1_hidden_folders_below_a_class_are_passed_over(flat, hidden):
    before = list_classes(flat)
    write(flat, {f"a/{hidden}/9.png": picture(9, "PNG")})
    if "/" not in hidden:
        write(flat, {f"{hidden}/9.png": picture(9, "PNG")})
    assert list_classes(flat) == before


def test_2_linked_folders_below_a_class_are_entered(flat, tmp_path):
    elsewhere = write(tmp_path / "elsewhere", {"9.png": picture(9, "PNG")})
    (flat / "a" / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(elsewhere)
    (flat / "a" / "up").symlink_to(flat)
    names = [file.relative_to(flat).as_posix() for file in list_classes(flat)["a"]]
    assert "a/more/9.png" in names, "a link that leads back is not followed for ever"
    assert not [name for name in names if "back" in name]


def test_3_a_folder_that_cannot_be_read_is_named(open_folder):
    root = write(open_folder / "flat", FLAT)
    os.chmod(root / "a", 0o000)
    done = as_ordinary_user(open_folder, "bench.data", "verify", str(root))
    os.chmod(root / "a", 0o755)
    one_line(done, "flat/a: cannot be read (Permission denied)")


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("pgm", "PPM"), ("jfif", "JPEG"), ("jpe", "JPEG"), ("jp2", "JPEG2000"), ("", "PNG")]
    + [("avif", "AVIF")] * (".avif" in folder_of._suffixes()),
)
def test_5_whatever_pillow_decodes_is_an_image(flat, suffix, kind):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).convert("L").convert("RGB").save(stream, kind)
    write(flat, {f"a/other{suffix and '.'}{suffix}": stream.getvalue()})
    assert len(list_classes(flat)["a"]) == 5


def test_5_what_is_left_out_is_counted(flat, capsys):
    write(flat, {"a/labels.txt": "x", "b/more/notes.json": "{}", "b/LICENCE": "words"})
    parts_of(flat)
    said = capsys.readouterr().err
    assert "3 file(s) are no images and were left out (e.g. a/labels.txt)" in said


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("TRAIN", "test")])
def test_7_parts_are_known_by_their_usual_names(tmp_path, names):
    write(tmp_path / "usual", PARTED)
    for name in names:
        write(tmp_path / "other" / name, FLAT)
    usual, found = (load_folder(tmp_path / name, 16) for name in ("usual", "other"))
    assert usual[0] == found[0] == ("a", "b")
    for part in (1, 2):
        assert np.array_equal(usual[part][0], found[part][0])


def test_7_two_of_one_kind_are_refused(tmp_path):
    write(tmp_path, PARTED | {"training/a/1.png": picture(1, "PNG")})
    with pytest.raises(UsageError, match="which is 'train': train or training"):
        parts_of(tmp_path)


def test_22_names_in_two_unicode_forms(tmp_path):
    two = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")]
    write(tmp_path / "flat", {f"{name}/{i}.png": picture(i, "PNG") for name in two for i in (1, 2)})
    with pytest.raises(UsageError, match="two classes look like"):
        list_classes(tmp_path / "flat")
    both = zip(("train", "test"), two, strict=True)
    write(
        tmp_path / "parted",
        {f"{part}/{name}/1.png": picture(1, "PNG") for part, form in both for name in ("x", form)},
    )
    with pytest.raises(UsageError, match=r"differ in their Unicode form"):
        parts_of(tmp_path / "parted")


def test_22_a_joiner_is_part_of_a_name(tmp_path):
    name = "\U0001f469\u200d\U0001f33e"
    write(tmp_path, {f"{name}/1.png": picture(1, "PNG"), "b/1.png": picture(2, "PNG")})
    assert name in list_classes(tmp_path)


def test_22_several_broken_images_are_counted(tmp_path):
    write(tmp_path, PARTED | {f"train/a/{i}.png": f"broken {i}" for i in range(3)})
    with pytest.raises(UsageError) as raised:
        load_folder(tmp_path, 16)
    assert "3 files cannot be used (python -m bench.data verify DIR" in str(raised.value)
    write(tmp_path, {f"train/b/{i}.png": f"broken {i}" for i in range(3)})
    with pytest.raises(UsageError, match="5 files or more"):
        load_folder(tmp_path, 16)


def test_22_absent_files_of_a_list_are_counted(flat):
    """As DomainNet's lists name them: the first five, and how many."""
    there = [(f"a/{number}.png", "a", ("train", "test")[number % 2]) for number in range(4)]
    gone = [(f"b/none{number}.png", "b", ("train", "test")[number % 2]) for number in range(7)]
    with pytest.raises(
        UsageError, match=r"7 of 11 images cannot be read: not there \(b/none0.png, .*none4.png, "
    ):
        hashed(flat, there + gone, progress=False)


def test_22_any_folder_can_be_verified(flat, data_command):
    code, out, _ = data_command("verify", str(flat))
    assert (code, "fine; 2 classes, 6 train images, 2 test images" in out) == (0, True), out
    (flat / "a" / "1.png").write_bytes(b"x")
    code, out, _ = data_command("verify", str(flat))
    assert code == 1
    assert "not decodable: 1 files" in out


def test_19_a_pointer_or_a_page_is_named(tmp_path, flat):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    write(tmp_path, {"p.npz": pointer, "h.pth": "\n<!DOCTYPE html><html>", "e.pt": ""})
    assert "Git LFS pointer" in what_it_is(tmp_path / "p.npz")
    for name in ("p.npz", "h.pth", "e.pt"):
        with pytest.raises(UsageError) as raised:
            read_weights(tmp_path / name, torch.nn.Identity())
        assert "unsafe" not in str(raised.value)
        assert what_it_is(tmp_path / name) in str(raised.value)
    (flat / "a" / "1.png").write_text(pointer)
    with pytest.raises(UsageError, match="Git LFS pointer"):
        load_folder(flat, 16)


# --- paths and permissions -------------------------------------------------------------------


@pytest.fixture
def closed(open_folder):
    """A folder below one that may not be searched."""
    write(open_folder / "closed" / "data", PARTED)
    write_text(open_folder / "closed" / "suite.py", TINY.read_text())
    write_text(open_folder / "closed" / "w.pth", "x")
    os.chmod(open_folder / "closed", 0o600)
    yield open_folder / "closed"
    os.chmod(open_folder / "closed", 0o755)


@pytest.mark.parametrize(
    "words",
    [
        ("bench.grid", str(TINY), "--set", "data.root=CLOSED/data"),
        ("bench.grid", str(TINY), "--set", "backbone.checkpoint=CLOSED/w.pth"),
        ("bench.grid", "CLOSED/suite.py"),
        ("bench.grid", str(TINY), "--results", "CLOSED/results"),
        ("bench.report", "tiny", "--results", "CLOSED"),
        ("bench.data", "verify", "CLOSED/data"),
    ],
)
def test_9_a_folder_without_permission(closed, words):
    words = [word.replace("CLOSED", str(closed)) for word in words]
    one_line(as_ordinary_user(closed.parent, *words), "Permission denied")


def test_9_another_folder_may_have_the_data(closed):
    write(closed.parent / "open" / "flowers", FLAT)
    both = f"{closed}:{closed.parent}/open"
    words = ("bench.grid", str(TINY), "--set", "data.root=flowers", "--dry-run")
    done = as_ordinary_user(closed.parent, *words, BENCH_DATA=both)
    assert done.returncode == 0, done.stderr
    assert as_ordinary_user(closed.parent, "bench.data", "list", BENCH_DATA=both).returncode == 0


def test_10_a_user_without_a_home(monkeypatch):
    for name in ("BENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def none(cls=None):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert paths.cache_dir().name == f"hlgp-bench-{os.getuid()}"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_11_a_terminal_that_lacks_characters(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    cli._show_everywhere()
    print("70.6 ± 0.3 – †", file=stream, flush=True)
    shown = stream.buffer.getvalue().decode(encoding)
    assert shown.startswith({"ascii": "70.6 +- 0.3 - +"}.get(encoding, "70.6 ± 0.3"))


def test_11_a_report_in_such_a_terminal(command, tmp_path):
    from report_tables import write_suite

    write_suite(tmp_path / "results" / "s")
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    assert "+-" in command("bench.report", "s", check=0, **plain).stdout


def test_12_a_name_that_is_too_long_is_refused_at_once():
    with pytest.raises(UsageError, match="more than 255 bytes"):
        load_suite(str(TINY), {}, "n" * 256)
    with pytest.raises(UsageError, match=r"row 'linear' on .*bytes, 255 fit"):
        load_suite(str(TINY), {"data.root": "d" * 230})
    with pytest.raises(UsageError, match="File name too long"):
        paths.find_data("d" * 300)


def test_13_a_file_that_may_not_grow(command, tmp_path):
    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    own = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    script = (
        "from bench import cli\nfrom bench.store.files import write_text\n"
        "from pathlib import Path\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "def main():\n    write_text(Path('x.csv'), 'x' * 999)\n    return 0\ncli.run(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        # Or Python would leave compiled modules of 200 bytes, and coverage half a file.
        env={**own, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=small,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: x.csv: File too large; what was finished is safe")


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENAMETOOLONG, 2), (errno.EACCES, 2), (errno.EMFILE, 3)]
)
def test_13_no_file_error_is_a_traceback(number, code, capsys):
    def main():
        raise OSError(number, os.strerror(number), "some/file")

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == code
    assert f"error: some/file: {os.strerror(number)}" in capsys.readouterr().err


def parsed(*words: str):
    import argparse

    parser = argparse.ArgumentParser()
    add_suite_arguments(parser)
    return parser.parse_args(words)


def test_15_paths_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "my order, new.txt"
    file.write_text("\ufeff3, 2 1\n0")
    for typed in (str(file), "~/my order, new.txt"):
        args = parsed("--set", f"data.class_order={typed}")
        suite = load_suite(str(TINY), args.overrides, "x")
        assert suite.cells[0].data.class_order == (3, 2, 1, 0)
        args = parsed("--set", f"benchmarks.glyphs.data.class_order={typed}")
        assert args.overrides["benchmarks.glyphs.data.class_order"] == typed
    typed = parsed("--set", "data.class_order=[3,2,1,0]").overrides
    assert load_suite(str(TINY), typed, "x").cells[0].data.class_order == (3, 2, 1, 0)
    assert parsed("--results=~/r").results == tmp_path / "r"
    (tmp_path / "data dir").mkdir()
    assert paths.find_data("~/data dir") == tmp_path / "data dir"


def test_17_threads_share_the_cores(monkeypatch, tiny_spec):
    monkeypatch.setattr(pool, "cores", lambda: 4)
    worker = pool.Worker(Path("r"), "cpu")
    monkeypatch.setattr(worker, "ask", lambda *words: {"devices": ["cpu"]})
    for threads, jobs in ((1, 4), (2, 2), (3, 1), (8, 1)):
        cell = replace(tiny_spec, train=replace(tiny_spec.train, threads=threads))
        assert 1 + len(pool.further_workers(worker, [cell] * 9, None)) == jobs


def test_21_a_foreign_package_of_the_same_name(command, tmp_path):
    write(tmp_path, {"methods/__init__.py": "", "methods/linear.py": "raise SystemExit(9)"})
    words = ("bench.run", str(TINY), "--method", "linear", "--benchmark", "glyphs")
    assert "done" in command(*words, check=0).stdout


def test_22_a_mark_in_front_of_a_table(tmp_path):
    from report_tables import write_suite

    file = write_suite(tmp_path / "s") / "runs.csv"
    file.write_text("\ufeff" + file.read_text(), encoding="utf-8")
    assert len(read_runs(file)) == 4


def test_23_the_umask_decides(tmp_path, monkeypatch):
    for umask, mode in ((0o002, 0o664), (0o077, 0o600)):
        monkeypatch.setattr(files, "UMASK", umask)
        write_text(tmp_path / "x", "x")
        assert (tmp_path / "x").stat().st_mode & 0o777 == mode


# --- the cache -------------------------------------------------------------------------------


def failing(number: int):
    def save(path, *args):
        raise OSError(number, os.strerror(number), str(path))

    return save


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_16_a_cache_that_cannot_be_written(number, flat, tmp_path, monkeypatch, capsys):
    expected = load_folder(flat, 16)[1][0].copy()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr("bench.store.files.write_atomic", failing(number))
    cache._say_once.cache_clear()
    assert np.array_equal(load_folder(flat, 16)[1][0], expected)
    for key in ("k", "l"):
        assert np.array_equal(cache.cached("queries", key, lambda: np.arange(3)), [0, 1, 2])
    said = capsys.readouterr().err
    assert said.count("nothing more is kept there") == 1, "not for each entry"
    assert f"({os.strerror(number)})" in said


def test_16_a_limit_of_0_keeps_nothing(flat, tmp_path, monkeypatch):
    expected = load_folder(flat, 16)[1][0].copy()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("BENCH_CACHE_LIMIT", "0")
    assert np.array_equal(load_folder(flat, 16)[1][0], expected)
    assert not list((tmp_path / "other").rglob("*.npy"))


def test_16_a_cache_that_may_only_be_read(open_folder):
    """Entries of another user are used; new ones are made without a fault."""
    root = write(open_folder / "flat", FLAT)
    script = (
        "import sys; from pathlib import Path; from bench.data.folder import load_folder; "
        "print(load_folder(Path(sys.argv[1]), 16)[1][0].sum())"
    )
    (open_folder / "script_for_user.py").write_text(script)
    shared = open_folder / "cache"
    env = {"BENCH_CACHE": str(shared), "PYTHONPATH": f"{ROOT}:{open_folder}"}
    mine = subprocess.run(
        [sys.executable, "-m", "script_for_user", str(root)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    (shared / "images").chmod(0o555)
    theirs = as_ordinary_user(open_folder, "script_for_user", str(root), **env)
    assert theirs.stdout == mine.stdout, theirs.stderr
    assert "made again" not in theirs.stderr


# --- tables of another recipe ----------------------------------------------------------------


def test_6_cells_of_other_settings_are_named_or_kept(command, tmp_path):
    chosen = ("--methods", "linear", "--benchmarks", "glyphs", "--order-seeds", "1")
    words = ("bench.grid", str(TINY), *chosen, "--name", "x", "--jobs", "1")
    command(*words, check=0)
    other = command(*words, "--set", "train.epochs=2", check=0)
    assert "1 finished cell(s) of other settings" in other.stderr
    assert "their runs stay" in other.stderr
    file = tmp_path / "results" / "x" / "runs.csv"
    before = file.read_text()
    subprocess.run(["rm", "-r", str(file.parent / "runs")], check=True)
    lost = command(*words, check=2)
    assert "would be lost: give another --name" in lost.stderr
    assert file.read_text() == before


def test_8_a_slash_behind_a_name(command, tmp_path):
    from report_tables import write_suite

    write_suite(tmp_path / "results" / "s")
    assert "reports/s/" in command("bench.report", "s/", check=0).stdout
    assert table(tmp_path / "reports" / "s" / "tables" / "cells.csv")
