from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from modelyard.ensemble.measuring.hindsight import best_convex, best_switching


@pytest.mark.parametrize("seed", range(3))
def test_the_convex_mixture_is_nearly_that_of_a_linear_program(seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1, 80)
    forecast = truth[:, None] + rng.normal(0, [0.5, 0.8, 1.0], (80, 3)) + [0.0, 0.4, -0.5]
    error = forecast - truth[:, None]
    eye = np.eye(80)
    exact = linprog(
        np.r_[np.zeros(3), np.ones(80) / 80],
        A_ub=np.block([[error, -eye], [-error, -eye]]),
        b_ub=np.zeros(160),
        A_eq=np.r_[np.ones(3), np.zeros(80)][None],
        b_eq=[1.0],
    ).fun
    found = np.abs(best_convex(forecast, truth) - truth).mean()
    assert exact - 1e-9 <= found <= 1.01 * exact
    assert found < np.abs(error).mean(axis=0).min()


def brute(loss, switches):
    """The least loss over all sequences with at most so many changes."""
    rows, experts = loss.shape
    return min(
        sum(loss[t, k] for t, k in enumerate(path))
        for path in itertools.product(range(experts), repeat=rows)
        if sum(a != b for a, b in itertools.pairwise(path)) <= switches
    )


@pytest.mark.parametrize("switches", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_switching_sequence_is_the_best_there_is(seed, switches):
    rng = np.random.default_rng(seed)
    forecast, truth = rng.normal(0, 1, (7, 3)), rng.normal(0, 1, 7)
    found = np.abs(best_switching(forecast, truth, switches) - truth).sum()
    assert found == pytest.approx(brute(np.abs(forecast - truth[:, None]), switches))


def test_sleepers_are_never_taken_where_they_sleep():
    forecast = np.array([[1.0, np.nan], [np.nan, 2.0], [3.0, 9.0]])
    truth = np.array([1.0, 2.0, 3.0])
    assert best_switching(forecast, truth).tolist() == [1.0, 2.0, 3.0]
    assert np.isfinite(best_convex(forecast, truth)).all()
