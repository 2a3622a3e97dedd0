"""Pieces of HTTP messages that do not change."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil

import orjson

#: The first lines of answers by status.
STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
STATUS_LINES.update(
    {n: f"HTTP/1.1 {n} Status\r\n".encode() for n in range(100, 600) if n not in STATUS_LINES}
)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
#: The last header and the end of a head after which the connection is closed.
CLOSE = b"connection: close\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
JSON_HEADER = b"content-type: application/json\r\n"
EVENTS_HEADER = b"content-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


def ending(*, keep_alive: bool, modern: bool) -> bytes:
    """The end of a head; HTTP/1.0, which is not modern, expects no kept connection that it is not told of."""
    if keep_alive:
        return b"\r\n" if modern else b"connection: keep-alive\r\n\r\n"
    return CLOSE


def error_body(
    status: int, why: str, *, kind: str = "", code: str | None = None, parameter: str | None = None
) -> bytes:
    """An error as OpenAI's clients read it."""
    told = kind or ("invalid_request_error" if status < 500 else "server_error")
    return orjson.dumps({"error": {"message": why, "type": told, "param": parameter, "code": code}})


def retry_after(seconds: float | None) -> bytes:
    """The header that says when to try again, in whole seconds; nothing where that is not known."""
    return b"" if seconds is None else b"retry-after: %d\r\n" % max(1, ceil(seconds))


def plain_error(status: int, why: str) -> bytes:
    """A whole answer that is an error and ends its connection."""
    body = error_body(status, why)
    return b"%b%bcontent-length: %d\r\n%b%b" % (STATUS_LINES[status], JSON_HEADER, len(body), CLOSE, body)
