"""Decisions are a pure function: weights, limits, lists, ties, and prices that nobody knows."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.decision import Candidates, Request, decide

NAN = float("nan")


#: Name, error, cost.
POOL = [("small", 0.5, 0.01), ("mid", 0.3, 0.04), ("large", 0.2, 0.10)]


def chosen(pool=POOL, dearest_usd=0.1, **asked):
    names, errors, costs = zip(*pool, strict=True) if pool else ((), (), ())
    candidates = Candidates(
        names=tuple(names),
        errors_m=np.array(errors),
        sd_m=np.full(len(names), 0.1),
        cost_usd_m=np.array(costs),
    )
    return decide(candidates, Request(**asked), dearest_usd=dearest_usd)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "large"),
        ({"lambda_": 0.0}, "large"),
        ({"lambda_": 0.3}, "mid"),
        ({"lambda_": 1e9}, "small"),
        ({"lambda_usd": 3.0}, "mid"),
        ({"lambda_usd": 1e9}, "small"),
        ({"budget_usd": 0.05}, "mid"),
        ({"budget_usd": 0.04}, "mid"),
        ({"quality": 0.0}, "small"),
        ({"quality": 0.6}, "mid"),
        ({"quality": 0.99}, "large"),
        ({"deny": ("large",)}, "mid"),
        ({"allow": ("small", "mid")}, "mid"),
    ],
)
def test_what_is_asked_for_decides(asked, name):
    assert chosen(**asked).chosen == name
    assert chosen(list(reversed(POOL)), **asked) == chosen(**asked)


def test_the_score_is_error_and_relative_cost():
    told = chosen(lambda_=0.5)
    assert told.scores == pytest.approx({"small": 0.55, "mid": 0.5, "large": 0.7})
    assert (told.chosen, told.score) == ("mid", pytest.approx(0.5))
    assert (told.low, told.high) == pytest.approx((0.3 - 0.1645, 0.3 + 0.1645))


def test_a_floor_that_none_reaches_is_told():
    assert "none reaches a quality of 0.99" in chosen(quality=0.99).reason
    assert "none" not in chosen(quality=0.6).reason


@pytest.mark.parametrize("lambda_", [0.0, 0.7])
def test_another_model_changes_no_score(lambda_):
    more = chosen([*POOL, ("huge", 0.1, 5.0)], lambda_=lambda_).scores
    fewer = chosen(POOL[:2], lambda_=lambda_).scores
    whole = chosen(lambda_=lambda_).scores
    assert {n: more[n] for n in whole} == whole
    assert fewer == {n: whole[n] for n in fewer}


def test_ties_go_to_the_cheaper_then_to_the_first_name():
    assert chosen([("a", 0.2, 0.09), ("b", 0.2, 0.02)]).chosen == "b"
    assert chosen([("b", 0.2, 0.02), ("a", 0.2, 0.02)]).chosen == "a"
    assert chosen([("b", 0.2, 0.02), ("a", 0.2, 0.02)], quality=0.5).chosen == "a"


def test_free_pools_are_scored_by_error():
    pool = [("a", 0.4, 0.0), ("b", 0.2, 0.0)]
    assert chosen(pool, 0.0, lambda_=5.0).chosen == "b"


@pytest.mark.parametrize("asked", [{}, {"lambda_": 1.0}, {"budget_usd": 1.0}, {"quality": 0.1}])
def test_an_unknown_price_is_not_free(asked):
    pool = [*POOL, ("secret", 0.1, NAN)]
    with pytest.raises(RoutingError, match="price of 'secret' is nan"):
        chosen(pool, **asked)
    assert chosen(pool, deny=("secret",), **asked).chosen in {"small", "mid", "large"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"budget_usd": 0.001}, "the cheapest, 'small', costs 0.01 USD"),
        ({"allow": ("small",), "deny": ("small",)}, "deny removes small; allow leaves out large, mid"),
        ({"allow": ("smal",)}, "allow names 'smal'"),
        ({"deny": ("lage",)}, "deny names 'lage'"),
    ],
)
def test_what_cannot_be_chosen(asked, told):
    with pytest.raises(RoutingError, match=told):
        chosen(**asked)


def test_an_empty_pool_is_refused():
    with pytest.raises(RoutingError, match="pool of the router is empty"):
        chosen([])


@pytest.mark.parametrize(
    "asked",
    [{"lambda_": -1.0}, {"lambda_": NAN}, {"quality": 1.5}, {"budget_usd": float("inf")},
     {"lambda_": 1.0, "quality": 0.5}],
)  # fmt: skip
def test_requests_that_make_no_sense(asked):
    with pytest.raises(RoutingError, match="give"):
        Request(**asked)
