"""What of a request is read, and what is refused before anybody is asked."""

from __future__ import annotations

import orjson
import pytest

from modelyard.gateway.exchanges.asked import Asked, BadRequestError, Endpoint, read_asked

MESSAGES = [{"role": "user", "content": "hello"}]


def chat(**fields: object) -> Asked:
    return read_asked(Endpoint.CHAT, orjson.dumps({"model": "m", "messages": MESSAGES, **fields}))


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"model": None}, "model"), ({"model": ""}, "model"), ({"model": 3}, "model"),
        ({"stream": 1}, "stream"), ({"stream": "yes"}, "stream"), ({"stream_options": []}, "stream_options"),
        ({"messages": None}, "messages"), ({"messages": []}, "messages"),
        ({"messages": ["hello"]}, "messages"),
        ({"messages": {}}, "messages"), ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 1e30}, "max_tokens"), ({"max_tokens": -1.0}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields: dict[str, object], parameter: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        chat(**fields)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"3", b"\xff", b"[" * 5000, b'{"model": NaN}'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError, match=r"body|model"):
        read_asked(Endpoint.CHAT, body)


@pytest.mark.parametrize("endpoint", [Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS])
def test_a_prompt_must_be_there(endpoint: Endpoint) -> None:
    with pytest.raises(BadRequestError, match="is missing"):
        read_asked(endpoint, b'{"model": "m"}')


def test_an_upstream_gets_its_own_name_and_is_asked_for_usage() -> None:
    sent = orjson.loads(chat(stream=True, seed=7, stream_options={"x": 1}).body("theirs"))
    assert sent == {
        "model": "theirs", "messages": MESSAGES, "stream": True, "seed": 7,
        "stream_options": {"x": 1, "include_usage": True},
    }  # fmt: skip
    assert "stream_options" not in orjson.loads(chat().body("theirs"))


def test_what_can_be_read_and_not_written_is_refused() -> None:
    deep = b'{"model": "m", "messages": [{"content": ' + b"[" * 300 + b"]" * 300 + b"}]}"
    with pytest.raises(BadRequestError, match="cannot be passed on"):
        read_asked(Endpoint.CHAT, deep).body("m")


def test_the_text_is_all_contents() -> None:
    parts = [{"type": "text", "text": "two"}, {"type": "image_url", "image_url": {}}, "no part", {"text": 3}]
    asked = chat(messages=[{"content": "one"}, {"content": parts}, {"content": None}, {}])
    assert asked.text() == "one\n\ntwo\n\n3"
    assert asked.vision
    assert not chat(messages=[{"content": [{"type": []}]}]).vision
    given = orjson.dumps({"model": "m", "input": ["a", "b", [1, 2]]})
    assert read_asked(Endpoint.EMBEDDINGS, given).text() == "a\n\nb"


def test_most_tokens_are_the_newer_name_first() -> None:
    assert chat(max_tokens=5, max_completion_tokens=7).most_tokens == 7
    assert chat(max_tokens=0).most_tokens == 0
    assert chat(max_tokens=64.0).most_tokens == 64
    assert chat(max_tokens=None).most_tokens is None
