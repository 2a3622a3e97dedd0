"""How long a gateway waits, whom it asks again, and when it says no: with the provider's own counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from tests.integration.gateway.conftest import Gateway, running_gateway, write_yard

from modelyard.testing.faulty_provider import RunningProvider

MESSAGES: list[Any] = [{"role": "user", "content": "say something"}]


def ask(client: openai.OpenAI, model: str, **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=MESSAGES, **more)


@pytest.fixture(scope="module")
def strict(
    shared_provider: RunningProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    """A client of a gateway that bears two requests at a time and three failures in turn."""
    folder = tmp_path_factory.mktemp("strict")
    yard = write_yard(folder, shared_provider, in_flight=2, breaker={"failures": 3, "open_s": 0.5})
    with running_gateway(folder, yard) as running, running.client() as client:
        yield client


def test_a_slow_model_is_asked_besides_another_and_both_are_booked(
    client: openai.OpenAI, gateway: Gateway, provider: RunningProvider
) -> None:
    token = gateway.key()
    provider.script({"match": {"model": "hedged"}, "fault": "slow_first_byte", "wait_s": 15})
    with gateway.client(api_key=token) as of_key:
        raw = of_key.chat.completions.with_raw_response.create(model="hedged", messages=MESSAGES)
    assert raw.headers["x-modelyard-model"] == "b"
    assert raw.headers["x-modelyard-reason"] == "in place of hedged"
    used = gateway.used(token, requests=1)
    assert used["lost"] == 1
    assert used["prompt_tokens"] > raw.parse().usage.prompt_tokens  # type: ignore[union-attr]
    provider.script()
    assert ask(client, "hedged").model == "hedged"


def test_a_client_that_goes_is_told_to_the_upstream_and_what_it_got_is_estimated(
    gateway: Gateway, provider: RunningProvider, until: Callable[..., Any]
) -> None:
    before, token = provider.told("stats")["cancelled_streams"], gateway.key()
    provider.script({"match": {"model": "c"}, "fault": "slow_tokens", "wait_s": 0.2})
    with gateway.client(api_key=token) as client, ask(client, "c", stream=True) as stream:
        next(iter(stream))
    until(lambda: provider.told("stats")["cancelled_streams"] == before + 1)
    used = gateway.used(token, requests=1)
    assert used["estimated"] == 1
    assert used["prompt_tokens"] > 0


def test_a_storm_is_told_with_its_time_and_waited_for(
    client: openai.OpenAI, provider: RunningProvider
) -> None:
    storm = {"fault": "status", "code": 429, "retry_after": "seconds", "retry_after_s": 60}
    provider.script({"match": {"model": "d"}, **storm})
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "d")
    assert 59 <= int(caught.value.response.headers["retry-after"]) <= 60
    with pytest.raises(openai.InternalServerError) as later:
        ask(client, "d")
    assert later.value.status_code == 503
    assert 30 <= int(later.value.response.headers["retry-after"]) <= 60
    assert provider.told("script")[0]["taken"] == 1  # it was left alone


def test_an_address_that_fails_is_left_alone_until_it_answers_again(
    strict: openai.OpenAI, provider: RunningProvider, until: Callable[..., Any]
) -> None:
    provider.script({"match": {"model": "c"}, "fault": "reset"})
    statuses = []
    for _ in range(6):
        with pytest.raises(openai.InternalServerError) as caught:
            ask(strict, "c")
        statuses.append(caught.value.status_code)
    assert statuses[:3] == [502] * 3
    assert 503 in statuses[3:]
    provider.script()

    def answered() -> bool:
        try:
            return bool(ask(strict, "c"))
        except openai.InternalServerError:
            return False

    until(answered)
    assert ask(strict, "c")


def test_what_is_too_much_is_turned_away_at_once(
    strict: openai.OpenAI, provider: RunningProvider, until: Callable[..., Any]
) -> None:
    release = threading.Event()

    def held() -> None:
        with ask(strict, "d", stream=True) as stream:
            next(iter(stream))
            release.wait(30)

    provider.script({"match": {"model": "d"}, "fault": "stall", "after": 2, "wait_s": 30})
    with ThreadPoolExecutor(2) as threads:
        tasks = [threads.submit(held) for _ in range(2)]
        until(lambda: provider.told("stats")["under_way"] >= 2)
        try:
            with pytest.raises(openai.RateLimitError, match="too much to do") as caught:
                ask(strict, "b")
        finally:
            release.set()
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert [task.result() for task in tasks] == [None, None]
    until(lambda: _is_answered(strict))


def _is_answered(client: openai.OpenAI) -> bool:
    try:
        return bool(ask(client, "b"))
    except openai.RateLimitError:
        return False


@pytest.mark.parametrize("told", ["soon", "nan", "0", "-1"])
def test_a_time_that_is_none_is_refused(client: openai.OpenAI, provider: RunningProvider, told: str) -> None:
    with pytest.raises(openai.BadRequestError, match="x-modelyard-timeout-s"):
        ask(client, "b", extra_headers={"x-modelyard-timeout-s": told})


def test_pages_for_whoever_runs_it(gateway: Gateway) -> None:
    assert gateway.get("/healthz").json() == {"status": "ok"}
    assert gateway.get("/readyz").json() == {"status": "ready"}
    assert gateway.get("/metrics").headers["content-type"].startswith("text/plain")
    assert gateway.get("/nothing").status_code == 404
    assert gateway.http.post(gateway.address.removesuffix("/v1") + "/healthz").status_code == 405
