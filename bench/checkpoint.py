"""Checkpoints after each finished task: the method's state and the counts so far, whole or not at all."""

from __future__ import annotations

import io
import json
from typing import Any

import torch

from bench.config.spec import RunSpec
from bench.method import Method
from bench.store.files import sha256_of, write_bytes, write_text
from bench.store.rundir import RunDir

FORMAT = 2


def save_checkpoint(run: RunDir, spec: RunSpec, method: Method, rest: dict[str, Any]) -> None:
    """State after a finished task, with its digest beside it. rest must be plain JSON values."""
    content = {"format": FORMAT, "spec_sha": spec.sha, "method": method.state_dict(), "rest": json.dumps(rest)}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(run.checkpoint, buffer.getvalue())
    write_text(run.checkpoint.with_suffix(".sha256"), sha256_of(run.checkpoint) + "\n")


def load_checkpoint(run: RunDir, spec: RunSpec, method: Method) -> dict[str, Any] | None:
    """Restore the method and return rest, or None where there is no intact checkpoint of this very spec.

    Tensors go to where the method's own are; no pickle is executed.
    """
    path = run.checkpoint
    if not path.exists():
        return None
    fresh = {key: value.clone() for key, value in method.state_dict().items()}
    try:
        if sha256_of(path) != path.with_suffix(".sha256").read_text().strip():
            raise ValueError("its digest differs")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT or content["spec_sha"] != spec.sha:
            raise ValueError("it belongs to another spec or format")
        method.load_state_dict(content["method"])
        return json.loads(content["rest"])
    except Exception as error:  # whatever is wrong with it, the cell can be trained again from its start
        method.load_state_dict(fresh)  # a state that does not fit was copied as far as it did
        run.log(f"checkpoint not used: {error}; starting from task 1")
        return None
