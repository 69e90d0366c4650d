"""The host's work in threads, ahead of the step that needs it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(work: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """work(item) of each item, in their order; so many of them are made before they are asked for,
    each in a thread. threads=0: each is made when it is asked for.

    What `work` raises is raised where its result would stand. An iterator that is left ends its
    threads.
    """
    if not threads:
        yield from map(work, items)
        return
    left = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        ready = deque(pool.submit(work, item) for item in itertools.islice(left, threads))
        while ready:
            made = ready.popleft().result()
            ready.extend(pool.submit(work, item) for item in itertools.islice(left, 1))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
