"""What a client asks for, out of the JSON of its request; the rest of it is the upstream's to judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from modelyard.core.errors import GatewayError

#: Where requests may say how much may be generated.
_MOST_TOKENS = ("max_completion_tokens", "max_tokens")


class Endpoint(StrEnum):
    """The interfaces that are passed on, by the end of their address."""

    CHAT = "/chat/completions"
    COMPLETIONS = "/completions"
    EMBEDDINGS = "/embeddings"


class BadRequestError(GatewayError):
    """A request that no upstream would understand, or that could be understood in two ways."""

    def __init__(self, why: str, *, parameter: str | None = None) -> None:
        super().__init__(why)
        self.parameter = parameter


@dataclass(slots=True, kw_only=True)
class Asked:
    """One request, read as far as the gateway needs."""

    endpoint: Endpoint
    record: dict[str, Any]
    model: str
    stream: bool
    # Whether the client wants a streamed answer to tell what it used.
    wants_usage: bool
    # The most tokens that may be generated, where the request says so.
    most_tokens: int | None

    def body(self, model: str) -> bytes:
        """The request for an upstream, by the name that it knows the model by; a stream tells its usage."""
        sent = {**self.record, "model": model}
        if self.stream and not self.wants_usage:
            sent["stream_options"] = {**(self.record.get("stream_options") or {}), "include_usage": True}
        try:
            return orjson.dumps(sent)
        except orjson.JSONEncodeError as error:
            raise BadRequestError(f"the body cannot be passed on ({error})") from error

    def text(self) -> str:
        """The prompt as a router is fitted on it: all contents, with a blank line between them."""
        return "\n\n".join(self._texts())

    @property
    def choices(self) -> int:
        """How many answers one reply has: `n` for each prompt."""
        count, prompts = self.record.get("n"), self.record.get("prompt")
        each = count if isinstance(count, int) and count > 0 else 1
        listed = isinstance(prompts, list) and all(isinstance(one, str | list) for one in prompts)
        return each * (len(prompts) if listed and prompts else 1)

    @property
    def tools(self) -> bool:
        """Whether the model must be able to call tools."""
        return bool(self.record.get("tools") or self.record.get("functions"))

    @property
    def vision(self) -> bool:
        """Whether there is a picture among the messages."""
        return any(part.get("type") in ("image_url", "input_image") for part in self._parts())

    def _texts(self) -> Iterator[str]:
        if self.endpoint is not Endpoint.CHAT:
            given = self.record.get("prompt" if self.endpoint is Endpoint.COMPLETIONS else "input")
            yield from ([given] if isinstance(given, str) else [])
            if isinstance(given, list):
                yield from (each for each in given if isinstance(each, str))
            return
        for message in self.record["messages"]:
            content = message.get("content")
            if isinstance(content, str):
                yield content
            elif isinstance(content, list):
                yield from (str(p["text"]) for p in content if isinstance(p, dict) and "text" in p)

    def _parts(self) -> Iterator[Mapping[str, Any]]:
        for message in self.record.get("messages") or ():
            content = message.get("content")
            if isinstance(content, list):
                yield from (part for part in content if isinstance(part, dict))


def read_asked(endpoint: Endpoint, body: bytes) -> Asked:
    """Read the body of a request.

    Raises:
        BadRequestError: It is no JSON object, names no model, or what the gateway needs is of a wrong type.
    """
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise BadRequestError("the body is not a JSON object; send model and messages")
    model, stream = record.get("model"), record.get("stream")
    if not isinstance(model, str) or not model:
        raise BadRequestError("model is missing; name one of /v1/models, or auto", parameter="model")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequestError("stream is neither true nor false", parameter="stream")
    options = record.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequestError("stream_options is not an object", parameter="stream_options")
    _check_content(endpoint, record)
    return Asked(
        endpoint=endpoint,
        record=record,
        model=model,
        stream=bool(stream) and endpoint is not Endpoint.EMBEDDINGS,
        wants_usage=bool(options and options.get("include_usage")),
        most_tokens=_most_tokens(record),
    )


def _check_content(endpoint: Endpoint, record: Mapping[str, Any]) -> None:
    if endpoint is Endpoint.CHAT:
        messages = record.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise BadRequestError("messages is not a list of messages", parameter="messages")
    elif endpoint is Endpoint.COMPLETIONS:
        if "prompt" not in record:
            raise BadRequestError("prompt is missing", parameter="prompt")
    elif "input" not in record:
        raise BadRequestError("input is missing", parameter="input")


def _most_tokens(record: Mapping[str, Any]) -> int | None:
    for name in _MOST_TOKENS:
        value = record.get(name)
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer() and value < 2**53:
            value = int(value)  # 64.0 is an integer of JSON, too
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadRequestError(f"{name} is not a number of tokens", parameter=name)
        return value
    return None
