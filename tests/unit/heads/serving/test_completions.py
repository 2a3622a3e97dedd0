"""Requests as they may come: whatever the body, it is read or refused, and never breaks anything."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.heads.base import Base
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.serving.completions import Asked, Refused, read_request

KEYS = (
    "model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k",
    "repetition_penalty", "seed", "stop", "stream", "stream_options", "n", "logprobs", "tools", "user",
    "other",
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from(["m", "user", "\ud800", "text"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "content", "type", "text", "include_usage"]), inner, max_size=3
    ),
    max_leaves=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_base_folder):
    return Base.open(tiny_base_folder).tokenizer


def read(body, tokenizer, *, chat=False):
    return read_request(
        body, tokenizer, chat=chat, model="m", defaults=DecodeSettings(max_new_tokens=7, seed=11, lookup=2)
    )


@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4), chat=st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_body_is_read_or_refused(changes, chat, tokenizer):
    whole = {"model": "m", "prompt": "the", "messages": [{"role": "user", "content": "the"}]}
    del whole["prompt" if chat else "messages"]
    body = json.dumps({**whole, **changes}).encode()
    try:
        asked = read(body, tokenizer, chat=chat)
    except Refused as refused:
        assert 400 <= refused.status < 500 and refused.body()["error"]["message"]
        json.dumps(refused.body()).encode()
    else:
        assert isinstance(asked, Asked) and all(0 <= token < len(tokenizer) for token in asked.ids)
        assert changes.get("model", "m") == "m" and "other" not in {
            k for k, v in changes.items() if v is not None
        }


@given(st.binary(max_size=40))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused(tokenizer, body):
    with pytest.raises(Refused):
        read(body, tokenizer)


def test_what_is_not_said_is_as_the_server_has_it(tokenizer):
    asked = read(b'{"model": "m", "prompt": "the cat"}', tokenizer)
    assert asked.settings == DecodeSettings(max_new_tokens=7, temperature=1.0, seed=11, lookup=2)
    assert not asked.stream and not asked.stream_usage
    assert asked.ids == tuple(tokenizer.encode("the cat"))


def test_what_is_said_is_taken(tokenizer):
    body = {
        "model": "m", "prompt": "the", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 4,
        "repetition_penalty": 1.2, "seed": 3, "stop": ["a", "bc"], "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    asked = read(json.dumps(body).encode(), tokenizer)
    assert asked.settings == DecodeSettings(
        max_new_tokens=5, temperature=0.5, top_p=0.9, top_k=4, repetition_penalty=1.2, seed=3,
        stop=("a", "bc"), lookup=2,
    )  # fmt: skip
    assert asked.stream and asked.stream_usage
