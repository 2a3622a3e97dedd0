"""An answer as it goes over the wire: a plan of bytes, waits and an end, made without any connection.

A `Style` says how an answer that is whole is written; faults (see `faults`) change the style or the plan.
"""

from __future__ import annotations

import enum
import http
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from modelyard.testing.provider.answers import (
    CREATED,
    Answer,
    call_id,
    made_id,
    reported_usage,
    whole_body,
)
from modelyard.testing.provider.asked import CHAT, Refusal

LAST_CHUNK = b"0\r\n\r\n"
DONE = b"[DONE]"
_JSON, _EVENTS = "application/json", "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Bytes that are written at once, and the tokens that were generated for them."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A time in which nothing is written; infinite for a hang."""

    seconds: float


Step = Send | Wait


class End(enum.Enum):
    """What becomes of the connection after the last step."""

    KEEP = "keep"
    CLOSE = "close"
    RESET = "reset"
    EXIT = "exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a request is answered. Nothing is billed before the first byte is sent."""

    status: int
    steps: tuple[Step, ...]
    billed: bool
    end: End = End.KEEP
    # Close the connection when it has been idle for so long.
    idle_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a whole answer is written."""

    headers: tuple[tuple[str, str], ...] = ()
    # One of WRONG_USAGE, or empty.
    usage: str = ""
    newline: bytes = b"\n"
    comments: bool = False
    # Bytes of a stream's payload in one write; 0 for whole events.
    split_bytes: int = 0
    # Events in one write.
    merged: int = 1
    dones: int = 1
    # One event is padded to so many bytes.
    huge_bytes: int = 0
    # The end of the connection is the end of the answer: no length, no chunks.
    close_delimited: bool = False


PLAIN = Style()


def plain(made: Answer, style: Style = PLAIN) -> Plan:
    """The whole answer."""
    end = End.CLOSE if style.close_delimited else End.KEEP
    if made.asked.stream:
        return Plan(status=200, steps=tuple(_stream(made, style)), billed=True, end=end)
    body = orjson.dumps(whole_body(made, reported_usage(made, style.usage)))
    length = None if style.close_delimited else len(body)
    data = head(200, style.headers, length=length) + body
    return Plan(status=200, steps=(Send(data=data, tokens=len(made.pieces)),), billed=True, end=end)


def refuse(refusal: Refusal) -> Plan:
    """An error with a body as OpenAI's interface has it."""
    return whole(refusal.status, error_body(refusal))


def whole(
    status: int,
    body: bytes,
    headers: Sequence[tuple[str, str]] = (),
    *,
    kind: str = _JSON,
    end: End = End.KEEP,
) -> Plan:
    """Any body, not billed."""
    data = head(status, headers, length=len(body), kind=kind) + body
    return Plan(status=status, steps=(Send(data=data),), billed=False, end=end)


def error_body(refusal: Refusal) -> bytes:
    """The body of an error."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    told = {"message": refusal.message, "type": kind, "param": None, "code": refusal.code}
    return orjson.dumps({"error": told})


def head(
    status: int, headers: Sequence[tuple[str, str]] = (), *, length: int | None, kind: str = _JSON
) -> bytes:
    """A status line and headers; chunks where `length` is -1, neither length nor chunks where it is None."""
    framing = (
        "connection: close\r\n"
        if length is None
        else "transfer-encoding: chunked\r\n"
        if length < 0
        else f"content-length: {length}\r\n"
    )
    extra = "".join([f"{name}: {value}\r\n" for name, value in headers])
    reason = _REASONS.get(status, "Unknown")
    return f"HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\n{framing}{extra}\r\n".encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: bytes, newline: bytes = b"\n") -> bytes:
    """One server-sent event."""
    return b"data: " + data + newline + newline


def events(made: Answer, style: Style = PLAIN) -> Iterator[tuple[bytes, int]]:
    """The data of a stream's events before [DONE], each with its tokens."""
    chat = made.asked.endpoint == CHAT
    shared = (
        orjson.dumps(_shared(made))[:-1] + b',"choices":[{"index":0,' + (b'"delta":' if chat else b'"text":')
    )
    null = b',"usage":null}' if made.asked.include_usage and style.usage != "missing" else b"}"
    unfinished = b',"finish_reason":null}]' + null
    if chat:
        yield shared + orjson.dumps(_opening(made)) + unfinished, 0
    for piece in made.pieces:
        yield shared + _delta(made, piece) + unfinished, 1
    finish = b',"finish_reason":"%b"}]' % made.finish.encode()
    yield shared + (b"{}" if chat else b'""') + finish + null, 0
    usage = reported_usage(made, style.usage)
    if made.asked.include_usage and usage is not ...:
        yield orjson.dumps({**_shared(made), "choices": [], "usage": usage}), 0


_REASONS: Mapping[int, str] = {status.value: status.phrase for status in http.HTTPStatus}


def _shared(made: Answer) -> dict[str, Any]:
    kind = "chat.completion.chunk" if made.asked.endpoint == CHAT else "text_completion"
    return {"id": made_id(made), "object": kind, "created": CREATED, "model": made.asked.model}


def _opening(made: Answer) -> dict[str, Any]:
    """The first delta of a chat."""
    if not made.tool:
        return {"role": "assistant", "content": ""}
    call = {"name": made.tool, "arguments": ""}
    calls = [{"index": 0, "id": call_id(made), "type": "function", "function": call}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _delta(made: Answer, piece: str) -> bytes:
    if made.asked.endpoint != CHAT:
        return orjson.dumps(piece)
    if made.tool:
        return orjson.dumps({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    return orjson.dumps({"content": piece})


def _stream(made: Answer, style: Style) -> Iterator[Step]:
    """The head, the events and the end of a stream."""
    frame = bytes if style.close_delimited else chunk
    yield Send(data=head(200, style.headers, length=None if style.close_delimited else -1, kind=_EVENTS))
    for data, tokens in _written(made, style):
        yield from _cut_up(data, tokens, style.split_bytes, frame)
    if not style.close_delimited:
        yield Send(data=LAST_CHUNK)


def _cut_up(data: bytes, tokens: int, size: int, frame: Callable[[bytes], bytes]) -> Iterator[Step]:
    """One write, or several of so many bytes; the tokens come with the last."""
    size = size or len(data)
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    for part in parts[:-1]:
        yield Send(data=frame(part))
    yield Send(data=frame(parts[-1]), tokens=tokens)


def _written(made: Answer, style: Style) -> Iterator[tuple[bytes, int]]:
    """What goes into one write each: an event or several, with what stands between them."""
    held, tokens, number = [], 0, 0
    for number, (data, more) in enumerate(_all_events(made, style), start=1):
        note = b": keep alive" + style.newline * 2 if style.comments else b""
        held.append(note + event(data, style.newline))
        tokens += more
        if number % style.merged == 0:
            yield b"".join(held), tokens
            held, tokens = [], 0
    if held:
        yield b"".join(held), tokens


def _all_events(made: Answer, style: Style) -> Iterator[tuple[bytes, int]]:
    for number, (data, tokens) in enumerate(events(made, style)):
        if number == 1 and len(data) < style.huge_bytes:
            # blanks between the members of an object mean nothing
            data = data[:-1] + b" " * (style.huge_bytes - len(data)) + data[-1:]
        yield data, tokens
    for _ in range(style.dones):
        yield DONE, 0
