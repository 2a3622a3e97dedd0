"""Connections to one upstream that are kept and used again."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from dataclasses import dataclass
from math import inf
from urllib.parse import urlsplit

from modelyard.gateway.wire.outbound import UpstreamConnection, UpstreamError

#: An unused connection is not trusted for longer: many servers close theirs after five seconds.
KEEP_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a server is."""

    host: str
    port: int
    tls: bool
    # Before /chat/completions, such as /v1.
    prefix: str

    @classmethod
    def of(cls, endpoint: str) -> Origin:
        """The origin of an address that ends with /v1."""
        parts = urlsplit(endpoint)
        tls = parts.scheme == "https"
        return cls(
            host=parts.hostname or "",
            port=parts.port or (443 if tls else 80),
            tls=tls,
            prefix=parts.path.rstrip("/"),
        )

    @property
    def authority(self) -> str:
        """As the header host names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class ConnectionPool:
    """See the module; the last that was put back is the first to be used."""

    def __init__(self, origin: Origin, connect_s: float, context: ssl.SSLContext | None = None) -> None:
        self._origin, self._context = origin, context
        self.connect_s = connect_s
        self._idle: deque[UpstreamConnection] = deque()
        self._closing = False

    def kept(self) -> UpstreamConnection | None:
        """A connection that is there, or None."""
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and now - connection.idle_since < KEEP_S:
                return connection
            connection.close()
        return None

    async def opened(self, until: float = inf) -> UpstreamConnection:
        """A new connection, by a moment in monotonic seconds. Raises `UpstreamError`."""
        loop, origin = asyncio.get_running_loop(), self._origin
        within_s = max(0.0, min(self.connect_s, until - time.monotonic()))
        try:
            async with asyncio.timeout(within_s):
                _, connection = await loop.create_connection(
                    UpstreamConnection, origin.host, origin.port, ssl=self._tls()
                )
        except TimeoutError as error:
            raise UpstreamError(
                f"did not take a connection within {within_s:.3g} s", kind="connect"
            ) from error
        except OSError as error:
            raise UpstreamError(f"takes no connection ({error.strerror or error})", kind="connect") from error
        return connection

    def put_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose answer was read to its end; any other is closed."""
        if self._closing or connection.closed or not (connection.whole and connection.reusable):
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def sweep(self) -> None:
        """Close what was kept for too long."""
        now = time.monotonic()
        while self._idle and now - self._idle[0].idle_since >= KEEP_S:
            self._idle.popleft().close()

    def close(self) -> None:
        """Close what is kept, and what is put back from now on."""
        self._closing = True
        while self._idle:
            self._idle.pop().close()

    def _tls(self) -> ssl.SSLContext | None:
        if self._origin.tls and self._context is None:
            self._context = ssl.create_default_context()
        return self._context if self._origin.tls else None
