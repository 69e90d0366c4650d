"""VPT-NSP2: Visual Prompt Tuning in Null Space (Lu et al., NeurIPS 2024, arXiv 2406.05658).

Official code: zugexiaodui/VPTinNSforCL at 0d9c547, train_eval.py, utils/vit_builder.py and
utils/mod_adam.py. The numbers follow it.

Prompt. Each layer has M tokens P (M, D), one set for all tasks. They pass the layer's first norm
and its qkv projection and give keys and values alone, so they are a prefix, the same for all
images.

Loss. CE(logits / tau) + from the second task on, summed over layers, the mean over tokens of
|mean(P) - mean(P')| + |sd(P) - sd(P')|, over the width; P' are the prompts after the task before.

Step. From the second task on the optimiser's step U of each layer's prompts becomes P2 U P1. The
step is projected, not the gradient: Adam would give a projected gradient its old length back.

Projectors. After each task one pass over its training images in the test view, the prompts as
they are. T = q W_k (rows: image, head, token; D columns) with q of the head and W_k its key matrix,
and S the attention on the M prompt keys (M columns). C1 += T^T T / rows and C2 += S^T S / rows,
added up over chunks and tasks. With U0 the eigenvectors of the R smallest eigenvalues,
P = eta U0 U0^T / sqrt(R) + (1 - eta) I. R is what comes after the knee of the spectrum, the knee
included (the paper's formula gives one less).

Mostly this is a smaller step: with R = 90 and eta = .97 most directions are scaled by .13, those
protected by .03. `control` puts in place of each P the multiple of I with its Frobenius norm.

Deviations:
- One head for all classes, as in every row, in which each task's rows start fresh. The official
  code makes a new head only where its size differs, so the second task's starts from the first's.
- Views, normalisation and precision are the suite's. The official ones: AutoAugment without a flip,
  mean and sd .5, fp16.
- Its other rules for R, by a threshold (`times`) and with an offset, both unused there, are absent.
- A chunk of the pass has the engine's size, not 100 images.
- Weight decay is the suite's, 0: Adam would move the rows of old classes by the rate in each step.
- Projectors are computed in fp64.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.backbone.vit import FrozenViT
from bench.method import Loss, Method, Task, register

SMOOTHED_FROM = 128  # values of a spectrum; shorter ones are taken as they are
SIGMA, RADIUS = 10, 40  # of the Gaussian that smooths it
ENDS = 0.03  # of its second differences, left out, half at each end


def nullity(spectrum: Tensor) -> int:
    """R: how many of n eigenvalues, falling, count as zero, by the knee of the spectrum."""
    size, curve, dropped = len(spectrum), spectrum.double(), 0
    if size >= SMOOTHED_FROM:
        at = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64, device=curve.device)
        kernel = (-0.5 * (at / SIGMA).square()).exp()
        mirrored = torch.cat([curve[:RADIUS].flip(0), curve, curve[-RADIUS:].flip(0)])
        curve = F.conv1d(mirrored[None, None], (kernel / kernel.sum())[None, None])[0, 0]
        dropped = int(ENDS * size / 2)
    bend = curve.diff(n=2)
    knee = int(bend[dropped : len(bend) - dropped].argmax()) + dropped + 1
    last = int(torch.nonzero(spectrum == spectrum[knee])[-1])
    return size - last


def projector(covariance: Tensor, eta: float, share: float, control: bool) -> Tensor:
    """P (n, n) of a covariance (n, n), float64.

    share: 0: R by the knee; else the fewest directions with this share of the trace are protected.
    """
    values, vectors = torch.linalg.eigh(covariance.double())  # rising
    size = len(values)
    if share:
        shares = values.flip(0).clamp(min=0).cumsum(0) / values.clamp(min=0).sum()
        free = size - min(int((shares < share).sum()) + 1, size - 1)
    else:
        free = nullity(values.flip(0))
    null = vectors[:, :free]
    unit = torch.eye(size, dtype=values.dtype, device=values.device)
    found = eta * (null @ null.T) / free**0.5 + (1 - eta) * unit
    return found.norm() / size**0.5 * unit if control else found


@register
class NSP(Method):
    """layers: prompted, empty: all. length: M, at least 3. temperature: tau, in training alone.

    eta1, eta2: of P1 (width) and P2 (tokens). share: of the trace that is protected, in place of
    the knee; 0: the knee. control: steps as short, without protected directions.
    """

    counted = ("begun",)
    before: Tensor
    gram1: Tensor
    gram2: Tensor

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        layers: tuple[int, ...] = (),
        length: int = 4,
        temperature: float = 28.0,
        eta1: float = 0.97,
        eta2: float = 0.97,
        share: float = 0.0,
        control: bool = False,
    ) -> None:
        super().__init__(backbone, classes, tasks)
        self.check_layers(*layers)
        if length < 3 or temperature <= 0:  # a knee needs three values
            raise ValueError(f"length={length}, temperature={temperature}: at least 3, and above 0")
        if not (0 <= eta1 <= 1 and 0 <= eta2 <= 1 and 0 <= share < 1):
            raise ValueError(f"eta1={eta1}, eta2={eta2}, share={share}: between 0 and 1")
        self.layers = layers or tuple(range(backbone.depth))
        self.temperature, self.begun = temperature, 0
        self.project = functools.partial(projector, share=share, control=control)
        self.eta1, self.eta2 = eta1, eta2
        depth = len(self.layers)
        self.prompts = nn.Parameter(torch.empty(depth, length, self.width).uniform_(-1, 1))
        self.head = nn.Linear(self.width, classes)
        self.register_buffer("before", torch.zeros_like(self.prompts))  # the task's first step
        self.register_buffer("gram1", torch.zeros(depth, self.width, self.width))
        self.register_buffer("gram2", torch.zeros(depth, length, length))

    def layer_prompts(self) -> dict[int, Tensor]:
        return dict(zip(self.layers, self.prompts, strict=True))

    def begin_task(self, task: Task) -> None:
        self.begun = task.index + 1
        self.before.copy_(self.prompts.detach())
        if task.index:
            left = [self.project(gram, self.eta2) for gram in self.gram2]
            right = [self.project(gram, self.eta1) for gram in self.gram1]
            self.left, self.right = torch.stack(left).float(), torch.stack(right).float()

    def prefixes(self) -> dict[int, Tensor]:
        """layer -> (2, M, D): the keys and values of its tokens."""
        out = {}
        for layer, tokens in zip(self.layers, self.prompts, strict=True):
            block = self.network.blocks[layer]
            qkv = block.attn.qkv
            with torch.autocast(tokens.device.type, enabled=False):
                normed = block.norm1(tokens).to(qkv.weight.dtype)
                bias = None if qkv.bias is None else qkv.bias[self.width :]
                both = F.linear(normed, qkv.weight[self.width :], bias).float()
            keys, values = both.chunk(2, dim=1)
            keys = block.attn.k_norm(keys.unflatten(1, (self.backbone.heads, -1))).flatten(1)
            out[layer] = torch.stack([keys, values])
        return out

    def features(self, images: Tensor, query: Tensor) -> Tensor:
        return self.backbone.cls(images, self.prefixes())

    def loss(self, images: Tensor, query: Tensor, labels: Tensor, task: Task) -> Loss:
        loss = self.cross_entropy(self(images, query) / self.temperature, labels, task)
        if not task.index:
            return loss
        self.at = self.prompts.detach().clone()
        moved = (self.prompts.mean(dim=2) - self.before.mean(dim=2)).abs()
        spread = self.prompts.std(dim=2, correction=0) - self.before.std(dim=2, correction=0)
        term = (moved + spread.abs()).mean(dim=1).sum()
        return Loss(loss.total + term, {**loss.terms, "distribution": term.detach()})

    @torch.no_grad()
    def after_step(self) -> None:
        if self.begun > 1:
            step = self.prompts - self.at
            self.prompts.copy_(self.at + self.left @ step @ self.right)

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        if self.begun < self.tasks:
            prefixes = self.prefixes()
            for images, _query, _labels in task.plain_images():
                self.look(images, prefixes)

    def look(self, images: Tensor, prefixes: dict[int, Tensor]) -> None:
        """Add the covariances of a chunk of images (B, 3, H, W), seen through these prompts."""
        attentions = [self.network.blocks[layer].attn for layer in self.layers]
        hooks = [
            attn.qkv.register_forward_hook(functools.partial(self._add, number, attn, keys))
            for number, (attn, (keys, _)) in enumerate(
                zip(attentions, prefixes.values(), strict=True)
            )
        ]
        try:
            self.backbone.cls(images, prefixes)
        finally:
            for hook in hooks:
                hook.remove()

    def _add(
        self, number: int, attn: Any, prompt_keys: Tensor, module: Any, inputs: Any, qkv: Tensor
    ) -> None:
        heads = attn.num_heads
        q, k, _ = qkv.float().unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, N, d)
        q, k = attn.q_norm(q), attn.k_norm(k)
        rows = q.shape[0] * heads * q.shape[2]
        key_matrix = module.weight[self.width : 2 * self.width].float().unflatten(0, (heads, -1))
        of_heads = torch.einsum("bhnd,bhne->hde", q, q)
        self.gram1[number] += (key_matrix.mT @ of_heads @ key_matrix).sum(dim=0) / rows
        of_prompts = prompt_keys.unflatten(1, (heads, -1)).transpose(0, 1)  # (H, M, d)
        keys = torch.cat([of_prompts.expand(len(k), -1, -1, -1), k], dim=2)
        scores = (q * attn.scale) @ keys.mT
        on_prompts = scores.softmax(dim=-1)[..., : len(prompt_keys)].flatten(0, 2)
        self.gram2[number] += on_prompts.T @ on_prompts / rows
