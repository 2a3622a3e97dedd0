"""What a key may do is all that it can do, and what must not be told is told to nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pyarrow.parquet
import pytest
from tests.integration.gateway.conftest import PRICE, UPSTREAM_KEY, Gateway, key_id

from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.keys import KeyLimits, parse_spend_limit
from modelyard.testing.faulty_provider import RunningProvider

MESSAGES: list[Any] = [{"role": "user", "content": "words:20"}]


def said(prompt: str) -> list[Any]:
    return [{"role": "user", "content": prompt}]


def streamed(client: openai.OpenAI) -> None:
    assert list(client.chat.completions.create(model="b", messages=MESSAGES, max_tokens=20, stream=True))


def test_a_spend_limit_fires_on_streams(gateway: Gateway, provider: RunningProvider) -> None:
    token = gateway.key(limits=KeyLimits(spend=parse_spend_limit("0.0005/total")))
    before = provider.told("ledger")
    with gateway.client(api_key=token) as client, pytest.raises(openai.RateLimitError) as caught:
        for _ in range(100):
            streamed(client)
    assert caught.value.code == "insufficient_quota"
    after = provider.told("ledger")
    prompt, completion = (after[n] - before[n] for n in ("prompt_tokens", "completion_tokens"))
    cost = PRICE["prompt_usd_per_million"] * prompt + PRICE["completion_usd_per_million"] * completion
    assert 400 < cost <= 500  # what one more might take is set aside
    assert gateway.used(token, requests=completion // 20)["nano_usd"] == round(cost * 1000)


def test_requests_in_a_minute_are_limited(gateway: Gateway, provider: RunningProvider) -> None:
    token = gateway.key(limits=KeyLimits(rpm=3))
    refused = []
    with gateway.client(api_key=token) as client:
        for _ in range(10):
            try:
                client.chat.completions.create(model="b", messages=MESSAGES)
            except openai.RateLimitError as error:
                refused.append(error)
    assert len(refused) in (4, 5, 6, 7)  # the minute may turn once
    assert all(error.code == "rate_limit_exceeded" for error in refused)
    assert all(1 <= int(error.response.headers["retry-after"]) <= 60 for error in refused)


def test_a_revoked_key_opens_nothing_any_more(gateway: Gateway, until: Callable[..., Any]) -> None:
    token = gateway.key()
    with KeyStore(gateway.books) as store:
        store.revoke(key_id(token))
    with gateway.client(api_key=token) as client:

        def refusal() -> str | None:
            try:
                client.models.list()
            except openai.AuthenticationError as error:
                return error.message
            return None

        assert "the key is revoked" in until(refusal)


def test_a_key_opens_its_models_only(gateway: Gateway, provider: RunningProvider) -> None:
    token = gateway.key(models=frozenset({"a"}))
    provider.script({"match": {"model": "a"}, "fault": "status", "code": 500})
    with gateway.client(api_key=token) as client:
        assert [model.id for model in client.models.list()] == ["a"]
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("b")
        before = provider.told("stats")["requests"]
        with pytest.raises(openai.PermissionDeniedError, match="may not ask for 'b'"):
            client.chat.completions.create(model="b", messages=MESSAGES)
        assert provider.told("stats")["requests"] == before
        with pytest.raises(openai.InternalServerError):  # nor does b stand in
            client.chat.completions.create(model="a", messages=MESSAGES)


def test_what_has_no_price_cannot_be_asked_under_a_limit_of_money(
    gateway: Gateway, provider: RunningProvider, client: openai.OpenAI
) -> None:
    with (
        gateway.client(api_key=gateway.key(limits=KeyLimits(spend=parse_spend_limit("5/day")))) as limited,
        pytest.raises(openai.PermissionDeniedError, match="price is not known"),
    ):
        limited.chat.completions.create(model="free", messages=MESSAGES)
    raw = client.chat.completions.with_raw_response.create(model="free", messages=MESSAGES)
    assert "x-modelyard-cost-usd" not in raw.headers


def everything_written(folder: Path) -> str:
    """All files as text; those of the request log unpacked."""
    texts = [""]
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            texts.append(str(pyarrow.parquet.read_table(path).to_pylist()))
        elif path.is_file():
            texts.append(path.read_bytes().decode("latin-1"))
    return "\n".join(texts)


def test_secrets_and_prompts_are_nowhere(gateway: Gateway, provider: RunningProvider) -> None:
    quiet, open_key = gateway.key(), gateway.key(log_prompts=True)
    prompts = {quiet: "prompt-planted-51c2", open_key: "prompt-kept-90ab"}
    answers = []
    for token, prompt in prompts.items():
        with gateway.client(api_key=token) as client:
            whole = client.chat.completions.create(model="b", messages=said(prompt))
            answers.append((whole.choices[0].message.content or "").split()[0])
            assert list(client.chat.completions.create(model="b", messages=said(prompt), stream=True))
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(model="b", messages=said(prompt), max_tokens=-1)
            provider.script({"fault": "status", "code": 401, "message": f"wrong key {UPSTREAM_KEY}"})
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(model="b", messages=said(prompt))
            assert UPSTREAM_KEY not in str(caught.value)
            provider.script()
        assert gateway.used(token, requests=3)
    written = everything_written(gateway.folder)
    metrics = gateway.get("/metrics").text
    for secret in (UPSTREAM_KEY, quiet, open_key, gateway.token, prompts[quiet], answers[0]):
        assert secret not in written
        assert secret not in metrics
    assert written.count(prompts[open_key]) >= 2
    assert answers[1] in written
    assert prompts[open_key] not in metrics
