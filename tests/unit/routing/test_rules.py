"""Rules of a request: facts that must be known, who answered before, and new models that are tried by lot."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.decision import Candidates, Request, decide, why_not
from modelyard.routing.exploration import Exploration
from modelyard.routing.facts import FACTS, Facts, Traits

#: Name, error, cost, answers.
POOL = [("small", 0.5, 0.01, 900), ("mid", 0.3, 0.04, 50), ("large", 0.2, 0.10, 900), ("new", 0.6, 0.05, 10)]
KNOWN = {
    "small": Facts(context_tokens=8_000, tools=False, online=True, latency_s=0.5, latency_p95_s=1.0),
    "mid": Facts(context_tokens=32_000, tools=True, vision=True),
    "large": Facts(
        context_tokens=200_000, tools=True, vision=False, online=False, latency_s=4.0, latency_p95_s=9.0
    ),
}


def candidates(rows=POOL, known=None):
    names, errors, costs, answers = zip(*rows, strict=True)
    return Candidates(
        names=names, errors_m=np.array(errors), sd_m=np.full(len(names), 0.1), cost_usd_m=np.array(costs),
        traits=Traits.of(names, KNOWN if known is None else known, np.array(answers)),
    )  # fmt: skip


def decided(rows=POOL, known=None, **asked):
    return decide(candidates(rows, known), Request(**asked), dearest_usd=0.1)


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({"context_tokens": 8_000}, {"small", "mid", "large"}),
        ({"context_tokens": 8_001}, {"mid", "large"}),
        ({"tools": True}, {"mid", "large"}),
        ({"vision": True}, {"mid"}),
        ({"tools": True, "vision": True}, {"mid"}),
        ({"latency_s": 4.0}, {"small", "large"}),
        ({"latency_s": 3.9}, {"small"}),
        ({"latency_p95_s": 5.0}, {"small"}),
        ({"latency_s": 4.0, "context_tokens": 100_000}, {"large"}),
        ({"tools": True, "deny": ("large",)}, {"mid"}),
        ({"group": "online"}, {"small"}),
        ({"group": "offline"}, {"large"}),
        ({}, {"small", "mid", "large", "new"}),
    ],
)
def test_only_models_that_are_known_to_fit_are_left(asked, left):
    told = decided(**asked)
    assert set(told.scores) == left and told.chosen in left
    assert decided(list(reversed(POOL)), **asked) == told
    assert set(why_not(candidates(), Request(**asked))) == {row[0] for row in POOL} - left


def test_other_facts_do_not_count():
    """Every fact alone, of models that know all but that one."""
    whole = {"context_tokens": 9, "tools": True, "vision": True, "latency_s": 1.0, "latency_p95_s": 2.0}
    for fact, needed in whole.items():
        known = {name: Facts(**{f: v for f, v in whole.items() if f != fact}) for name, *_ in POOL}
        known["mid"] = Facts(**{fact: needed})
        assert set(decided(known=known, **{fact: needed}).scores) == {"mid"}
    assert {*whole, "online"} == set(FACTS)


def test_a_group_must_be_known_and_of_that_name():
    with pytest.raises(RoutingError, match="group of a request is 'fast'; give one of online, offline"):
        Request(group="fast")
    with pytest.raises(RoutingError, match="the group online leaves out large"):
        decided([row for row in POOL if row[0] != "small"], group="online")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"context_tokens": 300_000},
         "a context of 300,000 tokens is not known of new; a context of 300,000 tokens is too much for "
         "large, mid, small"),
        ({"vision": True, "deny": ("mid",)}, "deny removes mid; vision is not known of new, small; vision is "
         "too much for large"),
        ({"latency_s": 0.1}, "an answer within 0.1 s in the mean is not known of mid, new"),
    ],
)  # fmt: skip
def test_it_is_told_why_none_is_left(asked, told):
    with pytest.raises(RoutingError, match=told):
        decided(**asked)


def test_where_nothing_is_declared_nothing_is_assumed():
    bare = candidates()
    bare = Candidates(names=bare.names, errors_m=bare.errors_m, sd_m=bare.sd_m, cost_usd_m=bare.cost_usd_m)
    for asked in ({"tools": True}, {"latency_s": 1e9}, {"context_tokens": 1}):
        with pytest.raises(RoutingError, match="is not known of large, mid, new, small"):
            decide(bare, Request(**asked), dearest_usd=0.1)
    with pytest.raises(RoutingError, match="not known how many answers"):
        decide(bare, Request(explore=Exploration(epsilon=0.5, answers=5, request_id="x")), dearest_usd=0.1)


@pytest.mark.parametrize(
    "asked",
    [{"context_tokens": 0}, {"latency_s": -1.0}, {"latency_p95_s": float("nan")}, {"margin": -0.1},
     {"margin": float("inf")}],
)  # fmt: skip
def test_requests_that_make_no_sense(asked):
    with pytest.raises(RoutingError, match="give a number"):
        Request(**asked)


@pytest.mark.parametrize(
    "wrong", [{"context_tokens": 0}, {"latency_s": float("inf")}, {"latency_p95_s": -2.0}]
)
def test_facts_that_make_no_sense(wrong):
    with pytest.raises(RoutingError, match="give a number above 0"):
        Facts(**wrong)


def test_newer_facts_stand_instead_of_older_ones():
    told = Facts(tools=True, latency_s=2.0).updated(Facts(tools=False, context_tokens=9))
    assert told == Facts(tools=False, latency_s=2.0, context_tokens=9)
    assert told.known() == {"tools": False, "latency_s": 2.0, "context_tokens": 9}


# Within a conversation. The errors are small 0.5, mid 0.3, large 0.2.


@pytest.mark.parametrize(
    ("margin", "asked", "name"),
    [
        (0.0, {}, "large"),
        (0.09, {}, "large"),
        (0.11, {}, "mid"),
        (0.19, {"lambda_": 0.3}, "mid"),
        (0.0, {"lambda_": 0.3}, "mid"),
        (0.11, {"budget_usd": 0.2}, "mid"),
        (0.11, {"budget_usd": 0.02}, "small"),
        (0.29, {"quality": 0.1}, "small"),
        (0.31, {"quality": 0.1}, "mid"),
        (9.0, {"quality": 0.75}, "large"),
        (9.0, {"deny": ("mid",)}, "large"),
        (9.0, {"latency_s": 4.0}, "large"),
    ],
)
def test_who_answered_before_stays_within_the_margin(margin, asked, name):
    assert decided(previous="mid", margin=margin, **asked).chosen == name


@pytest.mark.parametrize(("margin", "name"), [(0.25, "before"), (0.2499, "best")])
def test_a_lead_of_just_the_margin_is_not_enough(margin, name):
    rows = [("before", 0.5, 0.1, 9), ("best", 0.25, 0.1, 9)]
    assert decided(rows, previous="before", margin=margin).chosen == name


def test_it_is_told_why_one_stays_or_goes():
    assert decided(previous="mid", margin=0.2).reason == (
        "'mid' answered before and is worse than the best by 0.1000, not more than 0.2"
    )
    assert "worse by 0.1000, more than 0.05" in decided(previous="mid", margin=0.05).reason
    assert "'gone' answered before and cannot be chosen" in decided(previous="gone", margin=1.0).reason
    stays = decided(previous="large")
    assert stays.chosen == "large" and "worse than the best by 0.0000" in stays.reason
    assert (stays.propensity, stays.explored) == (1.0, False)


# New models by lot.


def lot(number=0, epsilon=0.3, answers=100, seed=0):
    return Exploration(epsilon=epsilon, answers=answers, request_id=f"r{number}", seed=seed)


def test_a_request_has_one_lot_whatever_the_order_of_models():
    for number in range(60):
        once = decided(explore=lot(number))
        assert once == decided(explore=lot(number)) == decided(list(reversed(POOL)), explore=lot(number))
    many = [[decided(explore=lot(n, seed=seed)).chosen for n in range(60)] for seed in range(2)]
    assert many[0] != many[1]


def test_propensities_are_the_chances_of_what_is_chosen():
    """4,000 requests: each share within 0.03, four deviations, of the chance that is told."""
    told = [decided(explore=lot(number)) for number in range(4000)]
    chances = {"large": 0.7, "mid": 0.15, "new": 0.15}
    assert {each.chosen for each in told} == set(chances)
    for name, chance in chances.items():
        mine = [each for each in told if each.chosen == name]
        assert {round(each.propensity, 12) for each in mine} == {chance}
        assert len(mine) / 4000 == pytest.approx(chance, abs=0.03)
        assert {each.explored for each in mine} == {name != "large"}


def test_the_best_may_be_new_itself():
    """Mid is new and best: it is chosen by either way, and the chance of both is told."""
    told = [decided(explore=lot(n), deny=("large",)) for n in range(500)]
    assert {each.chosen: round(each.propensity, 12) for each in told} == {"mid": 0.85, "new": 0.15}
    assert sum(each.explored for each in told if each.chosen == "mid") > 0


def test_an_average_over_choices_is_put_right_by_propensities():
    """What propensities are for: weighed, a model is as if always asked; within 4 deviations."""
    told = [decided(explore=lot(number)) for number in range(4000)]
    weighed = sum(each.predicted_error / each.propensity for each in told if each.chosen == "new") / 4000
    assert weighed == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize(
    ("asked", "tried"),
    [
        ({}, {"mid", "new"}),
        ({"deny": ("new",)}, {"mid"}),
        ({"budget_usd": 0.045}, {"mid"}),
        ({"tools": True}, {"mid"}),
        ({"lambda_": 5.0}, {"mid", "new"}),
        ({"quality": 0.9}, {"mid", "new"}),
        ({"latency_s": 5.0}, set()),
        ({"previous": "large"}, set()),
    ],
)
def test_limits_hold_for_new_models_too(asked, tried):
    told = [decided(explore=lot(n, epsilon=1.0), **asked) for n in range(40)]
    assert {each.chosen for each in told if each.explored} == tried
    if not tried:
        assert {(each.chosen, each.propensity) for each in told} == {("large", 1.0)}


def test_no_chance_is_no_exploration():
    told = [decided(explore=lot(n, epsilon=0.0)) for n in range(40)]
    assert {(each.chosen, each.propensity) for each in told} == {("large", 1.0)}


@pytest.mark.parametrize("wrong", [{"epsilon": 1.5}, {"epsilon": -0.1}, {"request_id": ""}])
def test_explorations_that_make_no_sense(wrong):
    with pytest.raises(RoutingError, match="give"):
        Exploration(**{"epsilon": 0.1, "answers": 10, "request_id": "x", **wrong})
