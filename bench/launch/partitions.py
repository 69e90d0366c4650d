"""The partitions of a cluster, as sinfo says them, and what can never start in them.

sbatch takes such a job too, and it would be pending for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.errors import UsageError
from bench.launch import sbatch
from bench.launch.submitted import slurm

SHORTEST_LIMIT = 5  # minutes: a shorter one may end before anything is saved


class Partition(NamedTuple):
    """Nodes of a partition that are alike, as sinfo says it."""

    name: str  # the default one has a star
    most: str  # its time limit
    by_default: str  # the time limit of a job that says none
    cpus: str  # allocated/idle/other/total
    nodes: str
    gres: str
    size: str  # processors of a node

    @property
    def processors(self) -> int:
        """Of all its nodes, also of those that are down today: a suite's shares stay the same."""
        return int(self.cpus.split("/")[-1])

    @property
    def gpus(self) -> int:
        return int(self.nodes) * sum(map(int, re.findall(r"gpu[^,(]*:(\d+)", self.gres)))


def of_elements(options: sbatch.Options) -> list[Partition]:
    """The partitions that are asked for, or the default one."""
    words = ["sinfo", "--noheader", "--exact", "--format=%P|%l|%L|%C|%D|%G|%c"]
    words += [f"--partition={options.partition}"] if options.partition else []
    rows = [line.split("|") for line in slurm(words).split()]
    found = [Partition(*row) for row in rows if len(row) == len(Partition._fields)]
    return [one for one in found if options.partition or one.name.endswith("*")] or found


def refuse(partitions: Sequence[Partition], options: sbatch.Options, cpus: int) -> None:
    """Raises UsageError where an element cannot start, or ends before anything is saved.

    cpus: of an element.
    """
    _refuse_long(partitions, options)
    _refuse_short(partitions, options)
    largest = max((int(one.size) for one in partitions if one.size.isdecimal()), default=cpus)
    if cpus > largest:
        names = ",".join(dict.fromkeys(one.name.rstrip("*") for one in partitions))
        raise UsageError(
            f"partition {names}: an element wants {cpus} processors, its largest node has {largest}"
            " (--jobs, train.threads or --sbatch --cpus-per-task)"
        )


def _refuse_long(partitions: Sequence[Partition], options: sbatch.Options) -> None:
    least = options.time_min or options.time  # Slurm may shorten the limit to --time-min
    if not least or options.qos or not partitions:  # a quality of service may allow more
        return
    longest = max(partitions, key=lambda one: sbatch.minutes(one.most))
    if sbatch.minutes(least) > sbatch.minutes(longest.most):
        name = "--time-min" if options.time_min else "--time"
        raise UsageError(
            f"--sbatch: {name}={least}: partition {longest.name.rstrip('*')} allows at most "
            f"{longest.most}"
        )


def _refuse_short(partitions: Iterable[Partition], options: sbatch.Options) -> None:
    limits = {}
    for one in partitions:
        limit = options.time or (one.by_default if one.by_default != "n/a" else one.most)
        limits[one.name.rstrip("*")] = min(limit, one.most, key=sbatch.minutes)
    short = [name for name, limit in limits.items() if sbatch.minutes(limit) < SHORTEST_LIMIT]
    # A job that says its time does not go to those of its partitions that are too short for it.
    if short and (len(short) == len(limits) or not options.time):
        raise UsageError(
            f"partition {short[0]}: its jobs end after {limits[short[0]]}, at least "
            f"{SHORTEST_LIMIT} minutes are needed (--sbatch --partition=..., --time=...)"
        )
