"""One request of a client, whole, and the way back to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelyard.gateway.wire.messages import CHUNKED, LAST_CHUNK, STATUS_LINES, ending

if TYPE_CHECKING:
    from modelyard.gateway.wire.inbound import ClientConnection


@dataclass(slots=True, kw_only=True)
class Inbound:
    """See the module."""

    method: bytes
    # Path and query as they were sent.
    target: bytes
    # By lower-case name; those that came twice are joined with a comma.
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    # HTTP/1.0 knows no chunks: a stream then ends with its connection.
    chunks: bool
    connection: ClientConnection = field(repr=False)
    # Whether a status has been sent.
    begun: bool = False

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Send a whole answer; `headers` are lines that end with CRLF."""
        self.begun = True
        head = b"%bcontent-length: %d\r\n%b" % (STATUS_LINES[status], len(body), headers)
        if self.method == b"HEAD":
            body = b""
        self.connection.send(head + ending(keep_alive=self.keep_alive, modern=self.chunks) + body)

    def begin(self, status: int, headers: bytes) -> None:
        """Send the head of an answer whose length is not known."""
        self.begun = True
        if not self.chunks:
            self.keep_alive = False
        how = CHUNKED if self.chunks else b""
        closing = ending(keep_alive=self.keep_alive, modern=self.chunks)
        self.connection.send(STATUS_LINES[status] + headers + how + closing)

    def write(self, data: bytes) -> None:
        """Send a part of the answer."""
        if data:
            self.connection.send(b"%x\r\n%b\r\n" % (len(data), data) if self.chunks else data)

    def finish(self) -> None:
        """Send the end of an answer that was begun."""
        if self.chunks:
            self.connection.send(LAST_CHUNK)

    def cut(self) -> None:
        """End the connection so that the client can tell that the answer is not whole."""
        self.keep_alive = False
        self.connection.abort(reset=not self.chunks)  # without chunks an end would look like the answer's

    @property
    def congested(self) -> bool:
        """Whether the client takes less than it is sent."""
        return self.connection.congested

    async def taken(self) -> None:
        """Wait until the client has taken most of what was sent."""
        await self.connection.taken()


Handler = Callable[[Inbound], Awaitable[None]]
