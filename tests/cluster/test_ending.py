"""An element ends before its cells do: the bytes are those of a local run, and nothing is lost."""

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
    said = [log.read_text() for log in sorted(site.results.glob("slurm/*-[01].log"))]
    assert ["interrupted: the same command continues" in log for log in said] == [True, False]


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


def test_python_is_killed(site, expected):
    """The cells say that they run without a process, and a launch continues them."""
    site.submit()
    site.trained()
    site.kill_python()
    site.ended()
    site.nothing_is_left()
    assert "running without a process" in site.grid("--status").stdout
    site.submit()
    site.ended()
    site.grid("--collect")
    site.same(expected, killed=2)


def test_a_node_dies(site, expected):
    """Slurm starts its element again on the node that is left."""
    site.submit()
    site.trained()
    site.cluster.kill("slurmd.n1")
    site.kill_python()
    site.cluster.until(lambda: "down" in site.cluster.slurm("sinfo", "-h", "-N", "-n", "n1"))
    site.cluster.node("n1")
    site.ended()
    site.submit()
    site.ended()
    site.grid("--collect")
    site.same(expected, killed=2)


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
    site.cluster.controller()
    site.ended()
    site.grid("--collect")
    site.same(expected)
