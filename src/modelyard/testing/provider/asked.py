"""What a client asks of the provider, read from one request; nothing here knows of connections or faults.

A token is a word between white space, in prompts as in answers; each number of a prompt of numbers is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

#: Paths to the short names that a script and the ledger use.
ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}
CHAT, COMPLETIONS, EMBEDDINGS, MODELS = "chat", "completions", "embeddings", "models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request that can be answered."""

    endpoint: str
    model: str
    body: Mapping[str, Any]
    # One text for each message, prompt or input.
    texts: tuple[str, ...]
    prompt_tokens: int
    # The most tokens that are wanted.
    limit: int | None
    stream: bool
    include_usage: bool
    raw: bytes
    request_id: str
    idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request cannot be answered, as OpenAI's interface says it."""

    status: int
    message: str
    code: str | None = None


def read_request(
    path: str, raw: bytes, headers: Mapping[bytes, bytes], models: tuple[str, ...]
) -> Asked | Refusal:
    """The request of a POST; without `models` any model is served."""
    endpoint = ENDPOINTS.get(path)
    if endpoint is None:
        return Refusal(status=404, message=f"Unknown request URL: POST {path}", code="unknown_url")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return Refusal(status=400, message=f"The body is not JSON: {error}")
    if not isinstance(body, dict):
        return Refusal(status=400, message="The body is not an object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        return Refusal(status=400, message="you must provide a model parameter")
    if models and model not in models:
        return Refusal(status=404, message=f"The model `{model}` does not exist.", code="model_not_found")
    return _asked(endpoint, body, raw, headers)


def _asked(
    endpoint: str, body: dict[str, Any], raw: bytes, headers: Mapping[bytes, bytes]
) -> Asked | Refusal:
    read = {CHAT: _of_messages, COMPLETIONS: _of_prompt, EMBEDDINGS: _of_input}[endpoint](body)
    if isinstance(read, str):
        return Refusal(status=400, message=read, code="invalid_value")
    newer = body.get("max_completion_tokens")
    limit = body.get("max_tokens") if newer is None else newer
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        return Refusal(status=400, message="max_tokens must be at least 1", code="integer_below_min_value")
    texts, numbers = read
    options = body.get("stream_options")
    return Asked(
        endpoint=endpoint, model=body["model"], body=body, texts=texts,
        prompt_tokens=numbers + sum([len(text.split()) for text in texts]),
        limit=limit, stream=body.get("stream") is True and endpoint != EMBEDDINGS,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True, raw=raw,
        request_id=headers.get(b"x-request-id", b"").decode("latin-1"),
        idempotency_key=headers.get(b"idempotency-key", b"").decode("latin-1"),
    )  # fmt: skip


def listing(model: str, headers: Mapping[bytes, bytes]) -> Asked:
    """A request for the list of models, or for one of it."""
    return Asked(
        endpoint=MODELS, model=model, body={}, texts=(), prompt_tokens=0, limit=None, stream=False,
        include_usage=False, raw=b"", request_id=headers.get(b"x-request-id", b"").decode("latin-1"),
        idempotency_key="",
    )  # fmt: skip


def _of_messages(body: Mapping[str, Any]) -> tuple[tuple[str, ...], int] | str:
    """The text of each message; parts that are no text, and calls of tools, count nothing."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages must be a list that is not empty"
    texts = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else 0
        if isinstance(content, list):
            parts = [p.get("text") for p in content if isinstance(p, dict)]
            content = "\n".join(part for part in parts if isinstance(part, str))
        elif content is not None and not isinstance(content, str):
            return "the content of a message must be a text or a list of parts"
        texts.append(content or "")
    return tuple(texts), 0


def _of_prompt(body: Mapping[str, Any]) -> tuple[tuple[str, ...], int] | str:
    return _texts_or_numbers(body.get("prompt"), "prompt")


def _of_input(body: Mapping[str, Any]) -> tuple[tuple[str, ...], int] | str:
    return _texts_or_numbers(body.get("input"), "input")


def _texts_or_numbers(given: Any, name: str) -> tuple[tuple[str, ...], int] | str:
    """A text, texts, token numbers, or lists of them; numbers become a text without a blank in it."""
    if isinstance(given, str):
        return (given,), 0
    if not isinstance(given, list) or not given:
        return f"{name} must be a text or a list that is not empty"
    if all(isinstance(each, str) for each in given):
        return tuple(given), 0
    rows = [given] if all(isinstance(each, int) for each in given) else given
    if not all(isinstance(row, list) and row and all(isinstance(n, int) for n in row) for row in rows):
        return f"{name} must hold texts, or token numbers"
    # a text of numbers without white space is one word, so one of the numbers is counted already
    return tuple(",".join(map(str, row)) for row in rows), sum(len(row) - 1 for row in rows)
