"""Addresses: what a request to them looks like, which one is asked, and what outlives a reload."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelyard.core.errors import GatewayError
from modelyard.evaluation.pool import Price
from modelyard.gateway.config import Breaking, GatewayConfig, Patience, Served
from modelyard.gateway.exchanges.asked import Endpoint
from modelyard.gateway.upstreams import Upstreams

ENVIRONMENT = {"KEY": " sk-planted \n"}


def served(name: str = "a", *endpoints: str, **more: Any) -> Served:
    given = {
        "endpoints": endpoints or ("http://one:8000/v1",),
        "model": "m",
        "api_key": "KEY",
        "price": Price(),
    }
    return Served(name=name, **{**given, **more})


def config(*models: Served, **more: Any) -> GatewayConfig:
    return GatewayConfig(models=models, **more)


def test_a_request_goes_out_with_the_key_and_its_length() -> None:
    upstream = Upstreams.of(config(served()), ENVIRONMENT).of_model("a")[0]
    sent = upstream.request(Endpoint.CHAT, b"x-request-id: 1\r\n", b"{}")
    head, _, body = sent.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert b"host: one:8000" in lines
    assert b"authorization: Bearer sk-planted" in lines
    assert lines[-2:] == [b"x-request-id: 1", b"content-length: 2"]
    assert body == b"{}"
    assert "sk-planted" not in repr(upstream)


def test_without_a_key_none_is_sent() -> None:
    upstream = Upstreams.of(config(served(api_key=None)), {}).of_model("a")[0]
    assert b"authorization" not in upstream.request(Endpoint.EMBEDDINGS, b"", b"")


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "has no KEY"), (" ", "has no KEY"), ("a\nb", "no header can"), ("ü", "no header")],
)
def test_a_key_that_cannot_be_sent_is_told(value: str | None, told: str) -> None:
    with pytest.raises(GatewayError, match=told) as caught:
        Upstreams.of(config(served()), {} if value is None else {"KEY": value})
    assert "ü" not in str(caught.value)


def test_the_address_with_the_least_under_way_is_asked() -> None:
    upstreams = Upstreams.of(config(served("a", "http://one/v1", "http://two/v1", parallel=3)), ENVIRONMENT)
    one, two = upstreams.of_model("a")
    assert upstreams.best("a", 0.0, ()) is one
    one.in_flight = 1
    assert upstreams.best("a", 0.0, ()) is two
    assert upstreams.best("a", 0.0, {two}) is one
    one.in_flight = two.in_flight = 3
    assert upstreams.best("a", 0.0, ()) is None
    two.in_flight = 0
    two.breaker.rest(5.0)
    assert upstreams.best("a", 4.9, ()) is None
    assert upstreams.best("a", 5.0, ()) is two
    assert upstreams.best("nobody", 0.0, ()) is None


def test_what_is_as_it_was_keeps_its_health_and_gets_new_settings() -> None:
    before = Upstreams.of(config(served("a"), served("b", "http://two/v1")), ENVIRONMENT)
    breaking, patience = Breaking(failures=9), Patience(connect_s=0.5)
    changed = config(
        served("a"), served("b", "http://three/v1"), served("c"), breaking=breaking, patience=patience
    )
    after = Upstreams.of(changed, ENVIRONMENT, before)
    assert after.of_model("a") == before.of_model("a")
    assert after.of_model("b") != before.of_model("b")
    assert len(after.all()) == 3
    kept = after.of_model("a")[0]
    assert kept.breaker.settings == breaking
    assert kept.connections.connect_s == 0.5


@pytest.mark.parametrize("change", [{"model": "other"}, {"api_key": None}, {"timeout_s": 1.0}])
def test_what_has_changed_is_made_anew(change: dict[str, Any]) -> None:
    before = Upstreams.of(config(served()), ENVIRONMENT)
    after = Upstreams.of(config(replace(served(), **change)), ENVIRONMENT, before)
    assert after.of_model("a") != before.of_model("a")


def test_a_key_that_has_changed_is_another() -> None:
    before = Upstreams.of(config(served()), ENVIRONMENT)
    after = Upstreams.of(config(served()), {"KEY": "sk-other"}, before)
    assert after.of_model("a") != before.of_model("a")
    assert b"sk-other" in after.of_model("a")[0].request(Endpoint.CHAT, b"", b"")


def test_an_address_that_stands_twice_is_two() -> None:
    twice = config(served("a", "http://one/v1", "http://one/v1"))
    before = Upstreams.of(twice, ENVIRONMENT)
    assert len(set(before.all())) == 2
    assert len(set(Upstreams.of(twice, ENVIRONMENT, before).all())) == 2
