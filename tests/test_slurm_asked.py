"""What a launch asks Slurm for: refused where it could never start, or would hold too much."""

from dataclasses import replace

import pytest
from conftest import TINY
from conftest import slurm_arguments as arguments

from bench.config.suite import load_suite
from bench.data import stream
from bench.errors import UsageError
from bench.launch import sbatch, scripts, slurm


@pytest.fixture
def cells():
    return load_suite(str(TINY)).cells


def launch(cells, args) -> int:
    folder = args.results / cells[0].suite
    folder.mkdir(parents=True, exist_ok=True)
    return slurm.launch(args, cells, cells, folder, [])


SMALL = "short*|1:00:00|10:00|0/2/0/2|2|(null)|1\n"
BOTH = SMALL + "wide|2-00:00:00|10:00|0/4/0/4|2|gpu:1|2\n"


@pytest.mark.parametrize(
    ("sinfo", "options", "says"),
    [
        (SMALL, "--time=120", "--time=120: partition short allows at most 1:00:00"),
        (SMALL, "-t 0", "--time=0: partition short allows"),
        (SMALL, "--time=1-0 --time-min=90", "--time-min=90: partition short allows"),
        (BOTH, "-p short,wide -t 3-0", "--time=3-0: partition wide allows at most 2-00:00:00"),
        (SMALL, "-c4", "partition short: an element wants 4 processors, its largest node has 1"),
        (BOTH, "-p short,wide -c 3", "partition short,wide: an element wants 3 processors"),
    ],
)
def test_what_can_never_start_is_not_submitted(sinfo, options, says, commands, tmp_path, cells):
    """sbatch takes it and it is pending for ever; memory and GPUs sbatch refuses itself."""
    (commands / "sinfo.says").write_text(sinfo)
    with pytest.raises(UsageError, match=says):
        launch(cells, arguments(tmp_path, sbatch=options))
    assert not (commands / "sbatch.called").exists()
    assert not list((tmp_path / "re sults 100%").rglob("*.json"))


def test_cells_side_by_side_need_a_node_that_holds_them(commands, tmp_path, cells):
    (commands / "sinfo.says").write_text(SMALL)
    with pytest.raises(UsageError, match="an element wants 2 processors"):
        launch(cells, arguments(tmp_path, jobs=2))


def test_cells_and_processors_follow_the_gpus(tmp_path, cells):
    """A cell on each GPU where nothing is said; threads that cut photographs ahead want a core."""
    assert slurm.THREADS_AHEAD == stream.THREADS_AHEAD

    def asked(options, of=cells, **given):
        args, read = arguments(tmp_path, **given), sbatch.parse(options)
        return scripts.jobs(args, read), slurm._cpus(of, args, read)

    assert asked("") == (1, 1)
    assert asked("--gpus=1") == (1, 1)
    assert asked("--gpus=4") == (4, 4)
    assert asked("--gpus=4", jobs=2) == (2, 2)
    assert asked("--gpus=4", device="cpu") == (1, 1)
    whole = [replace(cell, data=replace(cell.data, crops_of="whole")) for cell in cells]
    assert asked("", whole) == (1, 1), "not ahead of a processor's step"
    assert asked("--gpus=2", whole) == (2, 2 * (1 + stream.THREADS_AHEAD))


@pytest.mark.parametrize(
    ("sinfo", "options"),
    [
        (SMALL, "--time=60"),
        (SMALL, "--time=120 --time-min=30"),
        (SMALL, "--time=120 --qos=long"),
        (BOTH, "-p short,wide --time=120 -c2"),
        (SMALL.replace("|1\n", "|?\n"), "-c 4"),
    ],
)
def test_what_may_start_is_submitted(sinfo, options, commands, tmp_path, cells):
    (commands / "sinfo.says").write_text(sinfo)
    assert launch(cells, arguments(tmp_path, sbatch=options)) == 0
    assert "--array=" in (commands / "sbatch.called").read_text()


@pytest.mark.parametrize(
    "word", ["--nodes=2", "-N2", "--nodes=1-2", "-n2", "--ntasks 2", "--ntasks-per-node=4"]
)
def test_an_element_is_one_process_on_one_node(word):
    with pytest.raises(UsageError, match=r"^--sbatch: --n\S+=\S+: an element is one process"):
        sbatch.parse(word)
    assert sbatch.parse("-N1 --nodes=1-1 -n 1 --ntasks-per-node=1").words


@pytest.mark.parametrize("asked", ["-c2", "--cpus-per-task 2", "--exclusive", "--mincpus=2"])
def test_to_collect_a_processor_is_enough(asked):
    assert sbatch.parse(f"{asked} --account=lab").collecting == ("--account=lab",)


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ("--gres=shard:1", 1),
        ("--gres=shard:a100:4", 1),
        ("--gres=gpu:1g.5gb:2", 2),
        ("--gres=gpu:a100_1g.5gb", 1),
        ("--gres=mig-1g.10gb:1", 1),
        ("--tres-per-task=gres/shard=2", 1),
        ("--gres=migration:1", 0),
    ],
)
def test_a_part_of_a_gpu_is_one(options, gpus):
    assert sbatch.parse(options).gpus == gpus


def test_a_whole_node_may_have_a_gpu_that_nobody_asked_for(commands, tmp_path, cells, capsys):
    assert launch(cells, arguments(tmp_path, sbatch="--exclusive", device="cuda")) == 0
    said = capsys.readouterr()
    assert "--device cuda: no GPU is asked for" in said.err
    assert "on cuda" in said.out
    other = arguments(tmp_path / "2", sbatch="--exclusive --gpus=1", device="cuda")
    assert launch(cells, other) == 0
    assert "no GPU" not in capsys.readouterr().err
