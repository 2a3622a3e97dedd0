"""One upstream is asked once: until there is a whole answer, or the first of a stream.

Up to there somebody else can be asked instead without the client knowing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from modelyard.gateway.exchanges.asked import Asked
from modelyard.gateway.exchanges.events import EventStream
from modelyard.gateway.upstreams import Upstream
from modelyard.gateway.wire.outbound import UpstreamConnection, UpstreamError

#: The request was at fault, and would be anywhere: the answer is the client's.
_CLIENTS_FAULT = frozenset({400, 405, 406, 411, 413, 414, 415, 416, 422, 431, 451})
#: The server wants to be left alone for a time.
_RESTING = frozenset({429, 503})
#: What it says of how long is believed up to here.
_LONGEST_REST_S = 120.0
_SHORTEST_REST_S = 1.0


class DeclinedError(UpstreamError):
    """An upstream that answered that it does not answer."""

    def __init__(self, status: int, rest_s: float | None) -> None:
        super().__init__(f"answered {status}", kind=f"status_{status}")
        self.status, self.rest_s = status, rest_s


@dataclass(slots=True, kw_only=True)
class Opened:
    """An answer that has begun: whole, or a stream of which the first events are there."""

    upstream: Upstream
    connection: UpstreamConnection
    status: int
    # The whole body, or what of a stream may be passed on already.
    body: bytes
    # The body as JSON, where it is an answer.
    record: dict[str, Any] | None = None
    # The rest of a stream; None: the body is whole.
    events: EventStream | None = None

    @property
    def content_type(self) -> bytes:
        """As the upstream told it."""
        return self.connection.headers.get(b"content-type", b"application/json")


@dataclass(slots=True, kw_only=True)
class Waiting:
    """The connections on whose answers somebody waits; swept by the worker."""

    connections: set[UpstreamConnection] = field(default_factory=set)

    def sweep(self, now: float) -> None:
        """Give up those whose time is over."""
        for connection in [each for each in self.connections if each.expires <= now]:
            connection.time_out()


async def open_answer(
    upstream: Upstream, request: bytes, asked: Asked, *, expires: float, waiting: Waiting
) -> Opened:
    """Send a request and wait until its answer has begun.

    The connection of what is returned belongs to the caller, and so does its place in `waiting`.

    Raises:
        UpstreamError: There is no answer.
    """
    connection = upstream.connections.kept()
    while True:
        fresh = connection is None
        if connection is None:
            connection = await upstream.connections.opened(expires)
        connection.expires = expires
        waiting.connections.add(connection)
        try:
            connection.send(request)
            return await _begun(upstream, connection, asked)
        except UpstreamError as failure:
            _dropped(connection, waiting)
            if fresh or not failure.stale:
                raise
            connection = None  # the server had closed it while it was kept
        except BaseException:
            _dropped(connection, waiting)
            raise


def _dropped(connection: UpstreamConnection, waiting: Waiting) -> None:
    waiting.connections.discard(connection)
    connection.close()


async def _begun(upstream: Upstream, connection: UpstreamConnection, asked: Asked) -> Opened:
    status = await connection.head()
    streamed = connection.headers.get(b"content-type", b"").startswith(b"text/event-stream")
    if status == 200 and asked.stream and streamed:
        events = EventStream(hide_usage=not asked.wants_usage, choices=asked.choices)
        return await _first_events(upstream, connection, events)
    if status != 200 and status not in _CLIENTS_FAULT:
        raise DeclinedError(status, _rest_s(status, connection.headers))
    body = await connection.body()
    record = _record(body) if status == 200 else None
    return Opened(upstream=upstream, connection=connection, status=status, body=body, record=record)


async def _first_events(upstream: Upstream, connection: UpstreamConnection, events: EventStream) -> Opened:
    """Wait for an event that is none of an error."""
    ready = b""
    while not ready:
        part = await connection.part()
        try:
            ready = events.feed(part) if part else events.rest()
        except OverflowError as error:
            raise UpstreamError(str(error), kind="garbage") from error
        if events.error is not None:
            raise UpstreamError("told an error in the first event", kind="error_event")
        if not part:
            break
    if connection.whole and not events.whole:
        raise UpstreamError("ended its stream before the first event", kind="cut")
    return Opened(upstream=upstream, connection=connection, status=200, body=ready, events=events)


def _record(body: bytes) -> dict[str, Any]:
    """The answer; whatever has neither choices nor data is none. Raises `UpstreamError`."""
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamError("answered 200 with what is not JSON", kind="garbage") from error
    if not isinstance(record, dict) or not (
        isinstance(record.get("choices"), list) or isinstance(record.get("data"), list)
    ):
        raise UpstreamError("answered 200 with what is no answer", kind="garbage")
    return record


def _rest_s(status: int, headers: dict[bytes, bytes]) -> float | None:
    """How long the server wants to be left alone; None where it does not say so."""
    if status not in _RESTING:
        return None
    told = headers.get(b"retry-after", b"").decode("latin-1").strip()
    if not told:
        return _SHORTEST_REST_S if status == 429 else None
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            seconds = _SHORTEST_REST_S
    return min(max(seconds, 0.0), _LONGEST_REST_S)
