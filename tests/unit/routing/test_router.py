"""Routers: profiles that never depend on one another, files that cannot be mistaken, checked tables."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.answer_table import read_answer_table
from modelyard.routing.answers import Answers
from modelyard.routing.decision import Request
from modelyard.routing.embedders import load_embedder
from modelyard.routing.router import ESTIMATORS, Router, RouterOptions

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
    return {m.name: (m.psi_k.tolist(), m.sd_k.tolist(), m.answers_k.tolist()) for m in router.models}


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


def test_near_prompts_explain_a_choice():
    first, *rest = onboarded(fitted()).explain(TEXTS[4], 5)
    assert first.example == "e04" and first.similarity == pytest.approx(1, abs=1e-5)
    assert set(first.errors) == set(MODELS)
    assert first.errors["maths"] == errors_of("maths")[4]
    assert all(int(near.example[1:]) % 3 == 1 for near in rest)


def test_new_prompts_need_their_text_and_known_ones_the_same():
    router = fitted()
    errors = {"e00": 1.0, "x": 0.0}
    with pytest.raises(RoutingError, match="not fitted on 'x'; give its text"):
        onboarded(router, errors=errors)
    new = onboarded(router, errors=errors, texts={"x": TEXTS[1], "e00": TEXTS[0]}).models[2]
    assert new.name == "new" and sorted(new.answers_k.tolist()) == [0, 1, 1]
    with pytest.raises(RoutingError, match="'e00' is another prompt"):
        onboarded(router, errors=errors, texts={"x": TEXTS[1], "e00": TEXTS[2]})


@pytest.mark.parametrize("estimator", ["low_rank", "transfer"])
def test_one_known_model_is_compared_with_nothing(estimator):
    with pytest.raises(RoutingError, match="there is one; give two or more"):
        fitted(("poet",), estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_few_known_models_do_not_make_an_estimate_certain(estimator):
    told = onboarded(fitted(("maths", "both"), estimator), errors={"e00": 1.0, "e01": 0.0}).models[-1]
    assert (told.name, told.sd_k.min() > 0.03) == ("new", True)


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
        RouterOptions(estimator="magic")


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
        ({"examples": ["a"]}, "do not fit together"),
        ({"options": {"clusters": 3, "magic": 1}}, "do not fit together"),
    ],
)
def test_other_records_are_refused(saved, change, told):
    path = saved / "router.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RoutingError, match=told):
        Router.load(saved)


def test_another_embedder_is_refused(saved):
    with pytest.raises(RoutingError, match="was fitted with the embedder hashing"):
        Router.load(saved, load_embedder("wordllama"))


HEAD = "model,example_id,prompt,score,cost_usd\n"


def read(tmp_path, rows, head=HEAD):
    path = tmp_path / "t.csv"
    path.write_text(head + rows)
    return read_answer_table(path)


def test_a_table_in_any_order(tmp_path):
    table = read(tmp_path, 'b,2,"two, too",0.25,0.5\na,1,one,,\na,2,"two, too",1,0.1\n')
    assert table.answers.models == ("a", "b") and table.answers.examples == ("1", "2")
    assert table.prompts == ("one", "two, too")
    np.testing.assert_array_equal(table.answers.errors_mn, [[1.0, 0.0], [np.nan, 0.75]])
    np.testing.assert_array_equal(table.answers.cost_usd_mn, [[np.nan, 0.1], [np.nan, 0.5]])


def test_parquet_gives_what_csv_does(tmp_path):
    columns = {"model": ["a"], "example_id": ["1"], "prompt": ["p"], "score": [0.5], "cost_usd": [1.0]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert read_answer_table(tmp_path / "t.parquet").answers.errors_mn.tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("a,1,p,1,1\na,1,p,1,1\n", "row 2: 'a' answers '1' as in row 1"),
        ("a,1,p,1,1\nb,1,q,1,1\n", "row 2: '1' has another prompt"),
        ("a,1,p,1,1\na,2,p,1.5,1\n", "row 2: the score 1.5"),
        ("a,1,p,-0.1,1\n", "row 1: the score -0.1"),
        ("a,1,p,1,-1\n", "row 1: the cost -1"),
        (",1,p,1,1\n", "row 1: model is empty"),
        ("a,1,p,good,1\n", "cannot be read as a table"),
        ("", "there is no row"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, rows, told):
    with pytest.raises(RoutingError, match=told):
        read(tmp_path, rows)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(RoutingError, match="there is no column score, cost_usd"):
        read(tmp_path, "a,1,p\n", "model,example_id,prompt\n")
