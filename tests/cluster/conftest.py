"""A real Slurm of three nodes here, as an ordinary user, without munge; one for each worker of
pytest. Tests that want it are skipped where slurmctld is not installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "tiny_suite.py"
LONG = ("train.epochs=40",)  # some seconds a cell
PORT = 17300
CONF = """
ClusterName=bench
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
JobRequeue=1
KillWait=10
ReturnToService=2
SlurmdTimeout=10
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n1} CPUs=1 RealMemory=2000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n2} CPUs=1 RealMemory=2000
NodeName=n3 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n3} CPUs=2 RealMemory=2000 Gres=gpu:1
PartitionName=short Nodes=n1,n2 Default=YES MaxTime=60 DefaultTime=10 PreemptMode=REQUEUE
PartitionName=wide Nodes=n3 MaxTime=60 DefaultTime=10
PartitionName=urgent Nodes=n1,n2 MaxTime=60 DefaultTime=10 PriorityTier=10 PreemptMode=OFF
"""


def free_port() -> int:
    """The first of four ports that nobody listens at. Each worker of pytest begins elsewhere."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in range(PORT + 100 * worker, 32000, 4):  # below those of outgoing connections
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for number in range(port, port + 4):
                held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port
    raise AssertionError("no free port")


def has_ended(pid: int) -> bool:
    """True for a process that is gone, or whose end nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def has_pending(pid: int, number: int) -> bool:
    """True for a process that was sent a signal and has not had it yet."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (pending,) = (line.split()[1] for line in lines if line.startswith("ShdPnd:"))
    return bool(int(pending, 16) >> (number - 1) & 1)


class Cluster:
    """slurmctld and three slurmd; commands run with its SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "n1", "n2", "n3"):
            (folder / name).mkdir()
        port = free_port()
        ports = {name: port + 1 + i for i, name in enumerate(("n1", "n2", "n3"))}
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        conf = CONF.format(port=port, user=user, folder=folder, **ports)
        (folder / "slurm.conf").write_text(conf)
        (folder / "gres.conf").write_text("NodeName=n3 Name=gpu File=/dev/null\n")
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PYTHONPATH": ""}

    def start(self) -> None:
        self.controller("-c")
        for node in ("n1", "n2", "n3"):
            self.node(node)
        self.until(
            lambda: len(self.slurm("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()) >= 5
        )

    def controller(self, *words: str) -> None:
        subprocess.run(["slurmctld", *words], env=self.env, check=True)

    def node(self, name: str) -> None:
        subprocess.run(["slurmd", "-N", name], env=self.env, check=True)

    def kill(self, daemon: str) -> None:
        file = self.folder / f"{daemon}.pid"
        pid = int(file.read_text())
        os.kill(pid, signal.SIGKILL if daemon.startswith("slurmd.") else signal.SIGTERM)
        self.until(lambda: has_ended(pid))

    def stop(self) -> None:
        subprocess.run(["scancel", "--me"], env=self.env, check=False)
        time.sleep(1)
        for file in self.folder.glob("*.pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGTERM)
            except (OSError, ValueError):
                continue

    def slurm(self, *words: str) -> str:
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, check=False)
        return done.stdout

    def until(self, condition, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.slurm("squeue", "-l") + self.slurm("sinfo")
            time.sleep(0.2)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if not shutil.which("slurmctld"):
        pytest.skip("slurmctld is not installed")
    one = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    """metrics.csv of a local run."""
    folder = tmp_path_factory.mktemp("local")
    words = [sys.executable, "-m", "bench.grid", str(SUITE), "--quiet", "--set", *LONG]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True)
    return next(folder.glob("results/*/metrics.csv")).read_bytes()


class Site:
    """A user's folder on the cluster."""

    settings = LONG

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.env = {**cluster.env, "PYTHONPATH": str(ROOT)}

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bench.grid", str(SUITE), "--set", *self.settings, *words]

    def grid(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        words = tuple(self.words(*words))
        done = subprocess.run(words, cwd=self.folder, env=self.env, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr + self.logs()
        return done

    def submit(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.grid("--launcher", "slurm", "--slurm-jobs", "2", *words, code=code)

    @property
    def results(self) -> Path:
        (found,) = self.folder.glob("results/*")
        return found

    @property
    def job(self) -> str:
        files = sorted(self.results.glob("slurm/*.json"), key=lambda file: file.stat().st_mtime)
        return json.loads(files[-1].read_text())["job"]

    def logs(self) -> str:
        logs = sorted(self.folder.glob("results/*/slurm/*.log"))
        return "".join(f"\n{log.name}: {log.read_text()}" for log in logs)

    def elements(self) -> list[list[str]]:
        """The cells of each element of the first launch."""
        return json.loads(next(self.results.glob("slurm/*.json")).read_text())["elements"]

    def interrupted(self) -> list[str]:
        """The elements that were told to end, and saved."""
        logs = sorted(self.results.glob("slurm/*-[01].log"))
        said = "interrupted: the same command continues"
        return [log.stem.rpartition("-")[2] for log in logs if said in log.read_text()]

    def trained(self, element: int | None = None) -> None:
        """Wait until some cell is in training, or one of this element."""
        named = ["*"] if element is None else self.elements()[element]
        places = [f"results/*/runs/{name}/ckpt/*.pt" for name in named]
        self.cluster.until(lambda: any(any(self.folder.glob(place)) for place in places))

    def ended(self) -> None:
        """Wait until nothing is queued. A requeued element need not wait its two minutes, but some
        seconds: a node refuses the credential that has just been revoked there.
        """
        seen: dict[str, float] = {}

        def nothing_is_queued() -> bool:
            lines = self.cluster.slurm("squeue", "-h", "-r", "-o", "%i %r").splitlines()
            for job, reason in (line.split(maxsplit=1) for line in lines):
                waits = reason.strip("()") == "BeginTime"
                if waits and time.monotonic() - seen.setdefault(job, time.monotonic()) > 5:
                    self.cluster.slurm("scontrol", "update", f"jobid={job}", "StartTime=now")
                    del seen[job]
            return not lines

        self.cluster.until(nothing_is_queued)

    def pids(self, element: str = ".*") -> set[int]:
        """The grids of this folder on all nodes, or that of one element, and their workers."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        words = ["pgrep", "-f", f"bench.grid .*{self.folder}.* --share .* {element}$"]
        grids = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
        ours = {int(pid) for pid in grids}
        ours |= {pid for pid, parent in parents.items() if parent in ours}
        assert ours, "no grid runs"
        return ours

    def kill_python(self, element: str = ".*", which: str = "") -> None:
        """The grids and workers at once, or those whose command line has this word."""
        for pid in self.pids(element):
            with contextlib.suppress(OSError):
                if which in command_line(pid):
                    os.kill(pid, signal.SIGKILL)

    def kill_node(self, node: str) -> str:
        """A node with all that runs on it, as when its power fails; returns the element there."""
        (element,) = self.cluster.slurm("squeue", "-h", "-r", "-w", node, "-o", "%K").split()
        doomed = self.pids(element)
        for pid in tuple(doomed):  # the script of the element, and the daemon that minds it
            for _ in range(2):
                pid = parent(pid)
                doomed |= {pid} if "slurm" in command_line(pid) else set()
        self.cluster.kill(f"slurmd.{node}")
        for pid in sorted(doomed):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return element

    def stop_until_told(self, element: str) -> None:
        """Keep the workers of an element from training until its script tells them to end: a time
        limit is only looked at every half minute, and their cells are shorter.
        """
        workers = {pid for pid in self.pids(element) if "worker" in command_line(pid)}
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        self.cluster.until(lambda: all(has_pending(pid, signal.SIGTERM) for pid in workers))
        for pid in workers:
            os.kill(pid, signal.SIGCONT)

    def nothing_is_left(self) -> None:
        """No process names this folder or stands in it: a worker has no folder in its command."""
        found = subprocess.run(["pgrep", "-f", str(self.folder)], capture_output=True, text=True)
        left = set(found.stdout.split())
        for place in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if Path(os.readlink(place)).is_relative_to(self.folder):
                    left.add(place.parent.name)
        assert not left, f"left behind: {left}"

    def same(self, expected: bytes, killed: int = 0) -> None:
        """All cells are done, with the bytes of a local run; nothing was trained twice or left.

        killed: cells that were killed. Each lost what came after its last checkpoint: an epoch.
        """
        assert (self.results / "metrics.csv").read_bytes() == expected, self.logs()
        again = {}
        for log in self.results.glob("runs/*/log.txt"):
            epochs = [line for line in log.read_text().splitlines() if " epoch " in line]
            times = Counter(" ".join(line.split()[:4]) for line in epochs)
            again[log] = sum(times.values()) - len(times)
        assert max(again.values()) <= 1, again
        assert sum(again.values()) <= killed, again
        self.nothing_is_left()


@pytest.fixture
def site(cluster, tmp_path):
    folder = tmp_path / "a käse 100%"
    folder.mkdir()
    one = Site(cluster, folder)
    yield one
    subprocess.run(["scancel", "--me"], env=cluster.env, check=False)
    one.ended()
