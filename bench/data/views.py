"""Views: which part of an image a method sees, and its resampling to the network's size.

A training view is a pure function of (seed, image, epoch): RandomResizedCrop's box (torchvision's rule: ten tries
at an area and an aspect ratio, else the whole image) and a mirror flip. Resampling is the antialiased triangle filter
of PIL's BILINEAR, done as two batched matrix products of integers held in fp32: weights of 15 bits times bytes sum to
less than 2^24, so every sum is exact, and the pixels are the same bytes on any device, in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.data.keyed import Draws, key_of

TRIES = 10
_ONE = 1 << 15  # weights of one output pixel sum to this


@dataclass(frozen=True)
class Views:
    """Boxes (n, 4) int64 as left, top, width, height in source pixels, and mirror flags (n,)."""

    boxes: np.ndarray
    mirrored: np.ndarray

    def bytes(self) -> bytes:
        """What a digest of the batch stream is taken over."""
        return self.boxes.astype("<i8").tobytes() + self.mirrored.astype(np.uint8).tobytes()


def training_views(seed: int, images: np.ndarray, epoch: int, side: int, low: float, flip: bool) -> Views:
    """The views of images (n,) (numbers in the training part) of side x side pixels in one epoch."""
    draws = Draws(key_of(seed, images, epoch), 3)
    area = draws.uniform(low, 1.0, TRIES).astype(np.float64) * side * side
    bend = draws.uniform(-1 / 7, 1 / 7, TRIES).astype(np.float64)
    ratio = (1 + bend) / (1 - bend)  # 3/4 to 4/3; uniform in the logarithm within 1%, without a logarithm
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= side) & (height > 0) & (height <= side)
    first = fits.argmax(1)
    rows = np.arange(len(images))
    chosen = fits.any(1)
    width = np.where(chosen, width[rows, first], side)
    height = np.where(chosen, height[rows, first], side)
    left = (draws.uniform() * (side - width + 1)).astype(np.int64)
    top = (draws.uniform() * (side - height + 1)).astype(np.int64)
    mirrored = draws.uniform() < 0.5 if flip else np.zeros(len(images), dtype=bool)
    return Views(np.stack([left, top, width, height], 1), mirrored)


def centre_views(count: int, side: int, size: int) -> Views:
    """The test view: the central size x size pixels, or all of an image that is not larger."""
    cut = min(side, size)
    edge = (side - cut) // 2
    return Views(np.tile(np.array([edge, edge, cut, cut]), (count, 1)), np.zeros(count, dtype=bool))


def _weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """(n, size, side) integer weights in fp32, summing to 2^15: PIL's antialiased triangle filter over a crop."""
    scale = length.double() / size
    support = scale.clamp(min=1.0)[:, None, None]
    centre = start.double()[:, None] + (torch.arange(size).double()[None] + 0.5) * scale[:, None]
    source = torch.arange(side).double()[None, None] + 0.5
    weight = (1 - (source - centre[:, :, None]).abs() / support).clamp(min=0)
    inside = (source > start[:, None, None]) & (source < (start + length)[:, None, None])
    weight = weight * inside
    weight = weight / weight.sum(-1, keepdim=True)
    whole = torch.round(weight * _ONE)
    peak = whole.argmax(-1, keepdim=True)  # rounding must not change the sum: the largest weight takes the rest
    whole.scatter_add_(-1, peak, _ONE - whole.sum(-1, keepdim=True))
    return whole.float()


def resample(images: Tensor, views: Views, size: int) -> Tensor:
    """Crop, resize and mirror (n, S, S, 3) uint8 to (n, size, size, 3) uint8."""
    n, side = len(images), images.shape[1]
    left, top, width, height = torch.from_numpy(views.boxes).unbind(1)
    if bool((width == size).all() and (height == size).all() and (left == 0).all() and (top == 0).all()):
        out = images if side == size else images[:, :size, :size]
    else:
        across = torch.bmm(
            _weights(left, width, side, size), images.permute(0, 2, 1, 3).reshape(n, side, side * 3).float()
        )  # (n, size, S*3): columns resampled, kept as rows
        across = torch.floor((across + _ONE / 2) / _ONE).view(n, size, side, 3)
        down = torch.bmm(_weights(top, height, side, size), across.transpose(1, 2).reshape(n, side, size * 3))
        out = torch.floor((down + _ONE / 2) / _ONE).to(torch.uint8).view(n, size, size, 3)
    mirrored = torch.from_numpy(views.mirrored)
    if mirrored.any():
        out = torch.where(mirrored[:, None, None, None], out.flip(2), out)
    return out
