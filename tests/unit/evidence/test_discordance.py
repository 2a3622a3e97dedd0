"""Exact tests against scipy and statsmodels; Tango's test against published examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from modelyard.evidence.discordance import (
    exact_interval,
    exact_p,
    exact_two_sided_p,
    score_interval,
    score_p,
    score_z,
    share_bounds,
)

COUNT = st.integers(0, 60)


@given(COUNT, COUNT)
def test_exact_p_is_that_of_scipy_and_statsmodels(wins: int, losses: int):
    if wins + losses:
        expected = stats.binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue
        assert exact_p(wins, losses) == pytest.approx(expected, rel=1e-9)
    table = [[7, losses], [wins, 5]]
    assert exact_two_sided_p(wins, losses) == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)


def test_nothing_discordant_proves_nothing():
    assert exact_p(0, 0) == 1
    assert exact_two_sided_p(0, 0) == 1
    assert score_p(0, 0, 50, 0.0) == 1
    assert exact_interval(0, 0, 20, 0.05) == pytest.approx((-(1 - 0.05**0.05), 1 - 0.05**0.05))


def test_the_example_of_the_reference():
    # 220 items, of which 18 are discordant; an unpaired z gives p = 0.080 here, McNemar 0.008.
    assert exact_two_sided_p(15, 3) == pytest.approx(0.00754, abs=1e-5)


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.005, 0.025, 0.05]))
def test_share_bounds_are_those_of_statsmodels(passed: int, more: int, alpha: float):
    n = passed + more
    if n:
        expected = proportion_confint(passed, n, alpha=2 * alpha, method="beta")
        assert share_bounds(passed, n, alpha) == pytest.approx(expected, abs=1e-9)


def test_how_little_twenty_of_twenty_show():
    assert share_bounds(20, 20, 0.05)[0] == pytest.approx(0.861, abs=5e-4)
    assert share_bounds(299, 299, 0.05)[0] == pytest.approx(0.99, abs=5e-5)
    assert share_bounds(0, 0, 0.05) == (0.0, 1.0)


@given(COUNT, COUNT, st.integers(0, 100), st.sampled_from([0.01, 0.04, 0.05]))
def test_the_exact_interval_agrees_with_the_test(wins: int, losses: int, same: int, alpha: float):
    n = wins + losses + same
    if n:
        low, high = exact_interval(wins, losses, n, alpha)
        assert -1 <= low <= (wins - losses) / n <= high <= 1
        assert (low > 0) == (exact_p(wins, losses) < alpha)
        assert (high < 0) == (exact_p(losses, wins) < alpha)


@pytest.mark.parametrize(
    ("wins", "losses", "n", "alpha", "low", "high"),
    [
        # Tango 1998, section 6.1: soft contact lenses, 90 %; section 6.2: sleeping difficulties, 95 %.
        (0, 1, 44, 0.05, -0.096, None),
        (9, 3, 32, 0.025, -0.027, 0.390),
        # Fagerland, Lydersen and Laake 2014: airways before and after a transplantation.
        (1, 7, 21, 0.025, -0.517, -0.026),
        # R's PropCIs, scoreci.mp(25, 28, 618), 90 %.
        (28, 25, 618, 0.05, -0.0148, 0.0247),
    ],
)
def test_tangos_interval_as_published(
    wins: int, losses: int, n: int, alpha: float, low: float, high: float | None
):
    found = score_interval(wins, losses, n, alpha)
    digits = 5e-5 if n == 618 else 5e-4
    assert found[0] == pytest.approx(low, abs=digits)
    if high is not None:
        assert found[1] == pytest.approx(high, abs=digits)


def test_tangos_test_as_published():
    # Section 6.1: not more than 10 points inferior, Z = 1.709, p = 0.044.
    assert score_z(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)
    assert score_p(0, 1, 44, 0.1) == pytest.approx(0.044, abs=5e-4)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 100))
def test_at_no_difference_it_is_mcnemars_statistic(wins: int, losses: int, same: int):
    n = wins + losses + same
    if wins + losses:
        expected = (wins - losses) / np.sqrt(wins + losses)
        assert score_z(wins, losses, n, 0.0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("wins", "losses", "n"), [(5, 9, 60), (0, 3, 40), (12, 0, 50), (1, 1, 200)])
@pytest.mark.parametrize("difference", [-0.2, -0.05, 0.03, 0.3])
def test_the_restricted_shares_are_the_most_likely(wins: int, losses: int, n: int, difference: float):
    def unlikely(lost: float) -> float:
        shares = np.array([lost + difference, lost, 1 - 2 * lost - difference])
        counts = np.array([wins, losses, n - wins - losses])
        return -float((counts * np.log(np.clip(shares, 1e-300, None))).sum())

    bounds = (max(0.0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12)
    best = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    error = np.sqrt(n * (2 * best + difference - difference**2))
    expected = (wins - losses - n * difference) / error
    assert score_z(wins, losses, n, difference) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=25)
@given(COUNT, COUNT, st.integers(1, 100), st.sampled_from([0.01, 0.05]))
def test_tangos_interval_holds_what_the_test_does_not_refuse(wins: int, losses: int, same: int, alpha: float):
    n = wins + losses + same
    low, high = score_interval(wins, losses, n, alpha)
    z = stats.norm.isf(alpha)
    assert -1 <= low <= (wins - losses) / n <= high <= 1
    assert score_z(wins, losses, n, low) == pytest.approx(z, abs=1e-6)
    assert score_z(wins, losses, n, high) == pytest.approx(-z, abs=1e-6)
    assert score_interval(losses, wins, n, alpha) == pytest.approx((-high, -low), abs=1e-9)


def test_all_pairs_discordant():
    assert score_interval(10, 0, 10, 0.05)[1] == 1
    assert score_interval(0, 10, 10, 0.05)[0] == -1
    assert exact_interval(10, 0, 10, 0.05) == pytest.approx((2 * 0.05**0.1 - 1, 1))


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05, 0.1])
@pytest.mark.parametrize(("share", "most"), [(1.0, 0.061), (1.2, 0.055), (5.0, 0.055)])
def test_false_passes_at_the_margin(n: int, margin: float, share: float, most: float):
    """Summed over all outcomes, where `share` times the margin is discordant; a share of 1 has no wins."""
    wins, losses = np.ogrid[: n + 1, : n + 1]
    moved, discordant = np.minimum(wins + losses, n), share * margin
    won = (discordant - margin) / 2 / discordant
    chance = stats.binom.pmf(moved, n, discordant) * stats.binom.pmf(wins, moved, won)
    passes = (score_p(wins, losses, n, margin) <= 0.05) & (wins + losses <= n)
    assert chance[passes].sum() <= most
