"""What is submitted to a real Slurm, when nothing goes wrong and when the launcher does."""

import shutil
import signal
import subprocess

import pytest

pytestmark = pytest.mark.cluster


def test_plain(site, expected):
    """Its tables come by themselves, and a second launch leaves alone what is queued."""
    said = site.submit("--report", "pages").stdout
    assert "8 cells in 2 elements" in said
    assert "8 cell(s) are in Slurm's queue already" in site.submit().stdout
    for wrong, says in (("--partition=nowhere", "artition"), ("--foo=1", "unrecognized option")):
        said = site.submit("--report", "other", "--sbatch", wrong, code=2).stderr.splitlines()[-1]
        assert said.startswith("error: Slurm: ")
        assert says in said
    assert not (site.folder / "other").exists()
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
        (("--sbatch", "--foo=1"), "unrecognized option"),
        (("--sbatch", "--partition=short --account"), "--account: a value is expected"),
        (("--device", "cuda"), "no GPU is asked for"),
        (("--set", "train.precision=auto"), "could differ between nodes"),
    ],
)
def test_what_cannot_run_is_not_submitted(words, says, site):
    done = site.submit(*words, code=2)
    assert says in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr
    assert not site.cluster.slurm("squeue", "-h").strip()


def test_the_launcher_is_killed_after_sbatch(site, expected, tmp_path):
    """It did not write down the job's number: the comment says whose it is."""
    deadly = tmp_path / "bin" / "sbatch"
    deadly.parent.mkdir()
    deadly.write_text(f'#!/bin/bash\n{shutil.which("sbatch")} "$@"\nkill -9 $PPID\n')
    deadly.chmod(0o755)
    path = site.env["PATH"]
    site.env["PATH"] = f"{deadly.parent}:{path}"
    site.submit(code=-signal.SIGKILL)
    site.env["PATH"] = path
    assert site.job == ""
    said = site.submit().stdout
    assert "8 cell(s) are in Slurm's queue already" in said
    assert "its tables follow" in said
    site.ended()
    site.same(expected)


def test_cells_of_a_grid_on_this_machine_are_left_to_it(site, expected):
    """Two grids and an array: each cell runs once."""
    words = site.words("--methods", "hlgp", "--jobs", "1", "--quiet")
    local = subprocess.Popen(words, cwd=site.folder, env=site.env, stdout=subprocess.DEVNULL)
    site.trained()
    said = site.submit().stdout
    assert "1 cell(s) are left to another process that runs them: hlgp--" in said
    assert "7 cells in 2 elements" in said
    assert local.wait() == 0
    site.ended()
    site.grid("--collect")
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


def test_a_gpu_is_asked_for(site, expected):
    """The node has one in name: the element asks for cuda and says that there is none. One that
    asks for the processor trains there.
    """
    site.submit("--sbatch", "--partition=wide --gpus=1", "--methods", "linear")
    job = site.cluster.slurm("scontrol", "show", "job", site.job)
    assert "gpu" in job
    site.ended()
    assert "cuda" in site.logs()
    site.nothing_is_left()
    site.submit("--sbatch", "--partition=wide --gpus=1", "--device", "cpu")
    site.ended()
    site.same(expected)
