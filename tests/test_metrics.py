"""Metrics against matrices worked by hand, and their properties for any matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench import metrics

NAN = float("nan")
# Three tasks: task 1 falls from 0.9 to 0.5 and rises to 0.6, task 2 from 0.8 to 0.7, task 3 ends at
# 0.5.
HAND = np.array([[0.9, NAN, NAN], [0.5, 0.8, NAN], [0.6, 0.7, 0.5]])


@pytest.mark.parametrize(
    ("compute", "value"),
    [
        (metrics.final_average_accuracy, (0.6 + 0.7 + 0.5) / 3),
        (metrics.cumulative_average_accuracy, (0.9 + (0.5 + 0.8) / 2 + 0.6) / 3),
        (metrics.forgetting, ((0.9 - 0.6) + (0.8 - 0.7)) / 2),
        (metrics.coda_forgetting, ((0.9 - 0.5) / 1 + ((0.5 - 0.6) + (0.8 - 0.7)) / 2) / 2),
        (metrics.backward_transfer, ((0.6 - 0.9) + (0.7 - 0.8)) / 2),
        (metrics.learning_accuracy, (0.9 + 0.8 + 0.5) / 3),
    ],
)
def test_hand_worked(compute, value):
    assert compute(HAND) == pytest.approx(value)


def test_pooled_accuracy_weighs_images_not_tasks():
    n = np.array([[10, 0], [10, 30]])
    correct = np.array([[9, 0], [5, 15]])
    assert metrics.pooled_accuracy_curve(n, correct) == pytest.approx([0.9, 20 / 40])


def test_a_task_that_ends_at_its_best_was_not_forgotten_but_gained():
    """The maximum is over the past, as Chaudhry et al. define it: improvement counts as negative
    forgetting.
    """
    assert metrics.forgetting(np.array([[0.5, NAN], [0.7, 0.6]])) == pytest.approx(-0.2)


def test_one_task_has_no_forgetting():
    one = np.array([[0.7]])
    assert metrics.final_average_accuracy(one) == 0.7
    assert np.isnan(metrics.forgetting(one))
    assert np.isnan(metrics.backward_transfer(one))


def test_joint_run_has_only_a_last_row():
    joint = np.array([[NAN, NAN], [0.6, 0.8]])
    assert metrics.final_average_accuracy(joint) == pytest.approx(0.7)
    assert np.isnan(metrics.cumulative_average_accuracy(joint))
    assert np.isnan(metrics.forgetting(joint))


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 3)), np.array([[1.5]]), np.array([[NAN]]), np.zeros((0, 0))]
)
def test_what_is_no_accuracy_matrix_is_refused(bad):
    with pytest.raises(ValueError, match="accurac"):
        metrics.final_average_accuracy(bad)


matrices = st.integers(1, 6).flatmap(lambda n: arrays(np.float64, (n, n), elements=st.floats(0, 1)))


@given(matrices)
def test_properties_of_any_matrix(a):
    a = np.where(np.tril(np.ones_like(a, dtype=bool)), a, np.nan)
    before = a.copy()
    assert 0 <= metrics.final_average_accuracy(a) <= 1
    if len(a) > 1:
        assert metrics.forgetting(a) >= -metrics.backward_transfer(a) - 1e-12, (
            "the best is at least the first"
        )
        assert metrics.backward_transfer(a) == pytest.approx(
            np.mean([a[-1, i] - a[i, i] for i in range(len(a) - 1)])
        )
    assert np.array_equal(a, before, equal_nan=True), "nothing is mutated"


@given(matrices)
def test_a_method_that_never_changes_forgets_nothing(a):
    constant = np.where(np.tril(np.ones_like(a, dtype=bool)), a[-1][None, :], np.nan)
    for compute in (metrics.forgetting, metrics.coda_forgetting, metrics.backward_transfer):
        value = compute(constant)
        assert np.isnan(value) or value == pytest.approx(0)
