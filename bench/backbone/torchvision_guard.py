"""Make `import torchvision` (hence `import timm`) work beside a torchvision built for other hardware.

A CPU-built torch with the registry's CUDA-built torchvision fails on import with "operator torchvision::nms does
not exist", because the compiled operators do not load. Nothing here uses them: declaring their signatures is
enough for the import. A matched installation never gets that far.
"""

from __future__ import annotations

import sys

import torch

_declared: torch.library.Library | None = None  # kept alive: the declarations go with the object


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
