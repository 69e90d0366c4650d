"""What an event costs an element of an array, in seconds: the table of docs/running.md.

`python -m pytest -m cluster -s tests/cluster/lost_seconds.py`: it measures, so pytest takes it only
where it is named. Nothing here hurries Slurm, as the tests do.
"""

import contextlib
import time

import pytest

pytestmark = pytest.mark.cluster
EPOCHS = "train.epochs=3000"  # so that a cell outlasts the event


def cancelled(site):
    site.cluster.slurm("scancel", f"{site.job}_0")


def killed(site):
    site.cluster.slurm("scancel", "--signal=KILL", "--full", f"{site.job}_0")


def python_killed(site):
    site.kill_python("0")


def node_lost(site):
    """Another node is free."""
    site.cluster.slurm("scancel", f"{site.job}_1")
    lines = site.cluster.slurm("squeue", "-h", "-r", "-t", "R", "-o", "%K %N").splitlines()
    site.kill_node(dict(line.split() for line in lines)["0"])


def preempted(site):
    words = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"]
    site.cluster.slurm("sbatch", *words, "--wrap=sleep 1")


def requeued(site):
    site.cluster.slurm("scontrol", "requeue", f"{site.job}_0")


def time_limit(site):
    site.cluster.slurm("scontrol", "update", f"jobid={site.job}_0", "TimeLimit=2")


EVENTS = [cancelled, killed, python_killed, node_lost, preempted, requeued, time_limit]


@pytest.mark.parametrize("event", EVENTS)
def test_lost(event, site):
    """to end: from the event's command until its processes are gone (for the limit: from when it
    has saved). work: what was trained since the last state. waits: until a grid runs again. start:
    until that has saved an epoch, less the time of one. All is read every 0.2 s, and an epoch is
    shorter than that, or as long as is said.
    """
    site.settings = (EPOCHS,)
    site.submit()
    site.trained(element=0)
    until, before = site.cluster.until, site.pids("0")

    def running() -> set[int]:
        with contextlib.suppress(AssertionError):
            return site.pids("0")
        return set()

    def saved() -> float:
        runs = (site.results / "runs" / name for name in site.elements()[0])
        files = (file for run in runs for file in run.glob("ckpt/*.pt"))
        return max((file.stat().st_mtime for file in files), default=0.0)

    times = []
    until(lambda: times.append(saved()) or len(set(times)) > 5, 60)
    known = sorted(set(times))
    epoch = (known[-1] - known[0]) / (len(known) - 1)
    event(site)
    began = time.time()
    if event is time_limit:  # it says so when it has saved
        until(lambda: "interrupted" in site.logs() or not before & running(), 400)
        began = time.time()
    until(lambda: not before & running(), 400)
    ended, kept = time.time(), saved()
    if event in (
        cancelled,
        killed,
        python_killed,
    ):  # nobody requeues it: a launch, when Slurm knows
        until(lambda: "0" not in site.cluster.slurm("squeue", "-h", "-r", "-o", "%K").split(), 60)
        site.submit()
    until(lambda: running() - before, 400)
    started = time.time()
    until(lambda: saved() > started, 400)
    spent = {
        "to end": ended - began,
        "work": max(0.0, began - kept),
        "waits": started - ended,
        "start": time.time() - started - epoch,
    }
    said = ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items())
    print(f"\n{event.__name__}: {said} (an epoch {epoch:.2f})")
    if event is node_lost:
        for node in ("n1", "n2"):
            with contextlib.suppress(Exception):
                site.cluster.node(node)
