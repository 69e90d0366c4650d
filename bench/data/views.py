"""Views: the box of an image that a method sees, resampled to the network's size.

A training view is a pure function of (seed, image, epoch): the box of RandomResizedCrop and a
mirror flip. The box follows torchvision's rule: ten tries at an area and an aspect ratio; if none
fits, as much of the middle as the ratio allows.

Resampling is the antialiased triangle filter of Pillow's BILINEAR, which the official repositories
use. It differs from Pillow's by one grey level at most, and by two in one value of ten million.
A CPU calls torch's kernel for bytes, which sums integers. A GPU computes the same sums as two
batched matrix products. So the pixels are the same bytes on any device and in any batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bench.data.keyed import Draws, key_of

CPU = torch.device("cpu")
CROP_TRIES = 10  # boxes drawn for a training view before the middle is taken


def to_device(values: np.ndarray, device: torch.device = CPU) -> Tensor:
    """A copy on the device. For a GPU it is made in page-locked memory, so nothing waits for it."""
    dtype = torch.from_numpy(np.empty(0, values.dtype)).dtype
    copy = torch.empty(values.shape, dtype=dtype, pin_memory=device.type == "cuda")
    copy.numpy()[...] = values
    return copy.to(device, non_blocking=True)


@dataclass(frozen=True)
class Views:
    """Boxes (n, 4) int64 as left, top, width, height in source pixels, and mirror flags (n,)."""

    boxes: np.ndarray
    mirrored: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Views:
        return Views(self.boxes[rows], self.mirrored[rows])

    def similar_sizes(self, max_pixels: int = 1 << 22) -> Iterator[np.ndarray]:
        """Row numbers in groups of about one size, the largest boxes first.

        The squares around the boxes of a group have at most max_pixels together. A box that is
        larger than that is a group of its own.
        """
        sides = self.boxes[:, 2:].max(1)
        left = np.argsort(-sides, kind="stable")
        while len(left):
            count = max(1, max_pixels // int(sides[left[0]]) ** 2)
            yield left[:count]
            left = left[count:]

    def bytes(self) -> bytes:
        """The bytes that go into the digest of the batch stream."""
        return self.boxes.astype("<i8").tobytes() + self.mirrored.astype(np.uint8).tobytes()


def training_views(
    seed: int, images: np.ndarray, epoch: int, sizes: np.ndarray, low: float, flip: bool
) -> Views:
    """The views of some training images in one epoch.

    images: (n,) numbers in the training part. sizes: (n, 2), height and width in pixels.
    low: the smallest share of the area that a box covers. flip: mirror half of the views.
    """
    draws = Draws(key_of(seed, images, epoch), 3)
    image_height, image_width = sizes[:, :1], sizes[:, 1:]
    area = draws.uniform(low, 1.0, CROP_TRIES).astype(np.float64) * image_height * image_width
    # The ratio goes from 3/4 to 4/3. Its logarithm is uniform within 1%, but no log is computed.
    bend = draws.uniform(-1 / 7, 1 / 7, CROP_TRIES).astype(np.float64)
    ratio = (1 + bend) / (1 - bend)
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= image_width) & (height > 0) & (height <= image_height)
    any_fits = fits.any(1)
    first = fits.argmax(1)
    rows = np.arange(len(images))
    middle = _middle_sizes(sizes)
    width = np.where(any_fits, width[rows, first], middle[:, 1])
    height = np.where(any_fits, height[rows, first], middle[:, 0])
    room_x, room_y = sizes[:, 1] - width, sizes[:, 0] - height
    left = np.where(any_fits, draws.uniform() * (room_x + 1), room_x // 2).astype(np.int64)
    top = np.where(any_fits, draws.uniform() * (room_y + 1), room_y // 2).astype(np.int64)
    mirrored = draws.uniform() < 0.5 if flip else np.zeros(len(images), dtype=bool)
    return Views(np.stack([left, top, width, height], 1), mirrored)


def _middle_sizes(sizes: np.ndarray) -> np.ndarray:
    """(n, 2) height and width of the largest middle box with a ratio from 3/4 to 4/3."""
    height, width = sizes.T
    boxes = [
        np.minimum(height, np.rint(width * 4 / 3)),
        np.minimum(width, np.rint(height * 4 / 3)),
    ]
    return np.stack(boxes, 1).astype(np.int64)


def centre_views(sizes: np.ndarray, share: float) -> Views:
    """The test views of images of sizes (n, 2): a square in the middle, not mirrored.

    share: the side of the square, as a share of the image's shorter side.
    """
    side = np.rint(sizes.min(1) * share).astype(np.int64)
    margins = (sizes - side[:, None]) // 2
    boxes = np.stack([margins[:, 1], margins[:, 0], side, side], 1)
    return Views(boxes, np.zeros(len(sizes), dtype=bool))


@dataclass(frozen=True)
class RaggedImages:
    """Images of different sizes, end to end.

    pixels: (bytes,) uint8. sizes: (n, 2), height and width. starts: (n,), each image's first byte.
    """

    pixels: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: np.ndarray) -> RaggedImages:
        return RaggedImages(self.pixels, self.sizes[rows], self.starts[rows])

    def image(self, row: int) -> np.ndarray:
        """(height, width, 3), not copied."""
        height, width = self.sizes[row]
        start = self.starts[row]
        return self.pixels[start : start + 3 * height * width].reshape(height, width, 3)

    def cut(self, rows: np.ndarray, views: Views) -> tuple[np.ndarray, Views]:
        """The boxes of the views as (n, S, S, 3) squares, and the views that show them there.

        S is the longest side of all boxes. Each box lies in the top left corner of its square.
        """
        side = int(views.boxes[:, 2:].max())
        squares = np.zeros((len(rows), side, side, 3), dtype=np.uint8)
        for square, row, (left, top, width, height) in zip(squares, rows, views.boxes, strict=True):
            square[:height, :width] = self.image(row)[top : top + height, left : left + width]
        corners = np.zeros_like(views.boxes[:, :2])
        boxes = np.concatenate([corners, views.boxes[:, 2:]], 1)
        return squares, Views(boxes, views.mirrored)


def resample(
    images: np.ndarray | RaggedImages, rows: np.ndarray, views: Views, size: int
) -> Tensor:
    """Crop, resize and mirror images[rows] to (n, size, size, 3) uint8, one after the other."""
    drawn = torch.empty(
        len(rows), 3, size, size, dtype=torch.uint8, memory_format=torch.channels_last
    )
    each = zip(drawn.split(1), rows, views.boxes.tolist(), views.mirrored, strict=True)
    for target, row, (left, top, width, height), mirrored in each:
        image = images.image(row) if isinstance(images, RaggedImages) else images[row]
        # The reshape gives the strides of a batch of one: torch's kernel is twice as fast on them.
        cut = image[top : top + height, left : left + width].reshape(1, height, width, 3)
        planes = torch.from_numpy(cut.copy()).permute(0, 3, 1, 2)
        resized = interpolate(planes, (size, size), mode="bilinear", antialias=True)
        target.copy_(resized.flip(3) if mirrored else resized)
    return drawn.permute(0, 2, 3, 1)


# --- the same on a GPU ------------------------------------------------------------------------


class Taps(NamedTuple):
    """The weighted sum of source pixels that makes each pixel of a result, along one axis."""

    first: np.ndarray  # (n, size): the first source pixel
    weights: np.ndarray  # (n, size, taps): whole numbers, from the first source pixel on
    unit: np.ndarray  # (n,): the whole number that a weight of 1 is


def _taps(length: np.ndarray, size: int) -> Taps:
    """The taps that resize `length` (n,) pixels to `size`.

    Operation by operation as torch's kernel for bytes does it: compute_index_ranges_int16_weights
    in aten/src/ATen/native/cpu/UpSampleKernel.cpp.
    """
    scale = length[:, None] / size
    support = np.maximum(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), length[:, None]) - first
    taps = np.arange(count.max())
    distance = np.abs(
        (taps + first[..., None] - centre[..., None] + 0.5) * (1.0 / support)[..., None]
    )
    weight = np.where((distance < 1.0) & (taps < count[..., None]), 1.0 - distance, 0.0)
    weight /= weight.cumsum(-1)[..., -1:]  # summed one after the other, as the kernel does
    doubled = 0.5 + weight.max((1, 2))[:, None] * 2.0 ** np.arange(1, 23)
    unit = 2.0 ** (doubled < 1 << 15).sum(1)  # the largest weight then fits into 16 bits
    return Taps(first, np.trunc(0.5 + weight * unit[:, None, None]), unit)


def _matrix(
    start: np.ndarray, length: np.ndarray, side: int, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The taps as a matrix (n, size, side) over all source pixels, fp64, and the unit (n, 1, 1)."""
    taps = _taps(length, size)
    first = to_device(start[:, None] + taps.first, device)
    weights = to_device(taps.weights, device)
    unit = to_device(taps.unit, device)
    count = weights.shape[-1]
    # The number of the tap that a source pixel is. A gather, because a scatter would make the CPU
    # wait for the GPU.
    tap = torch.arange(side, device=device) - first[..., None]
    matrix = weights.gather(-1, tap.clamp(0, count - 1))
    return matrix.where((tap >= 0) & (tap < count), 0.0), unit[:, None, None]


def _rounded(sums: Tensor, unit: Tensor) -> Tensor:
    return sums.div_(unit).add_(0.5).floor_().clamp_(max=255)


def resample_on_device(images: Tensor, views: Views, size: int) -> Tensor:
    """`resample` for (n, S, S, 3) uint8 on the images' device, with the same bytes as its result.

    Sums stay below 2^31, so fp64 holds them exactly.
    """
    n, side = len(images), images.shape[1]
    left, top, width, height = views.boxes.T
    # (n, 3, S, S): with the colours apart the matrix products are large.
    planes = images.permute(0, 3, 1, 2).contiguous().double()
    columns, unit = _matrix(left, width, side, size, images.device)
    across = _rounded(planes.view(n, 3 * side, side) @ columns.transpose(1, 2), unit)
    across = across.view(n, 3, side, size)
    rows, unit = _matrix(top, height, side, size, images.device)
    down = _rounded(rows[:, None] @ across, unit[:, None])
    out = down.to(torch.uint8).permute(0, 2, 3, 1).contiguous()  # the layout of every image here
    mirrored = to_device(views.mirrored, images.device)
    return torch.where(mirrored[:, None, None, None], out.flip(2), out)
