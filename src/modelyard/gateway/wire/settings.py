"""How much of a client the wire bears, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """What one connection of a client may do."""

    # Request line and headers together.
    head_bytes: int = 32_768
    headers: int = 100
    body_bytes: int = 32 * 1024 * 1024
    # Requests that were sent ahead of their turn on one connection.
    pipelined: int = 64
    # From the first byte of a request (or the opening of the connection) to the end of its headers.
    head_s: float = 10.0
    # The longest silence within a body, and the least bytes a second of one over its whole length.
    body_s: float = 30.0
    body_bytes_per_s: float = 1_000.0
    # A connection without a request.
    idle_s: float = 75.0
    # The longest time in which a client takes nothing of what is sent to it.
    stalled_s: float = 60.0
    connections: int = 10_000
