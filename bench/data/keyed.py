"""Counter-based randomness: a 64-bit key per item, any number of draws, in any order and any batch.

`derive` makes an independent seed for each named stream of a run (order, init, data, method): one
more draw in one stream changes no other stream. `Draws` gives vectorised uniforms that are a pure
function of a key. So an augmented view is the same for every method.
"""

from __future__ import annotations

import hashlib

import numpy as np

Array = np.ndarray
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for a named stream: sha256 over the seed and the names."""
    text = "/".join(str(word) for word in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def mix(value: Array) -> Array:
    """splitmix64's finaliser on uint64 (Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def key_of(*words: int | Array) -> Array:
    """Fold integers (broadcast against each other) into one uint64 key per item."""
    key = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            key = mix((key ^ np.asarray(word).astype(np.uint64)) + _GOLDEN)
    return key


class Draws:
    """One numbered stream of uniforms per item. Streams are independent of each other."""

    def __init__(self, key: Array, stream: int) -> None:
        self.key = key_of(key, stream)
        self.count = 0

    def _bits(self, words: int) -> Array:
        counter = np.arange(self.count + 1, self.count + 1 + words, dtype=np.uint64)
        self.count += words
        with np.errstate(over="ignore"):
            return mix(self.key[:, None] + counter * _GOLDEN)

    def uniform(self, low: float = 0.0, high: float = 1.0, width: int = 1) -> Array:
        """(n, width) float32 in [low, high), (n,) if width is 1."""
        unit = (self._bits(width) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        out = np.float32(low) + unit * np.float32(high - low)
        return out[:, 0] if width == 1 else out

    def noise(self, shape: tuple[int, ...]) -> Array:
        """(n, *shape) float32 white noise in [-0.5, 0.5). The size of shape is divisible by 4.

        Each draw gives four 16-bit values, in little endian as on every machine that runs torch.
        """
        bits = self._bits(int(np.prod(shape)) // 4).view(np.uint16)
        values = bits.reshape(len(self.key), *shape).astype(np.float32)
        return values * np.float32(2.0**-16) - np.float32(0.5)
