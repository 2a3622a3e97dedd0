from __future__ import annotations

import math

import numpy as np
import pytest

from modelyard.ensemble.measuring.scores import (
    block_bootstrap,
    diebold_mariano,
    discounted_score,
    ewma,
    seasonal_scale,
    tie_set,
)


def moving_average(rng, rows, lead):
    """Losses that depend over lead - 1 rows, as errors of forecasts so far ahead do."""
    noise = rng.normal(0, 1, rows + lead - 1)
    return np.convolve(noise, np.ones(lead), mode="valid")


def test_ewma_is_the_recursion():
    errors, beta = [2.0, -1.0, 4.0, 0.5], 0.7
    score = abs(errors[0])
    for error in errors[1:]:
        score = beta * score + (1 - beta) * abs(error)
    assert ewma(np.array(errors), beta) == pytest.approx(score)
    assert ewma(np.array([3.0]), beta) == 3.0
    assert ewma(np.array([1.0, -2.0, 6.0]), 1.0) == 3.0


def test_the_discounted_score_is_corrected_for_its_start():
    score = discounted_score(np.array([5.0, -5.0]), 0.9, seed=1)
    assert score.mean == pytest.approx(5.0)
    assert score.n_eff == pytest.approx(1.9)
    assert discounted_score(np.array([1.0, 3.0]), 1.0, seed=1).mean == 2.0
    weights = 0.5 ** np.arange(3)[::-1]
    assert discounted_score(np.array([4.0, 2.0, 1.0]), 0.5, seed=1).mean == pytest.approx(
        weights @ [4, 2, 1] / weights.sum()
    )


@pytest.mark.parametrize("beta", [1.0, 0.99])
def test_the_interval_covers_the_mean(beta):
    """300 series with dependence over 3 rows: 95 % nominal, at least 86 % asked (blocks undercover)."""
    rng = np.random.default_rng(12)
    weights = beta ** np.arange(399, -1, -1.0)
    covered = 0
    for _ in range(300):
        values = moving_average(rng, 400, 3) + 10
        low, high = block_bootstrap(values, weights, rng=rng)
        covered += low <= 10 <= high
    assert covered / 300 > 0.86


def test_intervals_are_reproducible_and_hold_their_score():
    errors = np.random.default_rng(13).exponential(1, 500) * np.linspace(5, 1, 500)
    first, second = discounted_score(errors, 0.99, seed=3), discounted_score(errors, 0.99, seed=3)
    assert first == second
    assert first.low < first.mean < first.high


def test_the_mase_scale_is_the_seasonal_naive_error():
    truth = np.array([1.0, 5.0, 2.0, 9.0, np.nan, 9.5])
    assert seasonal_scale(truth, 2) == pytest.approx((1 + 4 + 0.5) / 3)
    assert math.isnan(seasonal_scale(np.ones(10), 2))
    assert math.isnan(seasonal_scale(truth, 9))


@pytest.mark.parametrize(("rows", "lead"), [(200, 1), (200, 4), (40, 2)])
def test_a_true_null_is_rejected_about_five_times_in_a_hundred(rows, lead):
    """1500 repetitions: standard error 0.006; the small-sample test is known to be off by a few per cent."""
    rng = np.random.default_rng(14 + lead)
    rejected = [
        diebold_mariano(moving_average(rng, rows, lead), moving_average(rng, rows, lead), lead)[1] < 0.05
        for _ in range(1500)
    ]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.025)


def test_ignoring_the_dependence_would_reject_far_too_often():
    rng = np.random.default_rng(15)
    pairs = ((moving_average(rng, 200, 4), moving_average(rng, 200, 4)) for _ in range(500))
    assert np.mean([diebold_mariano(a, b, 1)[1] < 0.05 for a, b in pairs]) > 0.2


def test_a_difference_is_found():
    """A gap of 0.3 standard deviations over 400 rows: power above 95 %."""
    rng = np.random.default_rng(16)
    pairs = ((rng.normal(0.3, 1, 400), rng.normal(0, 1, 400)) for _ in range(200))
    found = [diebold_mariano(a, b, 1) for a, b in pairs]
    assert np.mean([p < 0.05 and statistic > 0 for statistic, p in found]) > 0.9


def test_equal_or_few_losses_cannot_be_told_apart():
    assert diebold_mariano(np.ones(50), np.ones(50), 1) == (0.0, 1.0)
    assert diebold_mariano(np.array([1.0, 2.0]), np.zeros(2), 1) == (0.0, 1.0)
    assert diebold_mariano(np.full(9, 3.0), np.ones(9), 1) == (math.inf, 0.0)


def test_the_tie_set_holds_the_best_and_its_equals():
    rng = np.random.default_rng(17)
    loss = np.stack([rng.normal(m, 1, 500) for m in (1.0, 1.0, 3.0)], axis=1)
    names = ("a", "b", "c")
    best = names[int(loss.mean(axis=0).argmin())]
    tied = tie_set(loss, names, best=best, beta=1.0, lead=1)
    assert tied[0] == best
    assert set(tied) == {"a", "b"}


def test_the_tie_set_forgets_what_the_score_forgets():
    rng = np.random.default_rng(18)
    old, new = rng.normal(0, 0.1, 500), rng.normal(0, 0.1, 100)
    loss = np.stack([np.r_[old + 9, new + 1], np.r_[old + 1, new + 2]], axis=1)
    assert tie_set(loss, ("a", "b"), best="a", beta=0.95, lead=1) == ("a",)
    assert tie_set(loss, ("a", "b"), best="b", beta=1.0, lead=1) == ("b",)
