"""The frozen ViT: equal to timm's own forward, and prompts where they belong."""

import pytest
import torch
from conftest import random_model

from bench.backbone.vit import (
    FrozenViT,
    attend,
    build_vit,
    load_backbone,
    run_vit,
    weights_digest,
)
from bench.config.spec import BackboneSpec
from bench.hardware import resolve_precision


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 64),  # plain
        ("vit_small_patch14_dinov2", 56),  # LayerScale, patch 14
        ("vit_small_patch14_reg4_dinov2", 56),  # register tokens, no class position
        ("vit_tiny_patch16_224.augreg_in21k", 32),  # a full tag
        ("deit3_small_patch16_224", 32),  # position embedding without class token, LayerScale
        ("vit_base_patch16_clip_224", 32),  # norm before the blocks
    ],
)
def test_without_prompts_it_is_timms_forward(name, size):
    vit = random_model(name, size)
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        theirs = vit.forward_features(images)
        ours = run_vit(vit, images)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_qk_norm_is_respected():
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0, qk_norm=True
    )
    vit.eval()
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(
        run_vit(vit, images), vit.forward_features(images), rtol=1e-4, atol=1e-5
    )


def test_prefix_is_attended_like_the_definition(small_vit):
    attn = small_vit.vit.blocks[0].attn
    x, prefix = torch.randn(3, 5, 24), torch.randn(3, 2, 4, 24)
    qkv = attn.qkv(x).view(3, 5, 3, 2, 12)
    for sample in range(3):
        for head in range(2):
            q, k, v = (qkv[sample, :, part, head] for part in range(3))
            k = torch.cat([prefix[sample, 0, :, head * 12 : head * 12 + 12], k])
            v = torch.cat([prefix[sample, 1, :, head * 12 : head * 12 + 12], v])
            expected = (q @ k.T / 12**0.5).softmax(-1) @ v
            if head == 0:
                first = expected
        got = attend(attn, x, prefix, fused=False)[sample]
        torch.testing.assert_close(
            got, attn.proj(torch.cat([first, expected], dim=1)), rtol=1e-4, atol=1e-5
        )


def test_fused_and_plain_attention_agree(small_vit):
    attn, x, prefix = small_vit.vit.blocks[1].attn, torch.randn(2, 5, 24), torch.randn(2, 3, 24)
    torch.testing.assert_close(
        attend(attn, x, prefix, True), attend(attn, x, prefix, False), rtol=1e-4, atol=1e-5
    )


def test_a_shared_prefix_is_the_same_for_every_sample(small_vit):
    images, prefix = torch.randn(3, 3, 16, 16), torch.randn(2, 4, 24)
    shared = small_vit(images, {1: prefix})
    each = small_vit(images, {1: prefix.expand(3, -1, -1, -1)})
    torch.testing.assert_close(shared, each)
    assert not torch.allclose(shared, small_vit(images))
    assert not torch.allclose(shared, small_vit(images, {2: prefix}))


def test_asking_for_fewer_rows_changes_none_of_them(small_vit):
    images, prefix = torch.randn(3, 3, 16, 16), {3: torch.randn(2, 4, 24)}
    whole = small_vit(images, prefix)
    torch.testing.assert_close(
        small_vit(images, prefix, rows=2), whole[:, :2], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(small_vit.cls(images, prefix), whole[:, 0], rtol=1e-4, atol=1e-5)


def test_the_bf16_twin_is_what_autocast_computes():
    frozen = load_backbone(BackboneSpec(), "bf16")
    images = torch.rand(4, 3, 32, 32)
    assert torch.equal(frozen(images), run_vit(frozen.vit, images, precision="bf16"))
    assert frozen.sha256 == load_backbone(BackboneSpec()).sha256


def test_tokens_stand_in_front(small_vit):
    out = small_vit(torch.randn(2, 3, 16, 16), tokens=torch.randn(2, 6, 24))
    assert out.shape == (2, 6 + 1 + 4, 24)


def test_no_frozen_weight_gets_a_gradient(small_vit):
    before = weights_digest(small_vit.vit)
    prefix = torch.randn(2, 4, 24, requires_grad=True)
    small_vit.cls(torch.randn(2, 3, 16, 16), {0: prefix}).square().sum().backward()
    assert prefix.grad is not None
    assert prefix.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in small_vit.parameters())
    assert weights_digest(small_vit.vit) == before
    assert not small_vit.train().training


@pytest.mark.parametrize(
    ("there", "chosen"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "fp32")],
)
def test_auto_is_bf16_only_where_the_processor_has_it(there, chosen, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there)
    assert resolve_precision("auto", torch.device("cpu")) == chosen
    assert resolve_precision("fp32", torch.device("cpu")) == "fp32"


def test_bf16_stays_close_and_returns_fp32():
    fp32, bf16 = (load_backbone(BackboneSpec(), precision) for precision in ("fp32", "bf16"))
    images = fp32.normalise(torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8))
    a, b = fp32.cls(images), bf16.cls(images)
    assert b.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(a, b).min() > 0.99


def test_normalisation_is_the_stated_one():
    spec = BackboneSpec(name="vit_small_patch14_dinov2", image_size=56, normalise="timm")
    frozen = FrozenViT(build_vit(spec), "timm")
    white = frozen.normalise(torch.full((1, 56, 56, 3), 255, dtype=torch.uint8))[0, :, 0, 0]
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(white, expected, rtol=1e-5, atol=1e-5)
