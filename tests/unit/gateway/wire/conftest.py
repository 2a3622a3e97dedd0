"""Servers of the wire in a thread of their own, and clients that write bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from modelyard.gateway.wire.inbound import ClientConnection, Handler, Inbound, connection_factory
from modelyard.gateway.wire.settings import WireLimits

#: Far more than anything here takes.
PATIENCE_S = 15.0


@dataclass
class Loop:
    """An event loop in a thread."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread

    def run(self, task: Coroutine[Any, Any, Any]) -> Any:
        """Run it there, and give what it gave."""
        return asyncio.run_coroutine_threadsafe(task, self.loop).result(PATIENCE_S)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it there."""

        async def called() -> Any:
            return function(*arguments)

        return self.run(called())


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = uvloop.new_event_loop()
    thread = threading.Thread(target=made.run_forever, daemon=True)
    thread.start()
    found = Loop(made, thread)
    yield found
    found.run(_cancelled())
    made.call_soon_threadsafe(made.stop)
    thread.join(PATIENCE_S)
    made.close()


async def _cancelled() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0.02)  # transports end after their tasks


@dataclass
class Answering:
    """A handler that tells what it was asked, and what became of it."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    written: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, inbound: Inbound) -> None:
        self.seen.append(
            {
                "method": inbound.method.decode(),
                "target": inbound.target.decode("latin-1"),
                "headers": {k.decode("latin-1"): v.decode("latin-1") for k, v in inbound.headers.items()},
                "body": inbound.body.decode("latin-1"),
            }
        )
        path = inbound.target.partition(b"?")[0]
        try:
            if path == b"/wait":
                await self.go_on.wait()
            if path in (b"/stream", b"/cut"):
                inbound.begin(200, b"content-type: text/plain\r\n")
                for part in (b"one ", b"two ", b"three"):
                    inbound.write(part)
                inbound.finish() if path == b"/stream" else inbound.cut()
                return
            if path == b"/flood":
                await self._flood(inbound)
                return
            size = int(inbound.target.partition(b"?n=")[2] or 0)
            inbound.respond(200, b"", b"x" * size if size else json.dumps(self.seen[-1]).encode())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _flood(self, inbound: Inbound) -> None:
        inbound.begin(200, b"")
        while True:
            inbound.write(b"x" * 65_536)
            self.written += 65_536
            await inbound.taken()
            await asyncio.sleep(0)


@dataclass
class Served:
    """A server that answers."""

    port: int
    loop: Loop
    answering: Answering = field(repr=False)
    opened: set[ClientConnection] = field(repr=False)

    def client(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S))

    def sweep(self, seconds: float = 0.0) -> None:
        """What the worker does every now and then, as if it were so much later."""
        self.loop.call(lambda: [each.sweep(time.monotonic() + seconds) for each in list(self.opened)])

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.loop.call(condition):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.005)


class Client:
    """A connection that is written and read as bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._got = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.sock.sendall(part)

    def answer(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body."""
        while b"\r\n\r\n" not in self._got:
            self._more()
        first, _, self._got = self._got.partition(b"\r\n\r\n")
        line, *lines = first.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            body = self._chunks()
        elif not head and int(line.split()[1]) >= 200:
            body = self._exactly(int(headers["content-length"]))
        return int(line.split()[1]), headers, body

    def told(self) -> dict[str, Any]:
        """What the server's handler was asked."""
        status, _, body = self.answer()
        assert status == 200, body
        return dict(json.loads(body))

    def rest(self) -> bytes:
        """All that still comes until the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            while part := self.sock.recv(1 << 16):
                self._got += part
        got, self._got = self._got, b""
        return got

    def refused(self) -> int:
        """The status of an error that is whole, after which the connection ends."""
        status, headers, body = self.answer()
        assert headers["connection"] == "close"
        assert json.loads(body)["error"]["message"]
        assert self.rest() == b""
        return status

    def _more(self) -> None:
        part = self.sock.recv(1 << 16)
        if not part:
            raise EOFError(self._got)
        self._got += part

    def _exactly(self, size: int) -> bytes:
        while len(self._got) < size:
            self._more()
        body, self._got = self._got[:size], self._got[size:]
        return body

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._got:
                self._more()
            size, _, self._got = self._got.partition(b"\r\n")
            part = self._exactly(int(size, 16) + 2)[:-2]
            if not part:
                return body
            body += part


@pytest.fixture
def serve(loop: Loop) -> Iterator[Callable[..., Served]]:
    """Starts servers with these limits."""
    servers: list[tuple[asyncio.Server, set[ClientConnection]]] = []

    def start(handler: Handler | None = None, **limits: Any) -> Served:
        answering = loop.call(Answering)
        opened: set[ClientConnection] = set()
        factory = connection_factory(handler or answering, WireLimits(**limits), opened, time.monotonic)
        server = loop.run(loop.loop.create_server(factory, "127.0.0.1", 0))
        servers.append((server, opened))
        return Served(server.sockets[0].getsockname()[1], loop, answering, opened)

    yield start
    for server, opened in servers:
        loop.call(server.close)
        loop.run(_ended(opened))


async def _ended(opened: set[ClientConnection]) -> None:
    for connection in list(opened):
        if connection._transport is not None:
            connection._transport.abort()
    while opened:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()
