"""What a client's connection takes, refuses and answers, byte by byte over real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable

import pytest
from tests.unit.gateway.wire.conftest import Client, Served

Serve = Callable[..., Served]
HOST = b"Host: x\r\n"


def request(method: bytes = b"POST", target: bytes = b"/a", headers: bytes = b"", body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, target, HOST, headers, length, body)


def chunked(body: bytes, headers: bytes = b"") -> bytes:
    return b"POST /a HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n%b\r\n%b" % (HOST, headers, body)


def still_serves(served: Served) -> bool:
    with served.client() as client:
        client.send(request(target=b"/still"))
        return bool(client.told()["target"] == "/still")


# one after another


def test_a_connection_is_kept_and_used_again(served: Served) -> None:
    with served.client() as client:
        for n in range(5):
            client.send(request(target=b"/%d?q=%%20" % n, body=b"b" * n))
            told = client.told()
            assert (told["target"], told["body"]) == (f"/{n}?q=%20", "b" * n)
        client.send(request(headers=b"Connection: close\r\n"))
        _, headers, _ = client.answer()
        assert headers["connection"] == "close"
        assert client.rest() == b""


@pytest.mark.parametrize("split", [1, 7, 10_000])
def test_requests_sent_ahead_are_answered_in_order(served: Served, split: int) -> None:
    whole = b"".join(request(target=b"/%d" % n, body=b"%d" % n) for n in range(64))
    with served.client() as client:
        client.send(*(whole[i : i + split] for i in range(0, len(whole), split)))
        assert [client.told()["target"] for _ in range(64)] == [f"/{n}" for n in range(64)]


def test_too_many_sent_ahead_are_not_all_kept(serve: Serve) -> None:
    served = serve(pipelined=4)
    with served.client() as client:
        client.send(b"".join(request(b"GET", b"/%d" % n) for n in range(50)))
        answers = client.rest().count(b"HTTP/1.1 200 OK")
    assert 4 <= answers < 50
    assert [each["target"] for each in served.answering.seen] == [f"/{n}" for n in range(answers)]
    assert still_serves(served)


def test_a_request_behind_a_large_body_is_no_large_head(served: Served) -> None:
    first, second = request(body=b"b" * 60_000), request(target=b"/second")
    with served.client() as client:
        client.send(first[:100])
        served.until(lambda: len(served.opened) == 1)
        client.send(first[100:] + second[:20], second[20:])
        assert len(client.told()["body"]) == 60_000
        assert client.told()["target"] == "/second"


def test_headers_are_read_as_they_are_and_joined(served: Served) -> None:
    with served.client() as client:
        client.send(request(headers=b"X-A:  one \r\nx-a: two\r\nX-\xe4: \xe4\r\n", body=b"b"))
        status, _, body = client.answer()
        if status == 200:
            headers = json.loads(body)["headers"]
            assert headers["x-a"].replace(" ", "") == "one,two"


# two readings


SMUGGLED = {
    "length and chunks": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "identity": b"Transfer-Encoding: identity\r\n\r\nabc",
    "identity and a length": b"Content-Length: 3\r\nTransfer-Encoding: identity\r\n\r\nabc",
    "gzip": b"Transfer-Encoding: gzip\r\n\r\nabc",
    "gzip, chunked": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two lines chunked": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "xchunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"X-A: b\r\n c\r\n\r\n",
    "a line that begins with space": b" X-A: b\r\n\r\n",
    "bare LF": b"X-A: b\n\n",
    "bare CR": b"X-A: b\rX-B: c\r\n\r\n",
    "NUL in a value": b"X-A: b\0c\r\n\r\n",
    "NUL in a name": b"X-\0A: b\r\n\r\n",
    "no colon": b"X-A\r\n\r\n",
    "no name": b": b\r\n\r\n",
    "two hosts": b"Host: y\r\n\r\n",
    "two keys": b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "two types": b"Content-Type: a\r\nContent-Type: b\r\n\r\n",
    "negative length": b"Content-Length: -1\r\n\r\n",
    "signed length": b"Content-Length: +3\r\n\r\nabc",
    "hexadecimal length": b"Content-Length: 0x3\r\n\r\nabc",
    "length with a line": b"Content-Length: 1_0\r\n\r\n0123456789",
    "no length": b"Content-Length: \r\n\r\n",
    "length in words": b"Content-Length: three\r\n\r\nabc",
    "length of 2 to the 64": b"Content-Length: 18446744073709551616\r\n\r\n",
    "length of many digits": b"Content-Length: " + b"9" * 400 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_could_be_read_in_two_ways_is_refused(served: Served, name: str) -> None:
    with served.client() as client:
        client.send(b"POST /a HTTP/1.1\r\n" + HOST + SMUGGLED[name] + request(b"GET", b"/smuggled"))
        assert client.refused() == 400
    assert served.answering.seen == []
    assert still_serves(served)


CHUNKS = {
    "negative": b"-1\r\nx\r\n0\r\n\r\n",
    "hexadecimal mark": b"0x1\r\nx\r\n0\r\n\r\n",
    "no size": b"\r\nx\r\n0\r\n\r\n",
    "letters": b"g\r\nx\r\n0\r\n\r\n",
    "huge": b"ffffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "bare LF after the size": b"1\nx\r\n0\r\n\r\n",
    "longer than told": b"1\r\nxy\r\n0\r\n\r\n",
    "bare LF after the data": b"1\r\nx\n0\r\n\r\n",
    "space before the size": b" 1\r\nx\r\n0\r\n\r\n",
    "bare LF in an extension": b"1;a\nb\r\nx\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_that_are_none_are_refused(served: Served, name: str) -> None:
    with served.client() as client:
        client.send(chunked(CHUNKS[name]) + request(b"GET", b"/smuggled"))
        assert client.refused() == 400
    assert served.answering.seen == []


def test_chunks_are_read_and_what_surrounds_them_is_not(served: Served) -> None:
    with served.client() as client:
        body = (
            b"3;name=value\r\nabc\r\n00A\r\n0123456789\r\n0\r\nAuthorization: Bearer t\r\nX-Late: 1\r\n\r\n"
        )
        client.send(chunked(body), request(target=b"/next"))
        told = client.told()
        assert told["body"] == "abc0123456789"
        assert "authorization" not in told["headers"]
        assert "x-late" not in told["headers"]
        assert client.told()["target"] == "/next"


def test_a_length_in_http_10_counts_and_chunks_do_not(served: Served) -> None:
    with served.client() as client:
        client.send(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert client.refused() == 400
    with served.client() as client:
        client.send(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
        assert client.told()["body"] == "ab"


# other first lines


@pytest.mark.parametrize(
    "line",
    [
        b"get / HTTP/1.1", b"G\xc3T / HTTP/1.1", b"NONSENSE / HTTP/1.1", b"GET  HTTP/1.1",
        b"GET / HTTP/3.7", b"GET / http/1.1", b"GET /\0 HTTP/1.1", b"GET / HTTP/1.1 ", b"GET / HTTP/1.1x",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-OpenSSH_9.2", b"*1", b"HTTP/1.1 200 OK",
        b"GET /a b HTTP/1.1",
    ],
)  # fmt: skip
def test_first_lines_that_are_none_are_refused(served: Served, line: bytes) -> None:
    with served.client() as client:
        client.send(line + b"\r\n" + HOST + b"\r\n")
        assert client.refused() == 400
    assert served.answering.seen == []
    assert still_serves(served)


def test_the_preface_of_http_2_is_refused(served: Served) -> None:
    with served.client() as client:
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        assert client.refused() == 400
    assert served.answering.seen == []


def test_http_09_ends_after_its_answer(served: Served) -> None:
    with served.client() as client:
        client.send(b"GET /\r\n\r\n")
        assert b"200 OK" in client.rest()


def test_a_whole_address_is_given_as_it_stands(served: Served) -> None:
    with served.client() as client:
        client.send(request(b"GET", b"http://elsewhere/v1/models"))
        assert client.told()["target"] == "http://elsewhere/v1/models"


@pytest.mark.parametrize(
    "wish",
    [
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n",
    ],
)
def test_a_wish_for_another_protocol_is_answered_in_this_one_and_is_the_last(
    served: Served, wish: bytes
) -> None:
    with served.client() as client:
        client.send(request(b"GET", b"/first") + request(headers=wish, body=b"body"))
        client.send(request(b"GET", b"/smuggled"))
        assert client.told()["target"] == "/first"
        status, headers, body = client.answer()
        assert (status, headers["connection"], json.loads(body)["body"]) == (200, "close", "body")
        assert client.rest() == b""
    assert [each["target"] for each in served.answering.seen] == ["/first", "/a"]


def test_connect_opens_no_tunnel(served: Served) -> None:
    with served.client() as client:
        client.send(b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n" + request(b"GET", b"/smuggled"))
        assert client.told()["target"] == "x:443"
        assert client.rest() == b""
    assert len(served.answering.seen) == 1


def test_a_host_is_asked_of_http_11_only(served: Served) -> None:
    with served.client() as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.refused() == 400
    with served.client() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.told()["target"] == "/"


def test_empty_lines_before_a_request_are_passed_over(served: Served) -> None:
    with served.client() as client:
        client.send(b"\r\n\r\n" + request(body=b"one") + b"\r\n" + request(body=b"two"))
        assert [client.told()["body"], client.told()["body"]] == ["one", "two"]


# how long, how much


@pytest.mark.parametrize("started", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_a_head_that_does_not_end_is_given_up(serve: Serve, started: bytes) -> None:
    served = serve(head_s=5.0)
    with served.client() as client:
        client.send(started)
        served.until(lambda: len(served.opened) == 1)
        served.until(lambda: not started or not next(iter(served.opened))._idle_head)
        served.sweep(4.0)
        client.send(b"")
        served.sweep(6.0)
        assert client.rest() == b"" if not started else client.refused() == 408
    assert still_serves(served)


def test_a_drop_now_and_then_does_not_prolong_a_head(serve: Serve) -> None:
    served = serve(head_s=5.0)
    with served.client() as client:
        for n in range(10):
            client.send(b"GET / HTTP/1.1\r\n"[n : n + 1])
        served.until(lambda: served.opened and not next(iter(served.opened))._idle_head)
        served.sweep(5.5)
        assert client.refused() == 408


def test_a_body_that_does_not_come_is_given_up(serve: Serve) -> None:
    served = serve(body_s=5.0)
    with served.client() as client:
        client.send(request(body=b"b" * 1000)[:-1])
        served.until(lambda: served.opened and next(iter(served.opened))._body_bytes == 999)
        served.sweep(4.0)
        assert len(served.opened) == 1
        served.sweep(7.0)
        assert client.refused() == 408
    assert served.answering.seen == []


def test_a_connection_without_a_request_is_closed(serve: Serve) -> None:
    served = serve(head_s=5.0, idle_s=50.0)
    with served.client() as client:
        client.send(request())
        client.told()
        served.sweep(49.0)
        client.send(request())
        client.told()
        served.sweep(51.0)
        assert client.rest() == b""


def test_a_request_under_way_is_not_timed(serve: Serve) -> None:
    served = serve(head_s=1.0, idle_s=1.0, body_s=1.0)
    with served.client() as client:
        client.send(request(target=b"/wait"))
        served.until(lambda: served.answering.seen)
        served.sweep(1000.0)
        served.loop.call(served.answering.go_on.set)
        assert client.told()["target"] == "/wait"


BIG_HEADS = {
    "one header": b"X-A: " + b"a" * 5000,
    "many headers": b"\r\n".join(b"X-%d: %s" % (n, b"a" * 50) for n in range(90)),
    "a name": b"X" * 5000 + b": a",
    "the same header often": b"\r\n".join([b"X-A: " + b"a" * 50] * 90),
    "too many": b"\r\n".join(b"X-%d: a" % n for n in range(101)),
}


@pytest.mark.parametrize("name", BIG_HEADS)
@pytest.mark.parametrize("ended", [True, False])
def test_a_head_that_is_too_large_is_refused(serve: Serve, name: str, *, ended: bool) -> None:
    served = serve(head_bytes=4096 if name != "too many" else 32_768)
    with served.client() as client:
        head = b"GET / HTTP/1.1\r\n" + HOST + BIG_HEADS[name] + b"\r\n"
        client.send(head + (b"\r\n" if ended else b""))
        assert client.refused() == 431
    assert served.answering.seen == []


@pytest.mark.parametrize("ended", [True, False])
def test_an_address_that_is_too_long_is_refused(serve: Serve, *, ended: bool) -> None:
    served = serve(head_bytes=4096)
    with served.client() as client:
        client.send(b"GET /" + b"a" * 5000 + (b" HTTP/1.1\r\n" + HOST + b"\r\n" if ended else b""))
        assert client.refused() == 431
    with served.client() as client:
        client.send(request(target=b"/" + b"a" * 3000))
        assert len(client.told()["target"]) == 3001


@pytest.mark.parametrize(
    "end", [b"5;" + b"a" * 5000, b"0\r\nX-A: " + b"a" * 5000, b"0\r\n" + b"X: a\r\n" * 900]
)
def test_what_surrounds_chunks_is_bounded_as_heads_are(serve: Serve, end: bytes) -> None:
    served = serve(head_bytes=4096)
    with served.client() as client:
        client.send(chunked(b""))
        served.until(lambda: served.opened and not next(iter(served.opened))._in_head)
        client.send(end)
        assert client.refused() == 431


def test_many_small_chunks_are_a_body(serve: Serve) -> None:
    served = serve(head_bytes=4096)
    with served.client() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(chunked(b""))
        for _ in range(1000):
            client.send(b"1\r\n", b"x\r\n")
        client.send(b"0\r\n\r\n")
        assert client.told()["body"] == "x" * 1000


def test_a_body_up_to_the_limit_is_taken(serve: Serve) -> None:
    served = serve(body_bytes=1000)
    with served.client() as client:
        client.send(request(body=b"b" * 1000), chunked(b"3e8\r\n" + b"b" * 1000 + b"\r\n0\r\n\r\n"))
        assert [len(client.told()["body"]) for _ in range(2)] == [1000, 1000]


@pytest.mark.parametrize("how", ["length", "chunks", "only told"])
def test_a_body_over_the_limit_is_refused_and_its_client_can_read_why(serve: Serve, how: str) -> None:
    """A client that is still sending would lose the answer if the connection were closed at once."""
    served = serve(body_bytes=1000)
    with served.client() as client:
        if how == "length":
            client.send(request(body=b"b" * 3_000_000))
        elif how == "chunks":
            client.send(chunked(b"ff\r\n" + b"b" * 255 + b"\r\n"), *[b"ff\r\n" + b"b" * 255 + b"\r\n"] * 2000)
        else:
            client.send(b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n" + HOST + b"\r\n")
        assert client.refused() == 413
    served.until(lambda: not served.opened)
    assert served.answering.seen == []


def test_a_refused_client_that_goes_on_is_dropped(serve: Serve) -> None:
    served = serve()
    with served.client() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.answer()[0] == 400
        assert len(served.opened) == 1
        served.sweep(10.0)
        served.until(lambda: not served.opened)


def test_a_client_that_asks_first_is_told_to_go_on(served: Served) -> None:
    body = b"b" * 10
    with served.client() as client:
        client.send(request(headers=b"Expect: 100-continue\r\n", body=body)[:-10])
        assert client.answer()[0] == 100
        client.send(body)
        assert client.told()["body"] == "b" * 10


def test_a_client_that_asks_first_is_told_no(serve: Serve) -> None:
    served = serve(body_bytes=5)
    with served.client() as client:
        client.send(request(headers=b"Expect: 100-continue\r\n", body=b"b" * 10)[:-10])
        assert client.refused() == 413


def test_leave_to_go_on_does_not_come_before_the_answer_before(served: Served) -> None:
    second = request(target=b"/second", headers=b"Expect: 100-continue\r\n", body=b"b")
    with served.client() as client:
        client.send(request(target=b"/first") + second[:-1])
        assert client.told()["target"] == "/first"
        client.send(b"b")
        status, _, body = client.answer()
        if status == 100:
            status, _, body = client.answer()
        assert json.loads(body)["target"] == "/second"


def test_http_10_is_not_told_to_go_on(served: Served) -> None:
    with served.client() as client:
        client.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nb")
        assert client.told()["body"] == "b"


# HTTP/1.0, HEAD, streams


def test_http_10_ends_with_its_answer_unless_it_asks_otherwise(served: Served) -> None:
    with served.client() as client:
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.answer()[1]["connection"] == "keep-alive"
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.answer()[1]["connection"] == "close"
        assert client.rest() == b""


def test_the_head_alone_is_answered_alone(served: Served) -> None:
    with served.client() as client:
        client.send(request(b"HEAD", b"/a?n=7"), request(b"GET", b"/b"))
        assert client.answer(head=True)[1]["content-length"] == "7"
        assert client.told()["target"] == "/b"


def test_a_stream_comes_in_chunks_and_the_connection_is_kept(served: Served) -> None:
    with served.client() as client:
        for _ in range(2):
            client.send(request(target=b"/stream"))
            assert client.answer()[2] == b"one two three"


def test_a_stream_for_http_10_ends_with_the_connection(served: Served) -> None:
    with served.client() as client:
        client.send(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        head, _, body = client.rest().partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert b"chunked" not in head
        assert body == b"one two three"


def test_a_stream_that_is_cut_does_not_end_as_a_whole_one(served: Served) -> None:
    with served.client() as client:
        client.send(request(target=b"/cut"))
        got = client.rest()
        assert b"three" in got
        assert not got.endswith(b"0\r\n\r\n")


def test_a_cut_is_an_error_to_http_10(served: Served) -> None:
    with served.client() as client:
        client.send(b"GET /cut HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            while client.sock.recv(1 << 16):
                pass


# clients that go, and clients that do not read


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("target", [b"/wait", b"/flood"])
def test_a_client_that_goes_ends_what_is_done_for_it(served: Served, target: bytes, *, reset: bool) -> None:
    with served.client() as client:
        client.send(request(target=target) + request(target=b"/never"))
        served.until(lambda: served.answering.seen)
        if reset:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    served.until(lambda: served.answering.cancelled == 1 and not served.opened)
    assert len(served.answering.seen) == 1
    assert still_serves(served)


def test_half_a_connection_is_none(served: Served) -> None:
    with served.client() as client:
        client.send(request(target=b"/wait"))
        served.until(lambda: served.answering.seen)
        client.sock.shutdown(socket.SHUT_WR)
        served.until(lambda: served.answering.cancelled == 1)
        assert client.rest() == b""


def test_a_stream_waits_for_its_client_and_drops_it_when_it_takes_nothing(serve: Serve) -> None:
    served = serve(stalled_s=50.0)
    with served.client() as client:
        client.send(request(target=b"/flood"))
        served.until(lambda: served.opened and next(iter(served.opened)).congested)
        written = served.answering.written
        served.sweep(49.0)
        assert len(served.opened) == 1
        assert served.answering.written == written
        while len(client.sock.recv(1 << 20)) and served.answering.written < written + 2_000_000:
            pass
        served.until(lambda: served.opened and next(iter(served.opened)).congested)
        served.sweep(200.0)
        served.sweep(400.0)
        served.until(lambda: not served.opened)
        assert served.answering.cancelled == 1
    assert served.answering.written < 64 * 1024 * 1024


def test_a_client_that_takes_a_large_answer_slowly_keeps_it(serve: Serve) -> None:
    served = serve(stalled_s=50.0)

    def waiting() -> int:
        return sum(each._transport.get_write_buffer_size() for each in served.opened if each._transport)

    with served.client() as client:
        client.send(request(target=b"/a?n=40000000"))
        served.until(lambda: served.opened and next(iter(served.opened)).congested)
        for later in (40.0, 80.0, 120.0, 160.0):
            before = served.loop.call(waiting)
            while served.loop.call(waiting) >= before:  # each time something was taken
                client.sock.recv(1 << 20)
            served.sweep(later)
        assert len(served.opened) == 1
        assert not served.answering.cancelled


def test_answers_to_a_client_that_does_not_read_do_not_heap_up(serve: Serve) -> None:
    """Such as one that asks for /metrics again and again."""
    served = serve(pipelined=100_000)
    with served.client() as client:
        client.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            for _ in range(500):
                client.send(request(b"GET", b"/a?n=100000"))
        served.until(lambda: served.opened)
        connection = next(iter(served.opened))
        served.until(lambda: connection.congested)
        assert connection._transport is not None
        assert served.loop.call(connection._transport.get_write_buffer_size) < 1_000_000
        assert len(served.answering.seen) < 200


def test_a_closed_connection_whose_client_takes_nothing_is_dropped(serve: Serve) -> None:
    served = serve(stalled_s=50.0, head_s=5.0)
    with served.client() as client:
        client.send(request(target=b"/a?n=40000000", headers=b"Connection: close\r\n"))
        served.until(lambda: served.answering.seen)
        served.sweep(10.0)
        served.sweep(20.0)
        assert len(served.opened) == 1
        served.sweep(120.0)
        served.until(lambda: not served.opened)


def test_too_many_connections_are_told_so(serve: Serve) -> None:
    served = serve(connections=2)
    with served.client() as one, served.client() as two:
        for client in (one, two):
            client.send(request())
            client.told()
        with served.client() as three:
            assert three.refused() == 503
        one.send(request())
        assert one.told()
    served.until(lambda: not served.opened)
    assert still_serves(served)


# the end


def test_draining_ends_idle_connections_and_answers_the_others(served: Served) -> None:
    with served.client() as idle, served.client() as waiting, served.client() as half:
        idle.send(request())
        idle.told()
        waiting.send(request(target=b"/wait"))
        half.send(request(target=b"/half")[:-3])
        served.until(lambda: len(served.answering.seen) == 2)
        served.until(lambda: sum(not each._idle_head for each in served.opened) == 1)
        served.loop.call(lambda: [each.drain() for each in list(served.opened)])
        assert idle.rest() == b""
        served.loop.call(served.answering.go_on.set)
        assert waiting.told()["target"] == "/wait"
        assert waiting.rest() == b""
        half.send(request(target=b"/half")[-3:])
        assert half.answer()[1]["connection"] == "close"
        assert half.rest() == b""
    served.until(lambda: not served.opened)


def test_what_was_sent_ahead_is_answered_in_the_draining(served: Served) -> None:
    with served.client() as client:
        client.send(request(target=b"/wait") + request(target=b"/ahead"))
        served.until(lambda: served.answering.seen)
        served.loop.call(lambda: [each.drain() for each in list(served.opened)])
        served.loop.call(served.answering.go_on.set)
        assert [client.told()["target"] for _ in range(2)] == ["/wait", "/ahead"]
        assert client.rest() == b""


def test_clients_are_separate(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        clients: list[Client] = [stack.enter_context(served.client()) for _ in range(20)]
        for n, client in enumerate(clients):
            client.send(request(target=b"/%d" % n)[: 5 + n])
        for n, client in enumerate(clients):
            client.send(request(target=b"/%d" % n)[5 + n :])
        assert [client.told()["target"] for client in clients] == [f"/{n}" for n in range(20)]
