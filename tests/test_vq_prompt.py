"""VQ-Prompt against its official code: what is chosen, the two terms, and every gradient."""

import copy
from typing import Any

import pytest
import torch
from golden_files import GOLDEN, close, golden, tiny_backbone
from torch.nn import functional as F

from bench.errors import UsageError
from bench.method import Task, build_method

pytestmark = pytest.mark.parity

LAYERS = (0, 1, 2)
STEPS = sorted(file.stem for file in GOLDEN.glob("vq_prompt_task*.npz"))


@pytest.fixture(scope="module")
def tiny_vit():
    return tiny_backbone()


def built(arrays: Any, backbone: Any, **model: Any) -> Any:
    settings = {
        "layers": LAYERS,
        "pool": 6,
        "length": 4,
        "temperature": float(arrays["temperature"]),
        **model,
    }
    method = build_method("vq_prompt", backbone, 9, 3, settings, 0)
    with torch.no_grad():
        method.head.weight.copy_(arrays["head_weight"])
        method.head.bias.copy_(arrays["head_bias"])
        for layer, pool in enumerate(method.pools):
            pool.prompts.copy_(arrays[f"e_p_{layer}"])
            pool.keys.copy_(arrays[f"e_k_{layer}"])
    return method


def check_forward(method, arrays):
    query, images = arrays["query"], arrays["images"]
    close(method.backbone.cls(images), query, "query")
    prefix, term = method.prefixes(query)
    official = sum(arrays[f"prompt_loss_{layer}"] for layer in LAYERS)
    close(term, torch.as_tensor(official).float(), "both terms")
    for layer, pool in enumerate(method.pools):
        _, soft, entry = pool(query)
        close(soft, arrays[f"soft_{layer}"], "soft prompt")
        assert torch.equal(pool.nearest(soft), arrays[f"index_{layer}"])
        close(entry, arrays[f"quantised_{layer}"], "entry")
        close(F.mse_loss(soft, entry), arrays[f"mse_soft_{layer}"].float(), "soft side")
        close(F.mse_loss(entry, soft), arrays[f"mse_entry_{layer}"].float(), "entry side")
        unit = copy.deepcopy(pool)  # of unit vectors the soft sum is the weights
        unit.prompts = torch.nn.Parameter(torch.eye(len(pool.keys))[:, None])
        close(unit.soft(query)[:, 0], arrays[f"alpha_{layer}"], "weights")
        close(prefix[layer][:, 0], arrays[f"Ek_{layer}"], "keys")
        close(prefix[layer][:, 1], arrays[f"Ev_{layer}"], "values")
    close(method.features(images, query), arrays["features"], "features")
    close(method(images, query), arrays["logits_all"], "logits")


@pytest.mark.parametrize("file", STEPS)
def test_a_training_step_is_the_official_one(file, tiny_vit):
    arrays = golden(file)
    images, query, labels = arrays["images"], arrays["query"], arrays["labels"]
    task = int(arrays["task"])
    now = Task(task, 3 * task, 3 * task + 3, 3 * task, lambda: (images, labels))
    method = built(arrays, tiny_vit)
    check_forward(method, arrays)
    logits = method(images, query)[:, now.start : now.stop]
    close(logits, arrays["logits_current"], "logits in training")
    losses: dict[str, dict] = {"ce": {"soft": 0.0, "entry": 0.0}, "ce_soft": {"entry": 0.0}}
    for name, weights in {**losses, "total": {}}.items():  # else the method's own: the official
        method = built(arrays, tiny_vit, **weights)
        loss = method.loss(images, query, labels, now)
        if name == "total":
            close(loss.total, arrays["loss_total"].float(), "total")
            close(loss.terms["ce"], arrays["loss_ce"].float(), "cross-entropy")
        loss.total.backward()
        for layer, pool in enumerate(method.pools):
            close(pool.prompts.grad, arrays[f"grad_{name}_e_p_{layer}"], f"{name}: prompts")
            close(pool.keys.grad, arrays[f"grad_{name}_e_k_{layer}"], f"{name}: keys")
        close(method.head.weight.grad, arrays[f"grad_{name}_head_weight"], f"{name}: head")
        close(method.head.bias.grad, arrays[f"grad_{name}_head_bias"], f"{name}: bias")


def test_at_test_it_is_the_official_one(tiny_vit):
    arrays = golden("vq_prompt_eval")
    with torch.no_grad():
        check_forward(built(arrays, tiny_vit), arrays)


@pytest.mark.parametrize("model", [{"length": 3}, {"pool": 0}, {"temperature": 0.0}])
def test_impossible_settings(model, tiny_vit):
    with pytest.raises(UsageError, match=next(iter(model))):
        build_method("vq_prompt", tiny_vit, 9, 3, {"layers": LAYERS, **model}, 0)
