"""Under each fault of a provider: a whole answer, or a clear error in time; and the books are right."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from tests.integration.gateway.conftest import Gateway, key_id, wait_until

from modelyard.testing.faulty_provider import RunningProvider

PROMPT = "tell me something at length"
MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
#: Faults in place of an answer, or before it.
BEFORE: list[dict[str, Any]] = [
    {"fault": "hang"}, {"fault": "reset"}, {"fault": "no_answer"}, {"fault": "garbage_status"},
    {"fault": "cut_headers", "end": "reset"}, {"fault": "cut_headers", "end": "fin"},
    {"fault": "status", "code": 500}, {"fault": "status", "code": 503, "body": "html"},
    {"fault": "status", "code": 401}, {"fault": "status", "code": 404, "body": "empty"},
    {"fault": "empty_body"}, {"fault": "html_body"}, {"fault": "garbage_body"},
]  # fmt: skip
#: Faults in the middle.
WITHIN: list[dict[str, Any]] = [
    {"fault": "cut", "end": "reset"}, {"fault": "cut", "end": "fin"}, {"fault": "cut", "end": "clean"},
    {"fault": "stall"}, {"fault": "stream_error"}, {"fault": "stream_error", "done": True},
]  # fmt: skip
#: What an answer may look like.
FORMS: list[dict[str, Any]] = [
    {"fault": "crlf"}, {"fault": "comments"}, {"fault": "split"}, {"fault": "merged"},
    {"fault": "huge_event"},
    {"fault": "duplicate_done"}, {"fault": "missing_done"}, {"fault": "close_delimited"},
    {"fault": "interim"},
    {"fault": "extra_headers"}, {"fault": "close_after"}, {"fault": "close_idle"}, {"fault": "none"},
]  # fmt: skip


def name_of(fault: dict[str, Any]) -> str:
    return "-".join(str(value) for value in fault.values())


def on(model: str, fault: dict[str, Any]) -> dict[str, Any]:
    return {"match": {"model": model}, **fault}


def first(fault: dict[str, Any]) -> str:
    """Who is asked, and stood in for by b: where it takes a time to find out, one that has little."""
    return "hasty" if fault["fault"] in ("hang", "stall") else "a"


def streamed(client: openai.OpenAI, model: str, prompt: str = PROMPT) -> str:
    messages: list[Any] = [{"role": "user", "content": prompt}]
    with client.chat.completions.create(model=model, messages=messages, stream=True) as stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def whole(client: openai.OpenAI, model: str) -> str:
    return client.chat.completions.create(model=model, messages=MESSAGES).choices[0].message.content or ""


ASK = {"whole": whole, "stream": streamed}


@pytest.fixture(scope="module")
def expected(gateway: Gateway, shared_provider: RunningProvider) -> dict[str, str]:
    shared_provider.script()
    with gateway.client() as client:
        return {model: whole(client, model) for model in "abc"}


@pytest.mark.parametrize("fault", BEFORE, ids=name_of)
def test_a_fault_before_the_answer_is_answered_by_the_next_model(
    client: openai.OpenAI, provider: RunningProvider, expected: dict[str, str], fault: dict[str, Any]
) -> None:
    provider.script(on(model := first(fault), fault))
    for ask in ASK.values():
        assert ask(client, model) == expected["b"]


@pytest.mark.parametrize("how", ASK)
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"fault": "hang"}, 504), ({"fault": "reset"}, 502), ({"fault": "cut_headers", "end": "fin"}, 502),
        ({"fault": "status", "code": 500}, 502), ({"fault": "status", "code": 401}, 502),
        ({"fault": "html_body"}, 502), ({"fault": "garbage_body"}, 502),
    ],
)  # fmt: skip
def test_where_nobody_stands_in_it_is_an_error(
    client: openai.OpenAI, provider: RunningProvider, fault: dict[str, Any], status: int, how: str
) -> None:
    provider.script(on("c", fault))
    with pytest.raises(openai.InternalServerError, match="no model answered: 'c'") as caught:
        ASK[how](client, "c")
    assert caught.value.status_code == status


@pytest.mark.parametrize("fault", WITHIN, ids=name_of)
def test_a_stream_that_fails_in_its_middle_is_an_error_to_the_client(
    client: openai.OpenAI, provider: RunningProvider, fault: dict[str, Any]
) -> None:
    """So long a stream has begun before it fails."""
    provider.script(on("a", {"after": 2500, **fault}))
    with pytest.raises((openai.APIError, httpx2.HTTPError)):
        streamed(client, "a", "words:3000")


@pytest.mark.parametrize("fault", WITHIN, ids=name_of)
def test_what_fails_before_anything_was_passed_on_is_answered_by_the_next_model(
    client: openai.OpenAI, provider: RunningProvider, expected: dict[str, str], fault: dict[str, Any]
) -> None:
    """A whole body that ends in its middle, and a stream before its first event."""
    provider.script(on(model := first(fault), {"after": 0, **fault}))
    for ask in ASK.values():
        assert ask(client, model) == expected["b"]


@pytest.mark.parametrize("fault", FORMS, ids=name_of)
def test_an_answer_in_any_form_is_an_answer(
    client: openai.OpenAI, provider: RunningProvider, expected: dict[str, str], fault: dict[str, Any]
) -> None:
    provider.script(on("a", fault))
    for ask in [*ASK.values()] * 2:  # on kept connections, too
        assert ask(client, "a") == expected["a"]


@pytest.mark.parametrize(
    "usage", ["missing", "null", "zero", "negative", "huge", "strings", "floats", "nested"]
)
def test_usage_that_cannot_be_true_is_counted_and_marked(
    gateway: Gateway, provider: RunningProvider, client: openai.OpenAI, usage: str
) -> None:
    def estimated() -> float:
        return gateway.metric("modelyard_uncertain_requests_total", model="b", why="estimated")

    before = estimated()
    provider.script(on("b", {"fault": "usage", "usage": usage}))
    for ask in ASK.values():
        assert ask(client, "b")
    wait_until(lambda: estimated() == before + 2)  # a stream is written down after its last event


def test_the_books_are_those_of_the_provider(gateway: Gateway, provider: RunningProvider) -> None:
    """Under faults that bill nothing, each token is counted once."""
    provider.script({"match": {"model": "a", "every": 3}, "fault": "status", "code": 500})
    token = gateway.key(models=frozenset("ab"))
    before = provider.told("ledger")
    with gateway.client(api_key=token) as client:
        for n in range(24):
            ASK["stream" if n % 2 else "whole"](client, "ab"[n % 4 == 3])
    after = provider.told("ledger")
    gateway.used(token, requests=24)
    used = gateway.call("usage", "--key", key_id(token))["total"]
    for name in ("prompt_tokens", "completion_tokens"):
        assert used[name] == after[name] - before[name]
