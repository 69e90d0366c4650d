"""A suite on a Slurm cluster: a job array whose elements are grids of their own.

An element runs its share of the cells one after the other, so torch is imported once, and the
engine's own saving does the rest: before the time limit, and when it is preempted, the element
saves at its next step.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import math
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import cli
from bench.config.spec import RunSpec
from bench.errors import Busy, UsageError
from bench.launch import partitions, sbatch, scripts
from bench.launch.partitions import SHORTEST_LIMIT, Partition
from bench.launch.pool import Worker, check_cells
from bench.launch.submitted import (
    COMMENT,
    ENDING,
    Element,
    Launch,
    in_queue,
    slurm,
    without_collector,
)
from bench.store.collect import is_held
from bench.store.files import check_writable, write_text
from bench.store.locks import locked
from bench.store.rundir import RunDir

THREADS_AHEAD = 2  # of bench.data.stream, which imports torch
ENDING_SECONDS = 30  # for which elements that are ending are waited for
LEAST_SECONDS = 120  # of predicted work for an element: to import torch takes five or more
# FLOP/s to predict them with: what a core did in the published cells, and a modest GPU.
RATES = {"cpu": 25e9, "cuda": 10e12}


def launch(
    args: argparse.Namespace,
    chosen: list[RunSpec],
    left: list[RunSpec],
    folder: Path,
    drawn: Sequence[Path],
) -> int:
    """Submit the cells that are left and that nobody has; returns the exit code.

    chosen: those that are asked for, done or not. drawn: folders that a report will be written to.
    What cannot run is found before anything is submitted, also where nothing is to be submitted.
    """
    options = check_options(left, args)
    if args.device.startswith("cuda") and not options.gpus:
        print(
            f"--device {args.device}: no GPU is asked for (--sbatch --gpus=1); with --exclusive "
            "those of the node are taken as they are",
            file=sys.stderr,
        )
    (folder / "slurm").mkdir(exist_ok=True)
    check_writable([folder / "slurm"])
    busy = f"{folder}: another launcher is submitting this suite"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "slurm" / ".lock", busy))
        except Busy as error:
            raise UsageError(str(error)) from None
        queued = _queued(left, folder)
        new = [cell for cell in left if cell.run_id not in queued]
        held = [cell for cell in new if is_held(RunDir.of(args.results, cell))]
        new = [cell for cell in new if cell not in held]
        if not new:
            _check_with_slurm(options)
        ending = _say_what_others_have(queued, held)
        for lost in without_collector(folder, queued.values()):
            collect_after(lost, args, folder)
            print(f"job {lost.job}: its tables follow when it has ended")
        if new:
            check_writable(drawn)
            work = _work(chosen, new, args.results)
            print(submit(chosen, work, new, args, folder))
    return cli.UNFINISHED if ending else cli.FINE


def _queued(cells: Iterable[RunSpec], folder: Path) -> dict[str, Element]:
    """Those of these cells that an element has, by run_id, when those that end have ended."""
    names, until, said = {cell.run_id for cell in cells}, time.monotonic() + ENDING_SECONDS, False
    while True:
        queued = {name: one for name, one in in_queue(folder).items() if name in names}
        ending = {element for element in queued.values() if element.state == ENDING}
        if not ending or time.monotonic() > until:
            return queued
        if not said:
            print(f"waiting for {len(ending)} element(s) of the array to end", file=sys.stderr)
        said = True
        time.sleep(1)


def _say_what_others_have(queued: dict[str, Element], held: Sequence[RunSpec]) -> int:
    """Say which cells are not submitted; returns how many of them nobody goes on with."""
    ending = sum(element.state == ENDING for element in queued.values())
    if len(queued) > ending:
        count = len(queued) - ending
        print(f"{count} cell(s) are in Slurm's queue already and keep the options they came with")
    if ending:
        print(f"{ending} cell(s): their elements are still ending; run this command again later")
    if held:
        print(f"{len(held)} cell(s) are left to another process that runs them: {held[0].run_id}")
    return ending


def _check_with_slurm(options: sbatch.Options) -> None:
    """Raises UsageError for options that sbatch would refuse."""
    slurm(["sbatch", "--test-only", *options.words, "--wrap=true"])


def _work(cells: Sequence[RunSpec], new: Sequence[RunSpec], results: Path) -> list[float] | None:
    """FLOPs of each cell, None where they are not known. Builds every new combination before.

    Raises UsageError for a combination that cannot be built.
    """
    worker = Worker(results, "cpu", lambda line: print(line, file=sys.stderr))
    try:
        check_cells(new, worker, {}, elsewhere=True)
        answer = worker.ask("work", *cells)
    finally:
        worker.stop()
        worker.close()
    return answer["flops"] if answer.get("known") else None


def check_options(cells: Sequence[RunSpec], args: argparse.Namespace) -> sbatch.Options:
    """What --sbatch says. Raises UsageError for what would go wrong only on a node."""
    options = sbatch.parse(args.sbatch)
    # With --time-min Slurm may shorten the limit to that.
    for name, limit in (("--time", options.time), ("--time-min", options.time_min)):
        if limit and sbatch.minutes(limit) < SHORTEST_LIMIT:
            least = f"at least {SHORTEST_LIMIT} minutes are expected"
            raise UsageError(f"--sbatch: {name}={limit}: {least}")
    by_node = [cell for cell in cells if cell.train.precision == "auto"]
    if by_node and not options.constraint:
        raise UsageError(
            f"{by_node[0].benchmark}: train.precision=auto could differ between nodes: give --set "
            "train.precision=fp32 (or bf16), or nodes of one kind (--sbatch --constraint=...)"
        )
    # On a whole node its GPUs may be had without asking, so it is only said (launch).
    if args.device.startswith("cuda") and not (options.gpus or options.exclusive):
        raise UsageError(f"--device {args.device}: no GPU is asked for (--sbatch --gpus=1)")
    return options


def shares(
    cells: Sequence[RunSpec], work: Sequence[float] | None, count: int
) -> list[list[RunSpec]]:
    """`count` shares of about equal work; the cells of each keep their order.

    work: FLOPs of each cell; None = not known, so that all count the same.
    """
    work = work or [1.0] * len(cells)
    heaviest = sorted(range(len(cells)), key=lambda i: -work[i])
    loads = [(0.0, number) for number in range(count)]
    owner = {}
    for i in heaviest:
        load, number = heapq.heappop(loads)
        owner[i] = number
        heapq.heappush(loads, (load + work[i], number))
    return [[c for i, c in enumerate(cells) if owner[i] == number] for number in range(count)]


def how_many(
    cells: Sequence[RunSpec],
    work: Sequence[float] | None,
    new: Sequence[RunSpec],
    args: argparse.Namespace,
    options: sbatch.Options,
) -> int:
    """Shares: as many as are wanted, else as run at once and are worth a start each.

    Raises UsageError where elements with new cells cannot start, or end before anything is saved.
    """
    largest = re.search(r"MaxArraySize\s*=\s*(\d+)", slurm(["scontrol", "show", "config"]))
    own = partitions.of_elements(options)
    partitions.refuse(own, options, options.cpus or _cpus(new, args, options))
    wanted = args.slurm_jobs or min(_room(own, cells, args, options), _worth(work, args, options))
    return max(1, min(int(wanted), len(cells), int(largest[1]) if largest else 1001))


def _cpus(cells: Iterable[RunSpec], args: argparse.Namespace, options: sbatch.Options) -> int:
    """Processors that an element is given where the user does not say it.

    Beside a GPU, threads cut whole photographs ahead of the step: they get some of their own.
    """
    on_gpu = scripts.device_of(args, options).startswith("cuda")
    needed = (
        cell.train.threads + THREADS_AHEAD * (on_gpu and cell.data.crops_of == "whole")
        for cell in cells
    )
    return scripts.jobs(args, options) * max(needed)


def _room(
    own: Sequence[Partition],
    cells: Sequence[RunSpec],
    args: argparse.Namespace,
    options: sbatch.Options,
) -> int:
    """Elements that the largest of these partitions can run at once."""
    room = Counter[str]()
    by_gpus = options.gpus and any(one.gpus for one in own)
    for one in own:
        room[one.name] += one.gpus if by_gpus else one.processors
    each = options.gpus if by_gpus else options.cpus or _cpus(cells, args, options)
    return max((count // each for count in room.values()), default=1)


def _worth(
    work: Sequence[float] | None, args: argparse.Namespace, options: sbatch.Options
) -> float:
    """Elements that have so much to do that their start does not count."""
    if work is None:
        return math.inf
    rate = RATES[scripts.device_of(args, options).split(":")[0]] * scripts.jobs(args, options)
    return sum(work) / rate / LEAST_SECONDS


def submit(
    cells: Sequence[RunSpec],
    work: Sequence[float] | None,
    new: Sequence[RunSpec],
    args: argparse.Namespace,
    folder: Path,
) -> str:
    """Submit an array for the new ones of these cells, and a job that collects after it.

    work: of each cell, as in `shares`. All cells are shared out before those that are not new are
    left out, so that a cell keeps its neighbours when a suite is submitted again. Returns what to
    say.
    """
    options = check_options(new, args)
    names = {cell.run_id for cell in new}
    split = shares(cells, work, how_many(cells, work, new, args, options))
    elements = [[cell.run_id for cell in share if cell.run_id in names] for share in split]
    elements = [share for share in elements if share]
    place = _place(folder)
    launch = Launch(
        token=secrets.token_hex(6),
        suite=new[0].suite,
        elements=tuple(map(tuple, elements)),
        folder=str(place.parent),
    )
    file, text = place / f"{launch.token}.json", place / f"{launch.token}.sh"
    write_text(text, scripts.of_array(args, new, file, _cpus(new, args, options), options))
    write_text(file, launch.as_json())
    words = [f"--array=0-{len(elements) - 1}", f"--output={launch.token}-%a.log", str(text)]
    job = ""
    try:
        job = _number(slurm([*_sbatch(options.words, launch, place), *words]))
        collect_after(replace(launch, job=job), args, folder)
    except UsageError:
        if job:
            slurm(["scancel", job])
        for left in (file, text, place / f"{job}.json", place / f"{launch.token}-collect.sh"):
            left.unlink(missing_ok=True)
        raise
    known = options.memory or scripts.memory_mib(args, options)
    memory = "" if known else "; no memory is asked for, none was measured with these settings"
    return (
        f"submitted job {job}: {len(new)} cells in {len(elements)} elements on "
        f"{scripts.device_of(args, options)}, logs {place}/{launch.token}-*.log; its tables follow "
        f"when it has ended (--status says how it goes){memory}"
    )


def collect_after(launch: Launch, args: argparse.Namespace, folder: Path) -> None:
    """Submit the job that writes the tables after an array has ended."""
    place, options = _place(folder), sbatch.parse(args.sbatch)
    file = place / f"{launch.job}.json"
    write_text(file, launch.as_json())  # the launcher may be killed here
    text = place / f"{launch.token}-collect.sh"
    write_text(text, scripts.of_collecting(args, launch.suite))
    words = [f"--job-name={COMMENT}-{launch.suite}-collect"]
    words += [f"--output={launch.token}-collect.log", f"--dependency=afterany:{launch.job}"]
    same = _sbatch(options.collecting, launch, place)
    collector = slurm([*same, *words, str(text)], sbatch.environment_of_collecting())
    write_text(file, replace(launch, collector=_number(collector)).as_json())


def _number(said: str) -> str:
    """The number of a job, of what `sbatch --parsable` says: number;cluster."""
    number = said.strip().split(";")[0]
    if not number.isdecimal():
        raise UsageError(f"Slurm: sbatch did not say a job's number, but '{said.strip()}'")
    return number


def _place(folder: Path) -> Path:
    return folder.absolute() / "slurm"


def _sbatch(options: Iterable[str], launch: Launch, place: Path) -> list[str]:
    """Paths are given as the working directory: in names of logs % has a meaning."""
    ours = [f"--comment={launch.comment}", f"--chdir={place}"]
    return ["sbatch", "--parsable", *options, *ours]
