"""Threads for hashing and decoding many files: both release the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from bench import stopping
from bench.hardware import cores

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_THREADS = 8  # more threads read no faster from a disk


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], what: str) -> list[Result]:
    """work(item) for each item, in order. After an error, items that have not begun are dropped.

    what: the name of the progress bar; "" = no bar.
    """
    pool = ThreadPoolExecutor(min(MAX_THREADS, cores()))
    disable = None if what else True  # None: no bar where stderr is not a terminal
    results = []
    try:
        for result in tqdm(pool.map(work, items), what, len(items), unit="file", disable=disable):
            stopping.check()
            results.append(result)
    finally:
        pool.shutdown(cancel_futures=True)
    return results
