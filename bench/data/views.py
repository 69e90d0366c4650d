"""Views: which part of an image a method sees, and its resampling to the network's size.

A training view is a pure function of (seed, image, epoch): RandomResizedCrop's box (torchvision's rule: ten tries at an
area and an aspect ratio, else as much of the middle as the ratio allows) and a mirror flip. Resampling is the filter of
Pillow's BILINEAR, an antialiased triangle, done as two batched matrix products: weights are multiples of 2^-15, and times
bytes they sum to less than 2^24 of those in fp32, so every sum is exact, and the pixels are the same bytes on any device,
in any batch. They are Pillow's within one grey level; two levels apart is one value in a million (white noise, random crops).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.data.keyed import Draws, key_of

TRIES = 10
_ONE = 1 << 15  # parts of a weight


@dataclass(frozen=True)
class Views:
    """Boxes (n, 4) int64 as left, top, width, height in source pixels, and mirror flags (n,)."""

    boxes: np.ndarray
    mirrored: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Views:
        return Views(self.boxes[rows], self.mirrored[rows])

    def alike(self, most: int = 1 << 22) -> Iterator[np.ndarray]:
        """Numbers of views in groups of about one size, whose squares together have at most so many pixels, or one view."""
        sides = self.boxes[:, 2:].max(1)
        left = np.argsort(-sides, kind="stable")
        while len(left):
            take = max(1, most // int(sides[left[0]]) ** 2)
            yield left[:take]
            left = left[take:]

    def bytes(self) -> bytes:
        """What a digest of the batch stream is taken over."""
        return self.boxes.astype("<i8").tobytes() + self.mirrored.astype(np.uint8).tobytes()


def training_views(seed: int, images: np.ndarray, epoch: int, sizes: np.ndarray, low: float, flip: bool) -> Views:
    """The views of images (n,) (numbers in the training part) of sizes (n, 2), height and width in pixels, in one epoch."""
    draws = Draws(key_of(seed, images, epoch), 3)
    high, wide = sizes[:, :1], sizes[:, 1:]
    area = draws.uniform(low, 1.0, TRIES).astype(np.float64) * high * wide
    bend = draws.uniform(-1 / 7, 1 / 7, TRIES).astype(np.float64)
    ratio = (1 + bend) / (1 - bend)  # 3/4 to 4/3; uniform in the logarithm within 1%, without a logarithm
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= wide) & (height > 0) & (height <= high)
    first = fits.argmax(1)
    rows = np.arange(len(images))
    chosen = fits.any(1)
    whole = _widest(sizes)
    width = np.where(chosen, width[rows, first], whole[:, 1])
    height = np.where(chosen, height[rows, first], whole[:, 0])
    left = np.where(chosen, draws.uniform() * (sizes[:, 1] - width + 1), (sizes[:, 1] - width) // 2).astype(np.int64)
    top = np.where(chosen, draws.uniform() * (sizes[:, 0] - height + 1), (sizes[:, 0] - height) // 2).astype(np.int64)
    mirrored = draws.uniform() < 0.5 if flip else np.zeros(len(images), dtype=bool)
    return Views(np.stack([left, top, width, height], 1), mirrored)


def _widest(sizes: np.ndarray) -> np.ndarray:
    """(n, 2) height and width of what is taken in the middle where no try fits: the image, at most 3 by 4 or 4 by 3."""
    high, wide = sizes.T
    return np.stack([np.minimum(high, np.rint(wide * 4 / 3)), np.minimum(wide, np.rint(high * 4 / 3))], 1).astype(np.int64)


def centre_views(sizes: np.ndarray, share: float) -> Views:
    """The test view of images of sizes (n, 2): the square in the middle that holds this share of the shorter side."""
    cut = np.rint(sizes.min(1) * share).astype(np.int64)
    edges = (sizes - cut[:, None]) // 2
    return Views(np.stack([edges[:, 1], edges[:, 0], cut, cut], 1), np.zeros(len(sizes), dtype=bool))


@dataclass(frozen=True)
class Whole:
    """Images of any size, end to end: pixels (bytes,) uint8, sizes (n, 2) height and width, starts (n,) of each."""

    pixels: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: np.ndarray) -> Whole:
        return Whole(self.pixels, self.sizes[rows], self.starts[rows])

    def image(self, row: int) -> np.ndarray:
        """(height, width, 3), not copied."""
        height, width = self.sizes[row]
        return self.pixels[self.starts[row] : self.starts[row] + 3 * height * width].reshape(height, width, 3)

    def cut(self, rows: np.ndarray, views: Views) -> tuple[np.ndarray, Views]:
        """What the views show, each in the corner of a square that holds the largest, and where it is there."""
        side = int(views.boxes[:, 2:].max())
        squares = np.zeros((len(rows), side, side, 3), dtype=np.uint8)
        for square, row, (left, top, width, height) in zip(squares, rows, views.boxes, strict=True):
            square[:height, :width] = self.image(row)[top : top + height, left : left + width]
        return squares, Views(np.concatenate([np.zeros_like(views.boxes[:, :2]), views.boxes[:, 2:]], 1), views.mirrored)


def _weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """(n, size, side) multiples of 2^-15 in fp32, summing to 1: PIL's antialiased triangle filter over a crop."""
    scale = length.double() / size
    support = scale.clamp(min=1.0)[:, None, None]
    centre = start.double()[:, None] + (torch.arange(size, device=start.device).double() + 0.5) * scale[:, None]
    source = torch.arange(side, device=start.device).double() + 0.5
    weight = (source - centre[:, :, None]).abs_().div_(support).neg_().add_(1).clamp_(min=0)
    weight *= ((source > start[:, None]) & (source < (start + length)[:, None]))[:, None]
    weight /= weight.sum(-1, keepdim=True)
    whole = weight.mul_(_ONE).round_()
    peak = whole.argmax(-1, keepdim=True)  # rounding must not change the sum: the largest weight takes the rest
    whole.scatter_add_(-1, peak, _ONE - whole.sum(-1, keepdim=True))
    return whole.float().div_(_ONE)


def resample(images: Tensor, views: Views, size: int) -> Tensor:
    """Crop, resize and mirror (n, S, S, 3) uint8 to (n, size, size, 3) uint8, on the device where the images are."""
    n, side = len(images), images.shape[1]
    if (views.boxes == views.boxes[:1]).all() and (views.boxes[:1, 2:] == size).all():  # a cut, nothing to resize
        x, y = views.boxes[0, :2]
        out = images[:, y : y + size, x : x + size]
    else:
        left, top, width, height = torch.from_numpy(views.boxes).to(images.device).unbind(1)
        half = torch.full((1, 1, 1), 0.5, device=images.device)  # what is cut off after it is rounding
        planes = images.permute(0, 3, 1, 2).contiguous().float()  # (n, 3, S, S): colours apart, so that products are large
        columns = _weights(left, width, side, size).transpose(1, 2)
        across = torch.baddbmm(half, planes.view(n, 3 * side, side), columns).floor_().view(3 * n, side, size)
        rows = _weights(top, height, side, size)[:, None].expand(n, 3, size, side).reshape(3 * n, size, side)
        down = torch.baddbmm(half, rows, across).to(torch.uint8).view(n, 3, size, size)
        out = down.permute(0, 2, 3, 1).contiguous()  # the layout that every image has here: sums follow it
    if views.mirrored.any():
        mirrored = torch.from_numpy(views.mirrored).to(images.device)
        out = torch.where(mirrored[:, None, None, None], out.flip(2), out)
    return out
