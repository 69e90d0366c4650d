"""What was submitted to Slurm, and what of it is in the queue.

results/SUITE/slurm/TOKEN.json says which cells each element of an array has, before the array is
submitted, and JOB.json beside it the same and what became of it. The token is in the job's comment,
so a second launch finds what is queued, also if the first was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from bench.errors import UsageError

COMMENT = "hlgp-bench"  # before the suite and the token, in a job's comment
ENDING = "COMPLETING"  # the state of an element that was ended and whose processes are waited for
COLLECTS = -1  # in place of an element's number: the job that collects has its array's comment
NOT_RECORDED = "not recorded"  # the collecting job of an older version, which has one
USUAL = ("Priority", "Resources", "BeginTime", "Dependency", "None", "JobArrayTaskLimit")
# A user's own variables of these commands choose other jobs, nodes or columns than ours, and other
# files than the logs that are named.
OWN = ("SQUEUE_", "SINFO_", "SCONTROL_", "SCANCEL_", "SBATCH_ERROR", "SBATCH_OUTPUT")


@dataclass(frozen=True)
class Launch:
    """What was submitted: the cells of each element of an array, by run_id."""

    token: str
    suite: str
    elements: tuple[tuple[str, ...], ...]
    job: str = ""  # "": the launcher was killed before it knew
    collector: str = ""  # the job that writes the tables
    folder: str = ""  # of the suite's results; "": by an older version

    @property
    def comment(self) -> str:
        return f"{COMMENT}:{self.suite}:{self.token}"

    def known(self) -> tuple[bool, bool]:
        """How much: one launch has a file from before it was submitted, and one from after."""
        return bool(self.job), bool(self.collector)

    def as_json(self) -> str:
        return json.dumps(asdict(self)) + "\n"


class Element(NamedTuple):
    """An element of an array that is in the queue."""

    job: str
    number: int  # COLLECTS for the job that collects after it
    state: str  # PENDING, RUNNING, ...
    comment: str
    node: str
    reason: str = ""  # why it is pending

    @property
    def problem(self) -> str:
        """Why it is pending, where that is not just its turn; "" otherwise."""
        usual = self.state != "PENDING" or self.reason in ("", *USUAL)
        return "" if usual else f"Slurm: {self.reason}"


def launches(folder: Path) -> list[Launch]:
    """Those of a suite's folder of results; what was copied from another folder is not of it."""
    files = sorted((folder / "slurm").glob("*.json"))
    found: dict[str, Launch] = {}
    for file in sorted(files, key=lambda file: file.stem.isdecimal()):  # JOB.json last
        one = _read(file)
        if not one.folder or _is_same(Path(one.folder), folder):
            found[one.token] = max(one, found.get(one.token, one), key=Launch.known)
    return list(found.values())


def _read(file: Path) -> Launch:
    try:
        content = json.loads(file.read_text("utf-8"))
        elements = tuple(tuple(of_one) for of_one in content.pop("elements"))
        content.setdefault("collector", NOT_RECORDED)
        return Launch(elements=elements, **content)
    except (OSError, ValueError, TypeError, KeyError):
        raise UsageError(f"{file}: cannot be read; delete it if its job has ended") from None


def _is_same(one: Path, other: Path) -> bool:
    """True for one folder, also by way of a link."""
    try:
        return one == other.absolute() or one.samefile(other)
    except OSError:  # it is there no more
        return False


def share_of(file: Path, index: int) -> tuple[str, ...]:
    """The run_ids of one element. Raises UsageError where there are none."""
    launch = _read(file) if file.is_file() else None
    if launch is None or not 0 <= index < len(launch.elements):
        raise UsageError(f"--share {file} {index}: nothing was submitted under this name")
    return launch.elements[index]


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
    """Elements of this user's arrays, and jobs that are none. Raises UsageError where Slurm does
    not answer.
    """
    # The comment last: those of other jobs may hold anything.
    words = ["squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T|%N|%r|%k"]
    fields = [line.strip().split("|", 5) for line in slurm(words).splitlines()]
    return [
        Element(job, int(index) if index.isdecimal() else COLLECTS, state, comment, node, reason)
        for job, index, state, node, reason, comment in (one for one in fields if len(one) == 6)
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
        if element.comment in known and 0 <= element.number < len(known[element.comment].elements)
        for run_id in known[element.comment].elements[element.number]
    }


def without_collector(folder: Path, queued: Iterable[Element]) -> list[Launch]:
    """Arrays in the queue whose job that collects is not there: the launcher was killed before it
    submitted that one, or it was cancelled.
    """
    jobs = {element.comment: element.job for element in queued}
    if not jobs:
        return []
    collected = {one.comment for one in queue() if one.number == COLLECTS and one.state != ENDING}
    lost = [one for one in launches(folder) if one.comment in jobs.keys() - collected]
    return [replace(one, job=jobs[one.comment]) for one in lost if one.collector != NOT_RECORDED]


def require_slurm() -> None:
    """Raises UsageError where nothing can be submitted."""
    if not shutil.which("sbatch"):
        raise _no_slurm("sbatch")


def _no_slurm(command: str) -> UsageError:
    return UsageError(f"--launcher slurm: no Slurm here ({command} is not on the PATH)")


def slurm(words: list[str], env: dict[str, str] | None = None) -> str:
    """What a Slurm command prints. Raises UsageError with the error that it names if it fails."""
    given = os.environ if env is None else env
    plain = {name: value for name, value in given.items() if not name.startswith(OWN)}
    try:
        # sbatch reads a script from here where it finds none among its words.
        nothing = subprocess.DEVNULL
        done = subprocess.run(words, capture_output=True, text=True, stdin=nothing, env=plain)
    except FileNotFoundError:
        raise _no_slurm(words[0]) from None
    if done.returncode:
        # The first error is the cause; 'Try "sbatch --help"' helps nobody.
        said = [line for line in done.stderr.splitlines() if line and not line.startswith("Try ")]
        errors = [line for line in said if "error" in line] or said
        raise UsageError(f"Slurm: {(errors or [f'exit code {done.returncode}'])[0]}")
    return done.stdout
