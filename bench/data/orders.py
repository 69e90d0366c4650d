"""Class orders and how the classes of one are dealt out to tasks. Needs no torch."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from bench.errors import UsageError


def class_order(
    kind: str, order_seed: int, classes: int, domains: Sequence[int] | None = None
) -> list[int]:
    """Classes in the order in which they are learned.

    coda: python's random.seed(r); random.shuffle (GT-RIPL/CODA-Prompt; seed 0 is the identity).
    pilot: numpy.random.seed(r); permutation (LAMDA-PILOT uses r = 1993). natural: 0..C-1.
    With more than one domain (as VTAB has) the classes of a domain stay together: the order of
    the domains and the order within each are shuffled.
    """
    if kind == "pilot":
        order = np.random.RandomState(order_seed).permutation(classes).tolist()
    else:
        order = list(range(classes))
        if kind == "coda" and order_seed:
            random.Random(order_seed).shuffle(order)
    if domains and len(set(domains)) > 1:
        first: dict[int, int] = {}
        for position, label in enumerate(order):
            first.setdefault(domains[label], position)
        # sort is stable, so the shuffled order within a domain stays
        order.sort(key=lambda label: first[domains[label]])
    return order


def task_sizes(classes: int, tasks: int) -> list[int]:
    """Classes of each task; a remainder goes to the first tasks.

    Raises UsageError where a task would have fewer than two classes.
    """
    if tasks > classes // 2 and tasks > 1:
        raise UsageError(
            f"data.tasks={tasks}: "
            f"{classes} classes make at most {classes // 2} tasks of two or more"
        )
    return [classes // tasks + (task < classes % tasks) for task in range(tasks)]
