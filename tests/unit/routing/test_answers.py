"""Answers of a pool: what is refused, what is missing, and what an unknown cost is not."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers

NAN = float("nan")


def answers(**changed):
    given = {
        "models": ("a", "b"),
        "examples": ("x", "y", "z"),
        "errors_mn": np.array([[0.0, 1.0, NAN], [0.5, 0.0, 1.0]]),
        "cost_usd_mn": np.array([[0.1, NAN, 0.3], [1.0, 1.0, 1.0]]),
    }
    return Answers(**{**given, **changed})


def test_parts_keep_their_order():
    part = answers().of_models([1]).to_prompts([2, 0])
    assert (part.models, part.examples) == (("b",), ("z", "x"))
    np.testing.assert_array_equal(part.errors_mn, [[1.0, 0.5]])


@pytest.mark.parametrize("rows", [(1, 0), [1, 0], np.array([1, 0])])
def test_models_are_taken_by_any_sequence(rows):
    np.testing.assert_array_equal(answers().of_models(rows).errors_mn[0], [0.5, 0.0, 1.0])


def test_the_mean_cost_is_of_answers_whose_cost_is_known():
    np.testing.assert_allclose(answers().mean_cost_usd(), [0.2, 1.0])


def test_an_unknown_cost_is_not_free():
    with pytest.raises(RoutingError, match=r"'a' is not known.*give its price"):
        answers(cost_usd_mn=np.array([[NAN] * 3, [1.0] * 3])).mean_cost_usd()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"models": ("a", "a")}, "model 'a' stands twice"),
        ({"examples": ("x", "y", "x")}, "prompt 'x' stands twice"),
        ({"models": ("a",)}, "one row a model"),
        ({"errors_mn": np.full((2, 3), 2.0)}, "not within 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(changed, told):
    with pytest.raises(RoutingError, match=told):
        answers(**changed)
