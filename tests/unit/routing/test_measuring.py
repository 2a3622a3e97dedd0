"""Routers measured on held-out answers: whose prompts count, what they cost in truth, who decides."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.answer_table import AnswerTable
from modelyard.routing.answers import Answers
from modelyard.routing.decision import Request
from modelyard.routing.embedders import load_embedder
from modelyard.routing.fitting import RouterOptions
from modelyard.routing.measuring import held_out
from modelyard.routing.router import Router

WORDS = ("verse rhyme sonnet poem", "function compiler pointer loop")
NAMES = ("coder", "poet", "small")
RATES = np.array([[0.8, 0.1], [0.1, 0.8], [0.6, 0.6]])
PRICES = np.array([0.02, 0.01, 0.001])
NAN = float("nan")


def table(numbers, seed=0, cost=None):
    numbers = np.asarray(numbers)
    chance = np.random.default_rng(seed)
    errors = (chance.random((3, len(numbers))) < RATES[:, numbers % 2]).astype(float)
    costs = np.repeat(PRICES[:, None], len(numbers), axis=1) if cost is None else cost
    answers = Answers(
        models=NAMES, examples=tuple(f"q{i}" for i in numbers), errors_mn=errors, cost_usd_mn=costs
    )
    return AnswerTable(answers=answers, prompts=tuple(f"{WORDS[i % 2]} {i}" for i in numbers))


def fitted(rows=(0, 1, 2)):
    known = table(range(80))
    options = RouterOptions(clusters=2, estimator="empirical_bayes")
    return Router.fit(known.answers.of_models(rows), known.prompts, load_embedder("hashing"), options)


def changed(told, **fields):
    given = {name: getattr(told.answers, name) for name in ("models", "examples", "errors_mn", "cost_usd_mn")}
    return AnswerTable(answers=Answers(**{**given, **fields}), prompts=told.prompts)


def test_a_measured_router_decides_as_in_service():
    router, held = fitted(), table(range(100, 160), seed=1)
    measured = held_out(router, held)
    for weight in (0.0, 0.3, 2.0, 100.0):
        request = Request(lambda_=weight) if weight else Request()
        chosen = [NAMES.index(d.chosen) for d in router.route_batch(held.prompts, request)]
        sweep = measured.router(1.0, [weight])
        right = 1 - held.answers.errors_mn[chosen, np.arange(60)]
        np.testing.assert_array_equal(sweep.quality_lq[0], right)
        np.testing.assert_array_equal(sweep.cost_lq[0], PRICES[chosen])


def test_what_answers_cost_in_truth_counts():
    costs = np.repeat(PRICES[:, None], 60, axis=1) * np.random.default_rng(3).uniform(0.5, 1.5, (3, 60))
    costs[0, :10] = NAN  # then the mean of the others stands in
    measured = held_out(fitted(), table(range(100, 160), cost=costs))
    assert measured.spent_usd_m[0] == pytest.approx(np.nanmean(costs[0]))
    cheapest = measured.router(1.0, [1e6])
    np.testing.assert_array_equal(cheapest.cost_lq[0], costs[2])


def test_a_curve_begins_with_the_cheapest_whatever_it_costs():
    """The small model is much worse and saves a thousandth of the dearest's price."""
    prices = np.array([[1.0], [0.002], [0.001]]) * np.ones((1, 100))
    known = table(range(80), cost=prices[:, :80])
    options = RouterOptions(clusters=1, estimator="empirical_bayes")
    router = Router.fit(known.answers, known.prompts, load_embedder("hashing"), options)
    measured = held_out(router, table(range(100, 200), seed=1, cost=prices))
    for sweep in (measured.router(1.0), measured.zero_router(1.0), measured.oracle(1.0)):
        assert sweep.curve().cost_p[0] == pytest.approx(0.001)


def test_oracle_router_and_chance_are_in_order():
    measured = held_out(fitted(), table(range(100, 400), seed=2))
    dearest = float(measured.spent_usd_m.max())
    curves = [made(dearest).curve() for made in (measured.oracle, measured.router, measured.zero_router)]
    areas = [curve.area(0.05) for curve in curves]
    assert areas == sorted(areas, reverse=True) and areas[1] > areas[2] + 0.1
    assert curves[0].peak == pytest.approx(measured.quality_mq.max(axis=0).mean())


def test_prompts_that_a_model_was_not_asked_are_left_out():
    held = table(range(100, 160))
    errors = held.answers.errors_mn.copy()
    errors[1, :7] = NAN
    told = changed(held, errors_mn=errors)
    assert (held_out(fitted(), told).left_out, len(held_out(fitted(), told).examples)) == (7, 53)
    two = fitted((0, 2))
    assert held_out(two, told).left_out == 0, "the poet is not in this router"
    assert held_out(two, told, also=("poet",)).left_out == 7
    assert held_out(two, told, also=("poet",)).names == ("coder", "small")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (lambda: table(range(70, 90)), "fitted on 'q70' and 9 more"),
        (lambda: changed(table(range(100, 110)), models=("coder", "x", "small")), "no answer of poet"),
        (lambda: changed(table([100, 101]), errors_mn=np.array([[0.0, NAN], [NAN, 0.0], [0.0, 0.0]])),
         "no prompt of the held-out results was answered by every model"),
        (lambda: table(range(100, 110), cost=np.zeros((3, 10))), "every model costs 0 USD"),
        (lambda: table(range(100, 110), cost=np.full((3, 10), NAN)), "unknown is not free"),
    ],
)  # fmt: skip
def test_tables_that_cannot_measure(told, message):
    with pytest.raises(RoutingError, match=message):
        held_out(fitted(), told())
