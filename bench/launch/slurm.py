"""A suite on a Slurm cluster: a job array whose elements are grids of their own.

An element runs its share of the cells one after the other, so torch is imported once, and the
engine's own saving does the rest: before the time limit, and when it is preempted, the element
saves at its next step. results/SUITE/slurm/TOKEN.json says which cells each element has. The token
is in the job's comment, so a second launch finds what is queued, also if the first was killed.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from bench.config.spec import RunSpec
from bench.errors import UsageError
from bench.paths import PROJECT, REFERENCE
from bench.store.files import write_text
from bench.store.tables import LATER_COLUMNS, TABLES, read_csv

COMMENT = "hlgp-bench"  # before the suite and the token, in a job's comment
SHORTEST_LIMIT = 5  # minutes: a shorter one may end before anything is saved
SAVE_SECONDS = 60  # before the time limit, to save
SPARE = 1.5  # memory asked for, of the peak that was measured
INHERITED = ("BENCH_DATA", "BENCH_WEIGHTS", "BENCH_CACHE", "BENCH_CACHE_LIMIT", "BENCH_OFFLINE")
SCRIPT = """#!/bin/bash
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@{seconds}
{defaults}
{exports}
cd {folder} || exit 2
again=
trap 'again=yes; kill -TERM $grid' USR1  # the time limit is near
trap : TERM  # Slurm has told the grid too: wait for it to save
{command} "$SLURM_ARRAY_TASK_ID" & grid=$!
wait $grid; code=$?
while kill -0 $grid 2>/dev/null; do wait $grid; code=$?; done
wait $grid 2>/dev/null; last=$?  # 127: it was waited for above
[ $last -ne 127 ] && code=$last
# 143: stopped with something new saved. This element alone: one of them has the array's own id.
if [ -n "$again" ] && [ $code -eq 143 ]; then
    exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit $code
"""


@dataclass(frozen=True)
class Launch:
    """What was submitted: the cells of each element of an array, by run_id."""

    token: str
    suite: str
    elements: tuple[tuple[str, ...], ...]
    job: str = ""  # "": the launcher was killed before it knew

    @property
    def comment(self) -> str:
        return f"{COMMENT}:{self.suite}:{self.token}"


class Element(NamedTuple):
    """An element of an array that is in the queue."""

    job: str
    number: int
    state: str  # PENDING, RUNNING, ...
    comment: str
    node: str


def command_of(cell: RunSpec, args: argparse.Namespace) -> str:
    """The `bench.run` command of one cell for a shell that may stand in any folder."""
    options = {
        "--method": cell.method,
        "--benchmark": cell.benchmark,
        "--order-seed": cell.order_seed,
        "--seed": cell.seed,
        "--results": args.results,
        "--name": cell.suite,
        "--device": args.device,
    }
    words = [sys.executable, "-m", "bench.run", args.suite]
    words += [str(word) for option in options.items() for word in option]
    variables = [f"{name}={value}" for name, value in _environment(args.scratch).items()]
    place = shlex.join(["cd", str(Path.cwd())])
    return f"{place} && {shlex.join(['env', *variables, *words, *_settings(args)])}"


def _settings(args: argparse.Namespace) -> list[str]:
    if not args.overrides:
        return []
    return ["--set", *(f"{key}={value}" for key, value in args.overrides.items())]


# --- what is submitted, and what of it is in the queue ----------------------------------------


def launches(folder: Path) -> list[Launch]:
    """Those of a suite's folder of results."""
    found = []
    for file in sorted((folder / "slurm").glob("*.json")):
        try:
            content = json.loads(file.read_text("utf-8"))
            elements = tuple(tuple(of_one) for of_one in content.pop("elements"))
            found.append(Launch(elements=elements, **content))
        except (OSError, ValueError, TypeError, KeyError):
            raise UsageError(f"{file}: cannot be read; delete it if its job has ended") from None
    return found


def share_of(file: Path, index: int) -> tuple[str, ...]:
    """The run_ids of one element. Raises UsageError where there are none."""
    for launch in launches(file.parent.parent):
        if launch.token == file.stem and 0 <= index < len(launch.elements):
            return launch.elements[index]
    raise UsageError(f"--share {file} {index}: nothing was submitted under this name")


def queue() -> list[Element]:
    """Elements of this user's arrays. Raises UsageError where Slurm does not answer."""
    words = ["squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T|%k|%N"]
    lines = _slurm(words).splitlines()
    fields = [line.strip().split("|") for line in lines if line.strip()]
    return [
        Element(job, int(index), state, comment, node)
        for job, index, state, comment, node in fields
        if index.isdecimal()
    ]


def in_queue(folder: Path) -> dict[str, Element]:
    """The element that has a cell, by run_id, for cells of a suite that Slurm will run."""
    known = {launch.comment: launch for launch in launches(folder)}
    if not known:
        return {}
    return {
        run_id: element
        for element in queue()
        if element.comment in known and element.number < len(known[element.comment].elements)
        for run_id in known[element.comment].elements[element.number]
    }


def _slurm(words: list[str]) -> str:
    """What a Slurm command prints. Raises UsageError with its own last line if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UsageError(
            f"--launcher slurm: no Slurm here ({words[0]} is not on the PATH)"
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"Slurm: {said[-1]}")
    return done.stdout


# --- submitting -------------------------------------------------------------------------------


def minutes(text: str) -> float:
    """A time limit as sbatch takes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = text.rpartition("-")
    try:
        parts = [int(part) for part in rest.split(":")]
        if dash:
            hours, mins, seconds = [*parts, 0, 0][:3]
            return int(days) * 1440 + hours * 60 + mins + seconds / 60
        if len(parts) == 3:
            return parts[0] * 60 + parts[1] + parts[2] / 60
        return parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)
    except ValueError:
        return float("inf")  # UNLIMITED, or what sbatch refuses


def _option(options: list[str], *names: str) -> str:
    """The value of the last of these options of sbatch, or ""."""
    found = ""
    for word, following in itertools.zip_longest(options, options[1:], fillvalue=""):
        for name in names:
            if word == name:
                found = following
            elif name.startswith("--") and word.startswith(f"{name}="):
                found = word.partition("=")[2]
            elif not name.startswith("--") and word.startswith(name) and word != name:
                found = word[len(name) :]
    return found


def wants_gpu(options: list[str]) -> bool:
    return any(re.match(r"-G|--gpus|--gres=gpu|gpu(:|$)", word) for word in options)


def check_options(cells: Sequence[RunSpec], args: argparse.Namespace) -> list[str]:
    """The words of --sbatch. Raises UsageError for what would go wrong only on a node."""
    options = shlex.split(args.sbatch)
    limit = _option(options, "--time", "-t")
    if limit and minutes(limit) < SHORTEST_LIMIT:
        raise UsageError(
            f"--sbatch: --time={limit}: at least {SHORTEST_LIMIT} minutes are expected"
        )
    by_node = [cell for cell in cells if cell.train.precision == "auto"]
    if by_node and not _option(options, "--constraint", "-C"):
        raise UsageError(
            f"{by_node[0].benchmark}: train.precision=auto could differ between nodes: give --set "
            "train.precision=fp32 (or bf16), or nodes of one kind (--sbatch --constraint=...)"
        )
    if args.device.startswith("cuda") and not wants_gpu(options):
        raise UsageError(f"--device {args.device}: no GPU is asked for (--sbatch --gpus=1)")
    return options


def shares(cells: Sequence[RunSpec], work: Sequence[float], count: int) -> list[list[RunSpec]]:
    """`count` shares of about equal work; the cells of each keep their order."""
    heaviest = sorted(range(len(cells)), key=lambda i: -work[i])
    loads = [(0.0, number) for number in range(count)]
    owner = {}
    for i in heaviest:
        load, number = heapq.heappop(loads)
        owner[i] = number
        heapq.heappush(loads, (load + work[i], number))
    return [[c for i, c in enumerate(cells) if owner[i] == number] for number in range(count)]


def how_many(cells: int, cpus: int, args: argparse.Namespace, options: list[str]) -> int:
    """Elements: --slurm-jobs, else as many as the partition has processors for."""
    largest = re.search(r"MaxArraySize\s*=\s*(\d+)", _slurm(["scontrol", "show", "config"]))
    if args.slurm_jobs:
        wanted = args.slurm_jobs
    else:
        partition = _option(options, "--partition", "-p")
        words = ["sinfo", "--noheader", "--format=%R|%C"]
        words += [f"--partition={partition}"] if partition else []
        of_partitions = [line.split("|") for line in _slurm(words).split()]
        wanted = max((int(n.split("/")[-1]) // cpus for _, n in of_partitions), default=1)
    return max(1, min(wanted, cells, int(largest[1]) if largest else 1001))


def submit(
    cells: Sequence[RunSpec], work: Sequence[float], args: argparse.Namespace, folder: Path
) -> str:
    """Submit an array for these cells, and a job that collects after it; returns what to say."""
    options = check_options(cells, args)
    side_by_side = args.jobs or 1
    cpus = side_by_side * max(cell.train.threads for cell in cells)
    count = how_many(len(cells), cpus, args, options)
    suite = cells[0].suite
    elements = [[cell.run_id for cell in share] for share in shares(cells, work, count)]
    launch = Launch(secrets.token_hex(6), suite, tuple(map(tuple, elements)))
    place = folder.absolute() / "slurm"
    file = place / f"{launch.token}.json"
    script = place / f"{launch.token}.sh"
    write_text(script, _script(args, cells, file, cpus, options))
    write_text(file, json.dumps(asdict(launch)) + "\n")
    # Paths are given as the working directory: in names of logs % has a meaning.
    same = ["sbatch", "--parsable", *options, f"--comment={launch.comment}", f"--chdir={place}"]
    log = f"{launch.token}-%a.log"
    job = _slurm([*same, f"--array=0-{count - 1}", f"--output={log}", str(script)])
    job = job.strip().split(";")[0]
    write_text(file, json.dumps(asdict(launch) | {"job": job}) + "\n")
    after = place / f"{launch.token}-collect.sh"
    write_text(after, _collect_script(args, suite))
    words = [f"--output={launch.token}-collect.log", f"--dependency=afterany:{job}", str(after)]
    collecting = [word for word in same if not wants_gpu([word])]
    _slurm([*collecting, f"--job-name={COMMENT}-{suite}-collect", *words])
    return (
        f"submitted job {job}: {len(cells)} cells in {count} elements, logs {place}/"
        f"{launch.token}-*.log; its tables follow when it has ended (--status says how it goes)"
    )


def _script(
    args: argparse.Namespace, cells: Sequence[RunSpec], file: Path, cpus: int, options: list[str]
) -> str:
    memory = _peak_mib(cells[0].suite)
    defaults = [f"--job-name={COMMENT}-{cells[0].suite}", f"--cpus-per-task={cpus}"]
    defaults += [f"--mem={int(SPARE * memory) * (args.jobs or 1)}M"] if memory else []
    device = "cuda" if args.device == "auto" and wants_gpu(options) else args.device
    words = [*_grid(args, cells[0].suite), "--device", "cpu" if device == "auto" else device]
    words += ["--jobs", str(args.jobs or 1), "--quiet"]
    words += ["--time-limit", str(args.time_limit)] if args.time_limit else []
    return SCRIPT.format(
        seconds=SAVE_SECONDS,
        defaults="\n".join(f"#SBATCH {word}" for word in defaults),
        exports=_exports(args.scratch),
        folder=shlex.quote(str(Path.cwd())),
        command=shlex.join([*words, "--share", str(file)]),
    )


def _collect_script(args: argparse.Namespace, suite: str) -> str:
    words = [*_grid(args, suite), "--collect"]
    words += ["--report", str(args.report.absolute())] if args.report else []
    words += ["--archive"] if args.archive else []
    folder = shlex.quote(str(Path.cwd()))
    return f"#!/bin/bash\n{_exports('')}\ncd {folder} || exit 2\nexec {shlex.join(words)}\n"


def _grid(args: argparse.Namespace, name: str) -> list[str]:
    """The grid of this suite, by an interpreter and paths that are the same on every node."""
    suite = str(Path(args.suite).absolute()) if Path(args.suite).suffix == ".py" else args.suite
    words = [sys.executable, "-m", "bench.grid", suite, "--name", name, "--results"]
    if args.published:
        words += [str(args.results.parent.absolute()), "--reference"]
    else:
        words += [str(args.results.absolute())]
    return words + _settings(args)


def _environment(scratch: str) -> dict[str, str]:
    """What a grid reads, written down: a site may pass nothing on (--export=NONE)."""
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH", ""))))
    names = (*INHERITED, "SLURM_CONF")
    found = {"PYTHONPATH": path} | {name: os.environ[name] for name in names if name in os.environ}
    return found | ({"BENCH_CACHE": scratch} if scratch else {})


def _exports(scratch: str) -> str:
    found = _environment(scratch)
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items())


def _peak_mib(suite: str) -> float:
    """The largest memory that a cell of the published suite took, MiB; 0 where nobody knows."""
    file = PROJECT / "results" / REFERENCE / suite / "timing.csv"
    if not file.is_file():
        return 0.0
    return max(
        float(row["peak_memory_mib"] or 0)
        for row in read_csv(file, TABLES["timing"], LATER_COLUMNS["timing"])
    )
