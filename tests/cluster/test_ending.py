"""An element ends before its cells do: the bytes are those of a local run, and nothing is lost."""

import re

import pytest

pytestmark = pytest.mark.cluster


def test_the_time_limit(site, expected):
    """Slurm itself tells an element before it: this one alone is requeued where it stopped."""
    site.submit()
    site.trained(element=0)
    site.cluster.slurm("scontrol", "update", f"jobid={site.job}_0", "TimeLimit=1")
    site.stop_until_told("0")
    site.ended()
    site.same(expected)
    assert site.interrupted() == ["0"]


@pytest.mark.parametrize("how", ["TERM", "KILL"])
def test_cancelled(how, site, expected):
    """What was saved is kept; the same command submits the rest, also when it comes at once."""
    site.submit()
    site.trained()
    if how == "TERM":
        site.cluster.slurm("scancel", site.job)
    else:
        site.cluster.slurm("scancel", "--signal=KILL", "--full", site.job)
    assert "submitted" in site.submit().stdout
    site.ended()
    site.grid("--collect")
    site.same(expected, killed=2 * (how == "KILL"))


def test_preempted(site, expected):
    site.submit()
    site.trained()
    words = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"]
    site.cluster.slurm("sbatch", *words, "--wrap=sleep 3")
    site.ended()
    site.same(expected)
    assert site.interrupted(), "it was told to end"


def test_one_element_is_requeued(site, expected):
    """By hand: it saves, and goes on where it stopped; the other is left alone."""
    site.submit()
    site.trained(element=0)
    site.cluster.slurm("scontrol", "requeue", f"{site.job}_0")
    site.ended()
    site.same(expected)
    assert site.interrupted() == ["0"]


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("", "running without a process"),
        # Its worker may find that out, or be told by Slurm, and save before it is killed.
        ("bench.grid", "running without a process|interrupted"),
        ("bench.launch.worker", " oom"),  # its grid goes on with the other cells
    ],
)
def test_python_is_killed(which, says, site, expected):
    """The cells say so, no worker outlives its grid, and a launch continues them."""
    site.submit()
    site.trained()
    site.kill_python(which=which)
    site.ended()
    site.nothing_is_left()
    said = site.grid("--status").stdout
    assert re.search(says, said)
    assert bool(re.search("oom|failed|diverged", said)) == (which == "bench.launch.worker")
    site.submit()
    site.ended()
    site.grid("--collect")
    site.same(expected, killed=2)


def test_a_node_dies(site, expected):
    """Slurm starts its element again on the node that is left; nobody need launch it."""
    site.submit()
    for element in (0, 1):  # whichever of them is on that node
        site.trained(element)
    site.kill_node("n1")
    try:
        site.cluster.until(lambda: "down" in site.cluster.slurm("sinfo", "-h", "-N", "-n", "n1"))
    finally:
        site.cluster.node("n1")
    site.ended()
    site.same(expected, killed=1)


def test_the_controller_restarts_and_is_down_at_submission(site, expected):
    site.cluster.kill("slurmctld")
    try:
        done = site.submit(code=2)
        assert done.stderr.splitlines()[-1].startswith("error: Slurm:")
    finally:
        site.cluster.controller()
    site.cluster.until(lambda: "idle" in site.cluster.slurm("sinfo", "-h"))
    site.submit()
    site.trained()
    site.cluster.kill("slurmctld")
    assert len(list(site.results.glob("runs/*/DONE"))) < 8, "it was in the middle"
    site.cluster.controller()
    site.ended()
    site.grid("--collect")
    site.same(expected)
