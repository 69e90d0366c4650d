"""Each method's formulas against the slow, literal form in its paper."""

import pytest
import torch
from torch.nn import functional as F

from bench.backbone.vit import load_backbone
from bench.config.spec import BackboneSpec
from bench.errors import UsageError
from bench.method import Task, build_method
from methods.coda_prompt import Components, orthogonal_rows
from methods.hlgp import sinusoidal
from methods.l2p import PromptPool


def task_of(index, queries, labels) -> Task:
    """Task number `index`, of two classes, with these plain queries."""
    return Task(index, 2 * index, 2 * index + 2, 2 * index, lambda: (queries, labels))


def task(index, start, stop):
    return Task(
        index, start, stop, start, lambda: (torch.zeros(1, 24), torch.zeros(1, dtype=torch.long))
    )


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(5, 3, 16, 16), torch.randn(5, 24)


# --- losses: the cross-entropy over the task's classes, and what each paper adds to it --------

SMALL = {  # for a network of four blocks
    "l2p": {"pool": 6, "length": 2, "top_n": 2, "init": (-1.0, 1.0), "key_loss": 0.5},
    "l2p_plus": {"pool": 6, "length": 4, "top_n": 2, "layers": (0, 1), "key_loss": 0.5},
    "dualprompt": {"g_layers": (0,), "e_layers": (1, 2), "init": (-1.0, 1.0), "key_loss": 0.5},
    "dualprompt coda": {
        "g_layers": (0,),
        "e_layers": (1, 2),
        "init": (-1.0, 1.0),
        "key_loss": 0.5,
        "form": "coda",
    },
    "coda_prompt": {"pool": 6, "length": 4, "layers": (0, 1), "mu": 0.5},
    "hlgp": {"groups": 2},
    "oneprompt": {},
}


def added(name, method, query):
    """The term that a paper adds to the cross-entropy, in the second of three tasks."""
    if name == "l2p":
        # google-research/l2p: minus lambda times the sum of an image's chosen cosines, the mean.
        chosen = [F.cosine_similarity(q[None], method.pool.keys).topk(2).values for q in query]
        return -0.5 * torch.stack([cosine.sum() for cosine in chosen]).mean()
    if name == "l2p_plus":  # GT-RIPL/CODA-Prompt, over an image's own keys
        chosen = [
            F.cosine_similarity(q[None], pool.keys).topk(2).values
            for pool in method.pools
            for q in query
        ]
        return 0.5 * sum((1 - cosine).sum() for cosine in chosen)
    if name == "dualprompt":
        return -0.5 * F.cosine_similarity(query, method.e.keys[1][0]).mean()
    if name == "dualprompt coda":
        return 0.5 * sum(
            (1 - F.cosine_similarity(query, key[None])).sum() for key in method.e.keys[1]
        )
    if name == "coda_prompt":
        total = torch.zeros(())
        for components in method.components:
            for kind in ("prompt", "key", "attention"):
                t = torch.cat(
                    [getattr(components, f"old_{kind}")[:2], getattr(components, kind)]
                ).flatten(1)
                total = total + ((t @ t.T - torch.eye(4)) ** 2).mean()
        return 0.5 * total
    return 0.0


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_is_the_papers(name, small_vit, batch):
    images, query = batch
    labels = torch.tensor([2, 3, 3, 2, 2])
    method = build_method(name.split()[0], small_vit, 6, 3, SMALL[name], 0)
    for index in range(2):
        now = task(index, 2 * index, 2 * index + 2)
        method.begin_task(now)
        if index == 0:
            method.end_task(now)
    # As after training: rows are not orthogonal, and each task's key is nearest to some image.
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if name.startswith("dualprompt"):  # in training an image gets the task's own prompt
        e = method.e.prompts[1]
        prefix = {0: method.g_prompt[0], 1: e[0], 2: e[1]}
        logits = method.head(small_vit.cls(images, prefix))
    else:
        logits = method(images, query)
    expected = F.cross_entropy(logits[:, 2:4], labels - 2) + added(name, method, query)
    loss = method.loss(images, query, labels, now).total
    torch.testing.assert_close(loss, torch.as_tensor(expected), rtol=1e-4, atol=1e-5)
    loss.backward()
    if name.startswith("dualprompt"):
        for group in (method.e.prompts, method.e.keys):
            assert [p.grad is not None for p in group] == [False, True, False]


def test_soft_weights_are_constants_of_the_loss(small_vit, batch):
    """No gradient flows through HLGP's first pass: its weights count as fixed."""
    images, query = batch
    method = build_method("hlgp", small_vit, 6, 3, {"groups": 2}, 0)
    first, now = task(0, 0, 2), task(1, 2, 4)
    method.begin_task(first)
    method.end_task(first)
    method.begin_task(now)
    labels = torch.tensor([2, 3, 3, 2, 2])
    method.loss(images, query, labels, now).total.backward()
    found = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    prompts = method.all_prompts()
    weights = method.task_weights(images, query, prompts).detach()
    F.cross_entropy(
        method.head(method.class_token(images, prompts, weights))[:, 2:4], labels - 2
    ).backward()
    for name, parameter in method.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, msg=name)
    assert not found["head.weight"][:2].any(), "what was learned of the first task's classes stays"


# --- CODA-Prompt ------------------------------------------------------------------------------


def test_coda_weights_are_the_cosine_of_the_attended_query():
    torch.manual_seed(0)
    components = Components(per_task=4, tasks=3, length=2, width=24)
    components.begin(0)
    components.end(0)
    components.begin(4)
    query = torch.randn(5, 24)
    key, attention = components.rows("key", 4, True), components.rows("attention", 4, True)
    alpha = F.cosine_similarity(query[:, None] * attention[None], key[None], dim=2)
    expected = torch.einsum("bm,mld->bld", alpha, components.rows("prompt", 4, True))
    torch.testing.assert_close(components(query, 4, True), expected, rtol=1e-5, atol=1e-6)


def test_coda_rows_are_orthogonal_even_to_rows_that_were_trained_apart():
    torch.manual_seed(0)
    # Trained rows are neither orthogonal to each other nor of unit norm.
    earlier = torch.randn(5, 24)
    before = earlier.clone()
    fresh = orthogonal_rows(earlier, 6)
    assert torch.equal(earlier, before)
    torch.testing.assert_close(fresh.norm(dim=1), torch.ones(6))
    assert (fresh @ earlier.T).abs().max() < 1e-5
    torch.testing.assert_close(fresh @ fresh.T, torch.eye(6), rtol=0, atol=1e-5)


def test_coda_components_of_a_task_are_orthogonal_to_all_before(small_vit):
    method = build_method(
        "coda_prompt", small_vit, 6, 3, {"pool": 9, "length": 4, "layers": (0, 1)}, 0
    )
    for index in range(3):
        method.begin_task(task(index, 2 * index, 2 * index + 2))
        for components in method.components:
            for kind in ("prompt", "key", "attention"):
                rows, before = (
                    getattr(components, kind).detach().flatten(1),
                    getattr(components, f"old_{kind}").flatten(1),
                )
                torch.testing.assert_close(rows @ rows.T, torch.eye(3), rtol=0, atol=1e-5)
                assert (rows @ before.T).abs().max() < 1e-4
                assert not before[3 * index :].any(), "rows of later tasks do not exist"
                with torch.no_grad():  # as training would move them
                    getattr(components, kind).add_(
                        0.3 * torch.randn_like(getattr(components, kind))
                    )
        method.end_task(task(index, 2 * index, 2 * index + 2))


def test_coda_later_components_do_not_exist_yet(small_vit, batch):
    method = build_method(
        "coda_prompt", small_vit, 6, 3, {"pool": 9, "length": 4, "layers": (0, 1)}, 0
    )
    method.begin_task(task(0, 0, 2))
    assert method.components[0].rows("prompt", 0, True).shape[0] == 3
    method.end_task(task(0, 0, 2))
    method.begin_task(task(1, 2, 4))
    assert method.components[0].rows("prompt", method.frozen, True).shape[0] == 6
    assert method.components[0].old_prompt[3:].abs().sum() == 0


def test_coda_at_test_uses_each_finished_component_once(small_vit, batch):
    method = build_method(
        "coda_prompt", small_vit, 6, 3, {"pool": 6, "length": 4, "layers": (0,)}, 0
    )
    for index in range(2):
        method.begin_task(task(index, 2 * index, 2 * index + 2))
        method.end_task(task(index, 2 * index, 2 * index + 2))
    images, query = batch
    components = method.components[0]
    alpha = F.cosine_similarity(
        query[:, None] * components.old_attention[None, :4], components.old_key[None, :4], dim=2
    )
    prompt = torch.einsum("bm,mld->bld", alpha, components.old_prompt[:4])
    prefix = {0: torch.stack([prompt[:, :2], prompt[:, 2:]], dim=1)}
    torch.testing.assert_close(
        method(images, query), method.head(small_vit.cls(images, prefix)), rtol=1e-4, atol=1e-5
    )


# --- L2P --------------------------------------------------------------------------------------


def test_l2p_chooses_per_image():
    torch.manual_seed(0)
    pool = PromptPool(6, 3, 2, 24, (-1.0, 1.0))
    query = torch.randn(4, 24)
    prompts, cosine = pool(query)
    for sample in range(4):
        distance = F.cosine_similarity(query[sample][None], pool.keys)
        best = distance.argsort(descending=True)[:2]
        torch.testing.assert_close(cosine[sample], distance[best])
        assert torch.equal(prompts[sample], pool.prompts[best])


def test_l2p_reads_the_prompt_tokens(small_vit, batch):
    method = build_method("l2p", small_vit, 6, 3, {"pool": 4, "length": 2, "top_n": 2}, 0)
    images, query = batch
    tokens = method.pool(query)[0].flatten(1, 2)
    expected = method.head(small_vit(images, tokens=tokens)[:, :4].mean(dim=1))
    torch.testing.assert_close(method(images, query), expected)


# --- DualPrompt -------------------------------------------------------------------------------


def test_dualprompt_gives_each_image_its_own_prompt(small_vit, batch):
    """The ports mix keys and values of different images by a reshape without a permutation."""
    model = {"g_layers": (0,), "e_layers": (1, 2), "e_length": 3, "init": (-1.0, 1.0)}
    method = build_method("dualprompt", small_vit, 6, 3, model, 0)
    for index in range(3):
        method.begin_task(task(index, 2 * index, 2 * index + 2))
    with torch.no_grad():
        for prompt in method.e.prompts:
            prompt.uniform_(-1, 1)
    images, query = batch
    chosen = method.e.cosine(query, 3)[0].argmax(dim=1)
    assert len(set(chosen.tolist())) > 1, (
        "the images must differ in their prompt for this test to mean anything"
    )
    for sample in range(5):
        e = method.e.prompts[int(chosen[sample])]
        prefix = {0: method.g_prompt[0], 1: e[0], 2: e[1]}
        alone = method.head(small_vit.cls(images[sample : sample + 1], prefix))[0]
        torch.testing.assert_close(method(images, query)[sample], alone, rtol=1e-4, atol=1e-5)


def test_dualprompt_prompt_is_copied_and_key_is_not(small_vit):
    method = build_method("dualprompt", small_vit, 6, 3, {"g_layers": (0,), "e_layers": (1,)}, 0)
    key = method.e.keys[1].detach().clone()
    method.begin_task(task(0, 0, 2))
    with torch.no_grad():
        method.e.prompts[0].add_(1.0)
    method.begin_task(task(1, 2, 4))
    assert torch.equal(method.e.prompts[1], method.e.prompts[0])
    assert torch.equal(method.e.keys[1], key)


def test_dualprompt_of_the_coda_repository_copies_nothing(small_vit):
    method = build_method(
        "dualprompt", small_vit, 6, 3, {"g_layers": (0,), "e_layers": (1,), "form": "coda"}, 0
    )
    own = method.e.prompts[1].detach().clone()
    for index in (0, 1):
        method.begin_task(task(index, 2 * index, 2 * index + 2))
    assert torch.equal(method.e.prompts[1], own)


# --- HLGP -------------------------------------------------------------------------------------


def hlgp(vit, **model):
    return build_method("hlgp", vit, 6, 3, {"groups": 2, "length": 3, "bottleneck": 4, **model}, 0)


def test_hlgp_groups_start_as_the_root_and_share_a_sub_prompt(small_vit):
    method = hlgp(small_vit, position="none")
    prompts = method.current_prompts()
    assert prompts.shape == (4, 2, 3, 24)
    assert all(torch.equal(layer, method.root) for layer in prompts)
    for generator in method.generators:
        torch.nn.init.normal_(generator.up.weight)
    prompts = method.current_prompts()
    assert torch.equal(prompts[0], prompts[1])
    assert torch.equal(prompts[2], prompts[3])
    assert not torch.allclose(prompts[1], prompts[2])


def test_hlgp_position_is_added_per_layer(small_vit):
    plain, encoded = hlgp(small_vit, position="none"), hlgp(small_vit, position="sinusoidal")
    difference = encoded.current_prompts() - plain.current_prompts()
    torch.testing.assert_close(difference[2, 1, 0], sinusoidal(4, 24)[2])


def shaken(method):
    """With parameters that are nowhere zero, so that no components of it is the identity."""
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.startswith("head"):
                parameter.add_(torch.randn_like(parameter))
    return method


def test_hlgp_prompts_by_the_formula(small_vit):
    """p_l = R + Up(GELU(Down(LayerNorm(R)))) + e_l, keys and values alike."""
    method = shaken(hlgp(small_vit))
    for layer, prompt in enumerate(method.current_prompts()):
        generator = method.generators[layer // 2]
        inner = (
            F.layer_norm(method.root, (24,), generator.norm.weight, generator.norm.bias)
            @ generator.down.weight.T
            + generator.down.bias
        )
        adapted = F.gelu(inner) @ generator.up.weight.T + generator.up.bias
        for kind in (0, 1):
            expected = method.root[kind] + adapted[kind] + method.position[layer]
            torch.testing.assert_close(prompt[kind], expected, rtol=1e-5, atol=1e-5)


def test_hlgp_inference_uses_the_materialised_prompts(small_vit, batch):
    method = shaken(hlgp(small_vit, weights="mean"))
    method.begin_task(task(0, 0, 3))
    training = method(batch[0], None)
    method.end_task(task(0, 0, 3))
    torch.testing.assert_close(method(batch[0], None), training)
    for generator in method.generators:
        generator.forward = None  # would fail if inference ran it
    torch.testing.assert_close(method(batch[0], None), training)


@pytest.mark.parametrize(("weights", "factor"), [("sum", 1.0), ("mean", 0.5)])
def test_hlgp_weights_by_the_definition(small_vit, batch, weights, factor):
    method = hlgp(small_vit, weights=weights)
    method.learned.normal_()
    method.begin_task(task(0, 0, 3))
    method.begin_task(task(1, 3, 6))
    method.training_task = False
    prompt = factor * (method.learned[0] + method.learned[1])
    expected = method.head(small_vit.cls(batch[0], dict(enumerate(prompt))))
    torch.testing.assert_close(method(batch[0], None), expected, rtol=1e-4, atol=1e-5)


def test_hlgp_soft_weights_are_the_mass_of_each_tasks_classes(small_vit, batch):
    method = hlgp(small_vit, weights="soft")
    method.learned.normal_()
    torch.nn.init.normal_(method.head.weight)
    method.begin_task(task(0, 0, 2))
    method.begin_task(task(1, 2, 4))
    method.training_task = False
    first = method.head(small_vit.cls(batch[0], dict(enumerate(method.learned[:2].mean(0)))))[
        :, :4
    ].softmax(1)
    weights = torch.stack([first[:, :2].sum(1), first[:, 2:].sum(1)], dim=1)
    torch.testing.assert_close(
        method.task_weights(*batch, method.learned[:2]), weights, rtol=1e-4, atol=1e-5
    )
    sample = 3
    prompt = weights[sample, 0] * method.learned[0] + weights[sample, 1] * method.learned[1]
    expected = method.head(small_vit.cls(batch[0][sample : sample + 1], dict(enumerate(prompt))))[0]
    torch.testing.assert_close(method(batch[0], None)[sample], expected, rtol=1e-4, atol=1e-5)


def test_hlgp_prototype_weights_are_the_mass_of_each_tasks_nearest_means(small_vit):
    method = hlgp(small_vit, weights="prototype", temperature=0.5)
    means = torch.nn.functional.normalize(torch.randn(4, small_vit.width), dim=1)
    for index in (0, 1):
        labels = torch.tensor([2 * index, 2 * index + 1]).repeat_interleave(2)
        # Their means have the directions of the prototypes.
        near = means[labels] * torch.tensor([1.5, 0.5, 0.25, 1.75])[:, None]
        method.begin_task(task_of(index, near, labels))
        method.end_task(task(index, 2 * index, 2 * index + 2))
    query = torch.randn(5, small_vit.width)
    p = (torch.nn.functional.normalize(query, dim=1) @ means.T / 0.5).softmax(1)
    expected = torch.stack([p[:, :2].sum(1), p[:, 2:].sum(1)], dim=1)
    torch.testing.assert_close(
        method.task_weights(None, query, method.all_prompts()), expected, rtol=1e-4, atol=1e-5
    )


def test_hlgp_borders_are_groups_of_any_size(small_vit):
    method = hlgp(small_vit, borders=(1,), position="none")
    for generator in method.generators:
        torch.nn.init.normal_(generator.up.weight)
    prompts = method.current_prompts().detach()
    assert torch.equal(prompts[1], prompts[2])
    assert torch.equal(prompts[2], prompts[3])
    assert not torch.equal(prompts[0], prompts[1])
    for wrong in ((0,), (4,), (2, 1), (1, 1)):
        with pytest.raises(UsageError, match="rising positions"):
            hlgp(small_vit, borders=wrong)


def test_hlgp_copy_switch(small_vit):
    """Root, generators and position encoding continue from the task before, or all start anew."""
    for copy in (True, False):
        method = hlgp(small_vit, copy=copy)
        method.begin_task(task(0, 0, 3))
        with torch.no_grad():
            for name, parameter in method.named_parameters():
                if not name.startswith("head"):
                    parameter.add_(1.0)
        before = {
            n: p.detach().clone() for n, p in method.named_parameters() if not n.startswith("head")
        }
        method.end_task(task(0, 0, 3))
        method.begin_task(task(1, 3, 6))
        assert all(
            torch.equal(p, before[n]) is copy for n, p in method.named_parameters() if n in before
        )
        assert {name.split(".")[0] for name in before} == {"root", "generators", "position"}


def test_hlgp_has_fewer_parameters_than_independent_prompts():
    """At the size of ViT-B with a bottleneck of 8. The default of 16 has a few more."""
    vit = load_backbone(
        BackboneSpec(
            name="vit", checkpoint="random", image_size=16, patch=16, width=768, depth=12, heads=12
        )
    )

    def prompts(**model):
        method = build_method("hlgp", vit, 10, 5, model, 0)
        return sum(p.numel() for n, p in method.named_parameters() if not n.startswith("head"))

    assert prompts(bottleneck=8) < prompts(generator=False) < prompts()


# --- Linear-NCM -------------------------------------------------------------------------------


def test_linear_ncm_answers_within_the_task_of_the_nearest_mean(small_vit):
    method = build_method("linear_ncm", small_vit, 4, 2, {}, 0)
    means = torch.eye(4, 24)
    for index in (0, 1):
        labels = torch.tensor([2 * index, 2 * index + 1])
        now = task_of(index, means[labels], labels)
        method.begin_task(now)
        method.end_task(now)
    with torch.no_grad():
        method.head.weight.zero_()
        method.head.bias.copy_(torch.tensor([1.0, 5.0, 9.0, 2.0]))
    assert method(None, means).argmax(dim=1).tolist() == [1, 1, 2, 2], (
        "the head decides, but within that task alone"
    )
