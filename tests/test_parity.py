"""Parity with the official code: this project's modules reproduce tensors that it computed.

Gradients are compared too, in fp32, with atol 1e-5 and rtol 1e-4. tests/golden/README.md says which
commit of which repository made the tensors. They are never made again from this project's code.
"""

import fnmatch
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor

from bench.backbone.vit import attend, load_backbone, run_block
from bench.config.spec import BackboneSpec
from bench.method import Task, build_method

GOLDEN = Path(__file__).parent / "golden"
WIDTH, HEADS, TASKS = 16, 2, 5
pytestmark = pytest.mark.parity


def golden(name: str) -> SimpleNamespace:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return SimpleNamespace(**{key: torch.from_numpy(arrays[key]) for key in arrays.files})


def same(ours: Tensor, official: Tensor, what: str) -> None:
    torch.testing.assert_close(
        ours, official, atol=1e-5, rtol=1e-4, msg=lambda text: f"{what}: {text}", check_dtype=False
    )


@pytest.fixture(scope="module")
def vit():
    """A random ViT of the size with which the tensors were made."""
    return load_backbone(
        BackboneSpec(
            name="vit",
            checkpoint="random",
            image_size=16,
            patch=8,
            width=WIDTH,
            depth=8,
            heads=HEADS,
        )
    )


def begin(method, index: int) -> Task:
    """Begin tasks 0..index."""
    for i in range(index + 1):
        task = Task(i, 2 * i, 2 * i + 2, 2 * i, lambda: None)  # type: ignore[return-value]
        method.begin_task(task)
        if i < index:
            method.end_task(task)
    return task


def gradient(parameter: Tensor) -> Tensor:
    """A parameter's gradient; zero if it has none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def halves(rows: Tensor) -> Tensor:
    """A prompt of the CODA repository, (..., 2P, D), as (..., 2, P, D): keys, then values."""
    return rows.unflatten(-2, (2, rows.shape[-2] // 2))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_coda_prompt(vit, mode):
    """GT-RIPL/CODA-Prompt models/zoo.py::CodaPrompt."""
    g = golden(f"coda_task0_{mode}")
    model = {"pool": int(g.pool), "length": int(g.length), "layers": (0, 3), "mu": float(g.mu)}
    method = build_method("coda_prompt", vit, 10, TASKS, model, 0)
    task = begin(method, int(g.task))
    rows = slice(0, int(g.pool) // int(g.n_tasks))
    with torch.no_grad():
        for layer, components in zip((0, 3), method.components, strict=True):
            for name, short in (("prompt", "p"), ("key", "k"), ("attention", "a")):
                getattr(components, name).copy_(getattr(g, f"e_{short}_{layer}")[rows])
    if mode == "eval":
        method.end_task(task)
        for components in method.components:
            for name in ("prompt", "key", "attention"):
                getattr(components, f"old_{name}").requires_grad_(True)
    prefix = method.prefixes(g.query)
    assert set(prefix) == {0, 3}
    assert bool(g.l7_is_none), "the official code has no prompt in layer 7 either"
    objective = torch.zeros(())
    for layer, components in zip((0, 3), method.components, strict=True):
        keys, values = prefix[layer].unbind(1)
        same(keys, getattr(g, f"l{layer}_Ek"), f"Ek of layer {layer}")
        same(values, getattr(g, f"l{layer}_Ev"), f"Ev of layer {layer}")
        penalty = method.mu * components.orthogonality(0) if mode == "train" else torch.zeros(())
        same(penalty, getattr(g, f"l{layer}_loss"), "penalty")
        objective = objective + (keys * g.w + values * g.w * 0.5).sum() + penalty
    same(objective, g.objective, "objective")
    objective.backward()
    for layer, components in zip((0, 3), method.components, strict=True):
        for name, short in (("prompt", "p"), ("key", "k"), ("attention", "a")):
            official = getattr(g, f"grad_e_{short}_{layer}")
            ours = getattr(components, name if mode == "train" else f"old_{name}").grad
            same(ours[rows], official[rows], f"gradient of {name} {layer}")
            assert not official[rows.stop :].any(), "rows of later tasks have no gradient"


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_dualprompt_of_the_coda_repository(vit, mode):
    """GT-RIPL/CODA-Prompt models/zoo.py::DualPrompt, task 2 of 5.

    At test it lets keys of later tasks compete.
    """
    g = golden(f"dual_codarepo_{mode}")
    model = {"g_length": 2, "e_length": 3, "form": "coda"}
    method = build_method("dualprompt", vit, 10, TASKS, model, 0)
    begin(method, TASKS - 1)
    with torch.no_grad():
        method.g_prompt.copy_(halves(torch.stack([g.g_p_0, g.g_p_1])))
        for t in range(TASKS):
            method.e.prompts[t].copy_(
                halves(torch.stack([getattr(g, f"e_p_{layer}")[t] for layer in (2, 3, 4)]))
            )
            method.e.keys[t].copy_(
                torch.stack([getattr(g, f"e_k_{layer}")[t] for layer in (2, 3, 4)])
            )
    task = int(g.task)
    prefix = method.prefixes(g.query, task if mode == "train" else None)
    loss = method.key_term(g.query, task) if mode == "train" else torch.zeros(())
    same(loss, sum(getattr(g, f"l{layer}_loss") for layer in range(5)), "key loss")
    assert not any(getattr(g, f"l{layer}_loss") for layer in (0, 1)), "G-prompts have no keys"
    objective = loss
    for layer in range(5):
        full = prefix[layer].expand(len(g.query), -1, -1, -1)
        same(full[:, 0], getattr(g, f"l{layer}_k"), f"keys of layer {layer}")
        same(full[:, 1], getattr(g, f"l{layer}_v"), f"values of layer {layer}")
        objective = objective + ((full[:, 0] + 0.5 * full[:, 1]) * g.query[:, None]).sum()
    same(objective, g.objective, "objective")
    objective.backward()
    for layer in (0, 1):
        same(
            method.g_prompt.grad[layer],
            halves(getattr(g, f"grad_g_p_{layer}")),
            f"gradient of g {layer}",
        )
    for number, layer in enumerate((2, 3, 4)):
        for t in range(TASKS):
            prompt, key = gradient(method.e.prompts[t])[number], gradient(method.e.keys[t])[number]
            same(
                prompt,
                halves(getattr(g, f"grad_e_p_{layer}")[t]),
                f"gradient of e-prompt {t} in layer {layer}",
            )
            same(key, getattr(g, f"grad_e_k_{layer}")[t], f"gradient of key {t} in layer {layer}")


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_l2p_plus(vit, mode):
    """GT-RIPL/CODA-Prompt models/zoo.py::L2P, with its key loss over all pairs."""
    g = golden(f"l2ppp_codarepo_{mode}")
    model = {"pool": 8, "length": 4, "top_n": int(g.top_k), "reference_bug": True}
    method = build_method("l2p_plus", vit, 10, TASKS, model, 0)
    pool = method.pools[0]
    with torch.no_grad():
        pool.prompts.copy_(g.e_p_0)
        pool.keys.copy_(g.e_k_0)
    prefix, loss = method.prefixes(g.query)
    keys, values = prefix[0].unbind(1)
    same(keys, g.l0_k, "keys")
    same(values, g.l0_v, "values")
    objective = ((keys + 0.5 * values) * g.query[:, None]).sum()
    if mode == "eval":
        assert not g.l0_loss, "at test there is no key loss"
    else:
        same(loss, g.l0_loss, "key loss over all pairs")
        own = build_method("l2p_plus", vit, 10, TASKS, {**model, "reference_bug": False}, 0)
        own.load_state_dict(method.state_dict())
        assert own.prefixes(g.query)[1].item() == pytest.approx(19.10, abs=0.005), (
            "over an image's own keys (golden/README)"
        )
        objective = objective + loss
    same(objective, g.objective, "objective")
    objective.backward()
    same(pool.prompts.grad, g.grad_e_p_0, "gradient of prompts")
    same(gradient(pool.keys), g.grad_e_k_0, "gradient of keys")


@pytest.mark.parametrize("mask", [0, 1])
def test_l2p_of_the_port(vit, mask):
    """JH-LEE-KR/l2p-pytorch prompt.py::Prompt; mask 1 forces prompts 3..5, as in task 1."""
    g = golden(f"l2p_batchwise0_mask{mask}")
    pool = build_method("l2p", vit, 10, TASKS, {"pool": 8, "length": 3, "top_n": 3}, 0).pool
    with torch.no_grad():
        pool.prompts.copy_(g.prompt)
        pool.keys.copy_(g.prompt_key)
    same(pool.cosine(g.cls_features), g.similarity, "similarity")
    if mask:
        prompts, cosine = pool(g.cls_features, forced=torch.arange(3, 6))
        assert torch.equal(g.prompt_idx.long(), torch.arange(3, 6).expand(6, -1))
    else:
        prompts, cosine = pool(g.cls_features)
        assert torch.equal(pool.cosine(g.cls_features).topk(3).indices, g.prompt_idx.long())
    tokens = prompts.flatten(1, 2)
    assert tokens.shape[1] == int(g.total_prompt_len)
    same(torch.cat([tokens, g.x_embed], dim=1), g.prompted_embedding, "prompted embedding")
    reduced = cosine.sum(dim=1).mean()
    same(reduced, g.reduce_sim, "summed cosine")
    objective = (tokens * g.cls_features[:, None]).sum() - float(g.pull_coeff) * reduced
    same(objective, g.objective, "objective")
    objective.backward()
    same(pool.prompts.grad, g.grad_prompt, "gradient of prompts")
    same(pool.keys.grad, g.grad_prompt_key, "gradient of keys")


@pytest.mark.parametrize("mode", ["eval", "traintask2"])
def test_dualprompt_of_the_port(vit, mode):
    """JH-LEE-KR/dualprompt-pytorch prompt.py::EPrompt; reference_bug: its mixed axes."""
    g = golden(f"dual_eprompt_batchwise0_{mode}")
    methods = {}
    for bug in (True, False):
        model = {"g_length": 1, "e_length": 3, "reference_bug": bug}
        methods[bug] = method = build_method("dualprompt", vit, 10, TASKS, model, 0)
        begin(method, TASKS - 1)
        with torch.no_grad():
            for t in range(TASKS):
                # Heads x head width is the width.
                method.e.prompts[t].copy_(g.prompt[:, :, t].flatten(-2))
                method.e.keys[t].copy_(g.prompt_key[t][None])
    method, forced = methods[True], 2 if mode == "traintask2" else None
    cosine = method.e.cosine(g.cls_features, TASKS)[0]
    same(cosine, g.similarity, "similarity")
    chosen = cosine.argmax(dim=1) if forced is None else torch.full((6,), forced)
    assert torch.equal(chosen, g.prompt_idx[:, 0].long())

    def stacked(which) -> Tensor:
        prefix = which.prefixes(g.cls_features, forced)
        return torch.stack([prefix[layer].expand(6, -1, -1, -1) for layer in (2, 3, 4)]).unflatten(
            -1, (HEADS, -1)
        )

    same(
        stacked(methods[False]),
        g.batched_prompt_permute_fixed,
        "the right layout (what the JAX original computes)",
    )
    official = stacked(method)
    same(official, g.batched_prompt_official, "the official layout")
    same(
        (official - stacked(methods[False])).abs().max(),
        g.max_abs_official_minus_fixed,
        "how far they are apart",
    )
    reduced = cosine.gather(1, chosen[:, None]).sum() / len(chosen)
    same(reduced, g.reduce_sim, "cosine of the chosen key")
    objective = (official * g.cls_features.view(1, 6, 1, 1, HEADS, -1)).sum() - float(
        g.pull_coeff
    ) * reduced
    same(objective, g.objective, "objective")
    objective.backward()
    ours = torch.stack([gradient(p) for p in method.e.prompts], dim=2).unflatten(-1, (HEADS, -1))
    same(ours, g.grad_prompt, "gradient of prompts")
    same(torch.cat([gradient(k) for k in method.e.keys]), g.grad_prompt_key, "gradient of keys")


def with_weights(module, g) -> None:
    module.load_state_dict({key: getattr(g, key.replace(".", "__")) for key in module.state_dict()})


@pytest.mark.parametrize("fused", [False, True])
def test_prefix_attention(fused):
    """JH-LEE-KR/dualprompt-pytorch attention.py::PreT_Attention."""
    g = golden("dual_pret_attention")
    attention = Attention(WIDTH, num_heads=HEADS, qkv_bias=True).eval()
    with_weights(attention, g)
    x, prompt = g.x.requires_grad_(), g.prompt.requires_grad_()
    out = attend(attention, x, prompt.flatten(-2), fused)
    same(out, g.out, "output")
    out.square().sum().backward()
    same(x.grad, g.grad_x, "gradient of x")
    same(prompt.grad, g.grad_prompt, "gradient of the prompt")


@pytest.mark.parametrize("fused", [False, True])
def test_block_with_prefix(fused):
    """GT-RIPL/CODA-Prompt models/vit.py::Block.forward(x, prompt=[pk, pv])."""
    g = golden("coda_vit_block_prefix")
    block = Block(WIDTH, HEADS, qkv_bias=True).eval()
    with_weights(block, g)
    x, pk, pv = g.x.requires_grad_(), g.pk.requires_grad_(), g.pv.requires_grad_()
    out = run_block(block, x, torch.stack([pk, pv], dim=1), fused)
    same(out, g.out, "output")
    out.square().sum().backward()
    for name, leaf in (("x", x), ("pk", pk), ("pv", pv)):
        same(leaf.grad, getattr(g, f"grad_{name}"), f"gradient of {name}")


def test_every_golden_file_is_used():
    """A file that no test reads proves nothing."""
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r'(?:golden\(f?|GOLDEN\.glob\()"([^"]+?)(?:\.npz)?"', text)
    read = [re.sub(r"{\w+}", "*", name) for name in named]
    stems = {file.stem for file in GOLDEN.glob("*.npz")}
    assert {s for s in stems if not any(fnmatch.fnmatch(s, name) for name in read)} == set()
