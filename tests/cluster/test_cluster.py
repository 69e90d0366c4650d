"""A real Slurm of three nodes here: whatever happens, the bytes are those of a local run.

As an ordinary user, without munge. Skipped where slurmctld is not installed.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "tiny_suite.py"
LONG = ("train.epochs=60",)  # some seconds a cell
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

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not shutil.which("slurmctld"), reason="slurmctld is not installed"),
]


def has_ended(pid: int) -> bool:
    """True for a process that is gone, or whose end nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Cluster:
    """slurmctld and three slurmd; commands run with its SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "n1", "n2", "n3"):
            (folder / name).mkdir()
        ports = {name: PORT + 1 + i for i, name in enumerate(("n1", "n2", "n3"))}
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        conf = CONF.format(port=PORT, user=user, folder=folder, **ports)
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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    one = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """metrics.csv of a local run."""
    folder = tmp_path_factory.mktemp("local")
    words = [sys.executable, "-m", "bench.grid", str(SUITE), "--quiet", "--set", *LONG]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True)
    return next(folder.glob("results/*/metrics.csv")).read_bytes()


class Site:
    """A user's folder on the cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.env = {**cluster.env, "PYTHONPATH": str(ROOT)}

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bench.grid", str(SUITE), *words, "--set", *LONG]

    def grid(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.words(*words), cwd=self.folder, env=self.env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
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

    def trained(self, element: int | None = None) -> None:
        """Wait until some cell is in training, or one of this element."""
        named = ["*"]
        if element is not None:
            file = next(self.results.glob("slurm/*.json"))
            named = json.loads(file.read_text())["elements"][element]
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

    def kill_python(self) -> None:
        """SIGKILL for the grids of this folder on all nodes, and for their workers."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        words = ["pgrep", "-f", f"bench.grid .*{self.folder}.* --share"]
        grids = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
        ours = {int(pid) for pid in grids}
        ours |= {pid for pid, parent in parents.items() if parent in ours}
        assert ours, "no grid runs"
        for pid in ours:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def same(self, expected: bytes) -> None:
        """All cells are done, with the bytes of a local run; nothing was trained twice or left."""
        assert (self.results / "metrics.csv").read_bytes() == expected, self.logs()
        for log in self.results.glob("runs/*/log.txt"):
            epochs = [line for line in log.read_text().splitlines() if " epoch " in line]
            named = [" ".join(line.split()[:4]) for line in epochs]
            assert len(named) == len(set(named)), f"trained twice: {log}"
        left = subprocess.run(["pgrep", "-f", str(self.folder)], capture_output=True, text=True)
        assert left.returncode == 1, f"left behind: {left.stdout}"


@pytest.fixture
def site(cluster, tmp_path):
    folder = tmp_path / "a käse 100%"
    folder.mkdir()
    one = Site(cluster, folder)
    yield one
    subprocess.run(["scancel", "--me"], env=cluster.env, check=False)
    one.ended()


def test_plain(site, expected):
    """Its tables come by themselves, and a second launch leaves alone what is queued."""
    said = site.submit("--report", "pages").stdout
    assert "8 cells in 2 elements" in said
    assert "8 cell(s) are in Slurm's queue already" in site.submit().stdout
    site.trained()
    assert "running" in site.grid("--status").stdout
    site.ended()
    site.same(expected)
    assert list(site.folder.glob("pages/*/index.html"))
    assert "8 done" in site.grid("--status").stdout
    assert "8 done" in site.submit().stdout, "nothing is left: the tables are written"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "methods.hlgp.model.groups=99"), "groups"),
        (("--sbatch", "--partition=nowhere"), "artition"),
        (("--sbatch", "--time=3"), "at least 5 minutes"),
        (("--device", "cuda"), "no GPU is asked for"),
        (("--set", "train.precision=auto"), "could differ between nodes"),
    ],
)
def test_what_cannot_run_is_not_submitted(words, says, site):
    done = site.submit(*words, code=2)
    assert says in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr
    assert not site.cluster.slurm("squeue", "-h").strip()


def test_requeued_at_the_time_limit(site, expected):
    """USR1 is what Slurm sends before it; this element alone goes on where it stopped."""
    site.submit()
    site.trained(element=0)
    site.cluster.slurm("scancel", "--signal=USR1", "--batch", f"{site.job}_0")
    site.ended()
    site.same(expected)
    log = next(site.results.glob("slurm/*-0.log")).read_text()
    assert "interrupted: the same command continues" in log


@pytest.mark.parametrize("how", ["TERM", "KILL"])
def test_cancelled(how, site, expected):
    """What was saved is kept; the same command submits the rest."""
    site.submit()
    site.trained()
    if how == "TERM":
        site.cluster.slurm("scancel", site.job)
    else:
        site.cluster.slurm("scancel", "--signal=KILL", "--full", site.job)
    site.ended()
    site.submit()
    site.ended()
    site.grid("--collect")
    if how == "TERM":
        site.same(expected)
    assert (site.results / "metrics.csv").read_bytes() == expected, site.logs()


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
    assert "running without a process" in site.grid("--status").stdout
    site.submit()
    site.ended()
    site.grid("--collect")
    assert (site.results / "metrics.csv").read_bytes() == expected


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
    assert (site.results / "metrics.csv").read_bytes() == expected


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


def test_the_launcher_is_killed_after_sbatch(site, expected):
    """It did not write down the job's number: the comment says whose it is."""
    site.submit()
    (file,) = site.results.glob("slurm/*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "job": ""}))
    assert "8 cell(s) are in Slurm's queue already" in site.submit().stdout
    site.ended()
    site.same(expected)


def test_two_launchers_at_once(site, expected):
    words = site.words("--launcher", "slurm", "--slurm-jobs", "2")
    both = [
        subprocess.Popen(words, cwd=site.folder, env=site.env, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(one.communicate()[1], one.returncode) for one in both]
    assert all(code == 0 or "another launcher" in said for said, code in ends), ends
    assert len(site.cluster.slurm("squeue", "-h", "-r", "-o", "%K").split()) == 3, "two, and one"
    site.ended()
    site.same(expected)


def test_a_site_that_passes_no_environment(site, expected, tmp_path):
    site.env["BENCH_CACHE"] = str(tmp_path / "cache of ours")
    site.submit("--sbatch", "--export=NONE")
    site.ended()
    site.same(expected)
    assert list((tmp_path / "cache of ours").iterdir())


def test_a_gpu_is_asked_for(site):
    """The node has one in name: the element asks for cuda and says that there is none."""
    site.submit("--sbatch", "--partition=wide --gpus=1", "--methods", "linear")
    job = site.cluster.slurm("scontrol", "show", "job", site.job)
    assert "gpu" in job
    site.ended()
    assert "cuda" in site.logs()
