"""Costs by cluster: as far apart as the answers say, and what budgets and weights make of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from modelyard.core.digests import digest_bytes, digest_json
from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers
from modelyard.routing.costs import cluster_costs
from modelyard.routing.decision import Request
from modelyard.routing.embedders import load_embedder
from modelyard.routing.fitting import RouterOptions
from modelyard.routing.router import Router

NAN = float("nan")
WORDS = ("verse rhyme sonnet poem", "function compiler pointer loop")
TEXTS = [f"{WORDS[i % 2]} {i}" for i in range(60)]


def costs(cost, clusters, count=3, mean=None):
    cost = np.asarray(cost, float)
    mean = float(np.nanmean(cost)) if mean is None else mean
    return cluster_costs(cost, np.asarray(clusters, np.int64), count, mean_usd=mean)


def test_certain_costs_are_their_means_and_unseen_clusters_the_models():
    np.testing.assert_allclose(costs([1, 1, 3, 3], [0, 0, 1, 1]), [1, 3, 2])
    np.testing.assert_allclose(costs([2, 2, 2, 2], [0, 0, 1, 1]), [2, 2, 2])


@pytest.mark.parametrize(
    ("cost", "clusters"),
    [([], []), ([5.0], [1]), ([1.0, 9.0], [0, 1]), ([1.0, 2.0, 9.0], [1, 1, 1]), ([NAN, NAN], [0, 1])],
)
def test_what_tells_nothing_of_clusters_is_the_mean(cost, clusters):
    np.testing.assert_array_equal(costs(cost, clusters, mean=4.0), [4.0, 4.0, 4.0])


def test_unknown_costs_do_not_count():
    with_gaps = costs([1, NAN, 1.5, 3, NAN, 3.5], [0, 0, 0, 1, 2, 1])
    np.testing.assert_allclose(with_gaps, costs([1, 1.5, 3, 3.5], [0, 0, 1, 1]))


def test_means_lie_between_the_models_and_the_clusters():
    chance = np.random.default_rng(0)
    inside = np.repeat(np.arange(8), [2, 2, 4, 4, 8, 8, 40, 40])
    cost = 5 + chance.normal(0, 1, 8)[inside] + chance.normal(0, 2, len(inside))
    told = costs(cost, inside, 8)
    raw = np.array([cost[inside == k].mean() for k in range(8)])
    share = (told - cost.mean()) / (raw - cost.mean())
    assert (share > 0).all() and (share < 1).all()
    assert share[:2].max() < share[-2:].min(), "more answers count more"


@pytest.mark.parametrize(
    ("spread", "of_raw", "of_flat"), [(0.0, 0.1, 2.2), (0.3, 0.2, 1.4), (3.0, 0.95, 0.5)]
)
def test_they_are_near_the_better_mean_without_being_told_which(spread, of_raw, of_flat):
    """100 models of 100 answers in 20 clusters: the squared error beside clusters' and models' means."""
    chance, squares = np.random.default_rng(1), np.zeros(3)
    for _ in range(100):
        inside = chance.integers(20, size=100)
        truth = 10 + chance.normal(0, spread, 20)
        cost = truth[inside] + chance.normal(0, 2, 100)
        counts = np.bincount(inside, minlength=20)
        raw = np.bincount(inside, weights=cost, minlength=20) / np.maximum(counts, 1)
        raw, flat = np.where(counts > 0, raw, cost.mean()), np.full(20, cost.mean())
        squares += [np.square(told - truth).mean() for told in (costs(cost, inside, 20), raw, flat)]
    assert squares[0] < of_raw * squares[1]
    assert squares[0] < of_flat * squares[2]


def answers():
    """Long answers to programmers' questions: they cost five times as much; models are equally good."""
    chance = np.random.default_rng(0)
    cost = np.where(np.arange(60) % 2, 0.05, 0.01) * chance.uniform(0.9, 1.1, (2, 60))
    cost[1] = 0.02
    errors = np.array([np.arange(60) % 4 == 0, np.arange(60) % 3 == 0]).astype(float)
    return Answers(
        models=("long", "plain"), examples=tuple(f"e{i:02}" for i in range(60)), errors_mn=errors,
        cost_usd_mn=cost,
    )  # fmt: skip


def fitted(rows=(0, 1)):
    options = RouterOptions(clusters=2, estimator="means")
    return Router.fit(answers().of_models(rows), TEXTS, load_embedder("hashing"), options)


def test_a_decision_tells_the_cost_of_its_cluster():
    router = fitted()
    poem, code = (router.route(WORDS[i], Request(allow=("long",))) for i in range(2))
    assert (poem.cost_usd, code.cost_usd) == (pytest.approx(0.01, rel=0.1), pytest.approx(0.05, rel=0.1))
    assert router.models.cost_usd_m[0] == pytest.approx(0.03, rel=0.1)
    assert router.route(WORDS[0], Request(allow=("plain",))).cost_usd == pytest.approx(0.02)


def test_budgets_and_weights_are_of_the_cluster():
    router = fitted()
    assert router.route(WORDS[0], Request(budget_usd=0.015)).chosen == "long"
    assert router.route(WORDS[1], Request(budget_usd=0.025)).chosen == "plain"
    with pytest.raises(RoutingError, match=r"the cheapest, 'plain', costs 0\.02"):
        router.route(WORDS[1], Request(budget_usd=0.015))
    assert router.route(WORDS[0], Request(lambda_=1e6)).chosen == "long"
    assert router.route(WORDS[1], Request(lambda_=1e6)).chosen == "plain"


def test_what_is_predicted_for_a_measure_is_what_a_decision_tells():
    router = fitted()
    told = router.predicted(TEXTS).cost_usd_mq
    for row, name in enumerate(router.names):
        decided = router.route_batch(TEXTS, Request(allow=(name,)))
        np.testing.assert_array_equal(told[row], [each.cost_usd for each in decided])


def test_a_model_is_onboarded_with_what_its_answers_cost():
    given = answers()
    errors = dict(zip(given.examples, given.errors_mn[0].tolist(), strict=True))
    told = dict(zip(given.examples, given.cost_usd_mn[0].tolist(), strict=True))
    mean = float(given.mean_cost_usd()[0])
    flat = fitted((1,)).onboard("long", errors, cost_usd=mean)
    apart = fitted((1,)).onboard("long", errors, cost_usd=mean, costs_usd=told)
    np.testing.assert_array_equal(flat.models.cost_usd_mk[0], [mean, mean])
    np.testing.assert_allclose(apart.models.cost_usd_mk[0], fitted().models.cost_usd_mk[0])
    gaps = {name: cost for name, cost in told.items() if name > "e05"}
    part = fitted((1,)).onboard("long", errors, cost_usd=mean, costs_usd={**gaps, "e00": NAN})
    np.testing.assert_allclose(part.models.cost_usd_mk[0], apart.models.cost_usd_mk[0], rtol=0.05)
    with pytest.raises(RoutingError, match="the cost of 'long' on 'e00' is -1"):
        fitted((1,)).onboard("long", errors, cost_usd=mean, costs_usd={"e00": -1.0})


def test_costs_are_saved_and_older_routers_have_one_a_model(tmp_path):
    router, folder = fitted(), tmp_path / "router"
    router.save(folder)
    np.testing.assert_array_equal(Router.load(folder).models.cost_usd_mk, router.models.cost_usd_mk)
    record = json.loads((folder / "router.json").read_text())
    tensors = load((folder / "tensors.safetensors").read_bytes())
    del tensors["cluster_cost_usd"]
    data = save(tensors)
    (folder / "tensors.safetensors").write_bytes(data)
    record = {
        **{key: value for key, value in record.items() if key != "digest"},
        "tensors": digest_bytes(data),
    }
    (folder / "router.json").write_text(json.dumps({**record, "digest": digest_json(record)}))
    older = Router.load(folder)
    np.testing.assert_array_equal(
        older.models.cost_usd_mk, np.repeat(router.models.cost_usd_m[:, None], 2, 1)
    )
    assert older.route(WORDS[0]).chosen == router.route(WORDS[0]).chosen
