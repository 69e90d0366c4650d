"""What every process forked from the test server has loaded already (see warm.py)."""

from dataclasses import replace

import jinja2  # noqa: F401
import seaborn  # noqa: F401
import torch._dynamo  # noqa: F401  (torch imports it with the first optimiser)

from bench import code
from bench.config.spec import DataSpec
from bench.data import datasets
from bench.data.registry import Loader, Raw
from bench.engine import run  # noqa: F401


def _drawn(raw: Raw) -> Loader:
    return lambda spec, image_size: raw


for name in ("glyphs", "glyphs-r"):
    code.reached(code.ENGINE, name)  # reads and parses the engine's sources
    # Drawn once: a cell of a test takes a few of thousands of images, and drawing them all takes
    # longer than the rest of it.
    source = datasets.SOURCES[name]
    datasets.SOURCES[name] = replace(source, load=_drawn(source.load(DataSpec(name), 0)))
