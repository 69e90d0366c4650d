"""Statistics of the comparison: spread over cells, and paired differences between methods. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

Array = np.ndarray


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (NaN for one value) and the number of values."""

    mean: float
    std: float
    n: int


def summarise(values: Array) -> Summary:
    """Of the values that are defined."""
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Summary(float("nan"), float("nan"), 0)
    return Summary(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan"), len(values))


@dataclass(frozen=True)
class Paired:
    """Mean paired difference, half width of its 95% t interval, two-sided sign-flip p, number of pairs."""

    difference: float
    half_width: float
    p: float
    n: int


def paired(first: Array, second: Array) -> Paired:
    """Compare two methods over the same orders and seeds: cells are paired, so their common luck cancels.

    p is exact over all sign flips; with n pairs it cannot fall below 2^(1-n) (0.25 for 3, 0.0625 for 5).
    """
    d = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    n = len(d)
    if n < 2:
        return Paired(float(d.mean()) if n else float("nan"), float("nan"), float("nan"), n)
    half = float(stats.t.ppf(0.975, n - 1) * d.std(ddof=1) / np.sqrt(n))
    if n <= 16:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        flipped = np.abs((signs * d).mean(axis=1))
        p = float((flipped >= abs(d.mean()) - 1e-12).mean())
    else:
        p = float(stats.ttest_1samp(d, 0).pvalue)
    return Paired(float(d.mean()), half, p, n)
