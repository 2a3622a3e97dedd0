"""Cascades: confidence made a probability, and who is asked when."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from modelyard.core.errors import RoutingError
from modelyard.routing.cascade import Calibration, Cascade, Played, cascade_curve


def drawn(count, *, intercept, slope, seed=0):
    """Confidences, and errors whose probability they give by a known law."""
    chance = np.random.default_rng(seed)
    confidence = chance.uniform(0.05, 0.99, count)
    wrong = expit(intercept + slope * logit(confidence))
    return confidence, (chance.random(count) < wrong).astype(float), wrong


def test_the_law_is_found_from_many_answers():
    confidence, errors, wrong = drawn(20_000, intercept=-0.5, slope=-0.8)
    found = Calibration.fit(confidence, errors)
    assert found.intercept == pytest.approx(-0.5, abs=0.06) and found.slope == pytest.approx(-0.8, abs=0.06)
    assert np.abs(found.wrong(confidence) - wrong).max() < 0.02


def test_few_answers_are_not_believed_too_much():
    """Forty answers without a relation: the spread of what is predicted stays small, in nine of ten draws."""
    spreads = []
    for seed in range(100):
        confidence, errors, _ = drawn(40, intercept=0.0, slope=0.0, seed=seed)
        spreads.append(np.ptp(Calibration.fit(confidence, errors).wrong(np.array([0.2, 0.9]))))
    assert np.quantile(spreads, 0.9) < 0.6


def test_answers_that_separate_cleanly_still_give_probabilities():
    confidence = np.linspace(0.01, 0.99, 60)
    found = Calibration.fit(confidence, (confidence < 0.5).astype(float))
    assert 0.0 < found.wrong(0.99) < 0.1 and 0.9 < found.wrong(0.01) < 1.0


def test_a_missing_confidence_is_left_out_and_too_few_are_refused():
    confidence, errors, _ = drawn(50, intercept=0.0, slope=-1.0)
    holes = np.concatenate([confidence, [np.nan] * 30])
    assert Calibration.fit(holes, np.concatenate([errors, np.zeros(30)])) == Calibration.fit(
        confidence, errors
    )
    with pytest.raises(RoutingError, match="19 answers have a confidence and a score, and 20 are needed"):
        Calibration.fit(confidence[:19], errors[:19])


@pytest.fixture
def cascade():
    calibration = Calibration(intercept=0.0, slope=-1.0, answers=100)  # P(wrong) = 1 - confidence
    return Cascade(
        first="small", then="large", calibration=calibration, first_usd=0.001, then_usd=0.01, then_error=0.1
    )


def test_the_second_is_asked_where_it_is_expected_to_err_less_by_more_than_its_price(cascade):
    assert cascade.escalates(0.8) and not cascade.escalates(0.95)
    assert not cascade.escalates(0.8, lambda_usd=20.0)  # 0.2 - 0.1 < 20 * 0.01
    assert cascade.escalates(0.5, lambda_usd=20.0)
    assert not cascade.escalates(0.8, then_error=0.3)
    assert cascade.escalates(None, lambda_usd=1e9), "an answer of unknown certainty is not trusted"


def test_the_curve_goes_from_the_first_alone_to_what_helps(cascade):
    played = Played(
        first_error_q=np.array([0.0, 1.0, 1.0, 0.0]),
        then_error_q=np.array([0.0, 0.0, 0.0, 1.0]),
        confidence_q=np.array([0.95, 0.5, np.nan, 0.85]),
        predicted_q=np.full(4, 0.1),
    )
    curve = cascade_curve(cascade, played, lambdas=(100.0, 0.2, 0.0))
    # an answer without a confidence is escalated at any price
    assert curve.cost_p.tolist() == pytest.approx([0.1 + 0.25, 0.1 + 0.5, 0.1 + 0.75])
    assert curve.quality_p.tolist() == pytest.approx([0.75, 1.0, 0.75])


def test_a_confidence_that_tells_nothing_gains_nothing():
    """Simulated: with an empty signal the cascade is a mix of the two, with a true one it is above."""
    gains = {}
    for name, slope in (("empty", 0.0), ("true", -1.5)):
        confidence, errors, _ = drawn(4000, intercept=0.0, slope=slope, seed=3)
        then = (np.random.default_rng(4).random(4000) < 0.3).astype(float)
        half = slice(0, 2000), slice(2000, None)
        fitted = Cascade(
            first="a", then="b", calibration=Calibration.fit(confidence[half[0]], errors[half[0]]),
            first_usd=0.1, then_usd=1.0, then_error=0.3,
        )  # fmt: skip
        played = Played(
            first_error_q=errors[half[1]], then_error_q=then[half[1]], confidence_q=confidence[half[1]],
            predicted_q=np.full(2000, 0.3),
        )  # fmt: skip
        mixed = 1 - (errors[half[1]].mean() + then[half[1]].mean()) / 2
        gains[name] = float(cascade_curve(fitted, played).at(0.6)) - mixed
    assert abs(gains["empty"]) < 0.03 and gains["true"] > 0.08


def test_it_is_saved_whole_and_a_change_is_noticed(cascade, tmp_path):
    path = tmp_path / "cascade.json"
    cascade.save(path)
    assert Cascade.load(path) == cascade
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "then_error": 0.0}))
    with pytest.raises(RoutingError, match="was changed since it was written"):
        Cascade.load(path)
    for bad in ("{", "[]", "{}", json.dumps({**record, "calibration": 5})):
        path.write_text(bad)
        with pytest.raises(RoutingError, match=r"cascade\.json"):
            Cascade.load(path)
