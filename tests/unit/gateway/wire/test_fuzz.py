"""Whatever bytes come, in whatever pieces: the server lives, and pieces change nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.gateway.wire.conftest import Served

VALID = [
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /b?q HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;e=f\r\nabc\r\n0\r\nX-T: t\r\n\r\n",
    b"GET /d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /g HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
]
PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"-1", b"\xff", b"HTTP/1.1", b"0\r\n\r\n", b"f" * 16,
    b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Requests with some bytes taken out, put in, or put in the place of others."""
    data = b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 5))
        data = data[:at] + draw(st.sampled_from(PIECES) | st.binary(max_size=3)) + data[at + length :]
    return data


def talk(served: Served, pieces: list[bytes]) -> bytes:
    """Send pieces, close the sending half, and read to the end."""
    with served.client() as client, contextlib.suppress(OSError):
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.send(piece)
        client.sock.shutdown(socket.SHUT_WR)
        return client.rest()
    return b""


@pytest.fixture
def forgiving(serve: Callable[..., Served]) -> Served:
    return serve(head_bytes=400, body_bytes=1000)


quick = settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@quick
@given(data=st.binary(max_size=600) | mutated(), cuts=st.lists(st.integers(0, 600), max_size=5))
def test_no_bytes_end_the_server(forgiving: Served, data: bytes, cuts: list[int]) -> None:
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    got = talk(forgiving, [data[a:b] for a, b in pairwise(ends)])
    assert got == b"" or got.startswith(b"HTTP/1.1 ")
    forgiving.until(lambda: not forgiving.opened)
    with forgiving.client() as client:
        client.send(VALID[0])
        assert client.told()["target"] == "/a"


@quick
@given(data=mutated(), cuts=st.lists(st.integers(0, 600), max_size=8))
def test_pieces_change_nothing(served: Served, data: bytes, cuts: list[int]) -> None:
    """The same requests are understood, whether they come at once or in parts."""

    def understood(pieces: list[bytes]) -> list[dict[str, object]]:
        served.answering.seen.clear()
        with served.client() as client, contextlib.suppress(OSError):
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                client.send(piece)
                if len(pieces) > 1:
                    served.loop.call(lambda: None)
            client.send(b"\r\n\r\nnonsense that ends it\r\n\r\n" * 3)
            client.rest()
        served.until(lambda: not served.opened)
        return list(served.answering.seen)

    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert understood([data[a:b] for a, b in pairwise(ends)]) == understood([data])
