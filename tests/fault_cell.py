"""What the fault tests run in processes of their own: one cell, with faults on demand from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from bench import engine, faults
from bench.config.spec import RunSpec, UsageError


def run(spec: RunSpec, results: Path, **environment: str) -> None:
    """Exit code 0: done. 3: another status. 4: refused or the disk failed, with nothing invented."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    faults.restart()
    try:
        state = engine.run_cell(spec, results)
    except (UsageError, OSError):
        raise SystemExit(4) from None
    raise SystemExit(0 if state["status"] == "done" else 3)
