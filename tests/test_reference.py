"""Evidence and a user's own runs are two places: what is published is read, and written only on
request.
"""

import shutil
import subprocess

import pytest
from conftest import REFERENCE, ROOT, TINY, table

from bench.errors import UsageError
from bench.paths import find_results
from bench.store.facts import SuiteFacts, read_facts, write_facts

TABLES = ("metrics", "runs", "losses", "movement", "similarity", "protocol")
WORDS = ("bench.grid", str(TINY), "--jobs", "1", "--benchmarks", "glyphs", "--order-seeds", "1")


def bytes_of(folder) -> dict[str, bytes]:
    return {name: (folder / f"{name}.csv").read_bytes() for name in TABLES}


def test_a_run_leaves_the_reference_alone_and_keep_goes_on_from_it(command, tmp_path):
    reference = tmp_path / "results" / "reference" / "tiny_suite"
    own = tmp_path / "results" / "tiny_suite"
    command(*WORDS, "--reference", check=0)
    assert not own.exists()
    shutil.rmtree(reference / "runs")  # as in a clone
    published = bytes_of(reference)
    assert "2 done before" in command(*WORDS, "--keep", check=0).stderr
    assert bytes_of(own) == published, "every row is the reference's"
    assert "0 done before" in command(*WORDS, check=0).stderr, "without --keep all are run"
    assert bytes_of(own)["metrics"] == published["metrics"]
    assert bytes_of(reference) == published


def test_the_users_own_results_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.paths.PROJECT", tmp_path / "project")
    results = tmp_path / "results"
    there = [results / "s", results / "reference" / "s", tmp_path / "project/results/reference/s"]
    for folder in reversed(there):
        with pytest.raises(UsageError, match="unknown 't'"):
            find_results(results, "t")
        folder.mkdir(parents=True)
        (folder / "runs.csv").touch()
        assert find_results(results, "s") == folder


def test_what_a_suite_says_of_its_report_comes_back(tmp_path):
    facts = SuiteFacts("hlgp", ("references",), ("groups@*",))
    assert read_facts(tmp_path) == SuiteFacts()
    write_facts(tmp_path, facts)
    assert read_facts(tmp_path) == facts
    for text, says in (('{"format": 99}', "format 99"), ("[]", "cannot be read"), ("{}", "format")):
        (tmp_path / "suite.json").write_text(text)
        with pytest.raises(UsageError, match=says):
            read_facts(tmp_path)


def test_git_ignores_what_is_run_and_keeps_what_is_published():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    paths = {
        "results/mini/metrics.csv": True,
        "results/mini/runs/x/DONE": True,
        "reports/mini/index.html": True,
        "results/mine-123456/runs.csv": True,
        "results/reference/mini/runs/x/DONE": True,
        "results/reference/mini/metrics.csv": False,
        "reports/reference/mini/tables/main.md": False,
    }
    words = ["git", "check-ignore", *paths]
    ignored = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert ignored == [path for path, yes in paths.items() if yes]


def test_the_published_tables_are_of_suites_that_exist():
    for folder in (each for each in REFERENCE.iterdir() if each.is_dir()):
        assert (ROOT / "bench" / "suites" / f"{folder.name}.py").is_file()
        rows = {row["method"] for row in table(folder / "runs.csv")}
        assert read_facts(folder).reference in {"", *rows}
