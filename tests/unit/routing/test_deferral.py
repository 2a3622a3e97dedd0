"""Deferral curves by hand, and what must hold of any."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.routing.deferral import LAMBDAS, Curve, Field, Sweep, choices

COST = np.array([0.1, 0.4, 1.0])


def field(seed=0, prompts=200):
    chance = np.random.default_rng(seed)
    skill = np.array([[0.4], [0.6], [0.8]])
    return Field(quality_mq=(chance.random((3, prompts)) < skill).astype(float), cost_m=COST)


def test_the_area_by_hand():
    curve = Curve.of(np.array([0.2, 0.6]), np.array([0.5, 0.9]))
    assert curve.area(0.2) == pytest.approx((0.4 * 0.7 + 0.4 * 0.9) / 0.8, abs=1e-6)
    assert (curve.peak, curve.cost_of(0.7)) == (0.9, pytest.approx(0.4))
    assert math.isnan(curve.cost_of(0.95)), "a quality that is never reached has no cost"


def test_of_points_at_one_cost_the_best_counts():
    curve = Curve.of(np.array([0.5, 0.2, 0.5]), np.array([0.3, 0.1, 0.6]))
    np.testing.assert_array_equal(curve.quality_p, [0.1, 0.6])


def test_both_ends_of_the_weight():
    errors = np.random.default_rng(0).random((3, 50))
    np.testing.assert_array_equal(choices(errors, COST, 0.0), errors.argmin(axis=0))
    assert (choices(errors, COST, 1e6) == 0).all()


def test_among_equals_the_cheaper_is_taken():
    assert choices(np.zeros((3, 4)), np.array([0.5, 0.2, 0.2]), 0.0).tolist() == [1] * 4


def test_costs_may_depend_on_the_prompt():
    cost = np.array([[0.1, 0.9], [0.5, 0.5]])
    assert choices(np.zeros((2, 2)), cost, 0.0).tolist() == [0, 1], "among equals the cheaper there"
    assert choices(np.array([[0.5, 0.5], [0.2, 0.2]]), cost, 1.0).tolist() == [0, 1]
    assert choices(np.array([[0.5, 0.1], [0.2, 0.2]]), cost, 0.1).tolist() == [1, 0]
    errors, same = np.random.default_rng(0).random((3, 50)), np.repeat(COST[:, None], 50, axis=1)
    for weight in (0.0, 0.3, 3.0):
        np.testing.assert_array_equal(choices(errors, same, weight), choices(errors, COST, weight))


def test_a_sweep_by_hand():
    """Two models, two prompts: what is predicted chooses, what is true counts."""
    predicted, quality = np.array([[0.4, 0.4], [0.0, 0.3]]), np.array([[1.0, 0.0], [0.0, 0.5]])
    spent = np.array([[0.1, 0.2], [0.8, 1.2]])
    swept = Sweep.of(predicted, np.array([0.2, 1.0]), (1.0, 0.2, 0.0), quality_mq=quality, spent_mq=spent)
    np.testing.assert_array_equal(swept.quality_lq, [[1.0, 0.0], [0.0, 0.0], [0.0, 0.5]])
    np.testing.assert_array_equal(swept.cost_lq, [[0.1, 0.2], [0.8, 0.2], [0.8, 1.2]])
    np.testing.assert_allclose(swept.curve().cost_p, [0.15, 0.5, 1.0])
    np.testing.assert_allclose(swept.curve().quality_p, [0.5, 0.0, 0.25])
    twice_the_second = swept.drawn(np.array([[0.0, 2.0]]))
    np.testing.assert_allclose(twice_the_second, [[[0.2, 0.2, 1.2]], [[0.0, 0.0, 0.5]]])


def test_predicted_costs_of_a_sweep_may_depend_on_the_prompt():
    predicted, quality = np.zeros((2, 2)), np.eye(2)
    swept = Sweep.of(
        predicted, np.array([[0.1, 0.9], [0.5, 0.5]]), [1.0], quality_mq=quality, spent_mq=quality
    )
    np.testing.assert_array_equal(swept.quality_lq, [[1.0, 1.0]])


def test_a_field_tells_the_outcome_of_each_weight():
    truth, errors = field(1), np.random.default_rng(2).random((3, 200))
    points = np.array([truth.outcome(choices(errors, COST, weight)) for weight in LAMBDAS])
    one_by_one = Curve.of(*points.T)
    np.testing.assert_array_equal(truth.curve(errors).cost_p, one_by_one.cost_p)
    np.testing.assert_array_equal(truth.curve(errors).quality_p, one_by_one.quality_p)


def test_the_oracle_is_above_and_chance_is_not():
    truth = field()
    oracle, zero = truth.oracle(), truth.zero_router(1 - truth.quality_mq.mean(axis=1))
    noise = truth.curve(np.random.default_rng(1).random((3, 200)))
    assert oracle.area(0.1) > zero.area(0.1) > noise.area(0.1)
    assert oracle.peak == truth.quality_mq.max(axis=0).mean()


def test_one_cluster_is_the_zero_router():
    truth = field(3)
    means = 1 - truth.quality_mq.mean(axis=1)
    one = truth.curve(means[:, None] * np.ones((1, 200)))
    np.testing.assert_array_equal(one.quality_p, truth.zero_router(means).quality_p)


@given(st.integers(0, 50))
def test_the_order_of_models_changes_nothing(seed):
    chance = np.random.default_rng(seed)
    truth, errors, order = field(seed, 40), chance.random((3, 40)), chance.permutation(3)
    turned = Field(quality_mq=truth.quality_mq[order], cost_m=truth.cost_m[order])
    np.testing.assert_allclose(turned.curve(errors[order]).quality_p, truth.curve(errors).quality_p)
