"""Make `import torchvision` (and so `import timm`) work with a torchvision for other hardware.

With a CPU build of torch, the registry's CUDA build of torchvision fails on import: "operator
torchvision::nms does not exist". Its compiled operators do not load. Nothing here uses them, so it
is enough to declare their signatures. With a matching torchvision nothing is declared.
"""

from __future__ import annotations

import sys

import torch

_declared: torch.library.Library | None = None  # kept: the declarations end with the object


def ensure_torchvision() -> None:
    """Import torchvision, declaring its two import-time operators only where they are missing."""
    global _declared
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _declared is not None:
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declared = torch.library.Library("torchvision", "DEF")
        _declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401


ensure_torchvision()
