"""What a user gives to sbatch, as far as the launcher must understand it: `--sbatch OPTIONS`.

sbatch reads variables too (SBATCH_TIMELIMIT is `--time`); an option wins over its variable.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from bench.errors import UsageError

READ = {  # option: its short form, its variable
    "--time": ("-t", "SBATCH_TIMELIMIT"),
    "--time-min": ("", ""),
    "--partition": ("-p", "SBATCH_PARTITION"),
    "--constraint": ("-C", "SBATCH_CONSTRAINT"),
    "--qos": ("-q", "SBATCH_QOS"),
    "--nodes": ("-N", ""),
    "--ntasks": ("-n", ""),
    "--ntasks-per-node": ("", ""),
}
OF_ELEMENTS = {  # what a job that collects does not need
    "--cpus-per-task": ("-c", ""),
    "--mincpus": ("", ""),
    "--exclusive": ("", "SBATCH_EXCLUSIVE"),
    "--gpus": ("-G", "SBATCH_GPUS"),
    "--gpus-per-node": ("", "SBATCH_GPUS_PER_NODE"),
    "--gpus-per-task": ("", "SBATCH_GPUS_PER_TASK"),
    "--gpus-per-socket": ("", "SBATCH_GPUS_PER_SOCKET"),
    "--gres": ("", "SBATCH_GRES"),
    "--tres-per-task": ("", "SBATCH_TRES_PER_TASK"),
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
    "--no-requeue": ("", "SBATCH_NO_REQUEUE"),
    "--signal": ("", "SBATCH_SIGNAL"),
    "--open-mode": ("", "SBATCH_OPEN_MODE"),
    "--clusters": ("-M", "SBATCH_CLUSTERS"),
    "--wait": ("-W", "SBATCH_WAIT"),
    "--quiet": ("-Q", ""),
    "--version": ("-V", ""),
    "--usage": ("", ""),
    "--help": ("-h", ""),
    "--test-only": ("", ""),
}
ONE = ("--nodes", "--ntasks", "--ntasks-per-node", "--ntasks-per-gpu")  # an element is one process
RESOURCES = ("gres", "tres_per_task")  # options that may name other things than GPUs
FLAGS = (
    *("--hold", "--wait", "--quiet", "--version", "--usage", "--help", "--test-only"),
    "--no-requeue",
)
# Options that take no value, or only one with =: a word after them is none.
NO_VALUE = (
    *(*FLAGS, "--contiguous", "--exclusive", "--get-user-env", "--ignore-pbs", "--nice"),
    *("--no-kill", "--overcommit", "--oversubscribe", "--parsable", "--propagate", "--reboot"),
    *("--requeue", "--spread-job", "--use-min-nodes", "--verbose", "--external", "--stepmgr"),
    *("--immediate", "-I", "-H", "-h", "-k", "-O", "-Q", "-s", "-v", "-V", "-W"),
)


@dataclass(frozen=True)
class Options:
    """The words of --sbatch, those of them for a job that collects, and values ("": not given).

    gpus, cpus: of an element, 0 where nothing is said. memory: True where the user says how much.
    exclusive: True for whole nodes.
    """

    words: tuple[str, ...]
    collecting: tuple[str, ...]
    time: str
    time_min: str
    partition: str
    constraint: str
    qos: str
    gpus: int
    memory: bool
    cpus: int
    exclusive: bool


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
        elif name == "--exclusive":  # a value only with =
            parser.add_argument(*words, nargs="?", const="node", default=default)
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
    _refuse_stray(words)
    read = vars(_parser(READ | OF_ELEMENTS).parse_known_args(words)[0])
    for name in ONE:
        if (value := read[name[2:].replace("-", "_")]) not in ("", "1", "1-1"):
            raise UsageError(f"--sbatch: {name}={value}: an element is one process, 1 is expected")
    collecting = _parser(OF_ELEMENTS).parse_known_args(words)[1]
    gpus = max(_gpus(read[name], name) for name in read if name.startswith(("gpus", *RESOURCES)))
    cpus = max(_number(read["cpus_per_task"]), gpus * _number(read["cpus_per_gpu"]))
    return Options(
        words=tuple(words),
        collecting=tuple(collecting),
        time=read["time"],
        time_min=read["time_min"],
        partition=read["partition"],
        constraint=read["constraint"],
        qos=read["qos"],
        gpus=gpus,
        memory=any(read[name] for name in ("mem", "mem_per_cpu", "mem_per_gpu")),
        cpus=cpus,
        exclusive=bool(read["exclusive"]),
    )


def _refuse_stray(words: Sequence[str]) -> None:
    """sbatch would take the first word that is no option for the script, and ours for its words;
    and for an option without its value, as of a variable that is empty, the next word.
    """
    before = ""
    for word in (*words, "--end"):
        if _takes_value(before) and word.startswith("-"):
            raise UsageError(f"--sbatch: {before}: a value is expected, if sbatch has this option")
        if word in ("-", "--") or not (word.startswith("-") or _takes_value(before)):
            raise UsageError(f"--sbatch: '{word}': options alone are expected")
        before = "" if _takes_value(before) else word


def _takes_value(word: str) -> bool:
    """True for an option, also one that is not written out, whose value is the next word."""
    if word.startswith("--"):
        return "=" not in word and not any(name.startswith(word) for name in NO_VALUE)
    return word.startswith("-") and len(word) == 2 and word not in NO_VALUE


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else int(bool(text))


def _gpus(value: str, option: str) -> int:
    """How many of `2`, `a100:2`, `gpu:a100:2,disk:1` or `cpu=4,gres/gpu=2`.

    Parts of GPUs are GPUs: a slice (MIG) has a name of its own at some sites, shards are of one.
    """
    items = [item for item in value.split(",") if item]
    if option in RESOURCES:
        items = [item for item in items if re.match(r"(gres[/:])?(gpu|mig|shard)\b", item)]
    counts = [_number(re.split("[:=]", item)[-1]) for item in items]
    return sum(
        min(count, 1) if "shard" in item else count
        for item, count in zip(items, counts, strict=True)
    )


def environment_of_collecting() -> dict[str, str]:
    """This process's variables without those that ask for what only the elements need."""
    for_elements = {variable for _, variable in OF_ELEMENTS.values()}
    return {name: value for name, value in os.environ.items() if name not in for_elements}


def minutes(text: str) -> float:
    """A time limit as Slurm has it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S; 0 is none.

    NaN for what cannot be read.
    """
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
        unlimited = text.upper() in ("UNLIMITED", "INFINITE")
        return float("inf" if unlimited else "nan")  # what sbatch refuses is neither long nor short
    return found or float("inf")
