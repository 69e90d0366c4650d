"""CAPrompt against its official code: weights, prompts, features, every loss and its gradients."""

from typing import Any

import pytest
import torch
from golden_files import GOLDEN, close, golden, tiny_backbone

from bench.method import Task, build_method

pytestmark = pytest.mark.parity

LAYERS = (0, 1, 2)
STEPS = sorted(file.stem for file in GOLDEN.glob("caprompt_*_task[0-9].npz"))
FORMS = {"fixed": False, "official": True}


@pytest.fixture(scope="module")
def tiny_vit():
    return tiny_backbone()


def nothing() -> Any:
    return None


class Passes:
    """What goes through the network, in order: weights over tasks, prefixes, class tokens."""

    def __init__(self, method: Any, monkeypatch: Any) -> None:
        self.seen: list[tuple[Any, ...]] = []
        run, cls = method.run, method.backbone.cls

        def through(images: Any, prefix: Any) -> Any:
            self.prefix = prefix
            return cls(images, prefix)

        def watched(images: Any, weights: Any) -> Any:
            tokens = run(images, weights)
            self.seen.append((weights, self.prefix, tokens))
            return tokens

        monkeypatch.setattr(method.backbone, "cls", through)
        monkeypatch.setattr(method, "run", watched)

    def check(self, method: Any, arrays: Any, names: list[str]) -> None:
        """Each pass against the arrays called w_NAME, prompts_NAME ... (form: "w_{}_NAME")."""
        assert len(self.seen) == len(names)
        for name, (weights, prefix, tokens) in zip(names, self.seen, strict=True):
            close(weights, arrays[name.format("w")][:, : weights.shape[1]], f"{name}: weights")
            close(
                torch.stack(list(prefix.values())), arrays[name.format("prompts")], f"{name}: rows"
            )
            close(tokens, arrays[name.format("features")], f"{name}: features")
            close(method.head(tokens), arrays[name.format("logits")], f"{name}: logits")


def begun(arrays: Any, task: int, backbone: Any, form: str, **model: Any) -> Any:
    """The method in this task, with the prompts and the head of the file."""
    prompts = arrays["prompt"].permute(2, 0, 1, 3, 4)  # (task, layer, K/V, row, width)
    settings = {"layers": LAYERS, "length": 2, "reference_bug": FORMS[form], **model}
    method = build_method("caprompt", backbone, 9, 3, settings, 0)
    with torch.no_grad():
        method.head.weight.copy_(arrays["head_weight"])
        method.head.bias.copy_(arrays["head_bias"])
        for index in range(task + 1):
            now = Task(index, 3 * index, 3 * index + 3, 3 * index, nothing)
            method.begin_task(now)
            method.prompt.copy_(prompts[index])
            if index < task:
                method.end_task(now)
    return method, now


@pytest.mark.parametrize("file", STEPS)
def test_a_training_step_is_the_official_one(file, tiny_vit, monkeypatch):
    form, task = file.split("_")[1], int(file[-1])
    arrays = golden(file)
    images, labels = arrays["images"], arrays["labels"]
    weight = {"delta": float(arrays["delta_weight"]), "penalty": float(arrays["penalty_weight"])}
    method, now = begun(arrays, task, tiny_vit, form, **weight)
    with monkeypatch.context() as patched:
        passes = Passes(method, patched)
        found = method.loss(images, None, labels, now)
    names = ["pass1", "mix", "old", "new"] if task else ["mix"]
    passes.check(method, arrays, [f"{{}}_{name}" for name in names])
    close(found.total, arrays["loss_total"].float(), "total")
    close(found.terms["ce"], arrays["loss_ce"].float(), "cross-entropy")
    for ours, theirs, factor in (("concave", "concave", 5), ("linear", "linear", 0.2)):
        if ours in found.terms:
            close(factor * found.terms[ours], arrays[f"loss_{theirs}"].float(), theirs)
    if task:
        close(found.terms["concave"], arrays["hinge"].clamp(min=0).mean(), "hinge")
    alone = {**weight, "penalty": 0.0}
    parts = {"total": weight, "ce_concave": alone, "ce": {**alone, "delta": 0.0}}
    for steps, losses in parts.items():
        method, now = begun(arrays, task, tiny_vit, form, **losses)
        method.loss(images, None, labels, now).total.backward()
        whole = arrays[f"grad_{steps}_prompt"].permute(2, 0, 1, 3, 4)
        close(method.prompt.grad, whole[task], f"{steps}: prompt")
        assert not whole[:task].any(), "those of other tasks get none"
        close(method.head.weight.grad, arrays[f"grad_{steps}_head_weight"], f"{steps}: head")
        close(method.head.bias.grad, arrays[f"grad_{steps}_head_bias"], f"{steps}: bias")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("cycle", [1, 2, 3])
def test_at_test_each_cycle_is_the_official_one(cycle, after, form, tiny_vit, monkeypatch):
    arrays = golden(f"caprompt_{form}_eval")
    method, now = begun(arrays, after, tiny_vit, form, cycles=cycle)
    method.end_task(now)
    method.eval()
    images, labels = arrays[f"after{after}_images"], arrays[f"after{after}_labels"]
    passes = Passes(method, monkeypatch)
    with torch.no_grad():
        logits = method(images, None)
        names = [f"after{after}_{{}}_cycle{number + 1}" for number in range(cycle)]
        passes.check(method, arrays, names)
    close(logits, arrays[names[-1].format("logits")], "logits")
    right = 100 * (logits.argmax(dim=1) == labels).double().mean()
    close(right.float(), arrays[names[-1].format("acc")].float(), "over all classes")


def test_it_is_hlgp_without_the_two_terms(tiny_vit):
    """The same weights and sums as HLGP with independent prompts and soft weights."""
    arrays = golden("caprompt_fixed_eval")
    method, now = begun(arrays, 2, tiny_vit, "fixed")
    method.end_task(now)
    hlgp: Any = build_method(
        "hlgp", tiny_vit, 9, 3, {"generator": False, "layers": LAYERS, "length": 2}, 0
    )
    hlgp.load_state_dict({"head.weight": method.head.weight, "head.bias": method.head.bias}, False)
    hlgp.learned.copy_(method.learned)
    hlgp.task_of_class.copy_(method.task_of_class)
    hlgp.begun, hlgp.classes_seen = 3, 9
    images = arrays["after2_images"]
    with torch.no_grad():
        torch.testing.assert_close(hlgp(images, None), method(images, None), rtol=1e-4, atol=1e-5)


def test_the_weights_of_old_tasks_may_all_vanish(tiny_vit):
    """The official code divides by zero there."""
    arrays = golden("caprompt_fixed_task1")
    method, now = begun(arrays, 1, tiny_vit, "fixed")
    with torch.no_grad():
        method.head.bias[:3] = -1e4
    loss = method.loss(arrays["images"], None, arrays["labels"], now)
    loss.total.backward()
    assert loss.total.isfinite()
    assert method.prompt.grad.isfinite().all()


def test_the_linear_term_by_hand(tiny_vit):
    """Row by row: 0 right after the copy, and for a row that went nowhere 1."""
    arrays = golden("caprompt_fixed_eval")
    method, _ = begun(arrays, 2, tiny_vit, "fixed")
    first, before, now = (arrays["prompt"][:, :, task].double() for task in range(3))
    rows = [
        1 - (a @ b) / (a.norm() * b.norm())
        for a, b in zip((before - first).view(-1, 24), (now - first).view(-1, 24), strict=True)
    ]
    assert float(method.bend().detach()) == pytest.approx(float(torch.stack(rows).mean()), abs=1e-6)
    with torch.no_grad():
        method.prompt.copy_(method.learned[1])
        assert float(method.bend()) == pytest.approx(0, abs=1e-6)
        method.prompt.copy_(method.learned[0])
        assert float(method.bend()) == pytest.approx(1)


def test_unequal_tasks_and_the_sum_of_their_classes(tiny_vit):
    method: Any = build_method("caprompt", tiny_vit, 5, 2, {"layers": LAYERS}, 0)
    for index, (start, stop) in enumerate([(0, 2), (2, 5)]):
        method.begin_task(Task(index, start, stop, start, nothing))
    logits = torch.tensor([[1.0, 2.0, 0.5, 0.0, 3.0]])
    shares = logits.softmax(dim=1)[0]
    assert method.mass(logits)[0].tolist() == pytest.approx(
        [float(shares[:2].sum()), float(shares[2:].sum())]
    )
