"""The official client of OpenAI finds all that it knows, and its own errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from tests.integration.gateway.conftest import PRICE, Gateway

from modelyard.testing.faulty_provider import RunningProvider

MESSAGES: list[Any] = [{"role": "user", "content": "say something"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}

pytestmark = pytest.mark.usefixtures("provider")


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_whole_answer_tells_who_gave_it_and_what_it_cost(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="b", messages=MESSAGES)
    answer, headers = raw.parse(), raw.headers
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8 == len((answer.choices[0].message.content or "").split())
    assert headers["x-modelyard-model"] == "b"
    assert headers["x-modelyard-reason"] == "asked for"
    rates = PRICE["prompt_usd_per_million"], PRICE["completion_usd_per_million"]
    cost = answer.usage.prompt_tokens * rates[0] + answer.usage.completion_tokens * rates[1]
    assert float(headers["x-modelyard-cost-usd"]) == pytest.approx(cost / 1e6)


def test_a_stream_is_the_whole_answer_in_parts(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="b", messages=MESSAGES)
    plain = list(client.chat.completions.create(model="b", messages=MESSAGES, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in plain)
    telling = list(
        client.chat.completions.create(
            model="b", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert not telling[-1].choices
    assert telling[-1].usage == whole.usage
    assert text_of(plain) == text_of(telling) == whole.choices[0].message.content


def test_many_at_once_each_get_their_own_answer(gateway: Gateway) -> None:
    async def ask(client: openai.AsyncOpenAI, n: int) -> tuple[str | None, str]:
        messages: Any = [{"role": "user", "content": f"number {n}"}]
        whole = await client.chat.completions.create(model="b", messages=messages)
        stream = await client.chat.completions.create(model="b", messages=messages, stream=True)
        return whole.choices[0].message.content, text_of([chunk async for chunk in stream])

    async def ask_all() -> list[tuple[str | None, str]]:
        async with openai.AsyncOpenAI(base_url=gateway.address, api_key=gateway.token) as client:
            return await asyncio.gather(*(ask(client, n) for n in range(16)))

    answers = asyncio.run(ask_all())
    assert all(whole == parts for whole, parts in answers)
    assert len(set(answers)) == 16


def test_tools_are_called(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="b", messages=MESSAGES, tools=[TOOL])
    calls = whole.choices[0].message.tool_calls
    assert whole.choices[0].finish_reason == "tool_calls"
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.name == "look_up"
    assert "word" in json.loads(calls[0].function.arguments)
    stream = client.chat.completions.create(model="b", messages=MESSAGES, tools=[TOOL], stream=True)
    deltas = [c.choices[0].delta.tool_calls for c in stream if c.choices and c.choices[0].delta.tool_calls]
    parts = [(call.function.arguments or "") for delta in deltas for call in delta or () if call.function]
    assert "".join(parts) == calls[0].function.arguments


def test_json_is_json(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="b", messages=MESSAGES, response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_embeddings_are_the_same_as_numbers_and_as_bytes(client: openai.OpenAI) -> None:
    numbers = client.embeddings.create(model="b", input=["one", "two"], encoding_format="float")
    packed = client.embeddings.create(model="b", input=["one", "two"])  # the client asks for base64
    assert len(numbers.data) == 2
    for one, other in zip(numbers.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert numbers.usage.prompt_tokens == 2


def test_completions_of_a_text(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="b", prompt="once upon a time", max_tokens=3)
    assert whole.choices[0].finish_reason == "length"
    stream = client.completions.create(model="b", prompt="once upon a time", max_tokens=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_models_are_listed(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["a", "b", "c", "d", "free", "hasty", "hedged"]
    assert client.models.retrieve("a").id == "a"
    with pytest.raises(openai.NotFoundError, match="no model 'z' here"):
        client.models.retrieve("z")


def test_a_wrong_key_is_401(gateway: Gateway) -> None:
    for wrong in ("sk-my-wrong", gateway.token[:-1], gateway.token + "x"):
        with gateway.client(api_key=wrong) as client, pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="b", messages=MESSAGES)


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"model": "z"}, openai.NotFoundError, "model"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"max_tokens": -1}, openai.BadRequestError, "max_tokens"),
        ({"extra_body": {"stream": "yes"}}, openai.BadRequestError, "stream"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(
    client: openai.OpenAI, fields: dict[str, Any], error: type[openai.APIStatusError], named: str
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "b", "messages": MESSAGES, **fields})
    assert caught.value.param == named


def test_what_the_upstream_says_of_a_request_is_the_clients(
    client: openai.OpenAI, provider: RunningProvider
) -> None:
    provider.script({"fault": "status", "code": 400, "message": "too long for me", "error_code": "long"})
    with pytest.raises(openai.BadRequestError, match="too long for me") as caught:
        client.chat.completions.create(model="a", messages=MESSAGES)
    assert caught.value.code == "long"
    assert provider.told("script")[0]["taken"] == 1  # nobody else was asked


def test_an_upstream_that_fails_is_502(client: openai.OpenAI, provider: RunningProvider) -> None:
    provider.script({"fault": "status", "code": 500})
    with pytest.raises(openai.InternalServerError, match="'a' answered 500; 'b' answered 500") as caught:
        client.chat.completions.create(model="a", messages=MESSAGES)
    assert caught.value.status_code == 502
    assert caught.value.code == "upstream_failed"


def test_what_the_client_sends_again_is_answered(gateway: Gateway, provider: RunningProvider) -> None:
    provider.script({"fault": "reset", "times": 1})
    with gateway.client(max_retries=2) as client:
        assert client.chat.completions.create(model="b", messages=MESSAGES).choices


def test_a_client_may_have_less_patience(client: openai.OpenAI, provider: RunningProvider) -> None:
    provider.script({"fault": "hang"})
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="b", messages=MESSAGES, timeout=0.2)
    for model in ("b", "a"):
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(
                model=model, messages=MESSAGES, extra_headers={"x-modelyard-timeout-s": "0.3"}
            )
        assert caught.value.status_code == 504
