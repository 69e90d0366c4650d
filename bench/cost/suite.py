"""The cost of a suite before it is run: images, forward passes and FLOPs, without data or weights.

The images of a prepared split are counted from its manifest; else from what its dataset declares.

The counts follow the engine: one training step per image and epoch; after each task one pass over
the test images of all classes seen, and for the aligned head one over the task's training images
in the test view; the passes that measure feature drift and FLOPs; and frozen query features, once
per (seed, epoch) and once for the images of each part in the test view, which all methods and
orders share through the cache (assumed to be empty). predicted.py says what an image costs a
method.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tabulate import tabulate

from bench.config.spec import BackboneSpec, DataSpec, RunSpec
from bench.cost.counted import COUNTED_IMAGES, DRIFT_IMAGES
from bench.cost.predicted import Call, Shape, Trace, flops, shape, trace
from bench.data.datasets import HELD_OUT_EVERY, source_of
from bench.data.orders import task_sizes

# --- images -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """Classes of a cell's dataset, and images of each class (the mean where classes differ)."""

    classes: int
    train: float
    test: float
    known: bool = True  # False: the images of some part are unknown and counted as 0


def counts(data: DataSpec) -> Counts:
    """What a cell's dataset holds, as far as it is known without loading it."""
    sizes = source_of(data.name).sizes(data)
    if sizes is None:
        return _limited(data, Counts(data.classes or 2 * data.tasks, 0.0, 0.0, False))
    known = sizes.train is not None and sizes.test is not None
    train, test = (sizes.train or 0) / sizes.classes, (sizes.test or 0) / sizes.classes
    if data.evaluate == "validation" and sizes.validation is not None:
        test = sizes.validation / sizes.classes
    elif data.evaluate == "validation":
        test = train // HELD_OUT_EVERY
        train -= test
    return _limited(data, Counts(data.classes or sizes.classes, train, test, known))


def _limited(data: DataSpec, each: Counts) -> Counts:
    train = min(each.train, data.train_per_class or each.train)
    test = min(each.test, data.test_per_class or each.test)
    return replace(each, train=train, test=test)


# --- a cell and a suite -----------------------------------------------------------------------


def trace_of(cell: RunSpec) -> Trace:
    """What a cell's method does with an image."""
    model = json.dumps(cell.model, sort_keys=True)
    tasks = 1 if cell.train.joint else cell.data.tasks
    return trace(cell.type, model, cell.backbone, counts(cell.data).classes, tasks)


@dataclass
class Work:
    """What cells take; a lower bound if `known` is False."""

    cells: int = 0
    train_images: float = 0.0  # views trained on
    forwards: float = 0.0  # images through a network, counted in each pass
    flops: float = 0.0
    known: bool = True

    def add(self, s: Shape, images: float, calls: Iterable[Call]) -> None:
        """Add the passes of so many images."""
        for call in calls:
            self.forwards += images
            self.flops += images * flops(s, call)

    def __add__(self, other: Work) -> Work:
        return Work(
            self.cells + other.cells,
            self.train_images + other.train_images,
            self.forwards + other.forwards,
            self.flops + other.flops,
            self.known and other.known,
        )


QUERY_CALL = Call(rows=1)


def cell_work(cell: RunSpec) -> Work:
    """A cell's own work, without the query features that it shares with others."""
    each, done, s = counts(cell.data), trace_of(cell), shape(cell.backbone)
    sizes = [each.classes] if cell.train.joint else task_sizes(each.classes, cell.data.tasks)
    work = Work(cells=1, known=each.known)
    aligned = is_aligned(cell, done)
    head = 2 * s.width * each.classes
    for index, size in enumerate(sizes):
        later, seen = min(index, 1), sum(sizes[: index + 1])
        served = each.train * size * cell.train.epochs * done.trains
        work.train_images += served
        work.add(s, served, done.loss[later])
        work.add(s, each.test * seen, done.test[later])
        work.add(s, each.train * size, done.plain[later if index < len(sizes) - 1 else -1])
        if aligned:
            work.add(s, each.train * size, done.test[later])
        work.flops += served * head * (3 if done.needs_images else 2) + each.test * seen * head
        if index and done.needs_images:  # features of earlier tasks, before and after training
            old = min(DRIFT_IMAGES, each.test * (seen - size))
            work.add(s, old, [*done.test[min(index - 1, 1)], *done.test[1]])
    counted = min(COUNTED_IMAGES, each.train * sizes[-1], cell.train.batch_size) * done.trains
    tested = min(COUNTED_IMAGES, each.test * each.classes)
    work.add(s, counted, done.loss[-1])
    work.add(s, tested, done.test[-1])
    if done.needs_query:
        work.add(s, COUNTED_IMAGES * done.trains + COUNTED_IMAGES, [QUERY_CALL])
    return work


def is_aligned(cell: RunSpec, done: Trace) -> bool:
    """True if the cell makes statistics of its classes, for an aligned head."""
    several = not cell.train.joint and cell.data.tasks > 1
    return done.has_head and several and cell.align.covariance != "off"


@dataclass(frozen=True)
class QueryArray:
    """What identifies one array of frozen features. Equal arrays are computed once."""

    data: DataSpec  # the images, with all else at one value
    backbone: BackboneSpec
    precision: str
    threads: int
    view: tuple[object, ...]  # a part, or what a training view depends on


def _query_arrays(cell: RunSpec, done: Trace) -> Iterator[tuple[QueryArray, float]]:
    """The arrays that a cell needs, each with its number of images."""
    each, data, train = counts(cell.data), cell.data, cell.train
    images = replace(data, tasks=1, order="natural", class_order=(), crop_low=1.0, flip=False)
    of_view = functools.partial(QueryArray, images, cell.backbone, train.precision, train.threads)
    yield of_view(("test",)), each.test * each.classes
    if done.plain_queries or is_aligned(cell, done):
        yield of_view(("train",)), each.train * each.classes
    for epoch in range(train.epochs * done.trains):
        view = (cell.seed, epoch, data.crop_low, data.flip)
        yield of_view(view), each.train * each.classes


def shared_work(cells: Iterable[RunSpec]) -> Work:
    """The frozen query features of all cells, each array once."""
    arrays: dict[QueryArray, float] = {}
    work = Work()
    for cell in cells:
        done = trace_of(cell)
        if done.needs_query:
            arrays.update(_query_arrays(cell, done))
            work.known = work.known and counts(cell.data).known
    for array, images in arrays.items():
        work.add(shape(array.backbone), images, [QUERY_CALL])
    return work


def suite_work(cells: list[RunSpec]) -> dict[tuple[str, str], Work]:
    """By benchmark and method; then the shared query features, and the total."""
    rows: dict[tuple[str, str], Work] = {}
    for cell in cells:
        key = (cell.benchmark, cell.method)
        rows[key] = rows.get(key, Work()) + cell_work(cell)
    rows["all", "frozen query features, shared"] = shared_work(cells)
    rows["all", "total"] = functools.reduce(Work.__add__, rows.values())
    return rows


HEADS = ("benchmark", "method", "cells", "training images", "forward passes", "PFLOP")


def table(cells: list[RunSpec], rate: float | None = None, workers: int = 1) -> str:
    """A row per benchmark and method, one for the shared query features, and the total.

    rate: TFLOP/s of a worker; with it the hours are shown too.
    """
    rows = suite_work(cells)
    shown = []
    for (benchmark, method), work in rows.items():
        values = [(work.train_images, ".0f"), (work.forwards, ".0f"), (work.flops / 1e15, ".3f")]
        if rate:
            values.append((work.flops / (rate * 1e12 * 3600 * workers), ".2f"))
        bound = "" if work.known else ">= "
        numbers = [f"{bound}{value:,{style}}" for value, style in values]
        shown.append([benchmark, method, work.cells, *numbers])
    heads = [*HEADS, "hours"] if rate else list(HEADS)
    align = ("left", "left", *["right"] * (len(heads) - 2))
    text = tabulate(shown, heads, tablefmt="github", disable_numparse=True, colalign=align)
    if not rows["all", "total"].known:
        text += (
            "\n>= : images of some dataset are not known before it is there; "
            "they are not counted, the total is a lower bound"
        )
    return text
