"""Golden tensors of official code: reading them, and comparing with their tolerance."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.backbone.vit import FrozenViT, load_backbone
from bench.config.spec import BackboneSpec

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Tensor]:
    """The arrays of tests/golden/NAME.npz."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(value) for key, value in file.items()}


def close(ours: Tensor, theirs: Tensor, what: str) -> None:
    """fp32 against fp32, as tests/golden/README.md says."""
    said = functools.partial("{}: {}".format, what)
    torch.testing.assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-5, msg=said)


def tiny_backbone() -> FrozenViT:
    """The frozen network of the files of CAPrompt and VQ-Prompt; their images are what it takes."""
    backbone = load_backbone(
        BackboneSpec(
            name="vit", checkpoint="random", image_size=8, patch=4, width=24, depth=4, heads=2
        )
    )
    weights = {key.replace("__", "."): value for key, value in golden("tiny_backbone").items()}
    backbone.vit.load_state_dict(weights)
    return backbone
