from __future__ import annotations

import math

import numpy as np
import pytest

from modelyard.ensemble.measuring.scorecard import (
    card_detail,
    card_ties,
    comparable,
    inverse_weights,
    make_card,
)
from modelyard.ensemble.runtime.matrix import SeriesMatrix
from modelyard.ensemble.runtime.mutants import fit_limits


def card(truth, forecast, *, beta=1.0, dirty_interval=1, limits=None):
    part = SeriesMatrix(
        series="s",
        start_us=0,
        truth_t=truth,
        forecast_thk=forecast,
        staleness_s_thk=np.zeros_like(forecast),
    )
    limits = limits or fit_limits(truth, forecast[:, :, :0], epsilon=None)
    return make_card(part, limits, beta=beta, dirty_interval=dirty_interval, period=2)


def world(rows=100, experts=(1.0, 1.0, 4.0)):
    rng = np.random.default_rng(0)
    truth = 100 + rng.normal(0, 1, rows)
    return truth, truth[:, None, None] + rng.normal(0, 1, (rows, 2, len(experts))) * np.array(experts)


def test_dirty_rows_are_left_out_for_everybody_and_counted():
    truth, forecast = world(rows=200)
    truth[50], forecast[50] = 200.0, 100.0
    own = card(truth, forecast)
    detail = card_detail([own], 0, seed=1)
    assert detail["mean"] < 1.5
    assert detail["n"] + detail["censored"] > 200
    assert not own.clean_th[50].any()
    assert detail["censored"] == int((~own.clean_th).sum())


def test_an_expert_without_a_clean_row_is_scored_on_dirty_ones():
    truth, forecast = world()
    limits = fit_limits(truth, forecast[:, :, :0], epsilon=None)
    always = card(truth, forecast, dirty_interval=10_000, limits=limits)
    first = int(np.flatnonzero(~always.clean_th[:, 0])[0])
    forecast[:first] = np.nan
    blind = card(truth, forecast, dirty_interval=10_000, limits=limits)
    assert card_detail([blind], 0, seed=1)["n"] == 100 - first


def test_scores_over_series_are_their_mean_and_mase_is_free_of_scale():
    truth, forecast = world()
    small, large = card(truth, forecast), card(truth * 1000, forecast * 1000)
    one, both = card_detail([small], 0, seed=1), card_detail([small, large], 0, seed=1)
    assert both["mean"] == pytest.approx(one["mean"] * 1001 / 2)
    assert both["mase"] == pytest.approx(one["mase"])


def test_ties_hold_equals_only():
    truth, forecast = world(rows=300)
    names = ("a", "b", "bad")
    own = card(truth, forecast)
    scores = {name: card_detail([own], k, seed=1)["mean"] for k, name in enumerate(names)}
    best = min(scores, key=scores.__getitem__)
    assert set(card_ties([own], range(3), names, best=best, lead=2)) == {"a", "b"}
    assert card_ties([own], (), (), best=None, lead=2) == ()


def test_an_expert_that_serves_little_does_not_decide_ties():
    truth, forecast = world(rows=300)
    forecast[20:, :, 1] = np.nan
    assert card_ties([card(truth, forecast)], range(3), ("a", "b", "c"), best="a", lead=2) == ("a",)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_inverse_weights_are_a_simplex_at_any_scale(scale):
    weights = inverse_weights({"a": 1 * scale, "b": 3 * scale})
    assert weights == pytest.approx({"a": 0.75, "b": 0.25})
    assert inverse_weights({"a": 0.0, "b": 0.0}) == {"a": 0.5, "b": 0.5}
    assert inverse_weights({}) == {}
    assert math.fsum(inverse_weights({"a": 0.0, "b": scale}).values()) == pytest.approx(1.0)


def test_who_serves_little_cannot_be_the_best():
    truth, forecast = world(rows=300)
    forecast[:, 1:, 1] = np.nan
    forecast[:10, 0, 2] = np.nan
    assert comparable([card(truth, forecast)], range(3)) == [0, 2]
    assert comparable([card(truth, forecast)], [1]) == [1]
