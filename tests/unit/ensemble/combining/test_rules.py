from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.lessons import Lesson, mixture
from modelyard.ensemble.combining.rules import RULES, Boa, make_rule
from modelyard.ensemble.measuring.regret import regret_bound


def aggregate(forecast_tk, truth_t, *, method="boa", beta=1.0, delay=1):
    """Run one rule over rows whose truth arrives `delay` rows later; mixtures and last weights."""
    rows, experts = forecast_tk.shape
    rule = make_rule(method, beta=beta, rivals=np.full(experts, experts))
    state = rule.start((1, experts))
    awake_tk = np.isfinite(forecast_tk).astype(float)
    filled_tk = np.where(awake_tk > 0, forecast_tk, 0.0)
    mixed_t = np.empty(rows)
    for t in range(rows):
        due = t - delay
        if due >= 0:
            regret = np.sign(mixed_t[due] - truth_t[due]) * (mixed_t[due] - filled_tk[due])
            gap = (filled_tk[due] - truth_t[due])[None]
            awake = awake_tk[due][None]
            lesson = Lesson(
                regret=regret[None] * awake, awake=awake, gap=gap, error=np.abs(gap), scored=awake
            )
            rule.learn(state, lesson)
        weights, mean = mixture(rule.log_weights(state), awake_tk[t][None], filled_tk[t][None])
        mixed_t[t] = mean[0]
    return mixed_t, weights[0]


def adversary(forecast_tk, delay, seed):
    """Truths that sit opposite the mixture of BOA, unchanged for `delay` rows, as a foe would choose."""
    rng = np.random.default_rng(seed)
    truth_t = np.zeros(len(forecast_tk))
    for start in range(0, len(truth_t), 4 * delay):
        block = slice(start, start + 4 * delay)
        mixed_t, _ = aggregate(forecast_tk[: start + 1], truth_t[: start + 1], delay=delay)
        low, high = forecast_tk[start].min(), forecast_tk[start].max()
        truth_t[block] = low if mixed_t[start] > (low + high) / 2 else high
        if rng.random() < 0.1:
            truth_t[block] = rng.normal(0, 10)
    return truth_t


@pytest.mark.parametrize("method", RULES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-12, 1.0, 1e12]), asleep=st.floats(0, 0.9))
def test_weights_are_a_simplex_over_the_awake(method, seed, scale, asleep):
    rng = np.random.default_rng(seed)
    forecast = rng.normal(0, scale, (30, 5))
    forecast[rng.random((30, 5)) < asleep] = np.nan
    forecast[-1, 0] = scale
    _, weights = aggregate(forecast, rng.normal(0, scale, 30), method=method, beta=0.9)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert (weights >= 0).all()
    assert (weights[np.isnan(forecast[-1])] == 0).all()


def test_nobody_awake_gives_no_weights():
    weights, mean = mixture(np.zeros((1, 3)), np.zeros((1, 3)), np.ones((1, 3)))
    assert weights.tolist() == [[0, 0, 0]]
    assert mean.tolist() == [0]


def test_weights_far_below_the_smallest_number_still_compare():
    weights, _ = mixture(
        np.array([[-1e6, -1e6 - math.log(3), 0.0]]), np.array([[1.0, 1, 0]]), np.zeros((1, 3))
    )
    assert weights == pytest.approx(np.array([[0.75, 0.25, 0]]))


def test_inverse_score_follows_its_formula():
    errors = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 5.0]])
    rule = make_rule("inverse_score", beta=0.5, rivals=np.array([2, 2]))
    state = rule.start((1, 2))
    for row in errors:
        rule.learn(
            state,
            Lesson(
                regret=np.zeros((1, 2)),
                awake=np.ones((1, 2)),
                gap=row[None],
                error=row[None],
                scored=np.ones((1, 2)),
            ),
        )
    powers = np.array([0.25, 0.5, 1.0])
    scores = powers @ errors / powers.sum()
    weights, _ = mixture(rule.log_weights(state), np.ones((1, 2)), np.zeros((1, 2)))
    assert weights[0] == pytest.approx((1 / scores) / (1 / scores).sum())


def test_inverse_score_without_errors_shares_equally_among_the_perfect():
    rule = make_rule("inverse_score", beta=0.9, rivals=np.array([3, 3, 3]))
    state = rule.start((1, 3))
    error = np.array([[0.0, 0.0, 1.0]])
    rule.learn(
        state,
        Lesson(
            regret=np.zeros((1, 3)), awake=np.ones((1, 3)), gap=error, error=error, scored=np.ones((1, 3))
        ),
    )
    weights, _ = mixture(rule.log_weights(state), np.ones((1, 3)), np.zeros((1, 3)))
    assert weights[0] == pytest.approx([0.5, 0.5, 0.0], abs=1e-11)


def test_boa_agrees_with_the_formula_written_out():
    rng = np.random.default_rng(3)
    regrets = rng.normal(0, 1, (20, 4))
    rule, beta = Boa(0.95, np.log(np.full(4, 4.0))), 0.95
    state = rule.start((1, 4))
    total, square, reach = [0.0] * 4, [0.0] * 4, [0.0] * 4
    for row in regrets:
        rule.learn(
            state,
            Lesson(
                regret=row[None],
                awake=np.ones((1, 4)),
                gap=np.zeros((1, 4)),
                error=np.zeros((1, 4)),
                scored=np.ones((1, 4)),
            ),
        )
        for k, r in enumerate(row):
            square[k] = beta * square[k] + r * r
            reach[k] = max(beta * reach[k], abs(r))
            rate = min(1 / (2 * reach[k]), math.sqrt(math.log(4) / square[k]))
            total[k] = beta * total[k] + r - rate * r * r
    rates = [min(1 / (2 * b), math.sqrt(math.log(4) / v)) for b, v in zip(reach, square, strict=True)]
    parts = np.array([e * math.exp(e * r) for e, r in zip(rates, total, strict=True)])
    weights, _ = mixture(rule.log_weights(state), np.ones((1, 4)), np.zeros((1, 4)))
    assert weights[0] == pytest.approx(parts / parts.sum())


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e5, 1e12])
@pytest.mark.parametrize("method", RULES)
def test_scaling_the_world_scales_the_mixture(method, scale):
    rng = np.random.default_rng(1)
    forecast, truth = rng.normal(0, 1, (200, 4)), rng.normal(0, 1, 200)
    plain, _ = aggregate(forecast, truth, method=method, beta=0.99)
    scaled, _ = aggregate(forecast * scale, truth * scale, method=method, beta=0.99)
    assert scaled / scale == pytest.approx(plain, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("method", RULES)
def test_the_order_of_experts_does_not_matter(method):
    rng = np.random.default_rng(2)
    forecast, truth, order = rng.normal(0, 1, (100, 5)), rng.normal(0, 1, 100), [3, 1, 4, 0, 2]
    plain, weights = aggregate(forecast, truth, method=method, beta=0.95)
    other, moved = aggregate(forecast[:, order], truth, method=method, beta=0.95)
    assert other == pytest.approx(plain, rel=1e-9)
    assert moved == pytest.approx(weights[order], rel=1e-6)


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize("beta", [0.97, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_regret_bound_holds_against_an_adversary(delay, beta, seed):
    rng = np.random.default_rng(seed)
    levels = [0.0, 1.0, 0.5, 0.2][: 2 + seed % 3]
    forecast = np.tile(levels, (240, 1)) + rng.normal(0, 0.05 * (seed > 1), (240, len(levels)))
    truth = adversary(forecast, delay, seed)
    mixed, _ = aggregate(forecast, truth, beta=beta, delay=delay)
    for k in range(forecast.shape[1]):
        realised = np.abs(mixed - truth).sum() - np.abs(forecast[:, k] - truth).sum()
        assert realised <= regret_bound(mixed - forecast[:, k], members=len(levels), beta=beta, delay=delay)


def test_the_bound_is_below_the_trivial_one_where_it_matters():
    gap = np.ones(2000)
    assert regret_bound(gap, members=10, beta=1.0, delay=1) < 0.1 * gap.sum()
    assert regret_bound(gap[:5], members=10, beta=1.0, delay=6) == 5.0
    assert regret_bound(gap[:0], members=10, beta=1.0, delay=1) == 0.0


def test_following_the_leader_would_break_the_bound():
    """The adversary is strong enough: a rule without restraint loses more than the bound."""
    forecast = np.tile([0.0, 1.0], (2000, 1))
    truth, loss, chosen = np.zeros(2000), np.array([0.0, 0.1]), np.zeros(2000)
    for t in range(2000):
        chosen[t] = forecast[t, loss.argmin()]
        truth[t] = 1.0 - chosen[t]
        loss += np.abs(forecast[t] - truth[t])
    realised = 2000 - loss.min()
    gap = chosen - forecast[:, loss.argmin()]
    assert realised > regret_bound(gap, members=2, beta=1.0, delay=1)


def test_twenty_terrible_experts_cost_at_most_the_bound():
    rng = np.random.default_rng(5)
    truth = rng.normal(0, 1, 400)
    good = truth[:, None] + rng.normal(0, [0.5, 0.6, 0.7], (400, 3))
    crowd = np.concatenate([good, rng.normal(0, 300, (400, 20))], axis=1)
    alone, _ = aggregate(good, truth, beta=1.0)
    joined, weights = aggregate(crowd, truth, beta=1.0)
    cost = np.abs(joined - truth).sum() - np.abs(good[:, 0] - truth).sum()
    assert cost <= regret_bound(joined - good[:, 0], members=23, beta=1.0, delay=1)
    assert weights[3:].sum() < 0.05
    assert np.abs(joined - truth)[200:].mean() < 1.3 * np.abs(alone - truth)[200:].mean()


def test_cloning_an_expert_moves_the_forecast_less_than_the_bound():
    rng = np.random.default_rng(6)
    truth = np.cumsum(rng.normal(0, 1, 400))
    forecast = truth[:, None] + rng.normal(0, [1.0, 1.5, 3.0], (400, 3))
    plain, _ = aggregate(forecast, truth, beta=0.99)
    cloned, _ = aggregate(forecast[:, [0, 1, 2, 2]], truth, beta=0.99)
    moved = np.abs(plain - cloned)
    assert moved.max() > 0
    assert moved.sum() <= regret_bound(plain - forecast[:, 2], members=4, beta=0.99, delay=1)
    assert moved[100:].mean() < 0.1 * np.abs(forecast - truth[:, None]).mean()


def test_forgetting_follows_a_change_of_the_best_expert():
    truth = np.zeros(600)
    forecast = np.stack([np.r_[np.zeros(300), np.ones(300)], np.r_[np.ones(300), np.zeros(300)]], axis=1)
    forgetful, _ = aggregate(forecast, truth, beta=0.95)
    faithful, _ = aggregate(forecast, truth, beta=1.0)
    assert forgetful[340] < 0.2 < faithful[340]


def test_a_sleeper_that_wakes_is_neither_preferred_nor_ruled_out():
    rng = np.random.default_rng(7)
    truth = rng.normal(0, 1, 200)
    forecast = truth[:, None] + rng.normal(0, [0.5, 0.5, 0.1], (200, 3))
    forecast[:100, 2] = np.nan
    _, at_waking = aggregate(forecast[:101], truth[:101])
    _, later = aggregate(forecast, truth)
    assert 0.01 < at_waking[2] < 0.7
    assert later[2] > 0.8


def test_unknown_methods_and_memories_are_refused():
    with pytest.raises(PolicyError, match=r"ridge.*boa"):
        make_rule("ridge", beta=0.9, rivals=np.array([1]))
    with pytest.raises(PolicyError, match=r"beta = 0"):
        make_rule("boa", beta=0.0, rivals=np.array([1]))


def learn_rows(rule, state, regret_tk, awake):
    for row in regret_tk:
        mask = np.asarray(awake, dtype=float)
        none = np.zeros_like(row)[None]
        rule.learn(
            state,
            Lesson(regret=(row * mask)[None], awake=mask[None], gap=none, error=none, scored=mask[None]),
        )


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("beta", [0.7, 0.99])
@settings(max_examples=6, deadline=None)
@given(rows=st.integers(1, 300))
def test_sleep_changes_no_log_weight(method, beta, rows):
    rule = make_rule(method, beta=beta, rivals=np.full(3, 3))
    state = rule.start((1, 3))
    learn_rows(rule, state, np.random.default_rng(0).normal(0, 1, (40, 3)), [1, 1, 1])
    before = rule.log_weights(state).copy()
    learn_rows(rule, state, np.zeros((rows, 3)), [0, 0, 0])
    assert np.array_equal(rule.log_weights(state), before)


def test_an_expert_that_is_the_mixture_for_ever_keeps_a_finite_rate():
    rule = make_rule("boa", beta=0.5, rivals=np.full(2, 2))
    state = rule.start((1, 2))
    learn_rows(rule, state, np.array([[1.0, -1.0]]), [1, 1])
    learn_rows(rule, state, np.zeros((3000, 2)), [1, 1])
    learn_rows(rule, state, np.array([[-1.0, 1.0]]), [1, 1])
    assert np.isfinite(state["rate"]).all()
    assert np.isfinite(rule.log_weights(state)).all()
    weights, _ = mixture(rule.log_weights(state), np.ones((1, 2)), np.zeros((1, 2)))
    assert weights[0, 1] > 0.5
