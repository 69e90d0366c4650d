"""Continual-learning metrics: pure functions of the accuracy matrix.

The matrix is a[t, i], counted from 0: accuracy on task i after training on task t. It is N x N,
with NaN above the diagonal. Accuracies are fractions, 0 to 1. "Forgetting" has several definitions
in the literature, so each form has its own name here, and a published number is compared under its
own definition only. A joint run has the last row only; metrics that need earlier rows are then NaN.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def check(a: Array) -> Array:
    """The matrix as float64.

    Raises ValueError if it is not square, its last row has NaN, or an accuracy is outside 0..1.
    """
    a = np.asarray(a, dtype=np.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not len(a):
        raise ValueError(f"an N x N accuracy matrix is expected, not shape {a.shape}")
    if np.isnan(a[-1]).any():
        raise ValueError("the last row of the accuracy matrix is incomplete")
    known = a[~np.isnan(a)]
    if ((known < 0) | (known > 1)).any():
        raise ValueError("accuracies lie between 0 and 1")
    return a


def final_average_accuracy(a: Array) -> float:
    """FAA = A_N = mean_i a[N, i]: every task weighs the same."""
    return float(check(a)[-1].mean())


def average_accuracy_curve(a: Array) -> Array:
    """A_t = mean_{i<=t} a[t, i] for each t, (N,)."""
    a = check(a)
    return np.array([a[t, : t + 1].mean() for t in range(len(a))])


def cumulative_average_accuracy(a: Array) -> float:
    """CAA = mean_t A_t (the papers also write A-bar); NaN for a joint run."""
    return float(average_accuracy_curve(a).mean())


def forgetting(a: Array) -> float:
    """Max form (Chaudhry et al. 2018): mean_{i<N} (max_t a[t, i] - a[N, i]), t from i to N - 1.

    NaN if N = 1.
    """
    a = check(a)
    n = len(a)
    # Without the last column: the last task has no earlier accuracy.
    drops = [a[i : n - 1, i].max() - a[-1, i] for i in range(n - 1)]
    return float(np.mean(drops)) if drops else float("nan")


def coda_forgetting(a: Array) -> float:
    """CODA-Prompt's form: 1/(N-1) sum_{t>=2} 1/(t-1) sum_{i<t} (a[t-1, i] - a[t, i]).

    It is much smaller than the max form. NaN if N = 1.
    """
    a = check(a)
    steps = [np.mean(a[t - 1, :t] - a[t, :t]) for t in range(1, len(a))]
    return float(np.mean(steps)) if steps else float("nan")


def backward_transfer(a: Array) -> float:
    """BWT (Lopez-Paz and Ranzato 2017): mean_{i<N} (a[N, i] - a[i, i]).

    Negative values mean forgetting. NaN if N = 1.
    """
    a = check(a)
    changes = [a[-1, i] - a[i, i] for i in range(len(a) - 1)]
    return float(np.mean(changes)) if changes else float("nan")


def learning_accuracy(a: Array) -> float:
    """LA = mean_i a[i, i]: accuracy on each task just after it was learned."""
    return float(np.diag(check(a)).mean())


def pooled_accuracy_curve(n: Array, correct: Array) -> Array:
    """PILOT's A_t, (N,): the share of correct answers on the test images of tasks 0..t.

    n, correct: (N, N) counts of images, zero above the diagonal.
    """
    below = np.tril(np.ones_like(n, dtype=bool))
    totals = np.where(below, n, 0).sum(axis=1)
    return np.where(below, correct, 0).sum(axis=1) / np.where(totals > 0, totals, np.nan)


METRICS = {
    "faa": final_average_accuracy,
    "caa": cumulative_average_accuracy,
    "forgetting": forgetting,
    "coda_forgetting": coda_forgetting,
    "backward_transfer": backward_transfer,
    "learning_accuracy": learning_accuracy,
}
