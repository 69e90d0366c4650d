"""Hashing and decoding of many files: both let go of the interpreter lock, so threads are enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from bench import stopping

Item = TypeVar("Item")
Result = TypeVar("Result")
THREADS = 8  # at most: a disk gives no more to further ones


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], what: str) -> list[Result]:
    """work of each item, in order, with a progress bar of that name (none for ""). What is left is dropped on an error."""
    pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
    results = []
    try:
        for result in tqdm(
            pool.map(work, items), what, len(items), unit="file", disable=None if what else True
        ):
            stopping.check()
            results.append(result)
    finally:
        pool.shutdown(cancel_futures=True)
    return results
