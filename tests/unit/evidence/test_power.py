"""Power: the exact sum against simulation, Connor's formula and statsmodels' test; items needed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from modelyard.evidence.discordance import exact_p
from modelyard.evidence.power import detectable_difference, exact_items_needed, exact_power, items_needed


@pytest.mark.parametrize(
    ("n", "win", "loss"), [(100, 0.2, 0.08), (300, 0.11, 0.05), (40, 0.3, 0.02), (50, 0.1, 0.1)]
)
def test_exact_power_is_that_of_a_simulation(n: int, win: float, loss: float):
    """20,000 draws: 1.4 points are 4 standard deviations."""
    wins, losses, _ = np.random.default_rng(0).multinomial(n, [win, loss, 1 - win - loss], size=20_000).T
    assert exact_power(n, win, loss, 0.05) == pytest.approx((exact_p(wins, losses) <= 0.05).mean(), abs=0.014)


def test_exact_power_is_the_sum_of_its_definition():
    win, loss, n = 0.3, 0.1, 12
    total = 0.0
    for wins in range(n + 1):
        for losses in range(n + 1 - wins):
            if exact_p(wins, losses) <= 0.05:
                total += stats.multinomial.pmf([wins, losses, n - wins - losses], n, [win, loss, 0.6])
    assert exact_power(n, win, loss, 0.05) == pytest.approx(total)


def test_nothing_discordant_has_no_power():
    assert exact_power(100, 0.0, 0.0, 0.05) == 0


@pytest.mark.parametrize(("win", "loss"), [(0.2, 0.1), (0.11, 0.05), (0.5, 0.0), (0.03, 0.01)])
def test_items_needed_have_the_power_and_one_less_has_not(win: float, loss: float):
    n = exact_items_needed(win, loss, 0.05)
    assert n is not None
    assert exact_power(n, win, loss, 0.05) >= 0.8 > exact_power(n - 1, win, loss, 0.05)


def test_many_items_needed_are_those_of_the_approximation():
    # Connor: ((1.645 sqrt(0.2) + 0.842 sqrt(0.2 - 0.002^2)) / 0.002)^2
    assert exact_items_needed(0.101, 0.099, 0.05) == pytest.approx(309_127, abs=2)


def test_a_candidate_that_is_no_better_needs_no_number():
    assert exact_items_needed(0.1, 0.1, 0.05) is None
    assert exact_items_needed(1e-9, 0.0, 0.05) is None
    assert items_needed(100, 0.0, 0.03, 0.05) is None
    assert items_needed(100, 1e-9, 0.03, 0.05) is None


def test_what_is_detectable_is_found_in_four_of_five():
    error = 0.02
    truth = detectable_difference(error, 0.05)
    assert stats.norm.sf(stats.norm.isf(0.05) - truth / error) == pytest.approx(0.8)


def test_items_needed_is_the_number_at_which_the_difference_is_detectable():
    n, excess, error = 200, 0.03, 0.025
    needed = items_needed(n, excess, error, 0.04)
    assert needed is not None
    assert detectable_difference(error * np.sqrt(n / needed), 0.04) == pytest.approx(excess, rel=2e-3)
