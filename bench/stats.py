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
    return Summary(
        float(values.mean()),
        float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        len(values),
    )


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


@dataclass(frozen=True)
class Decision:
    """A difference, the half width of its interval, what that decides, and the number of own values that would decide
    where nothing is yet (None: no number up to MOST would, or none can be said)."""

    difference: float
    half_width: float
    verdict: str
    needed: int | None = None


LEAST = 3  # equal values that count as one without chance
MOST = 1000  # values; beyond that an experiment will not be made


def welch_half_width(std: float, n: int, other_std: float, other_n: int, level: float) -> float:
    """Half width of the interval of a difference of two means, by Welch; NaN for n < 2.

    Of a single other value (other_n = 1) the standard deviation is taken as given.
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
    """Is the mean of values that of a published one, within a margin? Two one-sided tests at 5% (Schuirmann 1987).

    `reproduced`: the 90% interval of the difference lies inside the margin; `differs`: it lies outside; else
    `inconclusive`, with the number of values that would decide if difference and spread stayed as they are. An unknown
    standard deviation of the reference is taken to be that of the values. So values that are all the same (a row without chance
    in it, as a classifier of class means after the last task) are compared as they stand, if they are at least LEAST.
    """
    own = summarise(values)
    std = own.std if own.n > 1 else reference_std
    other = reference_std if not np.isnan(reference_std) else std
    difference = own.mean - reference
    half = welch_half_width(own.std, own.n, other, reference_n, 0.9)
    gap = abs(abs(difference) - margin)
    if (
        1 < own.n < LEAST and own.std == 0 and np.isnan(reference_std)
    ):  # equal by luck, for all we know
        return Decision(difference, float("nan"), "inconclusive", LEAST)
    if half < gap:
        return Decision(difference, half, "reproduced" if abs(difference) < margin else "differs")
    counts = () if np.isnan(std) else range(max(own.n, 1) + 1, MOST + 1)
    needed = next(
        (n for n in counts if welch_half_width(std, n, other, reference_n, 0.9) < gap), None
    )
    return Decision(difference, half, "inconclusive", needed)


def superiority(first: Array, second: Array, margin: float) -> Decision:
    """Is first above second, over pairs? By the 95% t interval of the mean difference.

    `reproduced`: it lies above 0; `differs`: below 0, or within the margin on both sides (no difference that matters);
    else `inconclusive`, with the number of pairs that would show the difference if it stayed as it is. It rests on differences
    that are about normal: without that, five pairs can show nothing at 5% (see paired).
    """
    value = paired(first, second)
    low, high = value.difference - value.half_width, value.difference + value.half_width
    if low > 0:
        return Decision(value.difference, value.half_width, "reproduced")
    if high < 0 or (-margin < low and high < margin):
        return Decision(value.difference, value.half_width, "differs")
    std = (
        float(np.std(np.asarray(first) - np.asarray(second), ddof=1))
        if value.n > 1
        else float("nan")
    )
    counts = () if np.isnan(std) else range(value.n + 1, MOST + 1)
    needed = next(
        (n for n in counts if stats.t.ppf(0.975, n - 1) * std / np.sqrt(n) < abs(value.difference)),
        None,
    )
    return Decision(value.difference, value.half_width, "inconclusive", needed)
