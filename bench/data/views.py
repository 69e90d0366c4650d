"""Views: which part of an image a method sees, and its resampling to the network's size.

A training view is a pure function of (seed, image, epoch): RandomResizedCrop's box (torchvision's rule: ten tries at an
area and an aspect ratio, else as much of the middle as the ratio allows) and a mirror flip. Resampling is the antialiased
triangle filter of Pillow's BILINEAR, which the official repositories use: within one grey level of it, two in one value of
ten million. The host calls torch's kernel for bytes, which sums integers; a GPU does the same sums as two batched matrix
products. So the pixels are the same bytes on any device, in any batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bench.data.keyed import Draws, key_of

CPU = torch.device("cpu")
FORM = "bilinear, 16 bits"  # part of what identifies the features of views
TRIES = 10


def to_device(values: np.ndarray, device: torch.device = CPU) -> Tensor:
    """A copy on the device; to a GPU from page-locked memory, so that nothing waits for it."""
    kind = torch.from_numpy(np.empty(0, values.dtype)).dtype
    copy = torch.empty(values.shape, dtype=kind, pin_memory=device.type == "cuda")
    copy.numpy()[...] = values
    return copy.to(device, non_blocking=True)


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


def training_views(
    seed: int, images: np.ndarray, epoch: int, sizes: np.ndarray, low: float, flip: bool
) -> Views:
    """The views of images (n,) (numbers in the training part) of sizes (n, 2), height and width in pixels, in one epoch."""
    draws = Draws(key_of(seed, images, epoch), 3)
    high, wide = sizes[:, :1], sizes[:, 1:]
    area = draws.uniform(low, 1.0, TRIES).astype(np.float64) * high * wide
    bend = draws.uniform(-1 / 7, 1 / 7, TRIES).astype(np.float64)
    ratio = (1 + bend) / (
        1 - bend
    )  # 3/4 to 4/3; uniform in the logarithm within 1%, without a logarithm
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= wide) & (height > 0) & (height <= high)
    first = fits.argmax(1)
    rows = np.arange(len(images))
    chosen = fits.any(1)
    whole = _widest(sizes)
    width = np.where(chosen, width[rows, first], whole[:, 1])
    height = np.where(chosen, height[rows, first], whole[:, 0])
    left = np.where(
        chosen, draws.uniform() * (sizes[:, 1] - width + 1), (sizes[:, 1] - width) // 2
    ).astype(np.int64)
    top = np.where(
        chosen, draws.uniform() * (sizes[:, 0] - height + 1), (sizes[:, 0] - height) // 2
    ).astype(np.int64)
    mirrored = draws.uniform() < 0.5 if flip else np.zeros(len(images), dtype=bool)
    return Views(np.stack([left, top, width, height], 1), mirrored)


def _widest(sizes: np.ndarray) -> np.ndarray:
    """(n, 2) height and width of what is taken in the middle where no try fits: the image, at most 3 by 4 or 4 by 3."""
    high, wide = sizes.T
    return np.stack(
        [np.minimum(high, np.rint(wide * 4 / 3)), np.minimum(wide, np.rint(high * 4 / 3))], 1
    ).astype(np.int64)


def centre_views(sizes: np.ndarray, share: float) -> Views:
    """The test view of images of sizes (n, 2): the square in the middle that holds this share of the shorter side."""
    cut = np.rint(sizes.min(1) * share).astype(np.int64)
    edges = (sizes - cut[:, None]) // 2
    return Views(
        np.stack([edges[:, 1], edges[:, 0], cut, cut], 1), np.zeros(len(sizes), dtype=bool)
    )


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
        return self.pixels[self.starts[row] : self.starts[row] + 3 * height * width].reshape(
            height, width, 3
        )

    def cut(self, rows: np.ndarray, views: Views) -> tuple[np.ndarray, Views]:
        """What the views show, each in the corner of a square that holds the largest, and where it is there."""
        side = int(views.boxes[:, 2:].max())
        squares = np.zeros((len(rows), side, side, 3), dtype=np.uint8)
        for square, row, (left, top, width, height) in zip(squares, rows, views.boxes, strict=True):
            square[:height, :width] = self.image(row)[top : top + height, left : left + width]
        return squares, Views(
            np.concatenate([np.zeros_like(views.boxes[:, :2]), views.boxes[:, 2:]], 1),
            views.mirrored,
        )


def resample(images: np.ndarray | Whole, rows: np.ndarray, views: Views, size: int) -> Tensor:
    """Crop, resize and mirror images[rows] to (n, size, size, 3) uint8, one after the other."""
    drawn = torch.empty(
        len(rows), 3, size, size, dtype=torch.uint8, memory_format=torch.channels_last
    )
    for place, row, (left, top, width, height), mirrored in zip(
        drawn.split(1), rows, views.boxes.tolist(), views.mirrored, strict=True
    ):
        image = images.image(row) if isinstance(images, Whole) else images[row]
        cut = image[top : top + height, left : left + width].reshape(
            1, height, width, 3
        )  # strides of whole images: twice as fast
        one = interpolate(
            torch.from_numpy(cut.copy()).permute(0, 3, 1, 2),
            (size, size),
            mode="bilinear",
            antialias=True,
        )
        place.copy_(one.flip(3) if mirrored else one)
    return drawn.permute(0, 2, 3, 1)


def _taps(length: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first source pixel (n, size) of each pixel of the result, the weights (n, size, taps) from there on, and the whole
    number (n,) in which parts of one they are: as torch's kernel for bytes makes them (compute_index_ranges_int16_weights
    in aten/src/ATen/native/cpu/UpSampleKernel.cpp), operation by operation."""
    scale = length[:, None] / size
    support = np.maximum(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), length[:, None]) - first
    taps = np.arange(count.max())
    far = np.abs((taps + first[..., None] - centre[..., None] + 0.5) * (1.0 / support)[..., None])
    weight = np.where((far < 1.0) & (taps < count[..., None]), 1.0 - far, 0.0)
    weight /= weight.cumsum(-1)[..., -1:]  # one after the other, as there
    doubled = 0.5 + weight.max((1, 2))[:, None] * 2.0 ** np.arange(1, 23)
    one = 2.0 ** (doubled < 1 << 15).sum(1)  # so that the largest fits into 16 bits
    return first, np.trunc(0.5 + weight * one[:, None, None]), one


def _matrix(
    start: np.ndarray, length: np.ndarray, side: int, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What each source pixel adds to each pixel of the result, (n, size, side) fp64 whole numbers, and of what (n, 1, 1)."""
    first, weight, one = _taps(length, size)
    at, values, parts = (
        to_device(array, device) for array in (start[:, None] + first, weight, one)
    )
    tap = (
        torch.arange(side, device=device) - at[..., None]
    )  # which of its taps a source pixel is, if it is one
    matrix = values.gather(
        -1, tap.clamp(0, values.shape[-1] - 1)
    )  # a scatter would make a GPU's host wait
    return matrix.where((tap >= 0) & (tap < values.shape[-1]), 0.0), parts[:, None, None]


def _rounded(sums: Tensor, one: Tensor) -> Tensor:
    return sums.div_(one).add_(0.5).floor_().clamp_(max=255)


def resample_on_device(images: Tensor, views: Views, size: int) -> Tensor:
    """The same of (n, S, S, 3) uint8, on the device where the images are: sums stay below 2^31, so fp64 holds them exactly."""
    n, side = len(images), images.shape[1]
    left, top, width, height = views.boxes.T
    planes = (
        images.permute(0, 3, 1, 2).contiguous().double()
    )  # (n, 3, S, S): colours apart, so that products are large
    columns, parts = _matrix(left, width, side, size, images.device)
    across = _rounded(planes.view(n, 3 * side, side) @ columns.transpose(1, 2), parts).view(
        n, 3, side, size
    )
    rows, parts = _matrix(top, height, side, size, images.device)
    down = _rounded(rows[:, None] @ across, parts[:, None])
    out = down.to(torch.uint8).permute(0, 2, 3, 1).contiguous()  # the layout of every image here
    mirrored = to_device(views.mirrored, images.device)
    return torch.where(mirrored[:, None, None, None], out.flip(2), out)
