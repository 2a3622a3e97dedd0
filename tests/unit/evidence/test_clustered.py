"""Means over clusters: against statsmodels and scipy, at the edges, and their level by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from modelyard.evidence.clustered import Estimate, Sums, bootstrapped, robust
from modelyard.evidence.outcomes import Floats

ALPHA = 0.05


def sums(values: object, weights: object = None) -> Sums:
    difference_g = np.asarray(values, np.float64)
    weight_g = np.ones_like(difference_g) if weights is None else np.asarray(weights, np.float64)
    return Sums(difference_g=difference_g * weight_g, weight_g=weight_g)


def boot(told: Sums, margin: float = 0.0, alpha: float = ALPHA, seed: int = 0, draws: int = 2000) -> Estimate:
    return bootstrapped(told, margin, alpha, draws, seed)


def test_the_error_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    cluster_n = rng.integers(0, 12, 90)
    gap_n, weight_n = rng.normal(0.1, 0.5, 90) + rng.normal(0, 0.3, 12)[cluster_n], rng.uniform(0.5, 2, 90)
    told = Sums(
        difference_g=np.bincount(cluster_n, gap_n * weight_n), weight_g=np.bincount(cluster_n, weight_n)
    )
    fit = sm.WLS(gap_n, np.ones(90), weights=weight_n).fit(
        cov_type="cluster", use_t=True,
        cov_kwds={"groups": cluster_n, "use_correction": True, "df_correction": True},
    )  # fmt: skip
    found = robust(told, 0.0, ALPHA)
    assert found.delta == pytest.approx(fit.params[0])
    assert found.standard_error == pytest.approx(fit.bse[0])
    assert found.p_value == pytest.approx(fit.pvalues[0] / 2)
    assert found.ci == pytest.approx(tuple(fit.conf_int(2 * ALPHA)[0]))


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=40, unique=True))
def test_items_of_one_weight_that_stand_alone_get_a_t_test(values: list[float]):
    if np.std(values) > 1e-6 and min(np.abs(values)) > 1e-6:
        found = robust(sums(values), 0.0, ALPHA)
        expected = stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
        assert found.p_value == pytest.approx(max(expected, 0.5 ** len(values)), rel=1e-6, abs=1e-12)


def test_one_cluster_proves_nothing():
    told = sums([1.0])
    for found in (robust(told, 0.5, ALPHA), boot(told, 0.5)):
        assert (found.p_value, found.ci) == (1.0, (-1.0, 1.0))


@pytest.mark.parametrize("method", [robust, lambda told, margin, alpha: boot(told, margin, alpha)])
def test_no_variance_is_no_certainty(method):
    # No loss among n independent pairs, at most a share of margin lost: (1 - margin)^n.
    assert method(sums(np.zeros(30)), 0.02, ALPHA).p_value == pytest.approx(0.98**30)
    assert method(sums(np.zeros(30)), 0.0, ALPHA).p_value == 1
    # All won: the sign test.
    assert method(sums(np.ones(4)), 0.0, ALPHA).p_value == pytest.approx(1 / 16)
    # All won exactly what the margin forbids.
    assert method(sums(np.full(30, -0.1)), 0.1, ALPHA).p_value == 1


@given(st.floats(-1, 1), st.integers(2, 60), st.sampled_from([0.01, 0.05]), st.sampled_from([0.02, 0.3]))
def test_without_variance_interval_and_test_agree(delta: float, count: int, alpha: float, margin: float):
    found = robust(sums(np.full(count, delta)), margin, alpha)
    assert found.ci[0] <= delta + 1e-12 and found.ci[1] >= delta - 1e-12
    if abs(found.ci[0] + margin) > 1e-9:
        assert (found.p_value <= alpha) == (found.ci[0] >= -margin)


@given(
    st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.0, 0.5, 1.0]), min_size=2, max_size=40),
    st.sampled_from([0.0, 0.02, 0.1]),
)
def test_interval_and_test_agree(values: list[float], margin: float):
    for found in (robust(sums(values), margin, ALPHA), boot(sums(values), margin, draws=200)):
        if abs(found.ci[0] + margin) > 1e-9 and -margin > -1:
            assert (found.p_value <= ALPHA) == (found.ci[0] > -margin)


def test_three_wins_are_not_enough():
    # A t-test says 0.04, McNemar 0.125.
    found = robust(sums([1.0] * 3 + [0.0] * 197), 0.0, ALPHA)
    assert found.p_value == 0.125
    assert found.ci[0] <= 0
    lost = robust(sums([-1.0] * 3 + [0.0] * 197), 0.0, ALPHA)
    assert lost.ci[1] >= 0


def test_rare_losses_do_not_narrow_the_error():
    # One loss of 200 against a margin of 2 points: a t-test says 0.0015, the exact binomial test 0.089.
    found = robust(sums([-1.0] + [0.0] * 199), 0.02, ALPHA)
    assert found.p_value == pytest.approx(0.066, abs=1e-3)
    assert found.standard_error == pytest.approx(np.sqrt(0.02 * 0.98 / 200))


@pytest.mark.parametrize("count", [3, 6])
def test_the_bootstrap_is_as_documented(count: int):
    """Of three clusters a ninth of the draws has no variance, which counts against claim and bounds."""
    told = sums([0.3, -0.1, 0.2, 0.05, -0.2, 0.4][:count], [1, 2, 1, 3, 1, 2][:count])
    draws, whole_error, far = 500, np.sqrt(told.variance), []
    index_bg = np.random.default_rng(3).integers(0, count, size=(draws, count))
    for index_g in index_bg:
        drawn = Sums(difference_g=told.difference_g[index_g], weight_g=told.weight_g[index_g])
        error = np.sqrt(drawn.variance)
        far.append((drawn.mean - told.mean) / error if error > 1e-6 else None)
    above = sorted(np.inf if t is None else t for t in far)
    below = sorted(-np.inf if t is None else t for t in far)
    claimed = (told.mean + 0.1) / whole_error
    found = boot(told, 0.1, 0.2, seed=3, draws=draws)
    assert found.p_value == (1 + sum(t >= claimed for t in above)) / (draws + 1)
    low, high = told.mean - above[-100] * whole_error, told.mean - below[99] * whole_error
    assert found.ci == pytest.approx((max(-1, low), min(1, high)))


def test_drawing_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    told = sums(np.random.default_rng(0).normal(0, 0.3, 7))
    whole = boot(told)
    monkeypatch.setattr("modelyard.evidence.clustered._CHUNK", 7 * 33)
    assert boot(told) == whole


def test_so_few_draws_that_no_bound_is_seen():
    assert boot(sums([0.1, 0.2, 0.4]), alpha=0.001, draws=100).ci == (-1.0, 1.0)


def clustered_pairs(rng: np.random.Generator, shape: tuple[int, int, int], loss: float, win: float) -> Floats:
    """Sums of 0/1 differences over clusters, [R, G], of M items each, with a correlation of 0.2 within."""

    def drawn(size: tuple[int, int, int]) -> Floats:
        return rng.choice([-1.0, 0.0, 1.0], p=[loss, 1 - loss - win, win], size=size)

    own, shared = drawn(shape), drawn((*shape[:2], 1))
    together: Floats = np.where(rng.random(shape) < np.sqrt(0.2), shared, own).sum(axis=2)
    return together


@pytest.mark.parametrize(("loss", "win", "margin"), [(0.1, 0.1, 0.0), (0.075, 0.025, 0.05)])
def test_clusters_do_not_pass_more_often_than_alpha(loss: float, win: float, margin: float):
    """400 repetitions at 5 %: 8.5 % is 3.2 standard deviations away. Blind to clusters it were 23 %."""
    rng = np.random.default_rng(5)
    pairs_rg = clustered_pairs(rng, (400, 30, 10), loss, win)
    weight_g = np.full(30, 10.0)
    p = [robust(Sums(difference_g=row, weight_g=weight_g), margin, ALPHA).p_value for row in pairs_rg]
    assert np.mean(np.array(p) <= ALPHA) <= 0.085


def test_skewed_scores_do_not_pass_more_often_than_alpha():
    """300 repetitions of 20 clusters: 10 % is 3 standard deviations from the 6.2 % of 2,000 repetitions."""
    rng = np.random.default_rng(6)
    values_rg = 0.1 - rng.exponential(0.1, (300, 20))
    p = [boot(sums(row), draws=300).p_value for row in values_rg]
    t = [robust(sums(row), 0.0, ALPHA).p_value for row in values_rg]
    assert np.mean(np.array(p) <= ALPHA) <= 0.1
    assert np.mean(np.array(p) <= ALPHA) < np.mean(np.array(t) <= ALPHA)
