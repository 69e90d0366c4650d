"""Which cells an element of a Slurm array has, and that it runs these alone."""

import json
from dataclasses import replace

import pytest
from conftest import TINY
from conftest import slurm_arguments as arguments
from conftest import slurm_submit as submit

from bench.config.suite import load_suite
from bench.errors import UsageError
from bench.launch import slurm, submitted


@pytest.fixture
def cells():
    return load_suite(str(TINY)).cells


def test_a_finished_cell_keeps_no_other_from_starting(commands, tmp_path, cells):
    """It has more threads than any node has processors, and is not submitted."""
    done = replace(cells[0], train=replace(cells[0].train, threads=999))
    submit([done, *cells[1:]], arguments(tmp_path), new=cells[1:])
    with pytest.raises(UsageError, match="wants 999 processors"):
        submit([done, *cells[1:]], arguments(tmp_path / "2"))


def test_shares_stay_the_same_where_a_node_is_drained(commands, tmp_path, cells):
    for name, processors in (("a", "0/4/0/4"), ("b", "1/1/2/4"), ("c", "0/0/4/4")):
        (commands / "sinfo.says").write_text(f"long*|infinite|n/a|{processors}|2|(null)|2\n")
        assert "in 4 elements" in submit(cells, arguments(tmp_path / name))[1]


def test_as_many_elements_as_run_at_once_and_have_something_to_do(commands, tmp_path, cells):
    """What the user asks for each element counts, and torch is not imported for every cell."""

    def count(name, work=None, **given):
        found = submit(cells, arguments(tmp_path / name, **given), work)[1]
        return int(found.split(" cells in ")[1].split()[0])

    large = "large*|infinite|n/a|0/64/0/64|4|gpu:a100:2(S:0-1)|16"
    (commands / "sinfo.says").write_text(f"{large}\n")
    assert count("a") == 8, "nobody knows how long a cell takes"
    assert count("b", sbatch="--cpus-per-task=16") == 4
    assert count("c", sbatch="--gpus=4") == 2
    minute = [60 * slurm.RATES["cpu"]] * 8
    assert count("d", minute) == 4, "two minutes each"
    assert count("e", minute, jobs=2) == 2
    assert count("f", minute, slurm_jobs=7) == 7
    assert count("g", [1.0] * 8) == 1
    (commands / "sinfo.says").write_text(f"{large}\n{large.replace(':2(S', ':1(S')}\n")
    assert count("h", sbatch="--gpus=4") == 3, "nodes of two kinds"


def test_cells_are_shared_out_before_those_that_are_done_leave(commands, tmp_path, cells):
    """A cell has the same neighbours when its suite is submitted again; empty elements go."""
    work = [5.0, 1.0, 1.0, 1.0, 4.0, 1.0, 1.0, 2.0]
    whole, _, _ = submit(cells, arguments(tmp_path, slurm_jobs=3), work)
    (first,) = submitted.launches(whole)
    for new in (cells[1:4], [cells[0]], cells[2:]):
        names = {cell.run_id for cell in new}
        again = tmp_path / str(len(new))
        folder, said, _ = submit(cells, arguments(again, slurm_jobs=3), work, new)
        (launch,) = submitted.launches(folder)
        left = [tuple(name for name in share if name in names) for share in first.elements]
        assert launch.elements == tuple(filter(None, left))
        assert f": {len(new)} cells in {len(launch.elements)} elements" in said


@pytest.mark.parametrize("count", [1, 3, 8])
def test_shares_are_of_about_equal_work_and_keep_the_order(count, cells):
    work = [5.0, 1.0, 1.0, 1.0, 4.0, 1.0, 1.0, 2.0]
    parts = slurm.shares(cells, work, count)
    assert len(parts) == count
    place = {cell.run_id: i for i, cell in enumerate(cells)}
    for part in parts:
        places = [place[cell.run_id] for cell in part]
        assert places == sorted(places)
    loads = [sum(work[place[cell.run_id]] for cell in part) for part in parts]
    assert max(loads) <= max(5.0, 1.34 * sum(work) / count)
    assert sum(loads) == sum(work)


def test_an_element_runs_its_share_alone(command, tmp_path, cells):
    """Its tables are left to the job that collects."""
    folder = tmp_path / "results" / cells[0].suite
    launch = submitted.Launch("abc", cells[0].suite, ((cells[0].run_id,), ("gone",)), "7")
    (folder / "slurm").mkdir(parents=True)
    file = folder / "slurm" / "abc.json"
    file.write_text(json.dumps(launch.__dict__))
    command("bench.grid", str(TINY), "--share", str(file), "0", check=0)
    assert [run.name for run in folder.glob("runs/*")] == [cells[0].run_id]
    assert not (folder / "metrics.csv").exists()
    done = command("bench.grid", str(TINY), "--share", str(file), "1", check=2)
    assert "gone is not in the suite any more" in done.stderr
    done = command("bench.grid", str(TINY), "--collect", check=3)
    assert "1 done" in done.stdout
    assert len(list(folder.glob("runs/*"))) == 1, "nothing was trained"
