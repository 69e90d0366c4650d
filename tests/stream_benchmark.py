"""Whole photographs a second that the host cuts for a GPU, against threads (bench/data/ahead.py).

    python tests/stream_benchmark.py

Images of random pixels, 224 to 299 on a side, in batches of 128; the best of five passes. With
steps: after each batch the host waits as for a GPU, as long as a batch takes to be cut.
"""

import time

import numpy as np

from bench.data.ahead import ahead
from bench.data.views import RaggedImages, training_views
from bench.hardware import cores

IMAGES, BATCH, PASSES = 1024, 128, 5


def main() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(224, 300, (IMAGES, 2))
    starts = np.cumsum([0, *(3 * sizes.prod(1))])
    pixels = random.integers(0, 256, starts[-1], dtype=np.uint8)
    images = RaggedImages(pixels, sizes, starts[:-1])

    def cut(rows: np.ndarray) -> list:
        views = training_views(1, rows, 0, sizes[rows], 0.08, True)
        return [images.cut(rows[group], views[group]) for group in views.similar_sizes()]

    batches = [np.arange(start, start + BATCH) for start in range(0, IMAGES, BATCH)]

    def seconds(threads: int, step: float) -> float:
        start = time.perf_counter()
        for _ in ahead(cut, batches, threads):
            time.sleep(step)
        return time.perf_counter() - start

    print(f"{cores()} cores\nthreads  images a second  with steps")
    alone = min(seconds(0, 0.0) for _ in range(PASSES))
    for threads in (0, 1, 2, 4):
        best = [
            min(seconds(threads, step) for _ in range(PASSES)) for step in (0, alone / len(batches))
        ]
        print(f"{threads:7}  {IMAGES / best[0]:15,.0f}  {IMAGES / best[1]:10,.0f}")


if __name__ == "__main__":
    main()
