"""The Slurm launcher without Slurm: stand-ins for its commands. tests/cluster has a real one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, TINY
from conftest import slurm_arguments as arguments
from conftest import slurm_submit as submit

from bench.config.suite import load_suite
from bench.errors import UsageError
from bench.launch import sbatch, scripts, slurm, submitted
from bench.launch.status import status
from bench.paths import cache_dir
from bench.store.rundir import RunDir


@pytest.fixture
def cells():
    return load_suite(str(TINY)).cells


def test_an_array_and_a_job_that_collects(commands, tmp_path, cells):
    folder, said, script = submit(cells, arguments(tmp_path, overrides={"train.epochs": 2}))
    assert "submitted job 7: 8 cells in 2 elements on cpu" in said
    assert "no memory is asked for" in said, "none was measured for this suite"
    called = (commands / "sbatch.called").read_text().splitlines()
    assert "--array=0-1" in called, "as many as the default partition has processors"
    assert f"--chdir={folder.absolute()}/slurm" in called
    assert not any(
        "%" in word for word in called if word.startswith("--output=") and "%a" not in word
    )
    assert "--dependency=afterany:7" in called
    assert "--share" in script
    assert "--device cpu" in script
    assert "train.epochs=2" in script
    (launch,) = submitted.launches(folder)
    assert launch.job == "7"
    assert sorted(run_id for share in launch.elements for run_id in share) == sorted(
        cell.run_id for cell in cells
    )
    for name in (launch.token, launch.job):  # the elements read the one, people the other
        share = submitted.share_of(folder / "slurm" / f"{name}.json", 0)
        assert share == launch.elements[0]
    with pytest.raises(UsageError, match="nothing was submitted"):
        submitted.share_of(folder / "slurm" / f"{launch.token}.json", 99)


def test_the_script_is_bash(commands, tmp_path, cells):
    _, _, script = submit(cells, arguments(tmp_path))
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_options_come_before_ours_and_a_gpu_names_the_device(commands, tmp_path, cells):
    _, _, script = submit(cells, arguments(tmp_path, sbatch="--partition=short --gpus=1", jobs=2))
    called = (commands / "sbatch.called").read_text().splitlines()
    array = called.index("--array=0-7")  # also nodes that are down count
    assert called.index("--gpus=1") < array
    assert "--gpus=1" not in called[array:], "to collect needs none"
    assert "--device cuda" in script
    assert "--cpus-per-task=2" in script


def test_a_disk_of_the_node_is_named_on_the_node(commands, tmp_path, cells, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", "/shared")
    args = arguments(tmp_path, scratch="$SLURM_TMPDIR/cache")
    _, _, script = submit(cells, args)
    assert "export BENCH_CACHE='$SLURM_TMPDIR/cache'\n" in script
    assert "'BENCH_CACHE=$SLURM_TMPDIR/cache'" in scripts.command_of(cells[0], args)
    monkeypatch.setenv("BENCH_CACHE", "$SLURM_TMPDIR/cache")
    with pytest.raises(UsageError, match=r"--scratch sets it\): \$SLURM_TMPDIR is not"):
        cache_dir()
    monkeypatch.setenv("SLURM_TMPDIR", "/node/7")
    assert cache_dir() == Path("/node/7/cache")


def test_what_is_queued_is_known_by_its_comment(commands, tmp_path, cells):
    args = arguments(tmp_path, slurm_jobs=2)
    folder, _, _ = submit(cells, args)
    (launch,) = submitted.launches(folder)
    lines = [f"7|0|RUNNING|n1|None|{launch.comment}", f"8|N/A|PENDING||Dependency|{launch.comment}"]
    lines += ["9|N/A|RUNNING|n2|None|other", "8|1|PENDING||None|a|b=c"]
    (commands / "squeue.says").write_text("\n".join(lines) + "\n")
    queued = submitted.in_queue(folder)
    assert set(queued) == set(launch.elements[0])
    assert {element.node for element in queued.values()} == {"n1"}
    said = status(args.results, cells[0].suite, cells)
    assert "4 in a running job, 4 missing" in said
    assert "7_0 n1" in said
    assert said.count("job 7 ended before it") == 4
    assert ".log" not in said, "its element never began"
    (folder / "slurm" / f"{launch.token}-1.log").touch()
    assert f"{launch.token}-1.log)" in status(args.results, cells[0].suite, cells)
    failed = RunDir.of(args.results, next(c for c in cells if c.run_id == launch.elements[0][0]))
    failed.path.mkdir(parents=True)
    failed.save_state({"status": "diverged", "reason": "loss is nan"})
    assert "1 diverged" in status(args.results, cells[0].suite, cells), "its element goes on"


def test_a_suite_that_slurm_never_saw_asks_nothing(commands, tmp_path):
    assert submitted.in_queue(tmp_path) == {}
    assert not (commands / "squeue.called").exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "x.json").write_text("{")
    with pytest.raises(UsageError, match=r"x.json: cannot be read"):
        submitted.launches(tmp_path)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["first", "no such partition"], "first"),
        (["unrecognized option '--foo'", 'Try "sbatch --help" for more information'], "unrec"),
        (["sbatch: lua: hello", "sbatch: error: no partition", "sbatch: error: it failed"], "no p"),
        ([], "exit code 1"),
    ],
)
def test_what_slurm_says_first_is_the_error(lines, says, commands, tmp_path, cells):
    (commands / "said").write_text("".join(f"{line}\n" for line in lines))
    (commands / "sbatch").write_text(f"#!/bin/bash\ncat {commands}/said >&2; exit 1\n")
    with pytest.raises(UsageError, match=f"^Slurm: (sbatch: error: )?{says}"):
        submit(cells, arguments(tmp_path))


def test_without_slurm(monkeypatch, tmp_path, cells):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no Slurm here"):
        submit(cells, arguments(tmp_path))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("4:30", 4.5),
        ("1:00:00", 60),
        ("1-2", 1560),
        ("2-0:30", 2910),
        ("UNLIMITED", 1e9),
        ("0", 1e9),
    ],
)
def test_time_limits(text, minutes):
    assert min(sbatch.minutes(text), 1e9) == minutes


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sbatch": "--time=4"}, "at least 5 minutes"),
        ({"sbatch": "-t 4"}, "at least 5 minutes"),
        ({"sbatch": "-t4:59"}, "at least 5 minutes"),
        ({"device": "cuda"}, "no GPU is asked for"),
        ({"sbatch": "--account='x"}, "no closing quotation"),
        ({"sbatch": "--array=0-99"}, "--array or SBATCH_ARRAY_INX: the launcher"),
        ({"sbatch": "--quiet"}, "--quiet: the launcher"),
        ({"sbatch": "-W"}, "--wait or SBATCH_WAIT: the launcher"),
        ({"sbatch": "-o here"}, "--output: the launcher"),
        ({"sbatch": "--version"}, "--version: the launcher"),
        ({"sbatch": "--partition"}, "--sbatch: --partition: a value is expected"),
        ({"sbatch": "--partition=short --account "}, "--account: a value is expected"),
        ({"sbatch": "--account --partition=wide"}, "--account: a value is expected"),
        ({"sbatch": "-A -p wide"}, "-A: a value is expected"),
        ({"sbatch": "--time=60 --time-min=1"}, "--time-min=1: at least 5 minutes"),
        ({"sbatch": "--no-requeue"}, "--no-requeue or SBATCH_NO_REQUEUE: the launcher"),
        ({"sbatch": "--signal=USR2@9"}, "--signal or SBATCH_SIGNAL: the launcher"),
        ({"sbatch": "--open-mode truncate"}, "--open-mode or SBATCH_OPEN_MODE: the launcher"),
        ({"sbatch": "-M other"}, "--clusters or SBATCH_CLUSTERS: the launcher"),
        ({"sbatch": "x.sh"}, "'x.sh': options alone"),
        ({"sbatch": "--partition short x.sh"}, "'x.sh': options alone"),
        ({"sbatch": "--exclusive x.sh"}, "'x.sh': options alone"),
        ({"sbatch": "--account=lab x.sh"}, "'x.sh': options alone"),
        ({"sbatch": "-p short -s x.sh"}, "'x.sh': options alone"),
        ({"sbatch": "--account lab --"}, "'--': options alone"),
        ({"device": "cuda", "sbatch": "--gpus=0"}, "no GPU is asked for"),
    ],
)
def test_what_would_go_wrong_on_a_node(given, says, tmp_path, cells):
    with pytest.raises(UsageError, match=says):
        slurm.check_options(cells, arguments(tmp_path, **given))


def test_precision_by_the_node_needs_nodes_of_one_kind(tmp_path, cells):
    auto = [replace(cells[0], train=replace(cells[0].train, precision="auto"))]
    with pytest.raises(UsageError, match="could differ between nodes"):
        slurm.check_options(auto, arguments(tmp_path))
    assert slurm.check_options(auto, arguments(tmp_path, sbatch="--constraint=h100"))


def test_variables_that_sbatch_reads_count_too(commands, tmp_path, cells, monkeypatch):
    monkeypatch.setenv("SBATCH_TIMELIMIT", "2")
    with pytest.raises(UsageError, match="--time=2: at least 5"):
        submit(cells, arguments(tmp_path))
    monkeypatch.setenv("SBATCH_TIMELIMIT", "0")
    monkeypatch.setenv("SBATCH_GPUS", "1")
    assert "--device cuda" in submit(cells, arguments(tmp_path, sbatch="-p wide"))[2]
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-99")
    with pytest.raises(UsageError, match="SBATCH_ARRAY_INX: the launcher"):
        submit(cells, arguments(tmp_path))
    monkeypatch.delenv("SBATCH_ARRAY_INX")
    monkeypatch.setenv("SBATCH_WAIT", "1")
    with pytest.raises(UsageError, match="SBATCH_WAIT: the launcher"):
        submit(cells, arguments(tmp_path))


def test_a_partition_that_ends_its_jobs_at_once(commands, tmp_path, cells):
    (commands / "sinfo.says").write_text("tiny*|3:00|n/a|0/8/0/8|1|(null)|8\n")
    with pytest.raises(UsageError, match="partition tiny: its jobs end after 3:00"):
        submit(cells, arguments(tmp_path))
    assert not list((tmp_path / "re sults 100%").rglob("*.sh"))
    (commands / "sinfo.says").write_text(
        "tiny|3:00|n/a|0/8/0/8|1|(null)|8\nlong|infinite|n/a|0/0/4/4|1|(null)|4\n?\n"
    )
    with pytest.raises(UsageError, match="partition tiny"):
        submit(cells, arguments(tmp_path, sbatch="-p tiny,long"))
    _, said, _ = submit(cells, arguments(tmp_path, sbatch="-p tiny,long -t 30"))
    assert "in 8 elements" in said
    (commands / "sinfo.says").write_text("long*|infinite|n/a|0/0/4/4|1|(null)|4\n")
    _, said, _ = submit(cells, arguments(tmp_path / "2"))
    assert "in 4 elements" in said, "it is down now: as many as it has"


def test_what_sbatch_refuses_is_left_to_it(commands, tmp_path, cells):
    """A time that cannot be read was called too long for the partition."""
    submit(cells, arguments(tmp_path, sbatch="--partition=short --time=abc"))
    assert "--time=abc" in (commands / "sbatch.called").read_text()


def test_the_standard_input_is_not_read(commands):
    """sbatch waited for a script there, and the launcher with it, holding its lock."""
    (commands / "sbatch").write_text("#!/bin/bash\ncat\n")
    code = "from bench.launch.submitted import slurm; print(slurm(['sbatch']), end='')"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, input="a script", capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("options", "without"),
    [
        ("-p gpu", ["-p", "gpu"]),
        ("--partition gpu --gpus 1", ["--partition", "gpu"]),
        ("--gres gpu:1 --qos=high", ["--qos=high"]),
        ("-G1 --mem-per-gpu=100 --account lab", ["--account", "lab"]),
        ("-p wide --cpus-per-gpu=2 --gpus=2", ["-p", "wide"]),
        ("--gpus=1 --ntasks-per-gpu=1 --hold", []),
    ],
)
def test_what_a_job_that_collects_is_given(options, without, commands, tmp_path, cells):
    _, _, script = submit(cells, arguments(tmp_path, sbatch=options))
    called = (commands / "sbatch.called").read_text().split("--parsable\n")
    array, collector = ([*part.splitlines()] for part in called[1:])
    assert array[: len(options.split())] == options.split(), "verbatim"
    assert collector[: collector.index(next(w for w in collector if "comment" in w))] == without
    assert ("--device cuda" in script) == (
        "gpu:" in options or "-G" in options or "gpus" in options
    )
    assert ("--cpus-per-task" in script) == ("cpus" not in options)


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ("--gpus=2", 2),
        ("-G0", 0),
        ("--gpus-per-node a100:4", 4),
        ("--gres=gpu", 1),
        ("--gres=disk:9,gpu:a100:2", 2),
        ("--gres=gpu:0", 0),
        ("--gres=disk:9", 0),
        ("--tres-per-task=cpu=4,gres/gpu=3", 3),
    ],
)
def test_gpus_that_are_asked_for(options, gpus):
    assert sbatch.parse(options).gpus == gpus


def test_memory_is_that_of_the_suite_where_nothing_changes_it(commands, tmp_path):
    mini = load_suite("mini").cells[:2]
    usual = {"suite": "mini", "jobs": 1}

    def asked(name, **given):
        _, said, script = submit(mini, arguments(tmp_path / name, **usual, **given))
        assert ("--mem=" in script) != ("no memory is asked for" in said)
        return "--mem=" in script

    assert asked("a", overrides={"train.epochs": 2, "order_seeds": [3]})
    assert not asked("b", overrides={"train.batch_size": 64})
    assert not asked("c", overrides={"backbone.image_size": 64})


def test_memory_is_said_once(commands, tmp_path, cells):
    mini = load_suite("mini").cells[:2]
    _, _, script = submit(mini, arguments(tmp_path, suite="mini"))
    assert "#SBATCH --mem=" in script, "from the published peak"
    _, _, script = submit(mini, arguments(tmp_path / "2", suite="mini", sbatch="--mem-per-cpu=900"))
    assert "--mem=" not in script


def test_a_refused_submission_leaves_nothing(commands, tmp_path, cells):
    """The array is taken back where the job that collects is refused."""
    (commands / "scancel").write_text(f'#!/bin/bash\necho "$@" > {commands}/scancel.called\n')
    (commands / "scancel").chmod(0o755)
    (commands / "sbatch").write_text(
        '#!/bin/bash\n[[ "$*" == *dependency* ]] && { echo no >&2; exit 1; }\necho 7\n'
    )
    with pytest.raises(UsageError, match="Slurm: no"):
        submit(cells, arguments(tmp_path))
    assert (commands / "scancel.called").read_text() == "7\n"
    assert not [file for file in tmp_path.glob("re*/**/*") if file.is_file()]
    (commands / "sbatch").write_text("#!/bin/bash\n")
    with pytest.raises(UsageError, match="did not say a job's number"):
        submit(cells, arguments(tmp_path))
    (commands / "sbatch").write_text("#!/bin/bash\nexit 1\n")
    with pytest.raises(UsageError, match="exit code 1"):
        submit(cells, arguments(tmp_path / "2"))
    assert not [file for file in (tmp_path / "2").rglob("*") if file.is_file()]


def test_the_selection_is_that_of_the_tables(commands, tmp_path, cells):
    given = {"keep": True, "methods": ["linear"], "order_seeds": [1], "shard": (1, 2)}
    folder, _, _ = submit(cells, arguments(tmp_path, **given))
    (script,) = folder.glob("slurm/*-collect.sh")
    words = script.read_text().splitlines()[-1]
    assert "--collect --keep --methods linear --order-seeds 1 --shard 1/2" in words
