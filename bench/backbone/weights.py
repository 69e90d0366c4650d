"""Weights from a file into a ViT: safetensors, the original JAX layout, torch's own format; nothing is unpickled.

Whatever is another network's is refused in one line that names what differs: timm alone would resample, leave out or ignore it.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.backbone.torchvision_guard import ensure_torchvision
from bench.errors import UsageError

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn  # noqa: E402  (needs the guard)

HEAD_KEYS = (
    "head.",
    "head_dist.",
    "fc_norm.",
    "pre_logits.",
)  # a classifier is not part of the backbone
PATCH_KEYS = (
    "patch_embed.proj.weight",
    "visual.conv1.weight",
    "vision_embed.proj.weight",
)  # timm's, CLIP's, BEiT-3's


def read_weights(path: Path, vit: VisionTransformer) -> None:
    """Load a .safetensors, .npz or .pth file into vit, position embedding resized as timm does; nothing is unpickled.

    Raises UsageError naming the file and the keys that do not fit.
    """
    try:
        if path.suffix == ".npz":
            _check_npz(path, vit)
            vit.load_pretrained(
                str(path)
            )  # the original JAX layout; numpy refuses pickles by default
            return
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        elif path.suffix in (".pth", ".pt", ".bin"):
            with torch.serialization.safe_globals(
                [argparse.Namespace]
            ):  # DINO's and MAE's `args`: settings, nothing that runs
                state = _unwrapped(torch.load(path, map_location="cpu", weights_only=True))
        else:
            raise UsageError(
                f"backbone.checkpoint={path}: a .safetensors, .npz, .pth, .pt or .bin file is expected"
            )
        _check_state(path, state, vit)
        state = checkpoint_filter_fn(state, vit)
        state = {
            key: value.float() for key, value in state.items() if not key.startswith(HEAD_KEYS)
        }
    except UsageError:
        raise
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"backbone.checkpoint={path}: cannot be read: damaged, or it holds more than weights, and nothing is unpickled "
            "here (save its weights alone)"
        ) from error
    except (
        Exception
    ) as error:  # each format has its own exceptions; the reader needs the file and the reason
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"backbone.checkpoint={path}: cannot be read into this backbone ({reason})"
        ) from error
    own = vit.state_dict()
    missing = sorted(own.keys() - state.keys())
    foreign = sorted(state.keys() - own.keys())
    wrong = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or foreign or wrong:
        parts = [
            f"{label} {len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for label, keys in (
                ("missing", missing),
                ("unexpected", foreign),
                ("of another shape", sorted(wrong)),
            )
            if keys
        ]
        raise UsageError(
            f"backbone.checkpoint={path}: does not fit {type(vit).__name__}: keys {'; '.join(parts)}"
        )
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise UsageError(f"backbone.checkpoint={path}: holds NaN or infinite weights")
    vit.load_state_dict(state)


def _unwrapped(state: Any) -> Any:
    """The weights in a training checkpoint: under `teacher` (DINO, iBOT: the network that is evaluated), `model` (MAE),
    `state_dict` or `encoder`, without the prefixes that wrappers put before every name."""
    if not isinstance(state, dict):
        return state
    for wrapper in ("teacher", "model", "state_dict", "encoder"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    for prefix in ("module.", "backbone."):
        if any(
            key.startswith(prefix) for key in state
        ):  # beside it: the heads of self-supervised training
            state = {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix)
            }
    return state


def _check_state(path: Path, state: Any, vit: Any) -> None:
    """What timm would resample or trip over: no weights, a patch kernel of another size (another network's), odd positions."""
    if not isinstance(state, dict):
        raise UsageError(
            f"backbone.checkpoint={path}: weights by their names are expected, not a {type(state).__name__}"
        )
    if others := [
        f"'{key}' ({type(value).__name__})"
        for key, value in state.items()
        if not isinstance(value, torch.Tensor)
    ]:
        raise UsageError(
            f"backbone.checkpoint={path}: no weights under {', '.join(others[:3])}; save the network's alone"
        )
    for key, value in state.items():
        if key.endswith(PATCH_KEYS) and value.dim() == 4:
            _same(path, "patch", tuple(value.shape[-2:]), vit.patch_embed.patch_size)
        if key.endswith("pos_embed") and value.dim() == 3 and value.shape != vit.pos_embed.shape:
            grids = (value.shape[1] - extra for extra in {0, 1, vit.num_prefix_tokens})
            if not any(grid > 0 and math.isqrt(grid) ** 2 == grid for grid in grids):
                raise UsageError(
                    f"backbone.checkpoint={path}: '{key}' {tuple(value.shape)}: positions of no square image"
                )


def _check_npz(path: Path, vit: Any) -> None:
    """The same for the original JAX layout, where timm also leaves out what has no place in the network."""
    with np.load(path) as file:
        kernel = next((name for name in file.files if name.endswith("embedding/kernel")), None)
        if kernel is None:
            raise UsageError(
                f"backbone.checkpoint={path}: no 'embedding/kernel' in it (the JAX layout of a ViT is expected)"
            )
        prefix = kernel.removesuffix("embedding/kernel")
        unread = tuple(prefix + part for part in ("head/", "pre_logits/", "MAPHead_0/"))
        arrays = {
            name: file[name]
            for name in file.files
            if name.startswith(prefix) and not name.startswith(unread)
        }
    numbered = {found[1] for name in arrays if (found := re.search(r"/encoderblock_(\d+)/", name))}
    if lacking := _lacking(arrays, numbered):
        named = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        raise UsageError(
            f"backbone.checkpoint={path}: does not fit: keys missing {len(lacking)} ({named})"
        )
    query = next(
        array for name, array in arrays.items() if name.endswith("/query/kernel")
    )  # (D, heads, size), blocks in front
    _same(path, "patch", arrays[kernel].shape[:2], vit.patch_embed.patch_size)
    _same(path, "blocks", len(numbered) or len(query), len(vit.blocks))
    _same(path, "width", query.shape[-3], vit.embed_dim)
    _same(path, "heads", query.shape[-2], vit.blocks[0].attn.num_heads)
    # whatever else has no place in the network, or no counterpart in the file
    of_file = sum(array.size for name, array in arrays.items() if "pos" not in name)
    of_vit = sum(value.numel() for name, value in vit.state_dict().items() if name != "pos_embed")
    _same(path, "weights without positions", of_file, of_vit)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UsageError(f"backbone.checkpoint={path}: holds NaN or infinite weights")


def _lacking(names: Iterable[str], numbered: Iterable[str]) -> list[str]:
    """What no ViT in the JAX layout is without, by the ends of names that the layout's two generations share."""
    whole = ("cls", "embedding/bias", "pos_embedding", "encoder_norm/scale", "encoder_norm/bias")
    layers = ("query", "key", "value", "out", "Dense_0", "Dense_1")
    ends = [f"{layer}/{kind}" for layer in layers for kind in ("kernel", "bias")]
    wanted = [("", end) for end in whole]
    wanted += [
        (block, end)
        for block in [f"encoderblock_{n}/" for n in sorted(numbered, key=int)] or [""]
        for end in ends
    ]
    return [f"{block}.../{end}" if block else end for block, end in wanted
            if not any(block in name and name.endswith(end) for name in names)]  # fmt: skip


def _same(path: Path, what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise UsageError(
            f"backbone.checkpoint={path}: another network's: {what} {found} instead of {wanted}"
        )
