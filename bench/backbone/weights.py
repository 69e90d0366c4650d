"""Weights from a file into a ViT: safetensors, the original JAX layout or torch's own format.

Nothing is unpickled. A file of another network is refused in one line that names the difference.
timm alone would resample, leave out or ignore weights.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.backbone.torchvision_guard import ensure_torchvision
from bench.errors import UsageError
from bench.paths import what_it_is

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn  # noqa: E402

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
WRAPPERS = ("teacher", "state_dict_ema", "model_ema", "model", "state_dict", "encoder")
REGISTERS = ("reg_token", "register_tokens")
HEAD_PREFIXES = ("head.", "head_dist.", "fc_norm.", "pre_logits.")  # classifiers, not read
# The patch embedding in the files of timm, CLIP and BEiT-3.
PATCH_SUFFIXES = ("patch_embed.proj.weight", "visual.conv1.weight", "vision_embed.proj.weight")


def read_weights(path: Path, vit: VisionTransformer) -> None:
    """Load a .safetensors, .npz or .pth file into vit. timm resizes the position embedding.

    Raises UsageError naming the file and the keys that do not fit.
    """
    accepted = (".safetensors", ".npz", *TORCH_SUFFIXES)
    if not path.name.lower().endswith(accepted):
        raise UsageError(f"backbone.checkpoint={path}: a {', '.join(accepted)} file is expected")
    if what := what_it_is(path):
        raise UsageError(f"backbone.checkpoint={path}: {what}")
    try:
        if path.name.lower().endswith(".npz"):
            _check_npz(path, vit)
            vit.load_pretrained(str(path))  # the JAX layout; numpy refuses pickles by default
            return
        state = _read_state(path)
        _check_state(path, state, vit)
        state = checkpoint_filter_fn(state, vit)
        state = {k: v.float() for k, v in state.items() if not k.startswith(HEAD_PREFIXES)}
    except UsageError:
        raise
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"backbone.checkpoint={path}: cannot be read: damaged, or it holds more than weights, "
            "and nothing is unpickled here (save its weights alone)"
        ) from error
    except Exception as error:  # each format has exceptions of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"backbone.checkpoint={path}: cannot be read into this backbone ({reason})"
        ) from error
    _check_keys(path, state, vit)
    vit.load_state_dict(state)


def _read_state(path: Path) -> Any:
    if path.name.lower().endswith(".safetensors"):
        from safetensors.torch import load_file

        return _without_prefix(load_file(path))
    # The `args` of DINO and MAE are a Namespace: settings, nothing that runs.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return _unwrapped(torch.load(path, map_location="cpu", weights_only=True))


def _unwrapped(state: Any) -> Any:
    """The weights in a training checkpoint, without the prefixes that wrappers add to all names.

    They are under `teacher` (DINO, iBOT: the network that is evaluated), `model` (MAE),
    `state_dict` or `encoder`. Of weights and their moving average (`_ema`) the average is taken, as
    timm does.
    """
    if not isinstance(state, dict):
        return state
    for wrapper in WRAPPERS:
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    for prefix in ("module.", "backbone."):
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        # Other names beside these are the heads of self-supervised training.
        state = inner or state
    return _without_prefix(state)


def _without_prefix(state: dict[str, Any]) -> dict[str, Any]:
    """The weights below the one prefix under which a ViT stands (`model.` of Lightning)."""
    patch = "patch_embed.proj.weight"
    prefixes = {str(key).removesuffix(patch) for key in state if str(key).endswith(patch)}
    if len(prefixes) != 1 or "" in prefixes:
        return state
    (prefix,) = prefixes
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _check_state(path: Path, state: Any, vit: Any) -> None:
    """Raises UsageError for values that are no weights, and for what timm would resample.

    That is a patch kernel of another size (another network's), and positions of no square image.
    """
    if not isinstance(state, dict):
        raise UsageError(
            f"backbone.checkpoint={path}: weights by their names are expected, "
            f"not a {type(state).__name__}"
        )
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    others = [f"'{k}' ({type(v).__name__})" for k, v in state.items() if k not in tensors]
    if others:
        raise UsageError(
            f"backbone.checkpoint={path}: no weights under {', '.join(others[:3])}; "
            "save the network's alone"
        )
    registers = [key for key in tensors if key.rpartition(".")[2] in REGISTERS]
    found = sum(tensors[key].shape[1] for key in registers if tensors[key].dim() == 3)
    wanted = 0 if getattr(vit, "reg_token", None) is None else vit.reg_token.shape[1]
    _require_equal(path, "registers", found, wanted)
    for key, value in tensors.items():
        if key.endswith(PATCH_SUFFIXES) and value.dim() == 4:
            _require_equal(path, "patch", tuple(value.shape[-2:]), vit.patch_embed.patch_size)
        if key.endswith("pos_embed") and value.dim() == 3 and value.shape != vit.pos_embed.shape:
            counts = (value.shape[1] - extra for extra in {0, 1, vit.num_prefix_tokens})
            if not any(count > 0 and math.isqrt(count) ** 2 == count for count in counts):
                raise UsageError(
                    f"backbone.checkpoint={path}: '{key}' {tuple(value.shape)}: "
                    "positions of no square image"
                )


def _check_keys(path: Path, state: dict[str, torch.Tensor], vit: VisionTransformer) -> None:
    """Raises UsageError unless names and shapes are those of vit, and all weights are finite."""
    own = vit.state_dict()
    differences = {
        "missing": own.keys() - state.keys(),
        "unexpected": state.keys() - own.keys(),
        "of another shape": {
            key for key in own.keys() & state.keys() if own[key].shape != state[key].shape
        },
    }
    named = [f"{kind} {_first_three(keys)}" for kind, keys in differences.items() if keys]
    if named:
        raise UsageError(
            f"backbone.checkpoint={path}: does not fit {type(vit).__name__}: "
            f"keys {'; '.join(named)}"
        )
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise UsageError(f"backbone.checkpoint={path}: holds NaN or infinite weights")


def _first_three(keys: Iterable[str]) -> str:
    """Their number and the first three, in sorted order."""
    keys = sorted(keys)
    return f"{len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"


# --- the JAX layout ---------------------------------------------------------------------------


def _check_npz(path: Path, vit: Any) -> None:
    """Raises UsageError unless the file holds all weights of vit, finite, and no others.

    timm would leave out weights that have no counterpart in the network.
    """
    arrays, prefix = _read_npz(path)
    found = (re.search(r"/encoderblock_(\d+)/", name) for name in arrays)
    blocks = {match[1] for match in found if match}
    if missing := _missing(arrays, blocks):
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(
            f"backbone.checkpoint={path}: does not fit: keys missing {len(missing)} ({names})"
        )
    patch = arrays[f"{prefix}embedding/kernel"].shape[:2]
    # (D, heads, size); in the older generation of the layout with all blocks in front
    query = next(array for name, array in arrays.items() if name.endswith("/query/kernel"))
    _require_equal(path, "patch", patch, vit.patch_embed.patch_size)
    _require_equal(path, "blocks", len(blocks) or len(query), len(vit.blocks))
    _require_equal(path, "width", query.shape[-3], vit.embed_dim)
    _require_equal(path, "heads", query.shape[-2], vit.blocks[0].attn.num_heads)
    # Any other weights without a counterpart, in the network or in the file.
    of_file = sum(array.size for name, array in arrays.items() if "pos" not in name)
    of_vit = sum(value.numel() for name, value in vit.state_dict().items() if name != "pos_embed")
    _require_equal(path, "weights without positions", of_file, of_vit)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UsageError(f"backbone.checkpoint={path}: holds NaN or infinite weights")


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of the network by their names, without its heads, and the prefix of all names."""
    with np.load(path) as file:
        kernel = next((name for name in file.files if name.endswith("embedding/kernel")), None)
        if kernel is None:
            raise UsageError(
                f"backbone.checkpoint={path}: no 'embedding/kernel' in it "
                "(the JAX layout of a ViT is expected)"
            )
        prefix = kernel.removesuffix("embedding/kernel")
        heads = tuple(prefix + head for head in ("head/", "pre_logits/", "MAPHead_0/"))
        names = [n for n in file.files if n.startswith(prefix) and not n.startswith(heads)]
        return {name: file[name] for name in names}, prefix


def _missing(names: Collection[str], blocks: Iterable[str]) -> list[str]:
    """Weights that every ViT in the JAX layout has and that are not among these names.

    They are known by the ends of their names, which both generations of the layout share.
    """
    outside = ("cls", "embedding/bias", "pos_embedding", "encoder_norm/scale", "encoder_norm/bias")
    layers = ("query", "key", "value", "out", "Dense_0", "Dense_1")
    inside = [f"{layer}/{kind}" for layer in layers for kind in ("kernel", "bias")]
    wanted = [("", end) for end in outside]
    for block in [f"encoderblock_{number}/" for number in sorted(blocks, key=int)] or [""]:
        wanted += [(block, end) for end in inside]
    missing = []
    for block, end in wanted:
        if not any(block in name and name.endswith(end) for name in names):
            missing.append(f"{block}.../{end}" if block else end)
    return missing


def _require_equal(path: Path, what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise UsageError(
            f"backbone.checkpoint={path}: another network's: {what} {found} instead of {wanted}"
        )
