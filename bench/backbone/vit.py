"""One frozen timm ViT for every method, with prompts inserted from outside: no forked backbone.

Prompts enter in two ways. *Prefix*: key and value rows before a layer's own keys and values, after
the qkv projection, K' = [P^K; K], V' = [P^V; V] (CODA-Prompt models/vit.py::Attention.forward,
DualPrompt's prefix tuning). *Tokens*: rows before [cls, patches], after the position embedding
(L2P, google-research/l2p).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.backbone.torchvision_guard import ensure_torchvision
from bench.backbone.weights import read_weights
from bench.config.spec import BackboneSpec
from bench.errors import UsageError
from bench.paths import find_pretrained, find_weights, hub_offline, not_cached

ensure_torchvision()
import timm  # noqa: E402  (needs the guard)
from timm.models._registry import get_deprecated_models  # noqa: E402
from timm.models.vision_transformer import Block, VisionTransformer  # noqa: E402

GLYPH_WEIGHTS = Path(__file__).parent.parent / "assets" / "vit_glyphs.safetensors"


def build_vit(spec: BackboneSpec) -> VisionTransformer:
    """The network of a spec, without weights.

    Raises UsageError for names and sizes that do not exist.
    """
    if spec.name == "vit_glyphs":
        vit = _plain_vit(spec.image_size or 32, patch=8, width=96, depth=12, heads=3)
    elif spec.name == "vit":  # any size, from the configuration
        if spec.width % spec.heads:
            raise UsageError(
                f"backbone.width={spec.width}: a multiple of backbone.heads={spec.heads} "
                "is expected"
            )
        vit = _plain_vit(spec.image_size, spec.patch, spec.width, spec.depth, spec.heads)
    else:
        vit = _timm_vit(spec, pretrained=False)
    patch, size = vit.patch_embed.patch_size[0], vit.patch_embed.img_size[0]
    if size < patch or size % patch:
        raise UsageError(f"backbone.image_size={size}: a multiple of patch {patch} is expected")
    return vit


def _plain_vit(size: int, patch: int, width: int, depth: int, heads: int) -> VisionTransformer:
    return VisionTransformer(
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=0,
    )


def _timm_vit(spec: BackboneSpec, pretrained: bool) -> VisionTransformer:
    """A timm model by its full tag, without head. Raises UsageError unless it is a plain ViT."""
    if not timm.is_model(spec.name):
        raise UsageError.unknown(
            "backbone.name", spec.name, ["vit_glyphs", "vit", *timm.list_models("*vit*")]
        )
    old_names = get_deprecated_models()
    if spec.name in old_names:
        raise UsageError(
            f"backbone.name={spec.name}: timm's old name, "
            + (f"now {old_names[spec.name]}" if old_names[spec.name] else "without a successor")
        )
    if not timm.model_entrypoint(spec.name).__module__.endswith(("vision_transformer", "deit")):
        raise UsageError(
            f"backbone.name={spec.name}: not a plain ViT (timm's vision_transformer or deit)"
        )
    options: dict[str, Any] = {"img_size": spec.image_size} if spec.image_size else {}
    file = pretrained_file(spec.name) if pretrained else None
    if file is not None:  # else timm would ask the hub whether the file is the newest
        # custom_load is for .npz files; this file is none.
        options["pretrained_cfg_overlay"] = {"file": str(file), "custom_load": False}
    try:
        vit: Any = timm.create_model(
            spec.name, pretrained=pretrained, num_classes=0, global_pool="token", **options
        )
    except Exception as error:  # timm, the hub and the cache raise many types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "; give backbone.checkpoint=FILE" if pretrained else ""
        raise UsageError(
            f"backbone.name={spec.name} image_size={spec.image_size}: {reason}{hint}"
        ) from error
    plain = isinstance(vit, VisionTransformer) and all(type(block) is Block for block in vit.blocks)
    if not plain or vit.cls_token is None:
        raise UsageError(
            f"backbone.name={spec.name}: not a plain ViT with a class token and timm Block layers"
        )
    return vit


def pretrained_file(tag: str) -> Path | None:
    """The file in Hugging Face's cache with the weights of a full timm tag.

    None: timm has to fetch them, or it does not know the tag. Raises UsageError if they are not in
    the cache and the network is off.
    """
    config = timm.models.get_pretrained_cfg(tag) if timm.models.is_model_pretrained(tag) else None
    if config is None or not config.hf_hub_id:
        return None
    file = find_pretrained(config.hf_hub_id, config.hf_hub_filename)
    if file is None and hub_offline():
        raise not_cached(tag, config.hf_hub_id, config.hf_hub_filename)
    return file


def attend(
    attn: Any, x: Tensor, prefix: Tensor | None, fused: bool, rows: int | None = None
) -> Tensor:
    """A timm Attention with optional prefix keys and values.

    x: (B, T, D). prefix: (2, P, D) for the batch or (B, 2, P, D) per sample, keys first.
    fused: use torch's fused kernel. rows: the number of tokens, from the first, whose outputs are
    computed; None = all. Returns (B, rows, D).
    """
    batch, length, _ = x.shape
    heads, size = attn.num_heads, attn.head_dim
    qkv = attn.qkv(x).reshape(batch, length, 3, heads, size).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    q, k = attn.q_norm(q[:, :, :rows]), attn.k_norm(k)
    if prefix is not None:
        prefix = prefix.to(k.dtype)
        if prefix.dim() == 3:
            prefix = prefix.unsqueeze(0).expand(batch, -1, -1, -1)
        # (B, H, P, size) each
        pk, pv = prefix.unflatten(-1, (heads, size)).transpose(2, 3).unbind(1)
        k, v = torch.cat([pk, k], dim=2), torch.cat([pv, v], dim=2)
    if fused:
        out = nn.functional.scaled_dot_product_attention(q, k, v, scale=attn.scale)
    else:  # on a CPU the fused kernel saves 3% of a step in fp32, and a step in bf16 gets slower
        out = ((q * attn.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    out = attn.norm(out.transpose(1, 2).reshape(batch, -1, attn.attn_dim))
    if attn.gate is not None:
        out = out * attn.gate(x[:, :rows]).sigmoid()
    return attn.proj(out)


def run_block(
    block: Any, x: Tensor, prefix: Tensor | None, fused: bool, rows: int | None = None
) -> Tensor:
    """One pre-norm transformer block, (B, T, D) to (B, rows, D)."""
    x = x[:, :rows] + block.ls1(attend(block.attn, block.norm1(x), prefix, fused, rows))
    return x + block.ls2(block.mlp(block.norm2(x)))


def run_vit(
    vit: Any,
    images: Tensor,
    prefix: Mapping[int, Tensor] | None = None,
    tokens: Tensor | None = None,
    precision: str = "fp32",
    rows: int | None = None,
) -> Tensor:
    """Token features after the final norm.

    images: (B, 3, H, W) float. prefix: layer -> (2, P, D) or (B, 2, P, D). tokens: (B, P, D).
    rows: how many features to return, from the first; the last block then computes no others.
    Returns (B, P + 1 + registers + patches, D) float32: tokens, the class token, the rest. With
    precision 'bf16' the network runs under autocast; inputs, outputs, prompts and heads stay fp32.
    """
    prefix = prefix or {}
    last = len(vit.blocks) - 1
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        if tokens is not None:
            x = torch.cat([tokens.to(x.dtype), x], dim=1)
        for layer, block in enumerate(vit.blocks):
            x = run_block(block, x, prefix.get(layer), x.is_cuda, rows if layer == last else None)
        return vit.norm(x).float()


def pretrained_config(vit: nn.Module) -> dict:
    """What timm states of a model's weights (mean, std, ...); empty for other networks."""
    return getattr(vit, "pretrained_cfg", None) or {}


class FrozenViT(nn.Module):
    """A pretrained ViT whose weights never change and never have a gradient.

    Attributes: width D, depth, heads, image_size (pixels), sha256 (of the loaded weights: names and
    fp32 bytes).
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(self, vit: Any, normalise: str = "zero_one", precision: str = "fp32") -> None:
        super().__init__()
        self.precision = precision
        self.vit = vit.eval().requires_grad_(False)
        self.width, self.depth = vit.embed_dim, len(vit.blocks)
        self.heads = vit.blocks[0].attn.num_heads
        self.image_size = vit.patch_embed.img_size[0]
        config = pretrained_config(vit)
        plain = normalise == "zero_one"
        mean = (0.0,) * 3 if plain else config["mean"]
        std = (1.0,) * 3 if plain else config["std"]
        # One multiply-add from uint8: (x / 255 - mean) / std
        scale, shift = 1 / (255 * torch.tensor(std)), -torch.tensor(mean) / torch.tensor(std)
        self.register_buffer("_scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_shift", shift.view(1, 3, 1, 1), persistent=False)
        self.sha256 = weights_digest(vit)
        # Autocast would cast the frozen weights again in every pass; the twin is cast once. It is
        # in a list, so that torch does not take it for a submodule.
        self._used = [bf16_twin(vit) if precision == "bf16" else vit]

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenViT:
        """torch calls this to move a module: the twin moves as well."""
        super()._apply(fn, recurse)
        if self._used[0] is not self.vit:
            self._used = [self._used[0]._apply(fn)]
        return self

    def train(self, mode: bool = True) -> FrozenViT:
        """The network stays in evaluation mode: a frozen network has no training mode."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return self._scale.device

    @property
    def network(self) -> Any:
        """The ViT that forward runs."""
        return self._used[0]

    def normalise(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 to the network's input (B, 3, H, W) float, as the spec normalises."""
        batch, height, width, colours = images.shape
        # Line by line: vectors of three colours would be slow.
        lines = images.reshape(batch, height, width * colours).float()
        lines = lines.mul_(self._scale.flatten().repeat(width))
        lines = lines.add_(self._shift.flatten().repeat(width))
        return lines.view(images.shape).permute(0, 3, 1, 2)

    def forward(
        self,
        images: Tensor,
        prefix: Mapping[int, Tensor] | None = None,
        tokens: Tensor | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """run_vit with the frozen weights."""
        return run_vit(self.network, images, prefix, tokens, self.precision, rows)

    def cls(self, images: Tensor, prefix: Mapping[int, Tensor] | None = None) -> Tensor:
        """The class token after the final norm, (B, D) float32; without prefix the query q(x)."""
        return self(images, prefix, rows=1)[:, 0]


def bf16_twin(vit: Any) -> Any:
    """A copy with bf16 matrices, as autocast makes them. Norms and embeddings stay fp32."""
    twin = copy.deepcopy(vit)
    for module in twin.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(torch.bfloat16)
    return twin


def weights_digest(vit: nn.Module) -> str:
    """sha256 over parameter names and their fp32 bytes, sorted: equal for all file formats."""
    digest = hashlib.sha256()
    for name, value in sorted(vit.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_glyph_weights(spec: BackboneSpec) -> None:
    """Raises UsageError if the file's weights do not have the digest of their recipe."""
    # Read at the file's own image size: at another size its positions would be resized.
    own = build_vit(replace(spec, image_size=0))
    read_weights(GLYPH_WEIGHTS, own)
    try:
        recipe = json.loads(GLYPH_WEIGHTS.with_suffix(".json").read_text())
        intact = weights_digest(own) == recipe["weights_sha256"]
    except (OSError, ValueError, KeyError):
        intact = False
    if not intact:
        raise UsageError(
            f"{GLYPH_WEIGHTS}: altered (its recipe beside it holds another digest): restore it"
        )


def _require_tag(name: str) -> None:
    """Raises UsageError for a name without a tag: timm has changed which weights it fetches."""
    tags = timm.list_models(f"{name}.*", pretrained=True)
    if tags:
        raise UsageError(
            f"backbone.name={name}: which weights? Give the full tag ({', '.join(tags)}) "
            "or backbone.checkpoint=FILE"
        )


def load_backbone(spec: BackboneSpec, precision: str = "fp32") -> FrozenViT:
    """Build a spec's backbone with its weights. Raises UsageError with what is wrong and where."""
    vit = build_vit(spec)
    if spec.checkpoint == "random":  # repeatable; for tests and bench.speed, never for a result
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for parameter in vit.parameters():
                nn.init.trunc_normal_(parameter, std=0.02)
    elif spec.checkpoint:
        read_weights(find_weights(spec.checkpoint), vit)
    elif spec.name == "vit_glyphs":
        _check_glyph_weights(spec)
        read_weights(GLYPH_WEIGHTS, vit)
    elif spec.name == "vit":
        raise UsageError(
            "backbone.name=vit needs backbone.checkpoint=FILE (or 'random', for tests)"
        )
    else:
        _require_tag(spec.name)
        vit = _timm_vit(spec, pretrained=True)
    if spec.normalise == "timm" and not pretrained_config(vit).get("mean"):
        raise UsageError(
            f"backbone.normalise=timm: timm states no mean and std for {spec.name}; use zero_one"
        )
    return FrozenViT(vit, spec.normalise, precision)
