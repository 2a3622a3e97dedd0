"""Nearest prompts: each model by its own answers, whoever else is there; a router that predicts by them."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.answer_table import AnswerTable
from modelyard.routing.answers import Answers
from modelyard.routing.candidates import Candidate, candidates
from modelyard.routing.decision import Request
from modelyard.routing.embedders import load_embedder
from modelyard.routing.estimators.nearest import Nearest, Neighbours
from modelyard.routing.fitting import RouterOptions
from modelyard.routing.measuring import held_out
from modelyard.routing.pictures import territory
from modelyard.routing.router import Router
from modelyard.routing.selection import Trials, choose

NAN = float("nan")
EMBEDDER = load_embedder("hashing")
WORDS = ("verse rhyme sonnet poem", "function compiler pointer loop")
NAMES = ("coder", "poet", "small")
RATES = np.array([[0.8, 0.1], [0.1, 0.8], [0.6, 0.6]])
TEXTS = [f"{WORDS[i % 2]} {i}" for i in range(120)]


def unit(chance, count, dimensions=8):
    made = chance.standard_normal((count, dimensions)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def ragged(seed=0, models=4, prompts=60):
    chance = np.random.default_rng(seed)
    errors = chance.integers(2, size=(models, prompts)).astype(float)
    errors[1, chance.random(prompts) < 0.7] = NAN
    return errors, unit(chance, prompts), unit(chance, 15)


@pytest.mark.parametrize("rule", [Nearest(neighbours=5), Nearest(neighbours=7, strength=3.0)])
def test_predictions_by_hand(rule):
    errors, prompts, queries = ragged()
    told, deviations = Neighbours.of(rule, prompts, errors).predict(queries)
    for m, row in enumerate(errors):
        asked = np.flatnonzero(~np.isnan(row))
        for q, query in enumerate(queries):
            near = asked[np.argsort(-(prompts[asked] @ query))[: rule.neighbours]]
            by_hand = row[near].sum() + rule.strength * np.nanmean(row)
            assert told[m, q] == pytest.approx(by_hand / (rule.neighbours + rule.strength))
    assert (deviations > 0.05).all(), "that few neighbours agree does not make it certain"


def test_where_all_were_asked_it_is_the_plain_rule():
    errors, prompts, queries = ragged()
    rule, whole = Nearest(neighbours=6, strength=2.0), errors[[0, 2, 3]]
    told, _ = Neighbours.of(rule, prompts, whole).predict(queries)
    np.testing.assert_allclose(told, rule.predict(whole, prompts, queries))


def test_other_models_change_nothing():
    errors, prompts, queries = ragged()
    rule = Nearest(neighbours=5, strength=1.0)
    whole, _ = Neighbours.of(rule, prompts, errors).predict(queries)
    for m in range(len(errors)):
        alone, _ = Neighbours.of(rule, prompts, errors[[m]]).predict(queries)
        np.testing.assert_array_equal(alone[0], whole[m])


def test_a_batch_is_what_each_prompt_gets_alone():
    """Also where prompts are equally near: the first of them counts."""
    errors, prompts, queries = ragged(prompts=60)
    twice = np.concatenate([prompts, prompts])
    neighbours = Neighbours.of(Nearest(neighbours=5), twice, np.concatenate([errors, 1 - errors], axis=1))
    whole, _ = neighbours.predict(queries)
    alone = np.concatenate([neighbours.predict(queries[[q]])[0] for q in range(len(queries))], axis=1)
    np.testing.assert_array_equal(whole, alone)


def test_what_is_a_little_nearer_counts_wherever_it_stands():
    """The last five of 300 prompts are nearer by 0.001 than the first five."""
    similar = np.concatenate([np.full(5, 0.5), np.full(290, 0.1), np.full(5, 0.501)])
    prompts = np.stack([similar, np.sqrt(1 - similar**2)], axis=1).astype(np.float32)
    errors = np.where(np.arange(300) >= 295, 1.0, 0.0)[None]
    told, _ = Neighbours.of(Nearest(neighbours=5), prompts, errors).predict(np.array([[1, 0]], np.float32))
    assert told.tolist() == [[1.0]]


def test_few_answers_and_much_strength_are_the_mean():
    errors, prompts, queries = ragged()
    few, _ = Neighbours.of(Nearest(neighbours=500), prompts, errors).predict(queries)
    strong, _ = Neighbours.of(Nearest(neighbours=5, strength=1e9), prompts, errors).predict(queries)
    means = np.repeat(np.nanmean(errors, axis=1)[:, None], 15, axis=1)
    np.testing.assert_allclose(few, means)
    np.testing.assert_allclose(strong, means, atol=1e-6)


def errors_of(row, numbers, seed=0):
    numbers = np.asarray(numbers)
    return (np.random.default_rng([seed, row]).random(len(numbers)) < RATES[row][numbers % 2]).astype(float)


def answers(numbers, seed=0):
    return Answers(
        models=NAMES,
        examples=tuple(f"q{i:03}" for i in numbers),
        errors_mn=np.array([errors_of(row, numbers, seed) for row in range(3)]),
        cost_usd_mn=np.repeat(np.array([[0.02], [0.01], [0.001]]), len(numbers), axis=1),
    )


def fitted(rows=(0, 1, 2)):
    options = RouterOptions(estimator="nearest", clusters=1)
    return Router.fit(answers(range(120)).of_models(rows), TEXTS, EMBEDDER, options)


def test_prompts_of_one_cluster_are_told_apart():
    router = fitted()
    assert len(router.clusters) == 1
    assert router.route("sonnet with a rhyme").chosen == "poet"
    assert router.route("compiler loop").chosen == "coder"
    assert router.route("compiler loop", Request(lambda_=1e6)).chosen == "small"
    chosen = [decision.chosen for decision in router.route_batch(TEXTS)]
    assert chosen == [router.route(text).chosen for text in TEXTS] and set(chosen) >= {"poet", "coder"}
    told = router.explain("compiler loop", 3)
    assert told.decision == router.route("compiler loop") and told.standings[0].name == "coder"


def test_it_is_measured_and_mapped_by_prompt():
    numbers = range(200, 320)
    table = AnswerTable(answers=answers(numbers, 1), prompts=tuple(f"{WORDS[i % 2]} {i}" for i in numbers))
    measured = held_out(fitted(), table)
    assert measured.router(0.02).curve().area(0.05) > measured.zero_router(0.02).curve().area(0.05) + 0.1
    won = territory(fitted(), 0.0)
    assert len(set(won.winner_n.tolist())) > 1, "in one cluster"


def onboarded(router):
    numbers = range(300, 340)
    given = dict(zip((f"q{i:03}" for i in numbers), errors_of(1, numbers, 2).tolist(), strict=True))
    texts = {f"q{i:03}": f"{WORDS[i % 2]} {i}" for i in numbers}
    return router.onboard("poet", given, cost_usd=0.01, texts=texts)


def test_a_model_is_onboarded_from_answers_to_other_prompts():
    before = fitted((0, 2))
    after = onboarded(before)
    assert after.route("sonnet with a rhyme").chosen == "poet"
    queries = EMBEDDER.embed(TEXTS)
    rest = [after.names.index(name) for name in before.names]
    np.testing.assert_array_equal(after.predicted_errors(queries)[rest], before.predicted_errors(queries))
    near = after.explain(f"{WORDS[0]} 300", 1).neighbours[0]
    assert near.example == "q300" and set(near.errors) == {"poet"}
    gone = after.remove("poet")
    np.testing.assert_array_equal(gone.predicted_errors(queries), before.predicted_errors(queries))


def test_prompts_that_one_model_brought_change_no_later_one():
    few = {f"q{i:03}": float(i % 2) for i in range(60)}
    first = fitted((0, 2)).onboard("late", few, cost_usd=0.01)
    second = onboarded(fitted((0, 2))).onboard("late", few, cost_usd=0.01)
    for router in (first, second):
        assert router.models.answers_mk[router.names.index("late")].tolist() == [60]
    row, other = (r.models.row("late") for r in (first, second))
    assert first.models.psi_mk[row].tolist() == second.models.psi_mk[other].tolist()
    queries = EMBEDDER.embed(TEXTS)
    np.testing.assert_array_equal(
        first.predicted_errors(queries)[row], second.predicted_errors(queries)[other]
    )


def test_it_is_saved_with_the_prompts_that_were_added(tmp_path):
    before = onboarded(fitted((0, 2)))
    before.save(tmp_path / "router")
    after = Router.load(tmp_path / "router")
    assert after.route_batch(TEXTS) == before.route_batch(TEXTS)
    assert after.predictor.by_prompt and len(after.pool.examples) == 160
    with pytest.raises(RoutingError, match="'q300' is another prompt"):
        after.onboard("late", {"q300": 1.0}, cost_usd=0.1, texts={"q300": "else"})


def test_neighbours_and_strength_are_chosen_on_known_models():
    """Models whose errors have nothing to do with prompts: means; who differ by kind: few near prompts."""
    chance = np.random.default_rng(5)
    embeddings = EMBEDDER.embed([f"{WORDS[i % 2]} {chance.integers(1000)}" for i in range(400)])
    rates = chance.uniform(0.1, 0.9, (12, 1)) * np.ones((1, 400))
    kinds = np.where(np.arange(400) % 2 == np.arange(12)[:, None] % 2, 0.05, 0.95)
    tried = [*candidates("nearest", (1,))]
    assert len(tried) == 20 and len({each.name for each in tried}) == 20
    best = {}
    for what, chances in (("same", rates), ("kinds", kinds)):
        errors = (chance.random(chances.shape) < chances).astype(float)
        best[what], scores = choose(tried, errors, embeddings, Trials(answers=80, seed=0))
        assert set(scores) == {each.name for each in tried}
        assert scores[best[what].name] == min(scores.values())
    assert best["same"].options["strength"] == 80.0
    assert best["kinds"].options["neighbours"] <= 40 and best["kinds"].options["strength"] <= 5.0


def test_options_are_chosen_also_where_clusters_are_given():
    chance = np.random.default_rng(6)
    pool = Answers(
        models=tuple(f"m{i}" for i in range(8)), examples=tuple(f"q{i:03}" for i in range(120)),
        errors_mn=chance.integers(2, size=(8, 120)).astype(float), cost_usd_mn=np.full((8, 120), 0.01),
    )  # fmt: skip
    router = Router.fit(pool, TEXTS, EMBEDDER, RouterOptions(estimator="nearest", clusters=3, answers=30))
    assert set(router.candidate.options) == {"neighbours", "strength"} and router.candidate.clusters == 3
    plain = Router.fit(pool, TEXTS, EMBEDDER, RouterOptions(estimator="nearest", answers=30))
    assert plain.candidate.clusters == 12, "one for each ten prompts"


def test_only_nearest_predicts_by_prompt():
    assert Candidate(estimator="means", clusters=2).nearest is None
    told = Candidate(estimator="nearest", clusters=2, options={"neighbours": 9, "strength": 1.5}).nearest
    assert told == Nearest(neighbours=9, strength=1.5)
