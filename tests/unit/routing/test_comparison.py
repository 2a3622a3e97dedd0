"""Paired differences of areas: exact areas, equal routers, error rate and power by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.routing.comparison import areas, paired_difference
from modelyard.routing.deferral import LAMBDAS, Curve, Sweep
from modelyard.routing.measuring import band, bootstrap

COST = np.array([0.05, 0.3, 1.0])
#: Each model's chance to be right on two kinds of prompts.
SKILL = np.array([[0.5, 0.3], [0.4, 0.8], [0.85, 0.6]])
PROMPTS, SETS, DRAWS = 150, 300, 200
WEIGHTS = LAMBDAS[::6]


def truth(chance, prompts=PROMPTS):
    rates = SKILL[:, chance.integers(2, size=prompts)]
    return rates, (chance.random(rates.shape) < rates).astype(float)


def sweep(quality, predicted_errors, cost=COST):
    spent = np.broadcast_to(cost[:, None], quality.shape)
    return Sweep.of(predicted_errors, cost, WEIGHTS, quality_mq=quality, spent_mq=spent)


def noisy(chance, rates, spread):
    return 1 - rates + spread * chance.standard_normal(rates.shape)


def routers(seed, spreads):
    chance = np.random.default_rng(seed)
    rates, quality = truth(chance)
    return [sweep(quality, noisy(chance, rates, spread)) for spread in spreads]


def difference(pair, seed=0, draws=DRAWS):
    return paired_difference(*pair, cheapest=float(COST[0]), draws=draws, seed=seed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("low", [0.0, 0.2, 0.7])
def test_areas_are_those_of_curves(seed, low):
    chance = np.random.default_rng(seed)
    # few different costs, so that several points have the same
    cost, quality = chance.integers(1, 8, (6, 12)) / 8, chance.random((6, 12))
    one_by_one = [Curve.of(c, q).area(low) for c, q in zip(cost, quality, strict=True)]
    np.testing.assert_allclose(areas(cost, quality, low), one_by_one, atol=2e-3)


def test_the_area_by_hand_is_exact():
    cost, quality = np.array([[0.6, 0.2, 0.2]]), np.array([[0.9, 0.5, 0.1]])
    assert areas(cost, quality, 0.2)[0] == pytest.approx((0.4 * 0.7 + 0.4 * 0.9) / 0.8, abs=1e-12)
    assert areas(cost, quality, 1.0)[0] == pytest.approx(0.9), "all cost the same: the quality at 1"


def test_a_router_is_no_better_than_itself():
    same = routers(0, [0.2])[0]
    told = difference((same, same))
    assert (told.area, told.low, told.high) == (0.0, 0.0, 0.0)


def test_the_order_of_the_two_only_turns_the_sign():
    a, b = routers(1, [0.1, 0.6])
    one, other = difference((a, b)), difference((b, a))
    assert (one.area, one.low, one.high) == pytest.approx((-other.area, -other.high, -other.low))
    assert one.low < one.area < one.high


def test_the_seed_is_the_only_chance():
    pair = routers(2, [0.2, 0.3])
    assert difference(pair, 5) == difference(pair, 5)
    assert difference(pair, 5).low != difference(pair, 6).low


def test_equal_routers_are_rarely_found_different():
    """300 sets of 150 prompts: 5 % of 95 % intervals should miss 0; 2 to 9 % pass (3.2 deviations)."""
    missed = 0
    for seed in range(SETS):
        told = difference(routers(1000 + seed, [0.3, 0.3]), seed)
        missed += not told.low <= 0 <= told.high
    assert 0.02 <= missed / SETS <= 0.09, f"{missed} of {SETS}"


def test_a_clear_difference_is_found():
    """40 sets: a router that sees little of the prompts against one that knows their kinds."""
    found = sum(difference(routers(5000 + seed, [3.0, 0.05]), seed).low > 0 for seed in range(40))
    assert found >= 38, f"{found} of 40"


def test_a_paired_interval_is_narrower_than_two():
    """The same prompts serve both, so that what is hard for both cancels out."""
    a, b = routers(7, [0.1, 0.15])
    paired = difference((a, b), draws=1000)
    counts = np.concatenate(bootstrap(PROMPTS, 1000, 1))
    spread = [areas(*each.drawn(counts), 0.05).std() for each in (a, b)]
    assert paired.high - paired.low < 0.7 * 2 * 1.96 * np.hypot(*spread)


def test_samples_have_as_many_prompts():
    parts = bootstrap(40, 600, 3)
    assert [len(part) for part in parts] == [256, 256, 88]
    assert all((part.sum(axis=1) == 40).all() for part in parts)


def test_the_band_covers_the_curve_of_many_prompts():
    """At one cost, over 100 sets: a 90 % range should hold the quality on 100,000 prompts; 82 to 97 pass."""
    chance, grid = np.random.default_rng(4), np.array([0.5])
    rates, quality = truth(chance, 100_000)
    whole = sweep(quality, 1 - rates).curve().at(grid)[0]
    held = 0
    for seed in range(100):
        rates, quality = truth(np.random.default_rng(seed))
        low, high = band(sweep(quality, 1 - rates), grid, draws=200, seed=seed)
        held += low[0] <= whole <= high[0]
    assert 82 <= held <= 97, held
