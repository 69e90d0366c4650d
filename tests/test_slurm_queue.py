"""What a launch and --status make of the queue, and of what was submitted: Slurm is a stand-in."""

import json
import os
import shutil

import pytest
from conftest import TINY
from conftest import slurm_arguments as arguments

from bench.config.suite import load_suite
from bench.launch import slurm, submitted
from bench.launch.status import status


@pytest.fixture
def cells():
    return load_suite(str(TINY)).select(["linear"])


@pytest.fixture
def launched(commands, tmp_path, cells):
    """The folder of an array of one element, how to launch it again, and how squeue says it."""
    args = arguments(tmp_path, slurm_jobs=1)
    folder = args.results / cells[0].suite
    folder.mkdir(parents=True)

    def go() -> int:
        return slurm.launch(args, cells, cells, folder, [])

    def says(*lines: str) -> None:
        (one, *_) = submitted.launches(folder)
        (commands / "squeue.says").write_text("".join(f"{x}|{one.comment}\n" for x in lines))

    assert go() == 0
    return folder, go, says


def submissions(commands) -> list[str]:
    """The jobs that were submitted, in their order."""
    called = (commands / "sbatch.called").read_text().splitlines()
    return [word for word in called if word.startswith(("--array=", "--dependency="))]


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("PartitionTimeLimit", True),
        ("JobHeldUser", True),
        ("ReqNodeNotAvail, UnavailableNodes:n1", True),
        ("Priority", False),
        ("Resources", False),
        ("None", False),
    ],
)
def test_status_says_why_an_element_does_not_start(reason, shown, launched, cells):
    folder, _, says = launched
    says(f"7|0|PENDING||{reason}", "8|N/A|PENDING||Dependency")
    said = status(folder.parent, folder.name, cells)
    assert "4 queued" in said
    assert said.count(f"Slurm: {reason}") == len(cells) * shown


@pytest.mark.parametrize("command", ["squeue", "sinfo", "scontrol", "scancel"])
def test_variables_of_the_user_do_not_blind_the_launcher(command, commands, monkeypatch):
    """With SQUEUE_PARTITION=wide a second array was submitted. Which cluster stays the user's."""
    for name in ("SQUEUE_PARTITION", "SINFO_FORMAT", "SCONTROL_ALL", "SCANCEL_STATE"):
        monkeypatch.setenv(name, "wide")
    monkeypatch.setenv("SLURM_CLUSTERS", "ours")
    (commands / command).write_text("#!/bin/bash\nenv\n")
    (commands / command).chmod(0o755)
    seen = submitted.slurm([command])
    assert "SLURM_CLUSTERS=ours" in seen
    assert "=wide" not in seen
    assert "=wide" not in submitted.slurm([command], {**os.environ, "X": "1"})


@pytest.mark.parametrize("number", ["", "7"])
@pytest.mark.parametrize("state", ["", "COMPLETING"])
def test_a_job_that_collects_is_submitted_again_where_it_is_lost(number, state, launched, commands):
    """The launcher was killed before it, or it alone was cancelled."""
    folder, go, says = launched
    file = folder / "slurm" / "7.json"
    if number != "recorded":
        file.write_text(
            json.dumps({**json.loads(file.read_text()), "job": "", "collector": number})
        )
    says("7|0|RUNNING|n1|None", *([f"8|N/A|{state}||None"] if state else []))
    assert go() == 0
    assert submissions(commands) == ["--array=0-0", *["--dependency=afterany:7"] * 2]
    says("7|0|RUNNING|n1|None", "8|N/A|PENDING||Dependency")
    assert go() == 0
    assert len(submissions(commands)) == 3, "it is there again"


def test_a_job_that_collects_is_found_where_its_number_is_not_known(launched, commands):
    """The launcher was killed after it."""
    folder, go, says = launched
    file = folder / "slurm" / "7.json"
    known = json.loads(file.read_text())
    says("7|0|RUNNING|n1|None", "8|N/A|PENDING||Dependency")
    file.write_text(json.dumps({**known, "job": "", "collector": ""}))
    assert go() == 0
    says("7|0|RUNNING|n1|None")
    del known["collector"]
    file.write_text(json.dumps(known))
    assert go() == 0, "of an older version, which has one"
    assert len(submissions(commands)) == 2


def test_a_copied_folder_of_results_is_not_in_the_queue(launched, commands, cells, tmp_path):
    folder, _, says = launched
    says("7|0|RUNNING|n1|None", "8|N/A|PENDING||Dependency")
    copy, link = tmp_path / "copy" / folder.name, tmp_path / "link"
    shutil.copytree(folder, copy)
    link.symlink_to(folder.parent)
    assert "4 missing" in status(copy.parent, copy.name, cells)
    assert submitted.in_queue(copy) == {}
    for same in (folder, link / folder.name):
        assert len(submitted.in_queue(same)) == 4
    shutil.rmtree(folder)
    assert submitted.in_queue(copy) == {}, "what it was copied from is gone"
    for file in copy.glob("slurm/*.json"):
        known = json.loads(file.read_text())
        del known["folder"]
        file.write_text(json.dumps(known))
    assert len(submitted.in_queue(copy)) == 4, "an older version did not record it"
