from __future__ import annotations

import json

import numpy as np
import pytest

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.aggregator import Aggregator, Pool
from modelyard.ensemble.combining.quantiles import QuantilePool, pinball
from modelyard.ensemble.combining.rules import METHODS

STEPS, SERIES, EXPERTS = 60, 3, 4


def world(seed=0, steps=STEPS):
    rng = np.random.default_rng(seed)
    truth = np.cumsum(rng.normal(0, 1, (steps, SERIES)), axis=0)
    noise = rng.normal(0, [0.3, 1.0, 2.0, 4.0], (steps, SERIES, EXPERTS))
    return truth[:, :, None] + noise, truth


def roll(pool, forecast, truth, delay=1):
    """Every prediction of rows whose truth comes `delay` predictions later."""
    out = []
    for t, row in enumerate(forecast):
        out.append(pool.predict(row))
        pool.update(truth[t - delay + 1] if t >= delay - 1 else np.full(truth.shape[1:], np.nan))
    return np.array(out)


@pytest.mark.parametrize("method", METHODS)
def test_series_are_independent_and_weights_a_simplex(method):
    forecast, truth = world()
    forecast[10:20, 1, 2] = np.nan
    together = Aggregator(Pool(experts=EXPERTS, series=SERIES, method=method, delay=2))
    out = roll(together, forecast, truth, delay=2)
    assert together.weights.sum(axis=1) == pytest.approx(np.ones(SERIES))
    assert (together.weights >= 0).all()
    for s in range(SERIES):
        alone = Aggregator(Pool(experts=EXPERTS, method=method, delay=2))
        single = roll(alone, forecast[:, s], truth[:, s], delay=2)[:, 0]
        assert single == pytest.approx(out[:, s], rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_state_through_json_goes_on_bit_for_bit(method):
    forecast, truth = world()
    pool = Aggregator(Pool(experts=EXPERTS, series=SERIES, method=method, delay=3))
    roll(pool, forecast[:30], truth[:30], delay=3)
    copy = Aggregator.from_state(json.loads(json.dumps(pool.to_state(), allow_nan=False)))
    for t in range(30, STEPS):
        assert np.array_equal(pool.predict(forecast[t]), copy.predict(forecast[t]))
        assert np.array_equal(pool.radius(), copy.radius())
        pool.update(truth[t - 2])
        copy.update(truth[t - 2])
    assert pool.to_state() == copy.to_state()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("delay", [1, 4])
def test_no_truth_moves_what_was_issued_before_it_was_known(method, delay):
    forecast, truth = world()
    moved = truth.copy()
    moved[20] += 50
    pools = [Aggregator(Pool(experts=EXPERTS, series=SERIES, method=method, delay=delay)) for _ in range(2)]
    plain, other = (roll(p, forecast, y, delay) for p, y in zip(pools, (truth, moved), strict=True))
    assert np.array_equal(plain[: 20 + delay], other[: 20 + delay])
    assert method == "uniform" or not np.array_equal(plain[20 + delay :], other[20 + delay :])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_and_order_do_not_matter(method, scale):
    forecast, truth = world()
    order = [2, 0, 3, 1]
    pools = [Aggregator(Pool(experts=EXPERTS, series=SERIES, method=method)) for _ in range(3)]
    plain = roll(pools[0], forecast, truth)
    assert roll(pools[1], forecast * scale, truth * scale) / scale == pytest.approx(plain, rel=1e-6)
    assert roll(pools[2], forecast[..., order], truth) == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("method", ["committee", "boa", "adahedge", "nnls", "greedy"])
def test_twenty_terrible_experts_do_not_rule(method):
    rng = np.random.default_rng(5)
    truth = rng.normal(0, 1, (200, 1))
    good = truth[:, :, None] + rng.normal(0, [0.5, 0.6, 0.7], (200, 1, 3))
    crowd = np.concatenate([good, rng.normal(0, 300, (200, 1, 20))], axis=2)
    out = roll(Aggregator(Pool(experts=23, method=method)), crowd, truth)
    late = np.abs(out - truth)[120:].mean()
    assert late < 1.6 * np.abs(good[120:] - truth[120:, :, None]).mean(axis=(0, 1)).min()


@pytest.mark.parametrize("method", METHODS)
def test_an_expert_that_is_all_nan_changes_nothing(method):
    forecast, truth = world()
    empty = np.concatenate([forecast, np.full((STEPS, SERIES, 1), np.nan)], axis=2)
    pool = Aggregator(Pool(experts=EXPERTS + 1, series=SERIES, method=method))
    out = roll(pool, empty, truth)
    assert (pool.weights[:, -1] == 0).all()
    plain = roll(Aggregator(Pool(experts=EXPERTS, series=SERIES, method=method)), forecast, truth)
    error, usual = np.abs(out - truth)[20:].mean(), np.abs(plain - truth)[20:].mean()
    assert error == pytest.approx(usual, rel=0.2)


def test_where_nobody_serves_and_where_nothing_is_known():
    pool = Aggregator(Pool(experts=2, series=2))
    assert np.isnan(pool.predict(np.array([[np.nan, np.nan], [1.0, 1.0]]))).tolist() == [True, False]
    before = pool.to_state()["arrays"]["rule.rate"]
    pool.update(np.array([1.0, np.nan]))
    assert pool.to_state()["arrays"]["rule.rate"] == before


def test_calls_and_shapes_that_cannot_be_are_refused():
    pool = Aggregator(Pool(experts=2))
    with pytest.raises(PolicyError, match="call predict first"):
        pool.update(1.0)
    with pytest.raises(PolicyError, match=r"\(1, 2\) is required"):
        pool.predict(np.ones(3))
    pool.predict(np.ones(2))
    with pytest.raises(PolicyError, match="called twice"):
        pool.predict(np.ones(2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"experts": 0},
        {"delay": 0},
        {"loss": "hinge"},
        {"levels": (1.5,)},
        {"loss": "pinball"},
        {"beta": 0.0},
        {"method": "ridge"},
        {"coverage": 1.0},
    ],
    ids=str,
)
def test_pools_that_cannot_be_are_refused(wrong):
    with pytest.raises(PolicyError):
        Aggregator(Pool(**{"experts": 2, **wrong}))


def test_a_state_of_another_kind_is_refused():
    with pytest.raises(PolicyError, match="is required"):
        Aggregator.from_state({"schema": "x"})
    state = Aggregator(Pool(experts=2)).to_state()
    state["arrays"].pop("sent")
    with pytest.raises(PolicyError, match="sent"):
        Aggregator.from_state(state)


def test_intervals_cover_what_they_promise_after_the_noise_grows():
    """2,000 rows, coverage 0.8: the noise triples half-way; within 3 points over both halves."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, 2000) * np.where(np.arange(2000) < 1000, 1.0, 3.0)
    pool, hits = Aggregator(Pool(experts=1, method="uniform", coverage=0.8, delay=2)), []
    radii = []
    for t in range(2000):
        pool.predict(np.zeros(1))
        radii.append(pool.radius()[0])
        hits.append(abs(noise[t]) <= radii[t])
        pool.update(noise[t - 1] if t else np.nan)
    assert np.isinf(radii[0])
    assert np.mean(hits[100:1000]) == pytest.approx(0.8, abs=0.03)
    assert np.mean(hits[1000:]) == pytest.approx(0.8, abs=0.03)


def test_quantiles_are_mixed_by_their_loss_and_come_in_order():
    rng = np.random.default_rng(2)
    levels, truth = (0.1, 0.5, 0.9), rng.normal(0, 1, 800)
    exact = np.array([-1.2816, 0.0, 1.2816])
    experts = np.stack([exact, 0.3 * exact, exact + 2.0], axis=1)  # right, too narrow, off
    pool = QuantilePool(Pool(experts=3, beta=1.0), levels)
    out = []
    for y in truth:
        out.append(pool.predict(experts[None])[0])
        pool.update(y)
    mixed = np.array(out)
    assert (np.diff(mixed, axis=1) >= 0).all()
    loss = pinball(mixed, truth, levels).mean()
    each = [pinball(np.tile(experts[:, k], (800, 1)), truth, levels).mean() for k in range(3)]
    assert loss < 1.03 * min(each)
    copy = QuantilePool.from_state(json.loads(json.dumps(pool.to_state())))
    assert np.array_equal(copy.predict(experts[None]), pool.predict(experts[None]))
    with pytest.raises(PolicyError, match="do not rise"):
        QuantilePool(Pool(experts=3), (0.5, 0.1))
    with pytest.raises(PolicyError, match="shape"):
        QuantilePool(Pool(experts=3), levels).predict(np.ones((1, 2, 3)))
