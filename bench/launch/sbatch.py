"""What a user gives to sbatch, as far as the launcher must understand it: `--sbatch OPTIONS`.

sbatch reads variables too (SBATCH_TIMELIMIT is `--time`); an option wins over its variable.
"""

from __future__ import annotations

import argparse
import os
import shlex
from dataclasses import dataclass
from typing import NoReturn

from bench.errors import UsageError

READ = {  # option: its short form, its variable
    "--time": ("-t", "SBATCH_TIMELIMIT"),
    "--partition": ("-p", "SBATCH_PARTITION"),
    "--constraint": ("-C", "SBATCH_CONSTRAINT"),
    "--cpus-per-task": ("-c", ""),
}
OF_ELEMENTS = {  # what a job that collects does not need
    "--gpus": ("-G", "SBATCH_GPUS"),
    "--gpus-per-node": ("", "SBATCH_GPUS_PER_NODE"),
    "--gpus-per-task": ("", "SBATCH_GPUS_PER_TASK"),
    "--gpus-per-socket": ("", "SBATCH_GPUS_PER_SOCKET"),
    "--gres": ("", "SBATCH_GRES"),
    "--cpus-per-gpu": ("", "SBATCH_CPUS_PER_GPU"),
    "--mem-per-gpu": ("", "SBATCH_MEM_PER_GPU"),
    "--mem-per-cpu": ("", "SBATCH_MEM_PER_CPU"),
    "--mem": ("", "SBATCH_MEM_PER_NODE"),
    "--ntasks-per-gpu": ("", ""),
    "--hold": ("-H", ""),
}
# Of the launcher itself, or such that sbatch submits nothing, says no number, or does not return.
REFUSED = {
    "--array": ("-a", "SBATCH_ARRAY_INX"),
    "--output": ("-o", ""),
    "--error": ("-e", ""),
    "--chdir": ("-D", ""),
    "--comment": ("", ""),
    "--wrap": ("", ""),
    "--wait": ("-W", "SBATCH_WAIT"),
    "--quiet": ("-Q", ""),
    "--version": ("-V", ""),
    "--usage": ("", ""),
    "--help": ("-h", ""),
    "--test-only": ("", ""),
}
FLAGS = ("--hold", "--wait", "--quiet", "--version", "--usage", "--help", "--test-only")


@dataclass(frozen=True)
class Options:
    """The words of --sbatch, those of them for a job that collects, and values ("": not given).

    memory, cpus: True where the user says how much of it.
    """

    words: tuple[str, ...]
    collecting: tuple[str, ...]
    time: str
    partition: str
    constraint: str
    gpu: bool
    memory: bool
    cpus: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"--sbatch: {message}")


def _parser(known: dict[str, tuple[str, str]]) -> _Parser:
    parser = _Parser(add_help=False)
    for name, (short, variable) in known.items():
        words = [name, *filter(None, [short])]
        default = os.environ.get(variable, "")
        if name in FLAGS:
            parser.add_argument(*words, action="store_true", default=bool(default))
        else:
            parser.add_argument(*words, default=default)
    return parser


def parse(text: str) -> Options:
    """Raises UsageError for quotes that do not close, and for what only the launcher may say."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--sbatch: {text}: {str(error).lower()}") from None
    refused = vars(_parser(REFUSED).parse_known_args(words)[0])
    for name, (_, variable) in REFUSED.items():
        if refused[name[2:].replace("-", "_")]:
            said = " or ".join(filter(None, (f"--sbatch {name}", variable)))
            raise UsageError(f"{said}: the launcher submits an array of its own, and goes on")
    read = vars(_parser(READ | OF_ELEMENTS).parse_known_args(words)[0])
    collecting = _parser(OF_ELEMENTS).parse_known_args(words)[1]
    gpus = [value for name, value in read.items() if name.startswith("gpus")]
    return Options(
        tuple(words),
        tuple(collecting),
        read["time"],
        read["partition"],
        read["constraint"],
        any(gpus) or "gpu" in read["gres"],
        any(read[name] for name in ("mem", "mem_per_cpu", "mem_per_gpu")),
        any(read[name] for name in ("cpus_per_task", "cpus_per_gpu")),
    )


def environment_of_collecting() -> dict[str, str]:
    """This process's variables without those that ask for what only the elements need."""
    for_elements = {variable for _, variable in OF_ELEMENTS.values()}
    return {name: value for name, value in os.environ.items() if name not in for_elements}


def minutes(text: str) -> float:
    """A time limit as Slurm has it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S; 0 is none."""
    days, dash, rest = text.rpartition("-")
    try:
        parts = [int(part) for part in rest.split(":")]
        if dash:
            hours, mins, seconds = [*parts, 0, 0][:3]
            found = int(days) * 1440 + hours * 60 + mins + seconds / 60
        elif len(parts) == 3:
            found = parts[0] * 60 + parts[1] + parts[2] / 60
        else:
            found = parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)
    except ValueError:
        return float("inf")  # UNLIMITED, or what sbatch refuses
    return found or float("inf")
