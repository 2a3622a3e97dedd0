"""Load on a gateway: wrk in a closed loop, and a client of its own for fixed rates and streams.

The client sends at instants that were fixed beforehand, by a timer of the kernel, on whichever connection is
free, and measures from the instant that was due; so a server that falls behind cannot hide it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import re
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httptools
import numpy as np
import uvloop

from gateway_servers import MODEL, Running

PATH = "/v1/chat/completions"
_FILLER = "the river carries what the hills let go and the plain keeps what it likes of it "
_GRACE_S = 10.0
#: An event that brings text: the first one, which opens the message, brings none.
_TOKEN = re.compile(rb'"content": ?"[^"]')
_LUA = """\
local n = 0
local head, tail = %(head)s, %(tail)s
local headers = {%(headers)s}
function request() n = n + 1; return wrk.format("POST", "%(path)s", headers, head .. n .. tail) end
function done(summary, latency, requests)
  local e = summary.errors
  local form = '\\n{"requests": %%d, "seconds": %%f, "p50_ms": %%f, "p99_ms": %%f, '
    .. '"bad": %%d, "broken": %%d}\\n'
  io.write(form:format(
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Requests of which no two are alike: a number is put between the two parts of each."""

    salt: str
    # Characters of the prompt, about.
    size: int
    tokens: int = 16
    stream: bool = False

    def parts(self, model: str = MODEL) -> tuple[str, str]:
        """The body before and after the number."""
        filler = (_FILLER * (self.size // len(_FILLER) + 1))[: self.size]
        streamed = ',"stream":true,"stream_options":{"include_usage":true}' if self.stream else ""
        start = f'{{"model":"{model}","max_tokens":{self.tokens},"messages":'
        before = start + '[{"role":"user","content":"Question '
        after = f' of {self.salt}: {filler} words:{self.tokens}"}}]{streamed}}}'
        return before, after

    def body(self, number: int) -> bytes:
        """One body."""
        before, after = self.parts()
        return f"{before}{number}{after}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    # Answers that are not 2xx or 3xx, and failures of connections.
    bad: int
    broken: int

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def closed_loop(server: Running, prompts: Prompts, connections: int, seconds: float, folder: Path) -> Closed:
    """wrk with one thread."""
    before, after = prompts.parts(server.launch.model)
    headers = {"Content-Type": "application/json", **dict(server.launch.headers)}
    script = folder / "load.lua"
    script.write_text(
        _LUA
        % {
            "head": json.dumps(before), "tail": json.dumps(after), "path": PATH,
            "headers": ", ".join(f'["{name}"] = "{value}"' for name, value in headers.items()),
        }
    )  # fmt: skip
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script)]
    argv.append(f"http://127.0.0.1:{server.port}")
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return Closed(**json.loads(printed.strip().splitlines()[-1]))


@dataclass(slots=True, kw_only=True)
class Sent:
    """One request of the client: due, first token and end, in seconds of the monotonic clock."""

    due: float
    first: float = 0.0
    end: float = 0.0
    status: int = 0
    events: int = 0
    whole: bool = False


@dataclass(slots=True, kw_only=True)
class Seen:
    """All requests of a run."""

    sent: list[Sent] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Requests without a whole answer of status 200."""
        return sum(not (each.whole and each.status == 200) for each in self.sent)

    def ms(self, percent: float, *, first: bool = False) -> float:
        """A percentile of the time until the end, or the first token; lost requests are endless."""
        times = [
            ((each.first if first else each.end) - each.due) * 1e3 if each.whole else np.inf
            for each in self.sent
        ]
        return float(np.percentile(times, percent, method="higher"))


class _Wire(asyncio.Protocol):
    """One connection of the client: a request at a time."""

    def __init__(self, ended: Callable[[_Wire], None], *, streams: bool) -> None:
        self._ended, self._parser = ended, httptools.HttpResponseParser(self)
        self._streams = streams
        self.current: Sent | None = None
        self.usable = True
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, data: bytes, sent: Sent) -> None:
        self.current = sent
        self.transport.write(data)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        sent = self.current
        if sent is not None:
            if not sent.first and (not self._streams or _TOKEN.search(body)):
                sent.first = time.monotonic()
            sent.events += body.count(b"data: ")

    def on_message_complete(self) -> None:
        sent, self.current = self.current, None
        if sent is not None:
            sent.end, sent.status, sent.whole = time.monotonic(), self._parser.get_status_code(), True
        self.usable = self._parser.should_keep_alive()
        if not self.usable:
            self.transport.close()  # type: ignore[union-attr]
        self._ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        lost, self.current, self.usable = self.current, None, False
        if lost is not None:
            self._ended(self)


class _Client:
    """Connections, opened as they are needed."""

    def __init__(self, server: Running, prompts: Prompts, most: int) -> None:
        self._server, self._most, self._streams = server, most, prompts.stream
        self._before, self._after = (part.encode() for part in prompts.parts(server.launch.model))
        lines = "".join(f"{name}: {value}\r\n" for name, value in server.launch.headers)
        self._head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{lines}"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._idle: list[_Wire] = []
        self._waiting: deque[tuple[bytes, Sent]] = deque()
        self._opened = self._answered = 0
        self._opening: set[asyncio.Task[None]] = set()
        self.seen = Seen()
        self.free: Callable[[], None] = lambda: None

    def begin(self, due: float) -> None:
        """Send one more request, now or as soon as a connection is free."""
        sent = Sent(due=due)
        self.seen.sent.append(sent)
        body = b"%b%d%b" % (self._before, len(self.seen.sent), self._after)
        data = b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
        while self._idle:
            wire = self._idle.pop()
            if wire.usable:
                wire.send(data, sent)
                return
            self._opened -= 1
        self._waiting.append((data, sent))
        self._open_more()

    def _open_more(self) -> None:
        """Another connection, where one is needed and allowed."""
        if self._opened < self._most:
            self._opened += 1
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def open(self, count: int) -> None:
        """Open connections before they are needed."""
        self._opened += count
        for _ in range(count):
            await self._open()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, wire = await loop.create_connection(
                lambda: _Wire(self._ended, streams=self._streams), "127.0.0.1", self._server.port
            )
        except OSError:
            self._opened -= 1
            return
        self._next(wire)

    def _ended(self, wire: _Wire) -> None:
        self._answered += 1
        self._next(wire)
        self.free()

    def _next(self, wire: _Wire) -> None:
        if not wire.usable:
            self._opened -= 1
            if self._waiting:
                self._open_more()
        elif self._waiting:
            wire.send(*self._waiting.popleft())
        else:
            self._idle.append(wire)

    async def settle(self) -> None:
        """Wait for what is under way, for a limited time."""
        deadline = time.monotonic() + _GRACE_S
        while self._answered < len(self.seen.sent) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for wire in self._idle:
            if wire.transport is not None:
                wire.transport.close()
        await asyncio.sleep(0.05)


def open_loop(server: Running, prompts: Prompts, per_s: float, seconds: float, most: int = 512) -> Seen:
    """Requests at a fixed rate."""

    async def run() -> Seen:
        client = _Client(server, prompts, most)
        await client.open(32)
        begun = time.monotonic() + 0.05
        count, done = int(per_s * seconds), asyncio.Event()
        timer = _timer(begun, 1 / per_s)
        loop = asyncio.get_running_loop()

        def due() -> None:
            for _ in range(int.from_bytes(os.read(timer, 8), "little")):
                number = len(client.seen.sent)
                if number < count:
                    client.begin(begun + number / per_s)
            if len(client.seen.sent) >= count:
                done.set()

        loop.add_reader(timer, due)
        await done.wait()
        loop.remove_reader(timer)
        os.close(timer)
        await client.settle()
        client.seen.seconds = seconds
        return client.seen

    return _run(run)


def streams(server: Running, prompts: Prompts, concurrent: int, seconds: float) -> Seen:
    """So many streams at a time, each one followed by the next."""

    async def run() -> Seen:
        client = _Client(server, prompts, concurrent)
        await client.open(concurrent)
        begun = time.monotonic()
        until = begun + seconds

        def follow() -> None:
            if time.monotonic() < until:
                client.begin(time.monotonic())

        client.free = follow
        for number in range(concurrent):
            asyncio.get_running_loop().call_later(0.3 * number / concurrent, follow)
        await asyncio.sleep(seconds)
        await client.settle()
        client.seen.seconds = max(each.end for each in client.seen.sent) - begun
        return client.seen

    return _run(run)


def _run(run: Callable[[], object]) -> Seen:
    gc.collect()
    gc.disable()
    try:
        return uvloop.run(run())  # type: ignore[arg-type, no-any-return]
    finally:
        gc.enable()


class _Times(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


def _timer(first: float, every: float) -> int:
    """A timer of the kernel (timerfd) on the monotonic clock: its descriptor counts what is due."""
    system = ctypes.CDLL(None, use_errno=True)
    timer = system.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    times = _Times(
        every_s=int(every), every_ns=int(every % 1 * 1e9), first_s=int(first), first_ns=int(first % 1 * 1e9)
    )
    if timer < 0 or system.timerfd_settime(timer, 1, ctypes.byref(times), None) < 0:
        raise OSError(ctypes.get_errno(), "timerfd cannot be had")
    return int(timer)
