"""What every process forked from the test server has loaded already (see warm.py)."""

import jinja2  # noqa: F401
import seaborn  # noqa: F401
import torch._dynamo  # noqa: F401  (torch imports it with the first optimiser)

from bench import code
from bench.engine import run  # noqa: F401

for dataset in ("glyphs", "glyphs-r"):
    code.reached(code.ENGINE, dataset)  # reads and parses the engine's sources
