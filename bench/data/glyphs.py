"""The embedded benchmark's images: printed characters in twelve typefaces and many styles.

An RGB 32x32 image is a pure function of (seed, code point, index, style). Its randomness is
counter-based (splitmix64 of the key). Its arithmetic is + - * / and table look-ups only, which
IEEE 754 rounds the same way everywhere; the last bits of sin, cos, exp and matrix products differ
between CPUs. So the same key gives the same bytes on any machine, in any order, in any batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.keyed import Draws, key_of
from bench.errors import UsageError

SIDE = 32
ASSET = Path(__file__).parent.parent / "assets" / "glyphs.npz"
ASSET_SHA256 = "5198c7045fa3ff1704ff97702143029333248ac05ad8ef775ce7375fae130985"
PRETRAIN, TUNE = 0, 5  # values of the asset's `part`; 1..4 are the four benchmarks' classes
IMAGES_PER_BLOCK = 256  # drawn at once: they stay in the processor's cache

Array = np.ndarray


# --- the committed masks ----------------------------------------------------------------------


@functools.cache
def asset() -> dict[str, Array]:
    """codes (C,), part (C,), masks (C, 12, 32, 32) uint8 in 0..255.

    Raises UsageError if the file was altered.
    """
    from bench.data.glyph_masks import contents_digest

    try:
        with np.load(ASSET, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("codes", "part", "masks")}
        intact = contents_digest(arrays) == ASSET_SHA256
    except Exception:  # a broken archive fails in many ways
        intact = False
    if not intact:
        raise UsageError(
            f"{ASSET} is not the file this benchmark was made with (digest differs): restore it"
        )
    packed = arrays["masks"]
    masks = np.empty((*packed.shape[:3], SIDE), dtype=np.uint8)
    masks[..., 0::2] = (packed >> 4) * 17
    masks[..., 1::2] = (packed & 15) * 17
    return {**arrays, "masks": masks}


def classes_of(part: int) -> Array:
    """Rows of the asset that belong to a part, in code point order."""
    return np.flatnonzero(asset()["part"] == part)


# --- geometry ---------------------------------------------------------------------------------


def warp(masks: Array, draws: Draws) -> Array:
    """Random rotation, shear, scale and shift of coverage (n, 32, 32) uint8, bilinear.

    Returns (n, 32, 32) float32 in 0..1.
    """
    n = len(masks)
    half = draws.uniform(-0.13, 0.13)  # tan of half the angle, which is 15 degrees at most
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    shear = draws.uniform(-0.15, 0.15)
    # From the result to the source: a scale above 1 shrinks the glyph.
    scale_x, scale_y = draws.uniform(0.95, 1.35), draws.uniform(0.95, 1.35)
    shift_x, shift_y = draws.uniform(-3, 3), draws.uniform(-3, 3)
    grid = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    gx, gy = grid[None, None, :], grid[None, :, None]

    def column(values: Array) -> Array:
        return values[:, None, None]

    u = gx - column(shift_x)
    v = gy - column(shift_y)
    x = column(scale_x * cos) * u + column(scale_x * (sin + shear)) * v + np.float32((SIDE - 1) / 2)
    y = column(-scale_y * sin) * u + column(scale_y * cos) * v + np.float32((SIDE - 1) / 2)
    padded = np.zeros((n, SIDE + 2, SIDE + 2), dtype=np.float32)
    padded[:, 1:-1, 1:-1] = masks
    x = np.clip(x + 1, 0, SIDE + 0.999)
    y = np.clip(y + 1, 0, SIDE + 0.999)
    x0, y0 = x.astype(np.int32), y.astype(np.int32)
    fx, fy = x - x0, y - y0
    flat = padded.reshape(-1)
    start = (np.arange(n, dtype=np.int32) * (SIDE + 2) ** 2)[:, None, None]
    corner = y0 * (SIDE + 2) + x0 + start
    top = flat[corner] * (1 - fx) + flat[corner + 1] * fx
    bottom = flat[corner + SIDE + 2] * (1 - fx) + flat[corner + SIDE + 3] * fx
    return (top * (1 - fy) + bottom * fy) * np.float32(1 / 255)


def _shifted(image: Array, dy: int, dx: int) -> Array:
    """The image moved by dy rows down and dx columns to the right, filled with zeros."""
    out = np.zeros_like(image)
    h, w = image.shape[-2:]
    source = image[..., max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)]
    out[..., max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = source
    return out


def _blur(image: Array, times: int = 1) -> Array:
    """Binomial [1 2 1] in both directions."""
    for _ in range(times):
        image = (_shifted(image, 0, 1) + 2 * image + _shifted(image, 0, -1)) * np.float32(0.25)
        image = (_shifted(image, 1, 0) + 2 * image + _shifted(image, -1, 0)) * np.float32(0.25)
    return image


def _grow(image: Array) -> Array:
    """Grey dilation by one pixel in the four directions."""
    across = np.maximum(_shifted(image, 0, 1), _shifted(image, 0, -1))
    down = np.maximum(_shifted(image, 1, 0), _shifted(image, -1, 0))
    return np.maximum(np.maximum(across, image), down)


def _stripes(draws: Draws, n: int, low: float, high: float) -> Array:
    """(n, 32, 32) of 0/1 stripes with a random direction, phase and period in pixels."""
    grid = np.arange(SIDE, dtype=np.float32)
    a, b = draws.uniform(-1, 1), draws.uniform(-1, 1)
    b = np.where(np.abs(a) + np.abs(b) < 0.5, np.float32(1), b)
    norm = np.abs(a) + np.abs(b)
    period, phase = draws.uniform(low, high), draws.uniform(0, 1)
    across = (a / norm)[:, None, None] * grid[None, None, :]
    down = (b / norm)[:, None, None] * grid[None, :, None]
    along = across + down
    turns = along / period[:, None, None] + phase[:, None, None]
    return ((turns - np.floor(turns)) < np.float32(0.5)).astype(np.float32)


# --- styles: coverage in, RGB planes out ------------------------------------------------------


def _colours(draws: Draws, min_gap: float) -> tuple[Array, Array]:
    """Ink and paper (n, 3) in 0..1 whose means differ by min_gap or more."""
    ink, paper = draws.uniform(width=3), draws.uniform(width=3)
    gap = paper.sum(1) - ink.sum(1)
    sign = np.where(gap >= 0, np.float32(1), np.float32(-1))
    missing = np.maximum(np.float32(3 * min_gap) - np.abs(gap), 0) / np.float32(6)
    ink, paper = ink - (sign * missing)[:, None], paper + (sign * missing)[:, None]
    return ink, paper


def _paint(coverage: Array, ink: Array, paper: Array) -> Array:
    """Blend (n, 3) colours by (n, 32, 32) coverage: (n, 3, 32, 32)."""
    cover = coverage[:, None]
    return paper[:, :, None, None] * (1 - cover) + ink[:, :, None, None] * cover


def _plain(coverage: Array, draws: Draws) -> Array:
    return _paint(coverage, *_colours(draws, 0.35))


def _near_colours(draws: Draws, low: float, high: float) -> tuple[Array, Array]:
    """Ink and paper (n, 3) of one hue, low to high apart in brightness, as in a faded print."""
    paper = draws.uniform(0.1, 0.9, width=3)
    sign = np.where(draws.uniform() < 0.5, np.float32(1), np.float32(-1))
    return paper + (sign * draws.uniform(low, high))[:, None], paper


def _relief(signed: Array, draws: Draws, low: float, high: float) -> Array:
    """Paper that is lighter where signed (n, 32, 32) is positive and darker where it is negative.

    So the glyph has no mean contrast.
    """
    paper = draws.uniform(0.25, 0.75, width=3)
    depth = draws.uniform(low, high)
    return paper[:, :, None, None] + (signed * depth[:, None, None])[:, None]


def _outline(coverage: Array, draws: Draws) -> Array:
    """A double line: light outside the edge, dark inside, or the other way round."""
    side = np.where(draws.uniform() < 0.5, np.float32(1), np.float32(-1))[:, None, None]
    outside = _grow(coverage) - coverage
    inside = coverage - (1 - _grow(1 - coverage))
    return _relief(side * (outside - inside), draws, 0.25, 0.5)


def _halo(coverage: Array, draws: Draws) -> Array:
    """A glow around the edge that fades over a darker, wider one."""
    side = np.where(draws.uniform() < 0.5, np.float32(1), np.float32(-1))[:, None, None]
    near, far = _blur(coverage, 1), _blur(coverage, 6)
    return _relief(side * (near - far) * np.float32(1.6), draws, 0.25, 0.5)


def _hatching(coverage: Array, draws: Draws) -> Array:
    """Stripes lighter and darker than the paper in turn."""
    stripes = _stripes(draws, len(coverage), 2.2, 4.5) * 2 - 1
    return _relief(coverage * stripes, draws, 0.2, 0.45)


def _blurred(coverage: Array, draws: Draws) -> Array:
    soft = np.clip(_blur(coverage, 5) * np.float32(1.3), 0, 1)
    return _paint(soft, *_near_colours(draws, 0.1, 0.25))


def _texture(coverage: Array, draws: Draws) -> Array:
    """Coarse noise on paper of the same mean: the texture shows the glyph, not its brightness."""
    mean = draws.uniform(0.3, 0.7, width=3)[:, :, None, None]
    noise = draws.noise((3, SIDE, SIDE))
    return mean + coverage[:, None] * noise * np.float32(1.1)


def _shadow(coverage: Array, draws: Draws) -> Array:
    """The glyph in the paper's colour, embossed: lit from one corner, in shadow at the other."""
    soft = _blur(coverage)
    return _relief(_shifted(soft, 1, 1) - _shifted(soft, -1, -1), draws, 0.25, 0.5)


def _faint(coverage: Array, draws: Draws) -> Array:
    """Low contrast, with hatching over everything."""
    ink, paper = _near_colours(draws, 0.14, 0.3)
    lines = _stripes(draws, len(coverage), 3.0, 7.0)[:, None] - np.float32(0.5)
    return _paint(coverage, ink, paper) + lines * draws.uniform(-0.3, 0.3)[:, None, None, None]


STYLES: dict[str, Callable[[Array, Draws], Array]] = {
    "plain": _plain,
    "outline": _outline,
    "halo": _halo,
    "hatching": _hatching,
    "blur": _blurred,
    "texture": _texture,
    "shadow": _shadow,
    "faint": _faint,
}
RENDITIONS = ("outline", "halo", "hatching", "blur", "texture", "shadow")
NOISE_AMPLITUDES = {"faint": 0.12, "texture": 0.0}  # of the white noise; other styles: 0.08


def _draw(seed: int, rows: Array, index: Array, number: int) -> tuple[Array, Array]:
    """Images of one style (n, 3, 32, 32) float32, and the coverage (n, 32, 32) painted on them."""
    name = list(STYLES)[number]
    stored = asset()
    key = key_of(seed, stored["codes"][rows], index, number)
    geometry = Draws(key, 0)
    face = (geometry.uniform() * 12).astype(np.int64)
    coverage = warp(stored["masks"][rows, face], geometry)
    image = STYLES[name](coverage, Draws(key, 1))
    amplitude = NOISE_AMPLITUDES.get(name, 0.08)
    if amplitude:
        image += Draws(key, 2).noise((3, SIDE, SIDE)) * np.float32(amplitude)
    return np.clip(image, 0, 1), coverage


def _as_bytes(image: Array) -> Array:
    """(n, 3, 32, 32) float in 0..1 to (n, 32, 32, 3) uint8."""
    return (image * 255 + np.float32(0.5)).astype(np.uint8).transpose(0, 2, 3, 1)


def render(seed: int, rows: Array, index: Array, style: Array) -> Array:
    """Draw images, each a pure function of its (seed, class, index, style).

    rows: (n,) classes as rows of the asset; index: (n,) image numbers; style: (n,) names of STYLES.
    Returns (n, 32, 32, 3) uint8.
    """
    out = np.empty((len(rows), SIDE, SIDE, 3), dtype=np.uint8)
    style = np.asarray(style)
    for number, name in enumerate(STYLES):
        chosen = np.flatnonzero(style == name)
        for start in range(0, len(chosen), IMAGES_PER_BLOCK):
            block = chosen[start : start + IMAGES_PER_BLOCK]
            image, _ = _draw(seed, rows[block], index[block], number)
            out[block] = _as_bytes(image)
    return out


def render_with_coverage(seed: int, rows: Array, index: Array) -> tuple[Array, Array]:
    """Plain images as render() draws them, and the coverage that they were painted from.

    Returns (n, 32, 32, 3) uint8 and (n, 32, 32) float32 in 0..1.
    """
    image, coverage = _draw(seed, rows, index, list(STYLES).index("plain"))
    return _as_bytes(image), coverage
