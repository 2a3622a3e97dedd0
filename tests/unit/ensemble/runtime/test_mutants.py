from __future__ import annotations

import math

import numpy as np
import pytest

from modelyard.core.errors import PolicyError
from modelyard.ensemble.runtime.mutants import (
    conformal_quantile,
    dirty_rows,
    fit_limits,
    offline_jumps,
    shocks,
)


def test_the_conformal_quantile_is_an_order_statistic():
    values = np.arange(1.0, 20.0)  # n = 19: the 19th of 20 places at alpha 0.05
    assert conformal_quantile(values, 0.05) == 19
    assert conformal_quantile(values[:18], 0.05) == math.inf
    assert conformal_quantile(np.r_[values, np.nan], 0.5) == 10


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_a_fresh_value_exceeds_the_quantile_with_probability_alpha(alpha):
    """3000 draws of n = 99: the share has a standard error of at most 0.0073; three of them are allowed."""
    rng = np.random.default_rng(8)
    draws = rng.standard_cauchy((3000, 100))
    above = [row[-1] > conformal_quantile(row[:-1], alpha) for row in draws]
    assert np.mean(above) == pytest.approx(alpha, abs=3 * math.sqrt(alpha * (1 - alpha) / 3000))


def test_jumps_are_relative_to_the_level_and_averaged_over_those_who_serve():
    path = np.array([[12.0, np.nan], [12.0, 30.0], [7.0, 40.0]])
    jumps = offline_jumps(path, np.array([10.0, 20.0]), 10.0)
    assert jumps == pytest.approx([0.2, 0.0, (0.5 + 1.0) / 2])


def test_a_given_epsilon_is_taken_and_an_absent_one_estimated():
    rng = np.random.default_rng(9)
    truth = rng.normal(100, 1, 200)
    offline = np.repeat(truth[:, None, None], 2, axis=1) + rng.normal(0, 1, (200, 2, 1))
    given = fit_limits(truth, offline, epsilon=0.4)
    assert (given.jump, given.jump_kind) == (0.4, "given")
    estimated = fit_limits(truth, offline, epsilon=None)
    steps = np.abs(np.diff(offline[:, 0, 0])) / np.abs(truth).mean()
    assert estimated.jump == pytest.approx(conformal_quantile(steps, estimated.alpha))
    assert (estimated.jump_kind, estimated.jump_rows) == ("conformal", 199)


def test_without_offline_experts_no_mutant_is_foreseen():
    limits = fit_limits(np.arange(50.0), np.empty((50, 2, 0)), epsilon=None)
    assert (limits.jump, limits.jump_kind) == (math.inf, "none")


def test_limits_need_two_neighbours():
    with pytest.raises(PolicyError, match="neighbouring"):
        fit_limits(np.array([1.0, np.nan, 2.0]), np.empty((3, 1, 0)), epsilon=None)


def test_a_jump_of_the_truth_is_a_shock_and_a_gap_is_not():
    rng = np.random.default_rng(10)
    calm = rng.normal(50, 1, 300)
    limits = fit_limits(calm, np.empty((300, 1, 0)), epsilon=None)
    later = np.array([50.0, 50.5, 80.0, 80.5, np.nan, 20.0, 20.5])
    assert np.flatnonzero(shocks(later, limits)).tolist() == [2]


def test_about_alpha_of_ordinary_steps_are_shocks():
    """20,000 steps: standard error 0.0015 and that of the fitted quantile on 2000 steps, 0.005."""
    rng = np.random.default_rng(11)
    series = np.cumsum(rng.normal(0, 1, 22_000)) + 1000
    limits = fit_limits(series[:2000], np.empty((2000, 1, 0)), epsilon=None)
    assert shocks(series[2000:], limits).mean() == pytest.approx(limits.alpha, abs=0.016)


def test_the_dirty_interval_lasts_d_plus_h_rows():
    shock = np.zeros(12, dtype=bool)
    shock[3] = True
    dirty = dirty_rows(shock, leads=2, dirty_interval=2)
    assert np.flatnonzero(dirty[:, 0]).tolist() == [3, 4, 5]
    assert np.flatnonzero(dirty[:, 1]).tolist() == [3, 4, 5, 6]
