"""Routers: profiles that never depend on one another, files that cannot be mistaken, checked tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from modelyard.core.digests import digest_json
from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers
from modelyard.routing.candidates import ESTIMATORS, Candidate
from modelyard.routing.decision import Request
from modelyard.routing.embedders import load_embedder
from modelyard.routing.exploration import Exploration
from modelyard.routing.facts import Facts
from modelyard.routing.router import Router, RouterOptions

EMBEDDER = load_embedder("hashing")
TOPICS = (
    "integral matrix proof theorem lemma algebra vector sum prime root",
    "sonnet rhyme verse poem stanza lyric ode ballad metre line",
    "function pointer compiler bug stack loop thread branch commit patch",
)
TEXTS = [f"{TOPICS[i % 3]} {i}" for i in range(90)]
EXAMPLES = tuple(f"e{i:02}" for i in range(90))
#: Each model's chance of an error by topic, and its price.
MODELS = {"maths": (0.1, 0.8, 0.5), "poet": (0.8, 0.1, 0.6), "both": (0.2, 0.3, 0.2), "tiny": (0.9, 0.7, 0.9)}
PRICES = {"maths": 0.02, "poet": 0.03, "both": 0.1, "tiny": 0.001}


def errors_of(name):
    chance = np.random.default_rng(list(MODELS).index(name))
    rates = np.array(MODELS[name])[np.arange(90) % 3]
    return (chance.random(90) < rates).astype(float)


def answers(names):
    return Answers(
        models=tuple(names),
        examples=EXAMPLES,
        errors_mn=np.array([errors_of(name) for name in names]),
        cost_usd_mn=np.array([np.full(90, PRICES[name]) for name in names]),
    )


def fitted(names=tuple(MODELS), estimator="low_rank"):
    return Router.fit(answers(names), TEXTS, EMBEDDER, RouterOptions(clusters=3, estimator=estimator, seed=1))


def profiles(router):
    rows = zip(router.models.psi_mk, router.models.sd_mk, router.models.answers_mk, strict=True)
    return {name: [part.tolist() for part in row] for name, row in zip(router.names, rows, strict=True)}


def onboarded(router, **changes):
    few = range(0, 90, 3)
    given = {"errors": {f"e{i:02}": float(errors_of("poet")[i]) for i in few}, "cost_usd": 0.03, **changes}
    return router.onboard("new", given.pop("errors"), **given)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_prompts_go_to_who_is_good_at_them(estimator):
    router = fitted(estimator=estimator)
    assert router.route("a poem with rhyme and verse").chosen == "poet"
    assert router.route("proof of a theorem on the integral").chosen == "maths"
    assert router.route("a poem with rhyme and verse", Request(lambda_=1e6)).chosen == "tiny"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_models_that_come_and_go_change_no_other(estimator):
    router = fitted(estimator=estimator)
    more = onboarded(router)
    before = profiles(router)
    assert {name: kept for name, kept in profiles(more).items() if name != "new"} == before
    fewer = more.remove("poet")
    assert profiles(fewer) == {name: kept for name, kept in profiles(more).items() if name != "poet"}
    again = onboarded(router.remove("poet"))
    assert profiles(again)["new"] == profiles(more)["new"]
    asked = Request(lambda_=0.5)
    scores = router.route(TEXTS[0], asked).scores
    assert {n: s for n, s in more.route(TEXTS[0], asked).scores.items() if n != "new"} == scores


def test_the_order_of_models_changes_nothing():
    one, other = fitted(), fitted(tuple(reversed(MODELS)))
    for asked in (Request(), Request(lambda_=0.5), Request(quality=0.7)):
        first, second = one.route_batch(TEXTS, asked), other.route_batch(TEXTS, asked)
        assert [d.chosen for d in first] == [d.chosen for d in second]
        assert [d.score for d in first] == pytest.approx([d.score for d in second])


def test_a_batch_is_what_each_prompt_gets_alone():
    router = fitted()
    alone = [router.route(text) for text in TEXTS[:9]]
    assert router.route_batch(TEXTS[:9]) == alone == router.route_batch(EMBEDDER.embed(TEXTS[:9]))
    assert len({decision.cluster for decision in alone}) == 3


def test_candidates_and_lambda_are_those_of_a_request():
    router, text = fitted(), "a poem with rhyme and verse"
    asked = Request(allow=("maths", "tiny"), lambda_=0.4)
    assert router.route(text, candidate_models=["maths", "tiny"], lambda_=0.4) == router.route(text, asked)
    kept = router.route(text, Request(deny=("poet",)), lambda_=0.4)
    assert kept == router.route(text, Request(deny=("poet",), lambda_=0.4))
    with pytest.raises(RoutingError, match="allow names 'huge'"):
        router.route(text, candidate_models=["huge"])


def test_a_profile_tells_what_is_known_of_one_model():
    router = fitted()
    profile, decision = router.profile("poet"), router.route("a poem with rhyme and verse")
    k = decision.cluster
    told = (profile.model, profile.psi_k[k], profile.low_k[k], profile.high_k[k], profile.cost_usd_k[k])
    assert told == ("poet", decision.predicted_error, decision.low, decision.high, decision.cost_usd)
    assert profile.answers_k.tolist() == [30, 30, 30]
    with pytest.raises(RoutingError, match="'huge' is not in the router"):
        router.profile("huge")


def test_near_prompts_explain_a_choice():
    first, *rest = onboarded(fitted()).explain(TEXTS[4], 5).neighbours
    assert first.example == "e04" and first.similarity == pytest.approx(1, abs=1e-5)
    assert set(first.errors) == set(MODELS)
    assert first.errors["maths"] == errors_of("maths")[4]
    assert all(int(near.example[1:]) % 3 == 1 for near in rest)


def test_every_model_stands_in_an_explanation():
    router = onboarded(fitted())
    told = router.explain(TEXTS[1], 0, Request(lambda_=0.5, deny=("maths",)))
    assert told.neighbours == () and told.decision == router.route(
        TEXTS[1], Request(lambda_=0.5, deny=("maths",))
    )
    rows = {row.name: row for row in told.standings}
    assert told.standings[0].name == told.decision.chosen and told.standings[-1].name == "maths"
    scores = [row.score for row in told.standings[:-1]]
    assert scores == sorted(scores) and {n: r.score for n, r in rows.items() if r.excluded is None} == (
        told.decision.scores
    )
    assert (rows["maths"].score, rows["maths"].excluded) == (None, "denied")
    assert (rows["poet"].answers, rows["new"].answers) == (30, 0), "a new model answered e00, e03, ..."
    won = told.standings[0]
    assert (won.low, won.predicted_error, won.high) == (
        told.decision.low, told.decision.predicted_error, told.decision.high,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "excluded"),
    [
        ({"budget_usd": 0.025}, {"both": "over the budget", "poet": "over the budget"}),
        ({"allow": ("poet", "both")}, {"maths": "not among the allowed", "tiny": "not among the allowed"}),
        ({"quality": 0.0}, {}),
        ({"quality": 1.0}, {}),
    ],
)
def test_who_is_left_out_of_a_decision_and_why(asked, excluded):
    told = fitted().explain(TEXTS[1], 1, Request(**asked)).standings
    assert {row.name: row.excluded for row in told if row.excluded} == excluded
    if asked.get("quality") == 0.0:
        assert [row.name for row in told] == ["tiny", "maths", "poet", "both"], "by cost"


def test_who_is_chosen_stands_first_though_another_scores_better():
    told = fitted().explain(TEXTS[1], 0, Request(previous="tiny", margin=1.0))
    first, second, *_ = told.standings
    assert first.name == told.decision.chosen == "tiny" and second.score < first.score


def test_a_quality_leaves_out_who_is_below_it():
    told = fitted().explain(TEXTS[1], 1, Request(quality=0.6)).standings
    assert {row.name for row in told if row.excluded == "below the quality asked for"} == {"maths", "tiny"}


def test_texts_of_other_prompts_are_seen():
    router = fitted()
    router.check_texts({"e00": TEXTS[0], "stranger": "x"})
    router.check_texts({})
    with pytest.raises(RoutingError, match="'e01' is another prompt"):
        router.check_texts({"e00": TEXTS[0], "e01": TEXTS[2]})


def test_new_prompts_need_their_text_and_known_ones_the_same():
    router = fitted()
    errors = {"e00": 1.0, "x": 0.0}
    with pytest.raises(RoutingError, match="not fitted on 'x'; give its text"):
        onboarded(router, errors=errors)
    new = profiles(onboarded(router, errors=errors, texts={"x": TEXTS[1], "e00": TEXTS[0]}))["new"]
    assert sorted(new[2]) == [0, 1, 1]
    with pytest.raises(RoutingError, match="'e00' is another prompt"):
        onboarded(router, errors=errors, texts={"x": TEXTS[1], "e00": TEXTS[2]})


@pytest.mark.parametrize("estimator", ["low_rank", "transfer"])
def test_one_known_model_is_compared_with_nothing(estimator):
    with pytest.raises(RoutingError, match="there is one; give two or more"):
        fitted(("poet",), estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_few_known_models_do_not_make_an_estimate_certain(estimator):
    _, deviations, _ = profiles(
        onboarded(fitted(("maths", "both"), estimator), errors={"e00": 1.0, "e01": 0.0})
    )["new"]
    assert min(deviations) > 0.03


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cost_usd": float("nan")}, "cost of 'new' is nan"),
        ({"cost_usd": -1.0}, "cost of 'new' is -1"),
        ({"errors": {}}, "'new' has no answer"),
        ({"errors": {"e00": 1.2}}, "error of 'new' on 'e00' is 1.2"),
        ({"errors": {"e00": float("nan")}}, "error of 'new' on 'e00' is nan"),
    ],
)
def test_models_that_cannot_be_onboarded(changes, told):
    with pytest.raises(RoutingError, match=told):
        onboarded(fitted(), **changes)


def test_names_that_are_there_and_that_are_not():
    with pytest.raises(RoutingError, match="'new' is in the router already"):
        onboarded(onboarded(fitted()))
    with pytest.raises(RoutingError, match="'new' is not in the router"):
        fitted().remove("new")
    with pytest.raises(RoutingError, match="estimator 'magic' is not known"):
        fitted(estimator="magic")


@pytest.fixture
def saved(tmp_path):
    onboarded(fitted()).save(tmp_path / "router")
    return tmp_path / "router"


def test_a_saved_router_decides_the_same(saved):
    before, after = onboarded(fitted()), Router.load(saved)
    for asked in (Request(), Request(lambda_=0.3), Request(budget_usd=0.02), Request(quality=0.6)):
        assert after.route_batch(TEXTS, asked) == before.route_batch(TEXTS, asked)
    assert after.explain(TEXTS[5], 3) == before.explain(TEXTS[5], 3)
    late = [r.remove("new").onboard("new", {"e01": 0.0}, cost_usd=0.0) for r in (before, after)]
    assert profiles(late[0]) == profiles(late[1])


def test_saving_replaces_a_router_and_nothing_else(saved, tmp_path):
    Router.load(saved).remove("new").save(saved)
    assert Router.load(saved).names == ("both", "maths", "poet", "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["router"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(RoutingError, match="something that is no router"):
        fitted().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_a_router_without_models_is_saved_and_refuses_to_route(tmp_path):
    router = fitted(("poet",), "empirical_bayes").remove("poet")
    router.save(tmp_path / "empty")
    with pytest.raises(RoutingError, match="empty"):
        Router.load(tmp_path / "empty").route("x")


def test_tampered_tensors_are_refused(saved):
    path = saved / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(RoutingError, match=r"tensors\.safetensors: the digest is"):
        Router.load(saved)
    path.unlink()
    with pytest.raises(RoutingError, match=r"tensors\.safetensors: cannot be read"):
        Router.load(saved)


def test_a_record_cut_short_is_refused(saved):
    path = saved / "router.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RoutingError, match=r"router\.json: cannot be read as JSON"):
        Router.load(saved)
    path.unlink()
    with pytest.raises(RoutingError, match="no router lies there"):
        Router.load(saved)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": "modelyard.router/2"}, "schema is 'modelyard.router/2'"),
        ({"models": []}, "do not fit together"),
        ({"facts": {"poet": {"wings": 2}}}, "do not fit together"),
        ({"examples": ["a"]}, "do not fit together"),
        ({"candidate": {"estimator": "low_rank", "clusters": 3, "magic": 1}}, "do not fit together"),
        ({"candidate": {"estimator": "magic", "clusters": 3}}, "'magic' is not known"),
    ],
)
def test_other_records_are_refused(saved, change, told):
    path = saved / "router.json"
    record = {**json.loads(path.read_text()), **change}
    record.pop("digest")
    path.write_text(json.dumps({**record, "digest": digest_json(record)}))
    with pytest.raises(RoutingError, match=told):
        Router.load(saved)


def test_a_record_that_was_edited_is_refused(saved):
    path = saved / "router.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dearest_usd": 0.2}))
    with pytest.raises(RoutingError, match=r"router\.json: was changed"):
        Router.load(saved)


def test_what_is_not_asked_for_is_chosen_on_known_models():
    chance = np.random.default_rng(2)
    names = tuple(f"m{i}" for i in range(8))
    taste = chance.uniform(0.05, 0.95, (8, 3))
    errors = (chance.random((8, 90)) < taste[:, np.arange(90) % 3]).astype(float)
    pool = Answers(models=names, examples=EXAMPLES, errors_mn=errors, cost_usd_mn=np.full((8, 90), 0.01))
    router = Router.fit(pool, TEXTS, EMBEDDER, RouterOptions(answers=40))
    assert router.candidate.estimator == "low_rank" and router.candidate.clusters > 1
    assert set(router.candidate.options) == {"rank", "own", "leftover"}
    one = Router.fit(pool, TEXTS, EMBEDDER, RouterOptions(clusters=1, estimator="means"))
    assert one.candidate == Candidate(estimator="means", clusters=1)
    few = Router.fit(pool.of_models([0, 1]), TEXTS, EMBEDDER, RouterOptions())
    assert (few.candidate.estimator, few.candidate.clusters) == ("empirical_bayes", 9)


def test_facts_are_kept_with_their_model(saved):
    router = Router.load(saved)
    assert router.facts == {}
    told = router.declare("poet", Facts(tools=True, latency_s=2.0)).declare("both", Facts(context_tokens=9))
    told = told.declare("poet", Facts(latency_s=1.0))
    assert told.facts == {"poet": Facts(tools=True, latency_s=1.0), "both": Facts(context_tokens=9)}
    assert told.route(TEXTS[0], Request(tools=True)).chosen == "poet"
    told.save(saved)
    after = Router.load(saved)
    assert after.facts == told.facts
    assert after.route_batch(TEXTS, Request(latency_s=1.0)) == told.route_batch(TEXTS, Request(latency_s=1.0))
    assert after.route(TEXTS[1]) == router.route(TEXTS[1]), "who asks for nothing sees no difference"
    assert after.remove("poet").facts == {"both": Facts(context_tokens=9)}
    with pytest.raises(RoutingError, match="'nobody' is not in the router"):
        router.declare("nobody", Facts(tools=True))


@pytest.mark.parametrize("facts", [{}, None])
def test_routers_written_before_facts_have_none(saved, facts):
    path = saved / "router.json"
    record = json.loads(path.read_text())
    record = {name: value for name, value in record.items() if name not in ("digest", "facts")}
    record |= {} if facts is None else {"facts": facts}
    path.write_text(json.dumps({**record, "digest": digest_json(record)}))
    assert Router.load(saved).facts == {}
    with pytest.raises(RoutingError, match="the use of tools is not known of both"):
        Router.load(saved).route("x", Request(tools=True))


def test_each_request_of_a_batch_has_its_own_lot():
    explore = Exploration(epsilon=0.5, answers=40, request_id="batch")
    router, asked = onboarded(fitted()), Request(explore=explore)
    ids = [f"r{i}" for i in range(40)]
    told = router.route_batch([TEXTS[0]] * 40, asked, request_ids=ids)
    alone = [router.route(TEXTS[0], Request(explore=replace(explore, request_id=each))) for each in ids]
    assert told == alone and {each.chosen for each in told} == {"maths", "new"}, "only `new` has few answers"
    with pytest.raises(RoutingError, match="2 requests explore with 0 ids"):
        router.route_batch(TEXTS[:2], asked)


def test_another_embedder_is_refused(saved):
    with pytest.raises(RoutingError, match="was fitted with the embedder hashing"):
        Router.load(saved, load_embedder("wordllama"))
