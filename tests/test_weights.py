"""Weights of the network: read safely from any format, and refused where they do not fit."""

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL, random_model
from safetensors.torch import load_file, save_file

from bench.backbone.vit import (
    GLYPH_WEIGHTS,
    build_vit,
    load_backbone,
    weights_digest,
)
from bench.config.spec import BackboneSpec
from bench.errors import UsageError


def test_formats_give_the_same_weights(tmp_path):
    vit = build_vit(SMALL)
    state = vit.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    torch.save(
        {"model": {**state, "head.weight": torch.zeros(5, 24), "head.bias": torch.zeros(5)}},
        tmp_path / "d.pth",
    )
    digests = {
        load_backbone(replace(SMALL, checkpoint=str(tmp_path / f))).sha256
        for f in ("w.safetensors", "w.pth", "d.pth")
    }
    assert digests == {weights_digest(vit)}


def jax_layout(vit):
    """The arrays of a network as Google's .npz files have them."""
    width, heads = vit.embed_dim, vit.blocks[0].attn.num_heads
    arrays = {
        "embedding/kernel": vit.patch_embed.proj.weight.permute(2, 3, 1, 0),
        "embedding/bias": vit.patch_embed.proj.bias,
        "cls": vit.cls_token,
        "Transformer/posembed_input/pos_embedding": vit.pos_embed,
        "Transformer/encoder_norm/scale": vit.norm.weight,
        "Transformer/encoder_norm/bias": vit.norm.bias,
    }
    for i, block in enumerate(vit.blocks):
        at = f"Transformer/encoderblock_{i}/"
        for number, norm in ((0, block.norm1), (2, block.norm2)):
            arrays[f"{at}LayerNorm_{number}/scale"], arrays[f"{at}LayerNorm_{number}/bias"] = (
                norm.weight,
                norm.bias,
            )
        attention = at + "MultiHeadDotProductAttention_1/"
        parts = zip(
            ("query", "key", "value"),
            block.attn.qkv.weight.chunk(3),
            block.attn.qkv.bias.chunk(3),
            strict=True,
        )
        for name, weight, bias in parts:
            arrays[f"{attention}{name}/kernel"] = weight.T.reshape(width, heads, -1)
            arrays[f"{attention}{name}/bias"] = bias.reshape(heads, -1)
        arrays[f"{attention}out/kernel"] = block.attn.proj.weight.T.reshape(heads, -1, width)
        arrays[f"{attention}out/bias"] = block.attn.proj.bias
        for number, layer in ((0, block.mlp.fc1), (1, block.mlp.fc2)):
            arrays[f"{at}MlpBlock_3/Dense_{number}/kernel"] = layer.weight.T
            arrays[f"{at}MlpBlock_3/Dense_{number}/bias"] = layer.bias
    arrays |= {
        "head/kernel": torch.zeros(width, 5),
        "head/bias": torch.zeros(5),
        "pre_logits/bias": torch.zeros(width),
    }
    return {name: value.detach().numpy().copy() for name, value in arrays.items()}


def test_the_original_npz_layout(tmp_path):
    spec = BackboneSpec(name="vit_tiny_patch16_224", image_size=32)
    vit = random_model(spec.name, 32)
    np.savez(tmp_path / "w.npz", **jax_layout(vit))
    assert load_backbone(
        replace(spec, checkpoint=str(tmp_path / "w.npz"))
    ).sha256 == weights_digest(vit)
    larger = load_backbone(replace(spec, image_size=64, checkpoint=str(tmp_path / "w.npz")))
    assert larger.vit.pos_embed.shape == (1, 17, 192)


BLOCK_1 = "Transformer/encoderblock_1"


@pytest.mark.parametrize(
    ("spec", "change", "says"),
    [
        (replace(SMALL, patch=4), {}, r"patch \(8, 8\) instead of \(4, 4\)"),
        (replace(SMALL, depth=1), {}, "blocks 2 instead of 1"),
        (replace(SMALL, depth=3), {}, "blocks 2 instead of 3"),
        (replace(SMALL, width=48), {}, "width 24 instead of 48"),
        (replace(SMALL, heads=3), {}, "heads 2 instead of 3"),
        (
            SMALL,
            {"Transformer/encoder_norm/bias": np.zeros(1, np.float32)},
            "weights without positions",
        ),
        (SMALL, {"cls": np.full((1, 1, 24), np.nan, np.float32)}, "NaN"),
        (
            SMALL,
            {"Transformer/posembed_input/pos_embedding": np.full((1, 5, 24), np.inf, np.float32)},
            "NaN",
        ),
        (SMALL, {"Transformer/encoder_norm/bias": None}, r"keys missing 1 \(encoder_norm/bias"),
        (SMALL, {"cls": None}, r"keys missing 1 \(cls"),
        (
            SMALL,
            {f"{BLOCK_1}/MultiHeadDotProductAttention_1/query/kernel": None},
            r"1 \(encoderblock_1/\.\.\./query/kernel",
        ),
    ],
)
def test_an_npz_of_another_network_is_named(tmp_path, spec, change, says):
    arrays = jax_layout(build_vit(SMALL)) | change
    np.savez(
        tmp_path / "w.npz", **{name: array for name, array in arrays.items() if array is not None}
    )
    with pytest.raises(UsageError, match=says) as said:
        load_backbone(replace(spec, checkpoint=str(tmp_path / "w.npz")))
    assert str(tmp_path / "w.npz") in str(said.value)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("patch", [4, 16])
def test_a_patch_kernel_of_another_size_is_another_network(patch, wrapped, tmp_path):
    """timm would resample it."""
    state = build_vit(SMALL).state_dict()
    torch.save({"model": state} if wrapped else state, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=rf"patch \(8, 8\) instead of \({patch}, {patch}\)"):
        load_backbone(replace(SMALL, patch=patch, checkpoint=str(tmp_path / "w.pth")))


def test_the_embedded_weights_serve_any_image_size():
    """Positions are resized as timm does it; weights that were altered are named at any size."""
    native, larger = load_backbone(BackboneSpec()).vit, load_backbone(BackboneSpec(image_size=64))
    assert larger(torch.randn(1, 3, 64, 64)).shape == (1, 65, 96)
    native.set_input_size(img_size=64)
    torch.testing.assert_close(
        larger.vit.pos_embed, native.pos_embed, rtol=1e-3, atol=1e-3
    )  # the file is fp16


@pytest.mark.parametrize("size", [32, 64])
def test_altered_embedded_weights_are_named(size, tmp_path, monkeypatch):
    file = tmp_path / "vit_glyphs.safetensors"
    save_file({**load_file(GLYPH_WEIGHTS), "norm.bias": torch.zeros(96)}, file)
    file.with_suffix(".json").write_bytes(GLYPH_WEIGHTS.with_suffix(".json").read_bytes())
    monkeypatch.setattr("bench.backbone.vit.GLYPH_WEIGHTS", file)
    with pytest.raises(UsageError, match="altered"):
        load_backbone(BackboneSpec(image_size=size))


def test_positions_are_resized(tmp_path):
    save_file(build_vit(SMALL).state_dict(), tmp_path / "w.safetensors")
    larger = load_backbone(
        replace(SMALL, image_size=32, checkpoint=str(tmp_path / "w.safetensors"))
    )
    assert larger(torch.randn(1, 3, 32, 32)).shape == (1, 17, 24)


LAYOUTS = {
    "MAE": lambda w: {"model": w, "epoch": 3, "args": argparse.Namespace(lr=1, data=None)},
    "state_dict": lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}, "epoch": 3},
    "DINO": lambda w: {
        "student": {"module.backbone.x": torch.zeros(1)},
        "teacher": {
            **{f"backbone.{k}": v for k, v in w.items()},
            "head.mlp.0.bias": torch.zeros(2),
        },
        "args": argparse.Namespace(out_dim=65536),
    },
    "iBOT": lambda w: {
        "state_dict": {f"module.backbone.{k}": v for k, v in w.items()}
        | {"module.head.x": torch.zeros(2)}
    },
    "raw and averaged": lambda w: {"state_dict": _other(w), "state_dict_ema": w},
    "model and average": lambda w: {"model": _other(w), "model_ema": w, "epoch": 3},
    "Lightning": lambda w: {
        "state_dict": {f"model.{k}": v for k, v in w.items()} | {"loss.weight": torch.ones(1)},
        "pytorch-lightning_version": "2.5",
    },
}


def _other(weights):
    return {name: value + 1 for name, value in weights.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoints_of_self_supervised_training_are_unwrapped(layout, tmp_path):
    vit = build_vit(SMALL)
    torch.save(LAYOUTS[layout](vit.state_dict()), tmp_path / "w.pth")
    loaded = load_backbone(replace(SMALL, checkpoint=str(tmp_path / "w.pth")))
    assert loaded.sha256 == weights_digest(vit)


@pytest.mark.parametrize("name", ["w.ckpt", "w.pth.tar", "w.PTH", "w.SAFETENSORS"])
def test_the_usual_endings_are_read(name, tmp_path):
    vit = build_vit(SMALL)
    save = save_file if "SAFE" in name else torch.save
    save(vit.state_dict(), tmp_path / name)
    loaded = load_backbone(replace(SMALL, checkpoint=str(tmp_path / name)))
    assert loaded.sha256 == weights_digest(vit)


def test_registers_of_one_side_alone_are_named(tmp_path):
    save_file(build_vit(SMALL).state_dict(), tmp_path / "plain.safetensors")
    with_registers = BackboneSpec(name="vit_small_patch14_reg4_dinov2", image_size=56)
    plain = replace(with_registers, checkpoint=str(tmp_path / "plain.safetensors"))
    with pytest.raises(UsageError, match="another network's: registers 0 instead of 4"):
        load_backbone(plain)
    state = build_vit(SMALL).state_dict() | {"reg_token": torch.zeros(1, 4, 24)}
    save_file(state, tmp_path / "reg.safetensors")
    with pytest.raises(UsageError, match="registers 4 instead of 0"):
        load_backbone(replace(SMALL, checkpoint=str(tmp_path / "reg.safetensors")))


@pytest.mark.parametrize("old", ["in21k", "dino", "sam"])
def test_timms_old_names_are_told_todays(old):
    with pytest.raises(UsageError, match=rf"timm's old name, now vit_base_patch16_224\..*{old}"):
        build_vit(BackboneSpec(name=f"vit_base_patch16_224_{old}", image_size=0))


def test_a_checkpoint_that_holds_objects_says_so(tmp_path):
    torch.save(
        {"model": build_vit(SMALL).state_dict(), "args": SimpleNamespace(lr=1)}, tmp_path / "w.pth"
    )
    with pytest.raises(
        UsageError,
        match=r"w\.pth: cannot be read: .* holds more than weights, and nothing is unpickled",
    ):
        load_backbone(replace(SMALL, checkpoint=str(tmp_path / "w.pth")))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"student": {"pos_embed": torch.zeros(1, 5, 24)}}, r"no weights under 'student' \(dict\)"),
        ([torch.zeros(2)], "weights by their names are expected, not a list"),
        (
            {"pos_embed": torch.zeros(1, 16 + 7, 24)},
            r"'pos_embed' \(1, 23, 24\): positions of no square image",
        ),
    ],
)
def test_what_is_no_checkpoint_of_a_vit_is_named(content, says, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=rf"w\.pth: {says}"):
        load_backbone(replace(SMALL, checkpoint=str(tmp_path / "w.pth")))


def test_weights_are_fetched_by_their_full_tag_only():
    """The same plain name has meant different weights in different versions of timm."""
    with pytest.raises(
        UsageError, match=r"which weights\? Give the full tag .*vit_base_patch16_224\.augreg_in21k,"
    ):
        load_backbone(BackboneSpec(name="vit_base_patch16_224", image_size=0))


class _Payload:
    """What a malicious pickle does when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_a_malicious_checkpoint_does_not_run(tmp_path):
    torch.save({"pos_embed": _Payload(tmp_path / "ran")}, tmp_path / "w.pth")
    np.savez(
        tmp_path / "w.npz",
        a=np.array([_Payload(tmp_path / "ran")], dtype=object),
        allow_pickle=True,
    )
    for name in ("w.pth", "w.npz"):
        with pytest.raises(UsageError, match=name):
            load_backbone(replace(SMALL, checkpoint=str(tmp_path / name)))
    assert not (tmp_path / "ran").exists()


def broken_state(change):
    state = {k: v.clone() for k, v in build_vit(SMALL).state_dict().items()}
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("blocks.1.norm1.weight"), "missing 1 .blocks.1.norm1.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected 1 .extra"),
        (lambda s: s.update({"norm.bias": torch.zeros(7)}), "of another shape 1 .norm.bias"),
        (lambda s: s["norm.bias"].fill_(float("nan")), "NaN"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, says):
    save_file(broken_state(change), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=says):
        load_backbone(replace(SMALL, checkpoint=str(tmp_path / "w.safetensors")))


def test_other_mistakes_are_named(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"not weights")
    (tmp_path / "w.txt").write_text("")
    for spec, says in (
        (replace(SMALL, checkpoint=str(tmp_path / "w.safetensors")), "cannot be read"),
        (replace(SMALL, checkpoint=str(tmp_path / "w.txt")), "safetensors, .npz"),
        (replace(SMALL, checkpoint="nowhere.pth"), "not found"),
        (replace(SMALL, checkpoint=str(tmp_path)), "not a file"),
        (replace(SMALL, checkpoint=""), "needs backbone.checkpoint"),
        (replace(SMALL, image_size=17), "multiple of patch"),
        (BackboneSpec(name="vit_glyph"), "did you mean 'vit_glyphs'"),
        (BackboneSpec(name="resnet18", image_size=0), "not a plain ViT"),
        (BackboneSpec(normalise="timm"), "states no mean"),
    ):
        with pytest.raises(UsageError, match=says):
            load_backbone(spec)


def test_the_embedded_weights_are_the_recorded_ones():
    import json

    frozen = load_backbone(BackboneSpec())
    recipe = json.loads(GLYPH_WEIGHTS.with_suffix(".json").read_text())
    assert frozen.sha256 == recipe["weights_sha256"]
    assert GLYPH_WEIGHTS.stat().st_size < 3_000_000
    assert frozen.depth == 12
