"""Connections to an upstream: where it is, how long one is waited for, and which are used again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from modelyard.gateway.wire.outbound import UpstreamError
from modelyard.gateway.wire.pool import ConnectionPool, Origin


@pytest.mark.parametrize(
    ("endpoint", "origin", "authority"),
    [
        ("http://h/v1", ("h", 80, False, "/v1"), "h"), ("https://h/v1/", ("h", 443, True, "/v1"), "h"),
        ("http://h:8000/x/v1", ("h", 8000, False, "/x/v1"), "h:8000"),
        ("https://[::1]:8443/v1", ("::1", 8443, True, "/v1"), "[::1]:8443"),
        ("http://h", ("h", 80, False, ""), "h"),
    ],
)  # fmt: skip
def test_an_address_says_where_a_server_is(endpoint: str, origin: tuple[object, ...], authority: str) -> None:
    found = Origin.of(endpoint)
    assert (found.host, found.port, found.tls, found.prefix) == origin
    assert found.authority == authority


@pytest.fixture
def full() -> Iterator[Origin]:
    """A server whose queue of connections is full: the next one waits."""
    with ExitStack() as open_:
        server = open_.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            one = open_.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield Origin.of(f"http://127.0.0.1:{server.getsockname()[1]}/v1")


@pytest.mark.parametrize("left_s", [0.05, 0.0, -1.0])
def test_a_connection_is_waited_for_no_longer_than_its_request_may_take(full: Origin, left_s: float) -> None:
    async def wait() -> None:
        await ConnectionPool(full, 60.0).opened(time.monotonic() + left_s)

    with pytest.raises(UpstreamError, match="did not take a connection within 0") as caught:
        asyncio.run(wait())
    assert caught.value.kind == "connect"


def test_a_connection_is_waited_for_as_long_as_is_set(full: Origin) -> None:
    with pytest.raises(UpstreamError, match=r"within 0\.05 s"):
        asyncio.run(ConnectionPool(full, 0.05).opened())
