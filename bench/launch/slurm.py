"""A suite on a Slurm cluster: a job array whose elements are grids of their own.

An element runs its share of the cells one after the other, so torch is imported once, and the
engine's own saving does the rest: before the time limit, and when it is preempted, the element
saves at its next step. results/SUITE/slurm/TOKEN.json says which cells each element has. The token
is in the job's comment, so a second launch finds what is queued, also if the first was killed.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from bench.config.spec import RunSpec
from bench.errors import UsageError
from bench.launch import sbatch
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
    collector: str = ""  # the job that writes the tables

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
            content.setdefault("collector", "not recorded")  # by an older version
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
    # The comment last: those of other jobs may hold anything.
    words = ["squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T|%N|%k"]
    fields = [line.strip().split("|", 4) for line in _slurm(words).splitlines()]
    return [
        Element(job, int(index), state, comment, node)
        for job, index, state, node, comment in (one for one in fields if len(one) == 5)
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


def _slurm(words: list[str], env: dict[str, str] | None = None) -> str:
    """What a Slurm command prints. Raises UsageError with its own last line if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    except FileNotFoundError:
        raise UsageError(
            f"--launcher slurm: no Slurm here ({words[0]} is not on the PATH)"
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"Slurm: {said[-1]}")
    return done.stdout


# --- submitting -------------------------------------------------------------------------------


def check_options(cells: Sequence[RunSpec], args: argparse.Namespace) -> sbatch.Options:
    """What --sbatch says. Raises UsageError for what would go wrong only on a node."""
    options = sbatch.parse(args.sbatch)
    if options.time and sbatch.minutes(options.time) < SHORTEST_LIMIT:
        raise UsageError(
            f"--sbatch: --time={options.time}: at least {SHORTEST_LIMIT} minutes are expected"
        )
    by_node = [cell for cell in cells if cell.train.precision == "auto"]
    if by_node and not options.constraint:
        raise UsageError(
            f"{by_node[0].benchmark}: train.precision=auto could differ between nodes: give --set "
            "train.precision=fp32 (or bf16), or nodes of one kind (--sbatch --constraint=...)"
        )
    if args.device.startswith("cuda") and not options.gpu:
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


def how_many(cells: int, cpus: int, wanted: int, options: sbatch.Options) -> int:
    """Elements: as many as are wanted, or (0) as the partition has processors for.

    Raises UsageError where jobs of the partition end before anything is saved.
    """
    largest = re.search(r"MaxArraySize\s*=\s*(\d+)", _slurm(["scontrol", "show", "config"]))
    words = ["sinfo", "--noheader", "--format=%P|%l|%L|%C"]
    words += [f"--partition={options.partition}"] if options.partition else []
    partitions = [line.split("|") for line in _slurm(words).split() if line.count("|") == 3]
    # Without a name it is the default one, which has a star.
    own = [one for one in partitions if options.partition or one[0].endswith("*")] or partitions
    limits = {}
    for name, most, by_default, _ in own:
        limit = options.time or (by_default if by_default != "n/a" else most)
        limits[name.rstrip("*")] = min(limit, most, key=sbatch.minutes)
    short = [name for name, limit in limits.items() if sbatch.minutes(limit) < SHORTEST_LIMIT]
    # A job that says its time does not go to those of its partitions that are too short for it.
    if short and (len(short) == len(limits) or not options.time):
        raise UsageError(
            f"partition {short[0]}: its jobs end after {limits[short[0]]}, at least "
            f"{SHORTEST_LIMIT} minutes are needed (--sbatch --partition=..., --time=...)"
        )
    counts = [list(map(int, processors.split("/"))) for *_, processors in own]
    usable = [used + idle for used, idle, *_ in counts]  # without nodes that are down
    usable = usable if any(usable) else [total for *_, total in counts]
    wanted = wanted or max((count // cpus for count in usable), default=1)
    return max(1, min(wanted, cells, int(largest[1]) if largest else 1001))


def submit(
    cells: Sequence[RunSpec], work: Sequence[float], args: argparse.Namespace, folder: Path
) -> str:
    """Submit an array for these cells, and a job that collects after it; returns what to say."""
    options = check_options(cells, args)
    cpus = (args.jobs or 1) * max(cell.train.threads for cell in cells)
    count = how_many(len(cells), cpus, args.slurm_jobs or 0, options)
    elements = [[cell.run_id for cell in share] for share in shares(cells, work, count)]
    launch = Launch(secrets.token_hex(6), cells[0].suite, tuple(map(tuple, elements)))
    place = _place(folder)
    file = place / f"{launch.token}.json"
    script = place / f"{launch.token}.sh"
    write_text(script, _script(args, cells, file, cpus, options))
    write_text(file, json.dumps(asdict(launch)) + "\n")
    words = [f"--array=0-{count - 1}", f"--output={launch.token}-%a.log", str(script)]
    job = ""
    try:
        job = _number(_slurm([*_sbatch(options.words, launch, place), *words]))
        collect_after(replace(launch, job=job), args, folder)
    except UsageError:
        if job:
            _slurm(["scancel", job])
        for left in (file, script, place / f"{launch.token}-collect.sh"):
            left.unlink(missing_ok=True)
        raise
    return (
        f"submitted job {job}: {len(cells)} cells in {count} elements, logs {place}/"
        f"{launch.token}-*.log; its tables follow when it has ended (--status says how it goes)"
    )


def collect_after(launch: Launch, args: argparse.Namespace, folder: Path) -> None:
    """Submit the job that writes the tables after an array has ended."""
    place, options = _place(folder), sbatch.parse(args.sbatch)
    file = place / f"{launch.token}.json"
    write_text(file, json.dumps(asdict(launch)) + "\n")  # the launcher may be killed here
    script = place / f"{launch.token}-collect.sh"
    write_text(script, _collect_script(args, launch.suite))
    words = [f"--job-name={COMMENT}-{launch.suite}-collect"]
    words += [f"--output={launch.token}-collect.log", f"--dependency=afterany:{launch.job}"]
    same = _sbatch(options.collecting, launch, place)
    collector = _slurm([*same, *words, str(script)], sbatch.environment_of_collecting())
    known = asdict(launch) | {"collector": _number(collector)}
    write_text(file, json.dumps(known) + "\n")


def _number(said: str) -> str:
    """The number of a job, of what `sbatch --parsable` says: number;cluster."""
    number = said.strip().split(";")[0]
    if not number.isdecimal():
        raise UsageError(f"Slurm: sbatch did not say a job's number, but '{said.strip()}'")
    return number


def without_collector(folder: Path, queued: Iterable[Element]) -> list[Launch]:
    """Arrays in the queue whose launcher was killed before it submitted their job that collects."""
    jobs = {element.comment: element.job for element in queued}
    lost = [one for one in launches(folder) if one.comment in jobs and not one.collector]
    return [replace(one, job=jobs[one.comment]) for one in lost]


def _place(folder: Path) -> Path:
    return folder.absolute() / "slurm"


def _sbatch(options: Iterable[str], launch: Launch, place: Path) -> list[str]:
    """Paths are given as the working directory: in names of logs % has a meaning."""
    ours = [f"--comment={launch.comment}", f"--chdir={place}"]
    return ["sbatch", "--parsable", *options, *ours]


def _script(
    args: argparse.Namespace,
    cells: Sequence[RunSpec],
    file: Path,
    cpus: int,
    options: sbatch.Options,
) -> str:
    memory = 0.0 if options.memory or args.overrides else _peak_mib(Path(args.suite).stem)
    defaults = [f"--job-name={COMMENT}-{cells[0].suite}"]
    defaults += [] if options.cpus else [f"--cpus-per-task={cpus}"]
    defaults += [f"--mem={int(SPARE * memory) * (args.jobs or 1)}M"] if memory else []
    device = "cuda" if args.device == "auto" and options.gpu else args.device
    words = [*_grid(args, cells[0].suite), "--device", "cpu" if device == "auto" else device]
    words += ["--jobs", str(args.jobs or 1), "--quiet"]
    words += ["--time-limit", str(args.time_limit)] if args.time_limit else []
    words += ["--track", args.track] if args.track else []
    return SCRIPT.format(
        seconds=SAVE_SECONDS,
        defaults="\n".join(f"#SBATCH {word}" for word in defaults),
        exports=_exports(args.scratch),
        folder=shlex.quote(str(Path.cwd())),
        command=shlex.join([*words, "--share", str(file)]),
    )


def _collect_script(args: argparse.Namespace, suite: str) -> str:
    words = [*_grid(args, suite), "--collect", *_selection(args)]
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


def _selection(args: argparse.Namespace) -> list[str]:
    """The options that say which cells: tables and report speak of these."""
    words = ["--keep"] if args.keep else []
    for name in ("methods", "benchmarks", "order_seeds", "seeds"):
        if given := getattr(args, name):
            words += [f"--{name.replace('_', '-')}", *map(str, given)]
    return [*words, "--shard", "/".join(map(str, args.shard))]


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
