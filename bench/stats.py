"""Statistics of the comparison: spread over cells, and paired differences between methods.

Pure functions.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special, stats

Array = np.ndarray
MAX_EXACT_PAIRS = 16  # all 2^n sign flips are tried up to this many pairs
ROUNDING = 1e-9  # differences of percentages that are smaller are those of their last digits
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
    if n <= MAX_EXACT_PAIRS:
        p = sign_flip_p(d)
    else:
        p = float(stats.ttest_1samp(d, 0).pvalue)
    return Paired(float(d.mean()), float(half_width(d)), p, n)


def sign_flip_p(d: Array) -> float:
    """Two-sided exact p of differences d (n,): how many of the 2^n flips have a mean as extreme."""
    means = np.abs(_rounded_mean(_signs(len(d)) * d, axis=1))
    return float(np.mean(means >= abs(_rounded_mean(d, axis=0))))


@functools.cache
def _signs(n: int) -> Array:
    """(2^n, n): every choice of signs."""
    return 1.0 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)


def paired_t(first: Array, second: Array) -> float:
    """Two-sided p of the t test over pairs; NaN for fewer than two.

    Differences that are all equal have no spread that a t test could go by: p is then that of the
    exact sign flips, 2^(1-n), and 1 where they are 0. Three orders that differ by the same one
    test image are no finding.
    """
    d = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if len(d) < 2:
        return float("nan")
    if np.ptp(d) <= ROUNDING:
        return float(2.0 ** (1 - len(d))) if abs(d.mean()) > ROUNDING else 1.0
    t = d.mean() / (d.std(ddof=1) / np.sqrt(len(d)))
    return float(2 * special.stdtr(len(d) - 1, -abs(t)))


def above(first: Array, second: Array) -> float:
    """Probability of improvement: the share of pairs with first above second; a tie counts half."""
    first, second = np.asarray(first), np.asarray(second)
    return float(np.mean((first > second) + 0.5 * (first == second))) if len(first) else np.nan


def half_width(values: Array) -> Array:
    """Half width of the 95% t interval of the mean over the last axis; NaN for one value."""
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[-1]
    if n < 2:
        return np.full(values.shape[:-1], np.nan)[()]
    return _quantile(n - 1) * values.std(axis=-1, ddof=1) / np.sqrt(n)


@functools.cache
def _quantile(freedom: int) -> float:
    """97.5% of Student's t are below it."""
    return float(stats.t.ppf(0.975, freedom))


def bca_intervals(samples: Sequence[Array], resamples: int = 1999, seed: int = 0) -> Array:
    """(len(samples), 2): low and high of the 95% BCa bootstrap interval (Efron 1987) of each mean.

    NaN for fewer than two values; the value itself for values that are all equal. Samples of one
    length share their resamples, so the result of one does not depend on the others.
    """
    found = np.full((len(samples), 2), np.nan)
    by_length: dict[int, list[int]] = {}
    for place, sample in enumerate(samples):
        by_length.setdefault(len(sample), []).append(place)
    for n, places in by_length.items():
        values = np.array([samples[place] for place in places], dtype=np.float64)
        spread = np.ptp(values, axis=1) > 0 if n > 1 else np.zeros(len(values), dtype=bool)
        if n > 1:
            found[places] = values[:, :1]
        if spread.any():
            rng = np.random.default_rng(seed)
            with np.errstate(divide="ignore", invalid="ignore"):
                interval = stats.bootstrap(
                    (values[spread],),
                    np.mean,
                    n_resamples=resamples,
                    axis=1,
                    vectorized=True,
                    method="BCa",
                    rng=rng,
                ).confidence_interval
            chosen = np.array(places)[spread]
            found[chosen] = np.stack([interval.low, interval.high], axis=1)
    return found


def critical_difference(scores: Array, level: float = 0.05) -> tuple[Array, float, float]:
    """Mean ranks (methods,), p of Friedman's test, and Nemenyi's critical difference (Demsar 2006).

    scores: (benchmarks, methods), higher is better; rank 1 is the best, ties share theirs. Raises
    ValueError for fewer than two benchmarks or three methods.
    """
    scores = np.asarray(scores, dtype=np.float64)
    benchmarks, methods = scores.shape
    if benchmarks < 2 or methods < 3:
        raise ValueError(f"{benchmarks} benchmarks and {methods} methods: at least 2 and 3")
    ranks = stats.rankdata(-scores, axis=1)
    p = float(stats.friedmanchisquare(*scores.T).pvalue)
    q = stats.studentized_range.ppf(1 - level, methods, np.inf) / np.sqrt(2)
    return ranks.mean(axis=0), p, float(q * np.sqrt(methods * (methods + 1) / (6 * benchmarks)))


def holm(p: Array) -> Array:
    """p values adjusted for their number (Holm 1979): at 5% one false finding in 20 tables.

    That holds for a table whose comparisons were chosen before its numbers were seen. NaN, of pairs
    that cannot be tested, does not count.
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
