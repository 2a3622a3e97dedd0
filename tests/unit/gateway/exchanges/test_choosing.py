"""Who is asked, and who next: what the client named and its stand-ins, or what the router decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest

from modelyard.evaluation.pool import Price
from modelyard.gateway.config import GatewayConfig, Preference, Served
from modelyard.gateway.exchanges.asked import Asked, BadRequestError, Endpoint, read_asked
from modelyard.gateway.exchanges.choosing import Chooser, NoModelError
from modelyard.routing.answers import Answers
from modelyard.routing.embedders import load_embedder
from modelyard.routing.facts import Facts
from modelyard.routing.fitting import RouterOptions
from modelyard.routing.router import Router


def served(name: str, *fallbacks: str) -> Served:
    return Served(
        name=name, endpoints=("http://h/v1",), model=name, api_key=None, price=Price(), fallbacks=fallbacks
    )


def asked(model: str = "auto", endpoint: Endpoint = Endpoint.CHAT, **more: Any) -> Asked:
    record = {"model": model, "messages": [{"role": "user", "content": "a sum"}], "input": "a", **more}
    return read_asked(endpoint, orjson.dumps(record))


def names(chooser: Chooser, request: Asked, allowed: frozenset[str] = frozenset()) -> list[str]:
    """All that are chosen, each after the ones before it could not answer."""
    found: list[str] = []
    while (choice := chooser.choose(request, {}, allowed, set(found))) is not None:
        found.append(choice.model.name)
    return found


@pytest.fixture(scope="module")
def router() -> Router:
    """Errors and costs of cheap, fair and dear are those of their names."""
    answers = Answers(
        models=("cheap", "fair", "dear"),
        examples=tuple(f"e{n}" for n in range(60)),
        errors_mn=np.array([[0.9], [0.5], [0.1]]) > np.random.default_rng(5).random(60),
        cost_usd_mn=np.repeat(np.array([[1e-6], [1e-4], [1e-2]]), 60, axis=1),
    )
    texts = [f"a sum of {n}" for n in range(60)]
    return Router.fit(answers, texts, load_embedder("hashing"), RouterOptions())


@pytest.fixture
def chooser(router: Router) -> Chooser:
    models = (served("cheap", "fair"), served("fair"), served("dear", "cheap", "fair"), served("apart"))
    return Chooser(GatewayConfig(models=models), router)


def wish(chooser: Chooser, headers: Mapping[bytes, bytes]) -> str:
    choice = chooser.choose(asked(), headers, ())
    assert choice is not None
    return choice.model.name


def test_a_named_model_is_asked_and_then_its_stand_ins(chooser: Chooser) -> None:
    first = chooser.choose(asked("dear"), {}, ())
    second = chooser.choose(asked("dear"), {}, (), {"dear"})
    assert first is not None
    assert second is not None
    assert (first.model.name, first.reason) == ("dear", "asked for")
    assert (second.model.name, second.reason) == ("cheap", "in place of dear")
    assert names(chooser, asked("dear")) == ["dear", "cheap", "fair"]
    assert names(chooser, asked("apart")) == ["apart"]


def test_stand_ins_must_be_allowed(chooser: Chooser) -> None:
    assert names(chooser, asked("dear"), frozenset({"dear", "fair"})) == ["dear", "fair"]


def test_the_router_chooses_and_goes_on_by_its_own_order(chooser: Chooser) -> None:
    choice = chooser.choose(asked(), {}, ())
    assert choice is not None
    assert choice.model.name == "dear"
    assert choice.cluster is not None
    assert choice.predicted_usd == pytest.approx(1e-2, rel=0.2)
    assert names(chooser, asked()) == ["dear", "fair", "cheap"]
    assert names(chooser, asked(), frozenset({"cheap", "fair", "apart"})) == ["fair", "cheap"]


@pytest.mark.parametrize(
    ("header", "value", "chosen"),
    [
        (b"x-modelyard-budget-usd", b"1e-5", "cheap"), (b"x-modelyard-budget-usd", b"1e-3", "fair"),
        (b"x-modelyard-lambda", b"100", "cheap"), (b"x-modelyard-lambda", b"0", "dear"),
        (b"x-modelyard-lambda-usd", b"1000", "fair"), (b"x-modelyard-quality", b"0.3", "fair"),
    ],
)  # fmt: skip
def test_a_request_may_wish(chooser: Chooser, header: bytes, value: bytes, chosen: str) -> None:
    for _ in range(2):  # the second time out of what was made for the first
        assert wish(chooser, {header: value}) == chosen


def test_the_yards_wish_holds_where_a_request_has_none(router: Router) -> None:
    models = (served("cheap"), served("dear"))
    thrifty = Chooser(GatewayConfig(models=models, preference=Preference(budget_usd=1e-5)), router)
    assert wish(thrifty, {}) == "cheap"
    assert wish(thrifty, {b"x-modelyard-lambda": b"0"}) == "dear"


@pytest.mark.parametrize(
    "header",
    ["x-modelyard-lambda", "x-modelyard-lambda-usd", "x-modelyard-budget-usd", "x-modelyard-quality"],
)
@pytest.mark.parametrize("value", ["much", "", "nan", "inf", "-1"])
def test_a_wish_that_is_none_is_the_requests_fault(chooser: Chooser, header: str, value: str) -> None:
    with pytest.raises(BadRequestError, match=f"{header} is") as caught:
        wish(chooser, {header.encode(): value.encode()})
    assert not isinstance(caught.value, NoModelError)


def test_more_wishes_than_one_are_none(chooser: Chooser) -> None:
    with pytest.raises(BadRequestError, match="one of"):
        wish(chooser, {b"x-modelyard-lambda": b"1", b"x-modelyard-quality": b"0.5"})
    with pytest.raises(BadRequestError, match="from 0 to 1"):
        wish(chooser, {b"x-modelyard-quality": b"1.5"})


def test_who_answered_before_stays_while_it_is_as_good(chooser: Chooser) -> None:
    assert wish(chooser, {b"x-modelyard-previous": b"nobody"}) == "dear"
    assert wish(chooser, {b"x-modelyard-previous": b"dear", b"x-modelyard-lambda": b"0"}) == "dear"


@pytest.mark.parametrize(
    ("request_", "allowed", "why"),
    [
        (asked("nobody"), frozenset(), "no model 'nobody' here; name one of auto, cheap"),
        (asked(endpoint=Endpoint.EMBEDDINGS), frozenset(), "embeddings of different models"),
        (asked(), frozenset({"apart"}), "none of the router's models"),
    ],
)
def test_where_nobody_may_answer_it_is_said(
    chooser: Chooser, request_: Asked, allowed: frozenset[str], why: str
) -> None:
    with pytest.raises(NoModelError, match=why) as caught:
        chooser.choose(request_, {}, allowed)
    assert caught.value.parameter == "model"


def test_a_budget_below_all_prices_is_told(chooser: Chooser) -> None:
    with pytest.raises(NoModelError, match="no model answers for"):
        wish(chooser, {b"x-modelyard-budget-usd": b"1e-9"})


def test_without_a_router_there_is_no_auto() -> None:
    alone = Chooser(GatewayConfig(models=(served("a"),)), None)
    assert alone.names == ["a"]
    with pytest.raises(NoModelError, match="no model 'auto' here"):
        alone.choose(asked(), {}, ())


def test_a_router_of_other_models_offers_no_auto(router: Router) -> None:
    assert Chooser(GatewayConfig(models=(served("apart"),)), router).names == ["apart"]


def test_what_a_request_needs_is_asked_of_routers_that_know(router: Router) -> None:
    knows = router.declare("fair", Facts(tools=True)).declare("cheap", Facts(vision=True))
    chooser = Chooser(GatewayConfig(models=tuple(served(name) for name in ("cheap", "fair", "dear"))), knows)
    tool = {"type": "function", "function": {"name": "f"}}
    assert names(chooser, asked(tools=[tool])) == ["fair"]
    assert names(chooser, asked()) == ["dear", "fair", "cheap"]
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    assert names(chooser, asked(messages=picture)) == ["cheap"]
    with pytest.raises(NoModelError):
        chooser.choose(asked(messages=picture, tools=[tool]), {}, ())
