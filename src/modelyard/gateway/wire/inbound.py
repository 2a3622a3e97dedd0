"""A client's connection: its requests one after the other, and the answers to them.

One task serves a connection; a client that goes away cancels what is done for it. Whatever could be read
in two ways (two lengths, a length and chunks, other transfer encodings) is refused, and nothing that a
client sent is passed on as it stood: there is nothing to smuggle.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from modelyard.gateway.wire.messages import CONTINUE, plain_error
from modelyard.gateway.wire.request import Handler as Handler
from modelyard.gateway.wire.request import Inbound as Inbound
from modelyard.gateway.wire.settings import WireLimits

#: Headers of which a request may have one only.
_SINGLE = frozenset({b"host", b"authorization", b"content-length", b"content-type", b"transfer-encoding"})
#: Bytes that wait for a client before its upstream is told to pause.
_HIGH_WATER_BYTES = 262_144
#: How long what a refused client still sends is passed over, so that it gets to read why.
_LINGER_S = 2.0
#: What tells that there is a body.
_BODY = frozenset({b"content-length", b"transfer-encoding"})
#: What a wish for another protocol stands in.
_UPGRADE = frozenset({b"connection", b"upgrade", b"http2-settings"})
#: Of a socket: closing it resets the connection.
_RESET = struct.pack("ii", 1, 0)


class ClientConnection(asyncio.Protocol):
    """See the module; `handler` answers one request and never raises but when it is cancelled."""

    def __init__(
        self, handler: Handler, limits: WireLimits, opened: set[ClientConnection], clock: Callable[[], float]
    ) -> None:
        self._handler, self._limits, self._opened, self._clock = handler, limits, opened, clock
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Inbound] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._paused = False  # reading
        self._answering = False
        self._draining = False
        self._refused = False
        self._congestion: asyncio.Future[None] | None = None
        # What waits for a client that takes too little, and since when it has not become less.
        self._congested_bytes, self._congested_since = 0, 0.0
        # Whether a request has ended within what came last: how much of it is the next one's is not known.
        self._shared = False
        #: When the connection is given up, by the clock; the sweep of the worker looks at it.
        self.expires = 0.0
        # Whether nothing of the next request has come.
        self._idle_head = True
        # Whether the parser has passed over the body of a request.
        self._bodiless = False
        self._head_bytes = self._body_bytes = 0
        self._clear()

    # -- asyncio.Protocol ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no subclass
        transport.set_write_buffer_limits(_HIGH_WATER_BYTES)  # type: ignore[attr-defined]
        self.expires = self._clock() + self._limits.head_s
        if len(self._opened) >= self._limits.connections:
            self._refuse(503, "the gateway has too many connections; try again")
            return
        self._opened.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._refused:
            return
        if self._idle_head:
            self._idle_head = False
            self.expires = self._clock() + self._limits.head_s
        body_bytes, self._shared = self._body_bytes, False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            if self._bodiless:
                self._read_on(data[wish.args[0] :])
                return
            self._last_request()
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is no HTTP request ({error})")
            return
        if self._in_head or self._body_bytes == body_bytes:  # a head, or what frames a body and ends it
            self._head_bytes += 0 if self._shared else len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(431, f"the head of a request is over {self._limits.head_bytes} bytes")
        else:
            self._head_bytes = 0

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: half a connection is none."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._opened.discard(self)
        self._transport = None
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._congested_bytes, self._congested_since = 1 << 62, self._clock()
        self._congestion = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._congestion is not None and not self._congestion.done():
            self._congestion.set_result(None)
        self._congestion = None

    # -- httptools -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See httptools."""
        self._clear()
        self._idle_head = False

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        self._target += url
        self._header_bytes += len(url)
        if self._header_bytes > self._limits.head_bytes:
            self._refuse(431, f"the head of a request is over {self._limits.head_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools; what follows a body is counted, and no header."""
        name, headers = name.lower(), self._headers if self._in_head else {}
        self._header_bytes += len(name) + len(value) + 4
        if name in headers:
            if name in _SINGLE:
                self._refuse(400, f"the header {name.decode('latin-1')} stands there twice")
                return
            value = headers[name] + b", " + value
        headers[name] = value
        if self._header_bytes > self._limits.head_bytes or len(headers) > self._limits.headers:
            self._refuse(
                431, f"headers are over {self._limits.head_bytes} bytes or {self._limits.headers} lines"
            )

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._refused:
            return
        self._in_head = False
        headers, version = self._headers, self._parser.get_http_version()
        if b"transfer-encoding" in headers and (
            headers[b"transfer-encoding"].lower() != b"chunked"
            or b"content-length" in headers
            or version != "1.1"
        ):
            self._refuse(400, "the length of the body is told in two ways, or in one that is not known")
        elif version == "1.1" and b"host" not in headers:
            self._refuse(400, "the header host is missing")
        elif int(headers.get(b"content-length", b"0")) > self._limits.body_bytes:
            self._refuse(413, f"the body is over {self._limits.body_bytes} bytes")
        elif (
            headers.get(b"expect", b"").lower() == b"100-continue"
            and version == "1.1"
            and not (self._answering or self._waiting)  # it would be taken for the answer before
        ):
            self.send(CONTINUE)
        now = self._clock()
        self._body_since, self.expires = now, now + self._limits.body_s

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        if self._refused:
            return
        self._body.append(data)
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.body_bytes:
            self._refuse(413, f"the body is over {self._limits.body_bytes} bytes")
            return
        within = self._limits.body_s + self._body_bytes / self._limits.body_bytes_per_s
        self.expires = min(self._clock() + self._limits.body_s, self._body_since + within)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._refused:
            return
        if self._parser.should_upgrade() and not self._headers.keys().isdisjoint(_BODY):
            self._bodiless = True  # the parser passes the body over
            return
        body = self._body
        request = Inbound(
            method=self._parser.get_method(),
            target=self._target,
            headers=self._headers,
            body=body[0] if len(body) == 1 else b"".join(body),
            keep_alive=self._parser.should_keep_alive() and not self._draining,
            chunks=self._parser.get_http_version() == "1.1",
            connection=self,
        )
        self._waiting.append(request)
        self._idle_head = self._shared = True
        if len(self._waiting) > self._limits.pipelined:
            self._refuse(400, f"more than {self._limits.pipelined} requests were sent ahead")
            return
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        elif self._answering and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    # -- for requests ----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write to the client, if it is still there."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self, *, reset: bool = False) -> None:
        """Drop the connection after what is on its way; by a reset the client's system reports an error."""
        if self._transport is None or self._transport.is_closing():
            return
        if reset:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.expires = self._clock() + self._limits.stalled_s
        self._transport.close()

    @property
    def congested(self) -> bool:
        """Whether much waits for the client."""
        return self._congestion is not None

    async def taken(self) -> None:
        """Wait until little waits for the client."""
        if self._congestion is not None:
            await self._congestion

    # -- for the worker --------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Give up a client that is too slow or was idle for too long."""
        if self._transport is None:
            return
        unsent = self._transport.get_write_buffer_size()
        if self._congestion is not None and unsent < self._congested_bytes:
            self._congested_bytes, self._congested_since = unsent, now
        stalled = self._congestion is not None and now - self._congested_since > self._limits.stalled_s
        if stalled or (now >= self.expires and (self._refused or self._transport.is_closing())):
            if stalled or not self._answering:
                self._transport.abort()
        elif self._answering or now < self.expires:
            return
        elif self._idle_head and not self._waiting:
            self.abort()
        else:
            self._refuse(408, "the request did not come in time")

    def drain(self) -> None:
        """Answer what is there, then close."""
        self._draining = True
        if not self._answering and not self._waiting and self._idle_head:
            self.abort()

    # ----------------------------------------------------------------------------------------

    def _clear(self) -> None:
        """Make ready for the next request."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = self._head_bytes = self._header_bytes = 0
        self._body_since = 0.0
        self._in_head = True
        self._idle_head = True

    async def _serve(self) -> None:
        """Answer requests in their order until the connection ends."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                self._resume()
                self._wake = loop.create_future()
                await self._wake
                self._wake = None
            request = self._waiting.popleft()
            self._answering = True
            await self._handler(request)
            await self.taken()  # else the answers to what it sends ahead would heap up
            self._answering = False
            if not request.keep_alive or (self._draining and not self._waiting):
                self.abort()
                return
            self.expires = self._clock() + (self._limits.idle_s if self._idle_head else self._limits.head_s)

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _read_on(self, rest: bytes) -> None:
        """Read a request with a body that also wishes for another protocol as if it did not; it is the last.

        Java's HttpClient sends such ones.
        """
        lines = [b"%b: %b\r\n" % each for each in self._headers.items() if each[0] not in _UPGRADE]
        head = b"%b %b HTTP/1.1\r\n%bconnection: close\r\n\r\n"
        head %= self._parser.get_method(), self._target, b"".join(lines)
        self._bodiless, self._parser = False, httptools.HttpRequestParser(self)
        self.data_received(head)
        if rest:
            self.data_received(rest)

    def _last_request(self) -> None:
        """A wish for another protocol is passed over; what follows it cannot be trusted to be ours."""
        if self._waiting:
            self._waiting[-1].keep_alive = False
        elif not self._answering:
            self._refuse(501, "no other protocol is spoken here")
        self._refused = True

    def _refuse(self, status: int, why: str) -> None:
        """Say why and close, as soon as what is being answered has been."""
        if self._refused:
            return
        self._refused = True
        if self._answering or self._waiting:  # the answers before it are still owed
            self._draining = True
            return
        if self._transport is None:
            return
        self._transport.write(plain_error(status, why))
        if self._task is not None and self._transport.can_write_eof():
            self._transport.write_eof()
            self.expires = self._clock() + _LINGER_S
        else:
            self.abort()


def connection_factory(
    handler: Handler, limits: WireLimits, opened: set[ClientConnection], clock: Callable[[], float]
) -> Callable[[], Any]:
    """What `create_server` makes of each connection."""
    return lambda: ClientConnection(handler, limits, opened, clock)
