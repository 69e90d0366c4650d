"""What a suite costs before anything of it is run: images, forward passes and FLOPs, without data and without weights.

Where a split was prepared its manifest is counted; else what is known of the dataset.

Counts follow the engine: one training step per image and epoch, one pass over the test images of all classes seen after each
task, the passes that measure feature drift and FLOPs, and frozen query features once per (seed, epoch) and once for the
test images, shared by all methods and orders through the cache (taken as empty). What an image costs a method: passes.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass

from tabulate import tabulate

from bench.config.spec import DataSpec, RunSpec
from bench.cost.predicted import Call, Shape, Trace, flops, shape, trace
from bench.data import manifest
from bench.data.catalogue import CATALOGUE
from bench.data.datasets import GLYPH_SETS, HELD_OUT, TEST_IMAGES, TRAIN_IMAGES, VALIDATION_IMAGES
from bench.data.orders import task_sizes
from bench.engine.movement import IMAGES
from bench.errors import UsageError
from bench.paths import find_data

COUNTED = 2  # images on which bench/cost.py counts the FLOPs of a cell's last task
OTHERS = {
    "grocery": (81, 2_640, 2_485),
    "digits": (10, 1_258, 539),
}  # classes, training and test images
GLYPH_CLASSES = 60  # of each embedded benchmark; suites that use the tuning set name their number


# --- images ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """Images of each class, alike for all (an even share where classes differ in size); known=False: some are not counted."""

    classes: int
    train: float
    test: float
    known: bool = True


def counts(data: DataSpec) -> Counts:
    """What a cell's dataset holds: by the manifest of its split where that was prepared, else by what is known of it."""
    if data.name in GLYPH_SETS:
        classes = data.classes or GLYPH_CLASSES
        held = VALIDATION_IMAGES if data.evaluate == "validation" else TEST_IMAGES
        return _limited(data, Counts(classes, TRAIN_IMAGES, held))
    place = (
        data.root if data.name == "folder" else data.name
    )  # by its bare name: what a path leads to is somebody's own
    prepared = _prepared(data.root, data.split) if data.split else None
    found = prepared or OTHERS.get(place) or _known(place, data.split)
    total, train, test = found or (data.classes or 2 * data.tasks, None, None)
    known = train is not None and test is not None
    each = Counts(data.classes or total, (train or 0) / total, (test or 0) / total, known)
    if data.evaluate == "validation":
        kept = each.train - each.train // HELD_OUT
        each = Counts(each.classes, kept, each.train - kept, known)
    return _limited(data, each)


@functools.cache
def _prepared(root: str, split: str) -> tuple[int, int, int] | None:
    """Classes, training and test images by a split's manifest; None where there is none that can be read."""
    try:
        rows = manifest.read(manifest.find(find_data(root), split))
    except UsageError:
        return None
    train = sum(row.part == "train" for row in rows)
    return len({row.label for row in rows}), train, len(rows) - train


def _known(place: str, split: str) -> tuple[int, int | None, int | None] | None:
    """By the catalogue; a split's default is its dataset's first."""
    for known in CATALOGUE[place].splits if place in CATALOGUE else ():
        if split in ("", known.name) and known.classes:
            return known.classes, known.train, known.test
    return None


def _limited(data: DataSpec, each: Counts) -> Counts:
    train = min(each.train, data.train_per_class or each.train)
    return Counts(each.classes, train, min(each.test, data.test_per_class or each.test), each.known)


# --- a cell and a suite ---------------------------------------------------------------------------------------------


def trace_of(cell: RunSpec) -> Trace:
    """What a cell's method does with an image."""
    model = json.dumps(cell.model, sort_keys=True)
    return trace(
        cell.type,
        model,
        cell.backbone,
        counts(cell.data).classes,
        1 if cell.train.joint else cell.data.tasks,
    )


@dataclass
class Work:
    """Image views trained on; images through a network, each pass counted; FLOPs; cells; False where counts are unknown."""

    cells: int = 0
    train_images: float = 0.0
    forwards: float = 0.0
    flops: float = 0.0
    known: bool = True

    def add(self, s: Shape, images: float, calls: Iterable[Call]) -> None:
        for call in calls:
            self.forwards += images
            self.flops += images * flops(s, call)

    def __add__(self, other: Work) -> Work:
        return Work(
            self.cells + other.cells, self.train_images + other.train_images, self.forwards + other.forwards,
            self.flops + other.flops, self.known and other.known,
        )  # fmt: skip


QUERY = Call(rows=1)


def cell_work(cell: RunSpec) -> Work:
    """A cell's own work, without the query features that it shares."""
    each, done, s = counts(cell.data), trace_of(cell), shape(cell.backbone)
    sizes = [each.classes] if cell.train.joint else task_sizes(each.classes, cell.data.tasks)
    work = Work(cells=1, known=each.known)
    head = 2 * s.width * each.classes
    for index, size in enumerate(sizes):
        later, seen = min(index, 1), sum(sizes[: index + 1])
        served = each.train * size * cell.train.epochs * done.trains
        work.train_images += served
        work.add(s, served, done.loss[later])
        work.add(s, each.test * seen, done.test[later])
        work.flops += served * head * (3 if done.needs_images else 2) + each.test * seen * head
        if index and done.needs_images:  # features of earlier tasks, before and after training
            old = min(IMAGES, each.test * (seen - size))
            work.add(s, old, [*done.test[min(index - 1, 1)], *done.test[1]])
    counted = min(COUNTED, each.train * sizes[-1], cell.train.batch_size) * done.trains
    tested = min(COUNTED, each.test * each.classes)
    work.add(s, counted, done.loss[-1])
    work.add(s, tested, done.test[-1])
    if done.needs_query:
        work.add(s, COUNTED * done.trains + COUNTED, [QUERY])
    return work


def shared_work(cells: Iterable[RunSpec]) -> Work:
    """The frozen query features of all cells, each array once."""
    arrays: dict[tuple, float] = {}
    work = Work()
    for cell in cells:
        each, done, data = counts(cell.data), trace_of(cell), cell.data
        if not done.needs_query:
            continue
        images = (data.name, data.root, data.split, data.classes, data.evaluate, data.train_per_class, data.test_per_class,
                  (data.decode, data.crops_of), cell.backbone, cell.train.precision, cell.train.threads)  # fmt: skip
        arrays[(*images, "test")] = each.test * each.classes
        if done.plain_queries:
            arrays[(*images, "train")] = each.train * each.classes
        for epoch in range(cell.train.epochs * done.trains):
            arrays[(*images, cell.seed, epoch, data.crop_low, data.flip)] = (
                each.train * each.classes
            )
        work.known = work.known and each.known
    for key, count in arrays.items():
        work.add(shape(key[8]), count, [QUERY])
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


def table(cells: list[RunSpec], rate: float | None = None, workers: int = 1) -> str:
    """A row per benchmark and method, one for the shared query features, and the total; hours at `rate` TFLOP/s per worker."""
    rows = suite_work(cells)
    shown = []
    for (benchmark, method), work in rows.items():
        values = [(work.train_images, ".0f"), (work.forwards, ".0f"), (work.flops / 1e15, ".3f")]
        if rate:
            values.append((work.flops / (rate * 1e12 * 3600 * workers), ".2f"))
        least = "" if work.known else ">= "
        shown.append(
            [
                benchmark,
                method,
                work.cells,
                *(f"{least}{value:,{style}}" for value, style in values),
            ]
        )
    heads = [
        "benchmark",
        "method",
        "cells",
        "training images",
        "forward passes",
        "PFLOP",
        *(["hours"] if rate else []),
    ]
    text = tabulate(
        shown,
        heads,
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", "left", *["right"] * (len(heads) - 2)),
    )
    if not rows["all", "total"].known:
        text += "\n>= : images of some dataset are not known before it is there; they are not counted, the total is a lower bound"
    return text
