"""Connections to upstreams that answer well, badly, and not at all, each a raw server that plays a part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.unit.gateway.wire.conftest import Loop

from modelyard.gateway.wire.outbound import UpstreamConnection, UpstreamError
from modelyard.gateway.wire.pool import ConnectionPool, Origin

REQUEST = b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
Part = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answers(*each: bytes, end: bool = False) -> Part:
    """A server that gives one of these answers to each request on a connection."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in each:
            await reader.readuntil(b"{}")
            writer.write(answer)
        if not end:
            await reader.read()

    return play


def playing(loop: Loop, parts: Sequence[Part], task: Callable[[ConnectionPool], Awaitable[Any]]) -> Any:
    """Do something with a pool; the server plays another part on each connection, the last for ever."""

    async def done() -> Any:
        count = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            try:
                await parts[min(count, len(parts)) - 1](reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pool = ConnectionPool(Origin.of(f"http://127.0.0.1:{port}/v1"), 5.0)
        try:
            return await task(pool)
        finally:
            pool.close()
            server.close()
            await asyncio.sleep(0.01)

    return loop.run(done())


async def asked(pool: ConnectionPool) -> tuple[int, bytes, UpstreamConnection]:
    connection = pool.kept() or await pool.opened()
    connection.send(REQUEST)
    try:
        return await connection.head(), await connection.body(), connection
    except UpstreamError:
        connection.close()
        raise


def answer(body: bytes, headers: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, headers, len(body), body)


def one(loop: Loop, *raw: bytes, end: bool = False) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection was kept."""

    async def task(pool: ConnectionPool) -> tuple[int, bytes, bool]:
        status, body, connection = await asked(pool)
        await asyncio.sleep(0.005)
        pool.put_back(connection)
        return status, body, pool.kept() is connection

    found = playing(loop, [answers(*raw, end=end)], task)
    return found[0], found[1], found[2]


@pytest.mark.parametrize(
    ("raw", "end", "expected"),
    [
        (answer(b"whole"), False, (200, b"whole", True)),
        (answer(b"", status=b"503 Busy"), False, (503, b"", True)),
        (answer(b"x", b"connection: close\r\n"), False, (200, b"x", False)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;e=f\r\nde\r\n0\r\nx: y\r\n\r\n",
         False,
         (200, b"abcde", True)),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", True, (200, b"to the end", False)),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab", False, (200, b"ab", False)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, (204, b"", False)),
        (b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 100 Go\r\n\r\n" + answer(b"x"), False,
         (200, b"x", True)),
    ],
)  # fmt: skip
def test_answers_in_every_form(loop: Loop, raw: bytes, end: bool, expected: tuple[int, bytes, bool]) -> None:
    assert one(loop, raw, end=end) == expected


def test_a_second_answer_behind_the_first_changes_nothing_and_ends_the_connection(loop: Loop) -> None:
    """Response splitting: what nobody asked for must be no answer to the next request."""
    second = answer(b"poison", b"x-poison: yes\r\n", status=b"500 Poison")
    assert one(loop, answer(b"good") + second) == (200, b"good", False)
    assert one(loop, answer(b"good") + b"HTTP/1.1 200 OK\r\n") == (200, b"good", False)
    assert one(loop, answer(b"good") + b"\0garbage") == (200, b"good", False)


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(loop: Loop) -> None:
    async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(answer(b"first"))
        await asyncio.sleep(0.02)
        writer.write(answer(b"poison"))
        await reader.read()

    async def task(pool: ConnectionPool) -> list[bytes]:
        _, first, connection = await asked(pool)
        pool.put_back(connection)
        await asyncio.sleep(0.1)
        assert connection.closed
        return [first, (await asked(pool))[1]]

    assert playing(loop, [talkative, answers(answer(b"second"))], task) == [b"first", b"second"]


BROKEN = {
    "nothing": (b"", "cut"),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent-le", "cut"),
    "half a body": (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "cut"),
    "half a chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf", "cut"),
    "no last chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "cut"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "garbage"),
    "no status": (b"HTTP/1.1 OK\r\n\r\n", "garbage"),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "garbage"),
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "garbage"),
    "another protocol": (b"HTTP/1.1 101 Switch\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", "garbage"),
    "a huge head": (b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 300_000, "garbage"),
    "interim for ever": (b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\n" * 30_000, "garbage"),
    "a bad chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "garbage"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_answer_is_an_error_that_says_what(loop: Loop, name: str) -> None:
    raw, kind = BROKEN[name]
    with pytest.raises(UpstreamError) as caught:
        one(loop, raw, end=True)
    assert caught.value.kind == kind
    assert not caught.value.stale


def test_a_kept_connection_that_was_dead_is_stale_and_a_new_one_is_not(loop: Loop) -> None:
    async def task(pool: ConnectionPool) -> UpstreamError:
        _, _, connection = await asked(pool)
        pool.put_back(connection)
        with pytest.raises(UpstreamError) as caught:
            await asked(pool)
        return caught.value

    async def once_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers(answer(b"first"), end=True)(reader, writer)
        await reader.readuntil(b"{}")

    failure = playing(loop, [once_more], task)
    assert (failure.kind, failure.stale) == ("cut", True)


def test_a_kept_connection_that_had_begun_to_answer_is_not_stale(loop: Loop) -> None:
    async def task(pool: ConnectionPool) -> UpstreamError:
        _, _, connection = await asked(pool)
        pool.put_back(connection)
        with pytest.raises(UpstreamError) as caught:
            await asked(pool)
        return caught.value

    assert playing(loop, [answers(answer(b"one"), b"HTTP/1.1 20", end=True)], task).stale is False


def test_a_connection_closed_while_kept_is_not_given_again(loop: Loop) -> None:
    async def task(pool: ConnectionPool) -> bool:
        _, _, connection = await asked(pool)
        pool.put_back(connection)
        while not connection.closed:
            await asyncio.sleep(0.001)
        return pool.kept() is None

    assert playing(loop, [answers(answer(b"x"), end=True)], task)


def test_an_early_answer_is_taken_though_the_request_was_not_read(loop: Loop) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"too large", b"connection: close\r\n", status=b"413 No"))
        await reader.read()

    async def task(pool: ConnectionPool) -> tuple[int, bytes, bool]:
        connection = await pool.opened()
        connection.send(REQUEST[:-2] + b"b" * 8_000_000)
        found = await connection.head(), await connection.body()
        pool.put_back(connection)
        return *found, pool.kept() is None

    assert playing(loop, [early], task) == (413, b"too large", True)


def test_a_stream_is_read_as_it_comes(loop: Loop) -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        assert await reader.read(1) == b"!"  # only when the first part was read
        writer.write(b"1\r\nb\r\n0\r\n\r\n")
        await reader.read()

    async def task(pool: ConnectionPool) -> list[bytes]:
        connection = await pool.opened()
        connection.send(REQUEST)
        await connection.head()
        parts = [await connection.part()]
        assert connection._transport is not None
        connection._transport.write(b"!")
        while part := await connection.part():
            parts.append(part)
        pool.put_back(connection)
        assert pool.kept() is connection
        return parts

    assert playing(loop, [slowly], task) == [b"a", b"b"]


def test_an_upstream_faster_than_its_reader_is_paused(loop: Loop) -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            written += 65_536

    async def task(pool: ConnectionPool) -> int:
        connection = await pool.opened()
        connection.send(REQUEST)
        await connection.head()
        await connection.part()
        before = -1
        while before != written:  # until nothing moves any more
            before = written
            await asyncio.sleep(0.05)
        waiting = connection._waiting_bytes
        read = 0
        while read < before + 1_000_000:
            read += len(await connection.part())
        connection.close()
        return waiting

    assert playing(loop, [flood], task) < 2_000_000


def test_an_answer_in_time_or_none(loop: Loop) -> None:
    async def task(pool: ConnectionPool) -> UpstreamError:
        connection = await pool.opened()
        connection.send(REQUEST)
        asyncio.get_running_loop().call_later(0.02, connection.time_out)
        with pytest.raises(UpstreamError) as caught:
            await connection.body()
        return caught.value

    half = answers(b"HTTP/1.1 200 OK\r\n\r\nhalf")  # of an answer that may end at any time
    assert playing(loop, [half], task).kind == "timed_out"


# the pool


def test_the_connection_that_was_put_back_last_is_used_first(loop: Loop) -> None:
    async def task(pool: ConnectionPool) -> None:
        first, second = (await asked(pool))[2], (await asked(pool))[2]
        pool.put_back(first)
        pool.put_back(second)
        assert [pool.kept(), pool.kept(), pool.kept()] == [second, first, None]
        first.close()
        second.close()

    playing(loop, [answers(answer(b"x"))], task)


def test_what_was_kept_for_too_long_is_closed(loop: Loop) -> None:
    async def task(pool: ConnectionPool) -> None:
        old, young = (await asked(pool))[2], (await asked(pool))[2]
        for connection in (old, young):
            pool.put_back(connection)
        old.idle_since -= 10.0
        pool.sweep()
        assert (old.closed, young.closed) == (True, False)
        young.idle_since -= 10.0
        assert pool.kept() is None
        assert young.closed

    playing(loop, [answers(answer(b"x"))], task)


def test_a_pool_that_is_closed_keeps_nothing(loop: Loop) -> None:
    async def task(pool: ConnectionPool) -> None:
        kept, away = (await asked(pool))[2], (await asked(pool))[2]
        pool.put_back(kept)
        pool.close()
        pool.put_back(away)
        assert kept.closed
        assert away.closed

    playing(loop, [answers(answer(b"x"))], task)


def test_nobody_there_is_told_as_such(loop: Loop) -> None:
    async def task() -> UpstreamError:
        pool = ConnectionPool(Origin.of("http://127.0.0.1:1/v1"), 5.0)
        with pytest.raises(UpstreamError) as caught:
            await pool.opened()
        return caught.value

    assert loop.run(task()).kind == "connect"


@pytest.mark.parametrize(
    ("endpoint", "host", "port", "tls", "authority"),
    [
        ("http://h/v1", "h", 80, False, "h"),
        ("https://h/v1/", "h", 443, True, "h"),
        ("https://h:80/v1", "h", 80, True, "h:80"),
        ("http://[::1]:8000/v1", "::1", 8000, False, "[::1]:8000"),
    ],
)
def test_addresses_are_read(endpoint: str, host: str, port: int, tls: bool, authority: str) -> None:
    origin = Origin.of(endpoint)
    assert (origin.host, origin.port, origin.tls, origin.prefix) == (host, port, tls, "/v1")
    assert origin.authority == authority
