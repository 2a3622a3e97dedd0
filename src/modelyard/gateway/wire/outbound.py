"""A connection to an upstream: one request at a time, its answer as it comes.

What went wrong is an `UpstreamError` that says how far the answer had come, because only before the first
byte may somebody else be asked unseen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf

import httptools

#: What one answer may be when it is read whole.
WHOLE_BYTES = 64 * 1024 * 1024
_HEAD_BYTES = 65_536
#: Bytes of a stream that wait for whoever reads it before the upstream is told to pause.
_HIGH_WATER_BYTES = 262_144


class UpstreamError(Exception):
    """An upstream that did not answer as it should; `stale` when a kept connection was dead already."""

    def __init__(self, why: str, *, kind: str = "failed", stale: bool = False) -> None:
        super().__init__(why)
        self.kind, self.stale = kind, stale


class UpstreamConnection(asyncio.Protocol):
    """See the module. Used by one task at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._used = 0  # requests
        self._waiter: asyncio.Future[None] | None = None
        self._failure: UpstreamError | None = None
        self.closed = False
        #: When it was put back, and when its answer is given up, in monotonic seconds.
        self.idle_since = 0.0
        self.expires = inf
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        #: Whether the body has come to its end, and whether the connection may be used again then.
        self.whole = self.reusable = False
        self._parts: deque[bytes] = deque()
        self._waiting_bytes = self._head_bytes = 0
        self._busy = self._heard = self._framed = self._interim = self._excess = False
        self._streamed = self._paused = False

    # -- asyncio.Protocol ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.whole or not self._busy:
            self._fail("sent what nobody had asked for", kind="garbage")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("changed the protocol", kind="garbage")
        except httptools.HttpParserError as error:
            self._fail(f"does not speak HTTP ({error})", kind="garbage")
        if self._excess and not self.closed:
            self.close()
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._fail(f"sent headers of over {_HEAD_BYTES} bytes", kind="garbage")

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`; the end of a body without a length is its end."""
        self.closed, self._transport = True, None
        if self._failure is not None:
            return
        if self.status and not self._framed and exc is None and not self.whole:
            self.whole = True
            self._notify()
        elif self._busy and not self.whole:
            stale = self._used > 1 and not self._heard
            self._fail("closed the connection before the end", kind="cut", stale=stale)

    # -- httptools -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See httptools; a second answer is nobody's, and none after it could be trusted."""
        self._heard = True
        self._excess = self.whole

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools; what follows a body is no header."""
        if not (self.status or self._excess):
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """See httptools; interim answers are passed over."""
        if self._excess:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()
            self._interim = True
            return
        self.status = status
        self._framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        self.reusable = self._framed and self._parser.should_keep_alive()
        self._notify()

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        if self._excess:
            return
        self._parts.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _HIGH_WATER_BYTES and self._streamed and not self._paused:
            self._paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        self._notify()

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._interim or self._excess:
            self._interim = False
            return
        self.whole = True
        self._notify()

    # -- for whoever asks --------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send one request; its answer is read by `head`, then by `body` or `part`."""
        self._clear()
        self._busy, self._used = True, self._used + 1
        if self._transport is None:
            self._fail("closed the connection", kind="cut", stale=self._used > 1)
            return
        self._transport.write(data)

    async def head(self) -> int:
        """The status of the answer. Raises `UpstreamError`."""
        while not self.status:
            await self._news()
        return self.status

    async def body(self) -> bytes:
        """The whole body. Raises `UpstreamError`."""
        while not self.whole:
            if self._waiting_bytes > WHOLE_BYTES:
                raise UpstreamError(f"sent more than {WHOLE_BYTES} bytes", kind="garbage")
            await self._news()
        parts = self._parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def part(self) -> bytes:
        """What has come of the body since the last call; empty at its end. Raises `UpstreamError`."""
        self._streamed = True
        while not self._parts:
            if self.whole:
                return b""
            await self._news()
        parts, self._parts, self._waiting_bytes = self._parts, deque(), 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def time_out(self) -> None:
        """Give up the answer."""
        self._fail("did not answer in time", kind="timed_out")

    def close(self) -> None:
        """End the connection; the upstream sees that nobody waits any more."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        self.status = 0
        self.headers = {}
        self.whole = self.reusable = False
        self._parts = deque()
        self._waiting_bytes = self._head_bytes = 0
        self._busy = self._heard = self._framed = self._interim = self._excess = False
        self._streamed = self._paused = False
        self._failure = None

    async def _news(self) -> None:
        self._check()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if not (self._parts and self._streamed):
            self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, why: str, *, kind: str, stale: bool = False) -> None:
        if self._failure is None and not self.whole:  # what follows a whole answer takes nothing from it
            self._failure = UpstreamError(why, kind=kind, stale=stale)
        self._notify()
        if not self.closed:
            self.close()
