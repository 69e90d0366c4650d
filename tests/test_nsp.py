"""VPT-NSP2 against its official code: prompts, projectors, and three tasks of training."""

import functools
from typing import Any

import pytest
import torch
from golden_files import GOLDEN, close, golden

from bench.backbone.vit import load_backbone, run_block
from bench.config.spec import BackboneSpec
from bench.errors import UsageError
from bench.method import Loss, Task, build_method
from methods import nsp

pytestmark = pytest.mark.parity

NULLITIES = golden("nsp2_nullity")
SPECTRA = [name.removeprefix("s_") for name in NULLITIES if name.startswith("s_")]


@pytest.fixture(scope="module")
def network():
    """The network of nsp2_vit and nsp2_trajectory."""
    sizes = {"image_size": 16, "patch": 4, "width": 24, "depth": 4, "heads": 2}
    backbone = load_backbone(BackboneSpec(name="vit", checkpoint="random", **sizes))
    arrays = golden("nsp2_vit")
    weights = {
        name.removeprefix("vit__").replace("__", "."): value
        for name, value in arrays.items()
        if name.startswith("vit__")
    }
    backbone.vit.load_state_dict(weights)
    return backbone


def built(network: Any, classes: int = 15, **model: Any) -> Any:
    return build_method("nsp", network, classes, 3, {"length": 3, **model}, 0)


def put(method: Any, prompts: Any = None, head: Any = None, start: int = 0) -> None:
    with torch.no_grad():
        if prompts is not None:
            method.prompts.copy_(prompts)
        if head is not None:
            stop = start + len(head[1])
            method.head.weight[start:stop], method.head.bias[start:stop] = head


def test_prompts_in_the_network(network):
    arrays = golden("nsp2_vit")
    method = built(network, 5, temperature=float(arrays["temperature"]))
    put(method, arrays["prompts"], (arrays["head_weight"], arrays["head_bias"]))
    images, labels = arrays["images"], arrays["labels"]
    close(method.features(images, None), arrays["features"], "features")
    close(method(images, None), arrays["logits"], "logits")
    loss = method.loss(images, None, labels, Task(0, 0, 5, 0, lambda: (images, labels)))
    close(loss.total, arrays["loss"], "loss")
    loss.total.backward()
    close(method.prompts.grad, arrays["grad_prompts"], "prompts")
    close(method.head.weight.grad, arrays["grad_head_weight"], "head")
    close(method.head.bias.grad, arrays["grad_head_bias"], "bias")


def test_prompts_in_one_block():
    """In the official block they are tokens after the image's, whose outputs are dropped."""
    arrays = golden("nsp2_block")
    sizes = {"image_size": 16, "patch": 4, "width": 24, "depth": 1, "heads": 2}
    backbone = load_backbone(BackboneSpec(name="vit", checkpoint="random", **sizes))
    block = backbone.vit.blocks[0]
    weights = {name.replace("__", "."): value for name, value in arrays.items() if "__" in name}
    block.load_state_dict(weights)
    method = built(backbone)
    put(method, arrays["prompt"])
    x = arrays["x"].requires_grad_()
    out = run_block(block, x, method.prefixes()[0], False)
    close(out, arrays["out"], "out")
    out.square().mean().backward()
    close(x.grad, arrays["grad_x"], "x")
    close(method.prompts.grad[0], arrays["grad_prompt"], "prompt")


@pytest.mark.parametrize("name", SPECTRA)
def test_the_knee(name):
    assert nsp.nullity(NULLITIES[f"s_{name}"]) == int(NULLITIES[f"nullity_{name}"])


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("which", [1, 2])
def test_a_projector(which, number):
    arrays = golden("nsp2_projection")
    covariance, spectrum = arrays[f"C{which}_{number}"], arrays[f"S{which}_{number}"]
    assert nsp.nullity(spectrum) == int(arrays[f"nullity{which}_{number}_adaptive"])
    for tag, eta in (("adaptive", float(arrays[f"eta{which}"])), ("unmixed", 1.0)):
        found = nsp.projector(covariance, eta, 0.0, False)
        close(found.float(), arrays[f"P{which}_{number}_{tag}"], tag)


@pytest.mark.parametrize("file", sorted(f.stem for f in GOLDEN.glob("nsp2_modadam*.npz")))
def test_steps_are_projected_after_adam(file, network):
    arrays = golden(file)
    for projected in (True, False):
        method = built(network)
        method.layers, method.prompts = (0,), torch.nn.Parameter(arrays["prompt"][None])
        method.begun = 2 if projected else 1
        method.left, method.right = arrays["P2"][None], arrays["P1"][None]
        decay = float(arrays["weight_decay"])
        adam = torch.optim.Adam([method.prompts], weight_decay=decay)
        expected = arrays[f"prompt_{'projected' if projected else 'unprojected'}"]
        for step, rate in enumerate(arrays["lr"].tolist()):
            adam.param_groups[0]["lr"] = rate
            method.prompts.grad = arrays["grad_prompt"][step][None].clone()
            method.at = method.prompts.detach().clone()
            adam.step()
            method.after_step()
            close(method.prompts[0], expected[step], f"step {step}")


def test_three_tasks_of_training_are_the_official_ones(network):
    """Losses, prompts after every step, covariances, projectors and logits."""
    arrays = golden("nsp2_trajectory")
    etas = {"eta1": float(arrays["eta1"]), "eta2": float(arrays["eta2"])}
    method = built(network, temperature=float(arrays["temperature"]), **etas)
    put(method, arrays["prompts_start"])
    for t in range(3):
        images, labels = arrays["images"][t], arrays["labels"][t] % 5 + 5 * t
        chunks = [(images[:4], None, labels[:4]), (images[4:], None, labels[4:])]
        served = functools.partial(iter, chunks)
        unused = functools.partial(tuple, (images, labels))
        task = Task(t, 5 * t, 5 * t + 5, 5 * t, unused, served)  # type: ignore[arg-type]
        head = (arrays[f"head_weight_start_{t}"], arrays[f"head_bias_start_{t}"])
        put(method, head=head, start=5 * t)
        method.begin_task(task)
        if t:
            close(method.right, arrays[f"P1_{t - 1}"], "P1")
            close(method.left, arrays[f"P2_{t - 1}"], "P2")
        parameters = [method.prompts, *method.head.parameters()]
        adam = torch.optim.Adam(parameters, weight_decay=float(arrays["weight_decay"]))
        for step, chosen in enumerate(arrays["order"][t].flatten(0, 1)):
            adam.param_groups[0]["lr"] = float(arrays[f"lr_{t}"][step])
            loss = method.loss(images[chosen], None, labels[chosen], task)
            close(loss.total, arrays[f"loss_{t}"][step], f"loss {t} {step}")
            adam.zero_grad()
            loss.total.backward()
            adam.step()
            method.after_step()
            close(method.prompts, arrays[f"prompts_{t}"][step], f"prompts {t} {step}")
        close(method.head.weight[task.start : task.stop], arrays[f"head_weight_{t}"], "head")
        put(method, head=(arrays[f"head_weight_{t}"], arrays[f"head_bias_{t}"]), start=5 * t)
        method.end_task(task)
        if t < 2:
            for which, grams in ((1, method.gram1), (2, method.gram2)):
                close(grams, arrays[f"C{which}_{t}"], f"C{which}")
                spectra = torch.linalg.eigvalsh(grams.double()).flip(1)
                found = [nsp.nullity(spectrum) for spectrum in spectra]
                assert found == arrays[f"nullity{which}_{t}"].tolist()
        heads = [(arrays[f"head_weight_{i}"], arrays[f"head_bias_{i}"]) for i in range(t + 1)]
        put(method, head=[torch.cat(of_tasks) for of_tasks in zip(*heads, strict=True)])
        logits = method(arrays["images"][: t + 1].flatten(0, 1), None)[:, : task.stop]
        close(logits, arrays[f"logits_{t}"], "logits")


@pytest.mark.parametrize("file", sorted(f.stem for f in GOLDEN.glob("nsp2_lnloss*.npz")))
def test_the_term_of_the_distribution(file, network, monkeypatch):
    arrays = golden(file)
    method = built(network)
    put(method, arrays["prompts_new"])
    method.before.copy_(arrays["prompts_old"])
    monkeypatch.setattr(method, "cross_entropy", lambda *_: Loss(torch.zeros(())))
    images = torch.zeros(1, 3, 16, 16)
    loss = method.loss(images, None, torch.zeros(1), Task(1, 5, 10, 5, lambda: (images, images)))
    close(loss.total, arrays["loss"], "loss")
    loss.total.backward()
    close(method.prompts.grad, arrays["grad_prompts"], "prompts")


def test_the_control_takes_steps_as_short_and_protects_nothing():
    covariance = golden("nsp2_projection")["C1_0"]
    found = nsp.projector(covariance, 0.97, 0.0, False)
    control = nsp.projector(covariance, 0.97, 0.0, True)
    torch.testing.assert_close(control.norm(), found.norm())
    assert torch.equal(control, control[0, 0] * torch.eye(len(control)).double())


def test_a_share_of_the_trace_in_place_of_the_knee():
    covariance = torch.diag(torch.tensor([8.0, 1.0, 0.5, 0.5]))
    for share, protected in ((0.7, 1), (0.85, 2), (0.999, 3)):
        found = nsp.projector(covariance, 1.0, share, False)
        assert int((found.diagonal() > 0).sum()) == 4 - protected


@pytest.mark.parametrize(
    "model", [{"length": 2}, {"temperature": 0.0}, {"eta1": 1.5}, {"share": 1.0}]
)
def test_impossible_settings(model, network):
    with pytest.raises(UsageError, match=next(iter(model))):
        built(network, **model)
