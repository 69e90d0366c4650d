"""Statistics of cells against values worked by hand, and against scipy for any numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.stats import (
    Decision,
    Summary,
    above,
    bca_intervals,
    critical_difference,
    equivalence,
    half_width,
    paired,
    sign_flip_p,
    summarise,
    superiority,
    welch_half_width,
)

NUMBERS = st.lists(st.floats(0, 100, allow_nan=False), min_size=2, max_size=8)


def test_paired_statistics_by_hand():
    value = paired(np.array([3.0, 4.0, 5.0]), np.array([1.0, 1.0, 1.0]))
    assert value.difference == pytest.approx(3)
    assert value.half_width == pytest.approx(4.302653 * 1 / np.sqrt(3), rel=1e-5)
    assert value.p == pytest.approx(2 / 8), (
        "of eight sign flips only all-plus and all-minus are as large"
    )


def test_five_pairs_cannot_be_significant():
    assert paired(np.arange(1.0, 6.0), np.zeros(5)).p == pytest.approx(0.0625)


def test_summary_ignores_what_is_not_defined():
    assert summarise(np.array([1.0, np.nan, 3.0])) == Summary(2.0, pytest.approx(np.sqrt(2)), 2)


def test_welch_by_hand():
    """Two samples of five, standard deviation 1: sqrt(2/5) times t with 8 degrees of freedom."""
    assert welch_half_width(1, 5, 1, 5, 0.9) == pytest.approx(1.8595 * np.sqrt(0.4), rel=1e-4)
    assert welch_half_width(2, 4, 0, 1, 0.95) == pytest.approx(3.1824 * 1.0, rel=1e-4), (
        "a known value: one sample of four"
    )
    assert np.isnan(welch_half_width(1, 1, 1, 5, 0.9))
    assert welch_half_width(0, 5, 0, 1, 0.9) == 0


def test_equivalence_by_hand():
    values = np.array(
        [70.0, 71.0, 72.0]
    )  # mean 71, standard deviation 1; against a value known exactly: half width 1.686
    assert equivalence(values, 71, 2, 0.0).verdict == "reproduced"
    assert equivalence(values, 71, 2, 0.0).half_width == pytest.approx(2.92 / np.sqrt(3), rel=1e-3)
    assert equivalence(values, 75, 2, 0.0).verdict == "differs"
    open_ = equivalence(values, 71, 1, 0.0)
    assert open_.verdict == "inconclusive"
    assert open_.needed == 5, "2.132 / sqrt(5) = 0.953 is below 1, 2.353 / sqrt(4) is not"
    assert equivalence(values, 71, 1, 2.0, 1).needed is None, (
        "the published value is itself too uncertain"
    )
    assert equivalence(values[:1], 70, 1).needed is None, "no spread is known"


def test_values_that_do_not_vary_are_compared_as_they_stand():
    """Class means after the last task depend on neither order nor seed, here or in the published
    run; two may be luck.
    """
    assert equivalence(np.full(5, 59.0), 59.77, 1.0) == Decision(59.0 - 59.77, 0.0, "reproduced")
    assert equivalence(np.full(5, 58.0), 59.77, 1.0).verdict == "differs"
    assert equivalence(np.full(2, 59.0), 59.77, 1.0).needed == 3
    assert equivalence(np.full(1, 59.0), 59.77, 1.0).verdict == "inconclusive"
    assert equivalence(np.full(5, 59.0), 59.77, 1.0, 0.2, 5).verdict == "reproduced"


def test_superiority_by_hand():
    first = np.array([3.0, 4.0, 5.0])
    assert superiority(first, first - [1.0, 1.1, 0.9], 1.0).verdict == "reproduced"
    assert superiority(first - [1.0, 1.1, 0.9], first, 1.0).verdict == "differs"
    assert superiority(first, first + np.array([0.01, -0.01, 0.0]), 1.0).verdict == "differs", (
        "no difference that matters"
    )
    open_ = superiority(first, first - [2.0, 0.0, 1.0], 1.0)  # 1 ± 2.48
    assert open_.verdict == "inconclusive"
    assert open_.needed == 7, "2.447 / sqrt(7) = 0.925 is below 1, 2.571 / sqrt(6) = 1.05 is not"


@given(NUMBERS, NUMBERS, st.floats(0.1, 10))
def test_equivalence_is_two_one_sided_tests(values, other, margin):
    values, other = np.array(values), np.array(other)
    decision = equivalence(values, other.mean(), margin, other.std(ddof=1), len(other))
    if values.std() < 1e-6 or other.std() < 1e-6:
        return
    above = scipy_stats.ttest_ind(
        values + margin, other, equal_var=False, alternative="greater"
    ).pvalue
    below = scipy_stats.ttest_ind(
        values - margin, other, equal_var=False, alternative="less"
    ).pvalue
    worst = max(above, below)
    if abs(worst - 0.05) > 1e-6:
        assert (decision.verdict == "reproduced") == (worst < 0.05)


@given(NUMBERS, st.floats(0, 100), st.floats(0.1, 5), st.floats(0, 3), st.integers(1, 10))
def test_the_number_that_is_needed_decides(values, reference, margin, std, n):
    values = np.array(values)
    decision = equivalence(values, reference, margin, std, n)
    mirrored = equivalence(-values, -reference, margin, std, n)
    assert mirrored.verdict == decision.verdict
    assert mirrored.needed == decision.needed
    if decision.needed is not None:
        own = values.std(ddof=1)
        gap = abs(abs(values.mean() - reference) - margin)
        assert decision.needed > len(values)
        assert welch_half_width(own, decision.needed, std, n, 0.9) < gap
        assert not welch_half_width(own, decision.needed - 1, std, n, 0.9) < gap


def test_sign_flips_are_those_of_a_library():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 8):
        d = rng.normal(0.4, 1, n)
        other = scipy_stats.permutation_test(
            (d,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip_p(d) == pytest.approx(other.pvalue)


def test_above_counts_a_tie_as_half():
    assert above(np.array([3.0, 1, 2, 5]), np.array([1.0, 2, 2, 4])) == pytest.approx(2.5 / 4)


def test_bca_by_its_formula():
    """Efron 1987: quantiles of the resampled means, moved by the bias and the acceleration."""
    values = np.random.default_rng(3).gamma(2, size=12)
    (found,) = bca_intervals([values])
    rng = np.random.default_rng(0)
    means = np.sort(values[rng.integers(0, 12, size=(1999, 12))].mean(axis=1))
    bias = scipy_stats.norm.ppf(
        ((means < values.mean()).mean() + (means <= values.mean()).mean()) / 2
    )
    left_out = np.array([np.delete(values, i).mean() for i in range(12)])
    away = left_out.mean() - left_out
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    for value, z in zip(found, scipy_stats.norm.ppf([0.025, 0.975]), strict=True):
        moved = bias + (bias + z) / (1 - acceleration * (bias + z))
        assert value == pytest.approx(np.quantile(means, scipy_stats.norm.cdf(moved)), abs=0.02)


def test_bca_of_few_values():
    found = bca_intervals([np.array([1.0]), np.array([2.0, 2.0]), np.array([1.0, 3.0, 4.0])])
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [2, 2]
    assert found[2, 0] < 8 / 3 < found[2, 1]
    (alone,) = bca_intervals([np.array([1.0, 3.0, 4.0])])
    assert alone.tolist() == found[2].tolist(), "whatever stands beside it"


@pytest.mark.parametrize(("n", "at_most"), [(3, 0.85), (5, 0.91), (10, 0.94)])
def test_bca_covers_too_little_and_t_does_not(n, at_most):
    """1,000 simulated experiments: the reason why the report shows t intervals."""
    samples = np.random.default_rng(n).normal(size=(1000, n))
    low, high = bca_intervals(samples, resamples=999).T
    assert np.mean((low <= 0) & (high >= 0)) < at_most
    assert 0.93 <= np.mean(np.abs(samples.mean(axis=1)) <= half_width(samples)) <= 0.97


def test_critical_difference_of_demsar():
    """Demsar 2006, table 5 (a): q at 5% for two to ten classifiers; figure 1 (a): CD 1.25."""
    for k, q in zip(
        range(3, 11), (2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164), strict=True
    ):
        _, _, found = critical_difference(np.random.default_rng(k).random((20, k)))
        assert found == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 20)), rel=1e-3)
    ranks, p, _ = critical_difference([[3, 2, 1], [3, 2, 1], [3, 1, 1]])
    assert ranks.tolist() == pytest.approx([1, 13 / 6, 17 / 6])
    assert 0 < p < 0.1
    with pytest.raises(ValueError, match="at least"):
        critical_difference(np.zeros((3, 2)))
