"""What was submitted to Slurm, and what of it is in the queue.

results/SUITE/slurm/TOKEN.json says which cells each element of an array has. The token is in the
job's comment, so a second launch finds what is queued, also if the first was killed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from bench.errors import UsageError

COMMENT = "hlgp-bench"  # before the suite and the token, in a job's comment
ENDING = "COMPLETING"  # the state of an element that was ended and whose processes are waited for


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


def place() -> dict[str, str]:
    """The element and the node that this process runs in, for a cell's state; {} elsewhere."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    if not job:
        return {}
    number, node = (
        os.environ.get(f"SLURM{name}", "?") for name in ("_ARRAY_TASK_ID", "D_NODENAME")
    )
    return {"job": f"{job}_{number}", "node": node}


def queue() -> list[Element]:
    """Elements of this user's arrays. Raises UsageError where Slurm does not answer."""
    # The comment last: those of other jobs may hold anything.
    words = ["squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T|%N|%k"]
    fields = [line.strip().split("|", 4) for line in slurm(words).splitlines()]
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
    # One that is ending comes first: another that has the same cell counts.
    return {
        run_id: element
        for element in sorted(queue(), key=lambda element: element.state != ENDING)
        if element.comment in known and element.number < len(known[element.comment].elements)
        for run_id in known[element.comment].elements[element.number]
    }


def without_collector(folder: Path, queued: Iterable[Element]) -> list[Launch]:
    """Arrays in the queue whose launcher was killed before it submitted their job that collects."""
    jobs = {element.comment: element.job for element in queued}
    lost = [one for one in launches(folder) if one.comment in jobs and not one.collector]
    return [replace(one, job=jobs[one.comment]) for one in lost]


def slurm(words: list[str], env: dict[str, str] | None = None) -> str:
    """What a Slurm command prints. Raises UsageError with the error that it names if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    except FileNotFoundError:
        raise UsageError(
            f"--launcher slurm: no Slurm here ({words[0]} is not on the PATH)"
        ) from None
    if done.returncode:
        # The first error is the cause; 'Try "sbatch --help"' helps nobody.
        said = [line for line in done.stderr.splitlines() if line and not line.startswith("Try ")]
        errors = [line for line in said if "error" in line] or said
        raise UsageError(f"Slurm: {(errors or [f'exit code {done.returncode}'])[0]}")
    return done.stdout
