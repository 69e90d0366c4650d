"""Statistics of the comparison: spread over cells, and paired differences between methods.

Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

Array = np.ndarray
MAX_EXACT_PAIRS = 16  # all 2^n sign flips are tried up to this many pairs
MIN_EQUAL_VALUES = 3  # so many equal values are no accident: their spread is 0
MAX_NEEDED = 1000  # nobody makes an experiment with more values


class Summary(NamedTuple):
    """Mean, sample standard deviation (NaN for one value) and the number of values."""

    mean: float
    std: float
    n: int


def summarise(values: Array) -> Summary:
    """Summary of the values that are not NaN."""
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Summary(float("nan"), float("nan"), 0)
    std = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Summary(float(values.mean()), std, len(values))


@dataclass(frozen=True)
class Paired:
    """Mean paired difference, half width of its 95% t interval, two-sided p, number of pairs."""

    difference: float
    half_width: float
    p: float
    n: int


def paired(first: Array, second: Array) -> Paired:
    """Compare two methods over the same orders and seeds: pairs cancel the luck that cells share.

    p is exact over all sign flips (of a t test for more than MAX_EXACT_PAIRS pairs). With n pairs
    it cannot fall below 2^(1-n): 0.25 for 3, 0.0625 for 5.
    """
    d = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    n = len(d)
    if n < 2:
        return Paired(float(d.mean()) if n else float("nan"), float("nan"), float("nan"), n)
    half_width = float(stats.t.ppf(0.975, n - 1) * stats.sem(d))
    if n <= MAX_EXACT_PAIRS:
        test = stats.permutation_test(
            (d,), _rounded_mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
        )
    else:
        test = stats.ttest_1samp(d, 0)
    return Paired(float(d.mean()), half_width, float(test.pvalue), n)


def paired_t(first: Array, second: Array) -> float:
    """Two-sided p of the t test over pairs; NaN for fewer than two.

    Differences that are all equal have no spread: p is 1 where they are 0, else 0.
    """
    d = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if len(d) < 2:
        return float("nan")
    if np.ptp(d) == 0:
        return float(d[0] == 0)
    return float(stats.ttest_1samp(d, 0).pvalue)


def holm(p: Array) -> Array:
    """p values adjusted for their number (Holm 1979): at 5% one false finding in 20 tables.

    NaN, of pairs that cannot be tested, does not count.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)  # NaN last
    counted = int(np.isfinite(p).sum())
    adjusted = np.full(len(p), np.nan)
    highest = 0.0
    for rank, place in enumerate(order[:counted]):
        highest = max(highest, min(1.0, (counted - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def _rounded_mean(values: Array, axis: int) -> Array:
    """Rounded so that flips with equal means count as equal, whatever the order of their sums."""
    return np.round(values.mean(axis=axis), 12)


@dataclass(frozen=True)
class Decision:
    """A difference, the half width of its interval, and the verdict.

    needed: the number of own values that would decide an inconclusive one; None: at most MAX_NEEDED
    values would not, or no number is known.
    """

    difference: float
    half_width: float
    verdict: str
    needed: int | None = None


def welch_half_width(std: float, n: int, other_std: float, other_n: int, level: float) -> float:
    """Half width of the interval of a difference of two means, by Welch; NaN for n < 2.

    The standard deviation of a single other value (other_n = 1) is taken as given.
    """
    if n < 2:
        return float("nan")
    own, other = std**2 / n, other_std**2 / other_n
    if own + other == 0:
        return 0.0
    spread = own**2 / (n - 1) + (other**2 / (other_n - 1) if other_n > 1 else 0.0)
    freedom = (own + other) ** 2 / spread if spread else np.inf
    return float(stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(own + other))


def equivalence(
    values: Array,
    reference: float,
    margin: float,
    reference_std: float = float("nan"),
    reference_n: int = 1,
) -> Decision:
    """Is the mean equal to a published one, within a margin?

    Two one-sided tests at 5% (Schuirmann 1987). `reproduced`: the 90% interval of the difference
    lies inside the margin. `differs`: it lies outside. Else `inconclusive`, with the number of
    values that would decide if difference and spread stayed as they are.

    An unknown standard deviation of the reference is taken to be that of the values. So values that
    are all equal are compared as they are, if they are at least MIN_EQUAL_VALUES: a row without
    chance in it, such as a classifier of class means after the last task.
    """
    own = summarise(values)
    std = own.std if own.n > 1 else reference_std
    other = std if np.isnan(reference_std) else reference_std
    difference = own.mean - reference
    half = welch_half_width(own.std, own.n, other, reference_n, 0.9)
    gap = abs(abs(difference) - margin)
    if 1 < own.n < MIN_EQUAL_VALUES and own.std == 0 and np.isnan(reference_std):
        return Decision(difference, float("nan"), "inconclusive", MIN_EQUAL_VALUES)
    if half < gap:
        return Decision(difference, half, "reproduced" if abs(difference) < margin else "differs")
    counts = () if np.isnan(std) else range(max(own.n, 1) + 1, MAX_NEEDED + 1)
    needed = next(
        (n for n in counts if welch_half_width(std, n, other, reference_n, 0.9) < gap), None
    )
    return Decision(difference, half, "inconclusive", needed)


def superiority(first: Array, second: Array, margin: float) -> Decision:
    """Is first above second, over pairs? By the 95% t interval of the mean difference.

    `reproduced`: it lies above 0. `differs`: it lies below 0, or within the margin on both sides
    (no difference that matters). Else `inconclusive`, with the number of pairs that would show the
    difference if it stayed as it is. The test assumes differences that are about normal: without
    that, five pairs can show nothing at 5% (see paired).
    """
    value = paired(first, second)
    low, high = value.difference - value.half_width, value.difference + value.half_width
    if low > 0:
        return Decision(value.difference, value.half_width, "reproduced")
    if high < 0 or (-margin < low and high < margin):
        return Decision(value.difference, value.half_width, "differs")
    std = summarise(np.asarray(first) - np.asarray(second)).std
    counts = () if np.isnan(std) else range(value.n + 1, MAX_NEEDED + 1)
    needed = next(
        (n for n in counts if stats.t.ppf(0.975, n - 1) * std / np.sqrt(n) < abs(value.difference)),
        None,
    )
    return Decision(value.difference, value.half_width, "inconclusive", needed)
