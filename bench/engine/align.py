"""The aligned head: a copy of a method's head, trained on samples of all classes seen.

A method trains the heads of its tasks one after the other, so logits of different tasks are never
compared. After each task this stage takes mean and covariance of each new class from the method's
features of the task's training images in the test view. They are kept as they are, also when later
tasks move the features. From the second task on a copy of the head, all classes seen, is trained on
samples of one Gaussian per class. The trained head goes on unchanged, and the stage has random
numbers of its own, so one run gives the numbers of both heads.

Source: SLCA (Zhang et al., ICCV 2023), GengDavid/SLCA models/slca.py::_stage2_compact_classifier
and models/base.py::_compute_class_mean. Deviations:
- The mean's factor is that of the class's own task; the official index is wrong where the last task
  is smaller.
- Covariances are factorised in fp64. That of a class with one image is the ridge alone.
- "diagonal" and "shared" (pooled over all classes seen) covariances, besides the official "full".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import faults, stopping
from bench.config.spec import AlignSpec

RIDGE = 1e-4  # added to every variance
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
OLDEST_SCALE = 0.9  # of the mean of a class of long ago; that of a class of the newest task has 1
SMALLEST_NORM = 1e-7  # added to each norm of logits

Random = Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TaskStatistics:
    """What is kept of a task's classes, start..stop-1 of the class order."""

    start: int
    stop: int
    means: Tensor  # (classes, D) float64
    # full: lower Cholesky factors (classes, D, D); diagonal: standard deviations (classes, D);
    # shared: sum of the centred squares of all classes (D, D), float64
    spread: Tensor
    freedom: int  # degrees of freedom in that sum; 0 for full and diagonal


def statistics(
    features: Tensor, labels: Tensor, start: int, stop: int, covariance: str
) -> TaskStatistics:
    """Of features (n, D) with labels (n,) in start..stop-1. Factors have the features' dtype."""
    means, spreads, freedom = [], [], 0
    for label in range(start, stop):
        own = features[labels == label].double()
        mean = own.mean(dim=0)
        centred, own_freedom = own - mean, len(own) - 1
        means.append(mean)
        if covariance == "diagonal":
            spread = centred.square().sum(dim=0) / max(own_freedom, 1)
            spreads.append((spread + RIDGE).sqrt().to(features.dtype))
        elif covariance == "full":
            spread = centred.T @ centred / max(own_freedom, 1)
            spreads.append(_factor(spread).to(features.dtype))
        else:
            spreads.append(centred.T @ centred)
            freedom += own_freedom
    both = torch.stack(spreads)
    shared = covariance == "shared"
    return TaskStatistics(
        start, stop, torch.stack(means), both.sum(dim=0) if shared else both, freedom
    )


def _factor(covariance: Tensor) -> Tensor:
    """Lower Cholesky factor of a float64 covariance (D, D), with the ridge."""
    ridge = RIDGE * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.cholesky(covariance + ridge)


def samples(tasks: list[TaskStatistics], covariance: str, noise: Tensor) -> Tensor:
    """(K, S, D) for all K classes seen, from standard normal noise (K, S, D)."""
    if covariance == "shared":
        pooled = torch.stack([task.spread for task in tasks]).sum(dim=0)
        freedom = sum(task.freedom for task in tasks)
        moved = noise @ _factor(pooled / max(freedom, 1)).to(noise.dtype).T
    else:
        spread = torch.cat([task.spread for task in tasks])
        moved = noise @ spread.mT if covariance == "full" else noise * spread[:, None]
    return scaled_means(tasks).to(noise.dtype)[:, None] + moved


def scaled_means(tasks: list[TaskStatistics]) -> Tensor:
    """(K, D): s_c m_c with s_c = .9 + .1 (t + 1) / T for a class of task t, from 0, of T seen."""
    rise = 1 - OLDEST_SCALE
    return torch.cat(
        [(OLDEST_SCALE + rise * (t + 1) / len(tasks)) * task.means for t, task in enumerate(tasks)]
    )


def gradient(
    x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, of_task: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Of the mean cross-entropy over all K classes, by weight (K, D) and bias (K,).

    x: (B, D). labels: (B,). of_task: (K, T), 1 where a class belongs to a task. The logits z are
    divided by temperature * nu, with nu the mean over tasks of the norm of their logits, through
    which the gradient flows; temperature 0: the logits as they are.
    """
    logits = torch.addmm(bias, x, weight.T)
    scaled = logits
    if temperature:
        norms = (logits.square() @ of_task).sqrt()  # (B, T)
        nu = (norms + SMALLEST_NORM).mean(dim=1, keepdim=True)
        scaled = logits / (nu * temperature)
    slope = scaled.softmax(dim=1)
    slope[torch.arange(len(x), device=x.device), labels] -= 1
    slope /= len(x)
    if temperature:
        along = (slope * scaled).sum(dim=1, keepdim=True) / (nu * norms.shape[1])
        # Where a task's logits are all zero its norm has no slope.
        inverse = torch.where(norms > 0, 1 / norms, 0)
        slope = slope / (nu * temperature) - along * logits * (inverse @ of_task.T)
    return slope.T @ x, slope.sum(dim=0)


def align(
    weight: Tensor, bias: Tensor, tasks: list[TaskStatistics], spec: AlignSpec, random: Random
) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) after training on samples of all K classes seen, by SGD.

    random: called once an epoch; standard normal noise (K, S, D), and the order (K S,) of the
    samples stacked class by class. The gradient is written out: a step takes a fifth of the time
    that it takes with autograd and an optimiser, and there are many.
    """
    weight, bias = weight.detach().clone(), bias.detach().clone()
    speeds = [torch.zeros_like(weight), torch.zeros_like(bias)]
    labels = torch.arange(len(bias), device=bias.device)
    number = torch.cat([torch.full((t.stop - t.start,), i) for i, t in enumerate(tasks)])
    of_task = F.one_hot(number, len(tasks)).to(weight)
    for epoch in range(spec.epochs):
        stopping.check()  # the stage is short: stopped, it is done again from its start
        faults.point("align")
        rate = spec.lr * (1 + math.cos(math.pi * epoch / spec.epochs)) / 2
        noise, order = random()
        drawn = samples(tasks, spec.covariance, noise).flatten(0, 1)[order]
        targets = labels.repeat_interleave(noise.shape[1])[order]
        for x, y in zip(drawn.split(spec.samples), targets.split(spec.samples), strict=True):
            slopes = gradient(x, y, weight, bias, of_task, spec.temperature)
            for value, slope, speed in zip((weight, bias), slopes, speeds, strict=True):
                speed.mul_(MOMENTUM).add_(slope).add_(value, alpha=WEIGHT_DECAY)
                value.sub_(speed, alpha=rate)
    return weight, bias
