"""A client's connection: requests are read with httptools, and answered one after the other by their plans.

What a plan is comes from `faults` and `plans`; here it is only carried out. A client that goes away ends
the plan, and what was generated until then is billed.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol, cast

import httptools

from modelyard.testing.provider.asked import Asked, Refusal
from modelyard.testing.provider.faults import KILLED
from modelyard.testing.provider.plans import End, Plan, Send, Wait, refuse

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MOST_WAITING = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One whole request."""

    method: str
    target: str
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A request that is being answered, and what has been generated for it."""

    plan: Plan
    asked: Asked | None = None
    fault: str = ""
    tokens: int = 0
    begun: bool = False
    settled: bool = False


class Host(Protocol):
    """What a connection needs of its server."""

    def opened(self, connection: Connection) -> None:
        """A client has connected; the host may close the connection at once."""

    def closed(self, connection: Connection) -> None:
        """A client is gone."""

    def exchange(self, received: Received) -> Exchange:
        """How a request is to be answered."""
        ...

    def settle(self, exchange: Exchange, *, gone: bool) -> None:
        """A request is about to be wholly answered, or its client is `gone`: bill it, once."""

    def stop(self) -> None:
        """Write down what is held: the process is about to die."""


class Connection(asyncio.Protocol):
    """The protocol of one connection."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._transport = cast("asyncio.Transport", None)
        self._parser = cast("httptools.HttpRequestParser", None)
        self._target, self._body = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._waiting: deque[Received] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._served = 0
        #: The exchange that is under way.
        self.current: Exchange | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._writable.set()
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._transport.close()
        except httptools.HttpParserError as error:
            plan = refuse(Refusal(status=400, message=f"This is not HTTP: {error}"))
            self._transport.write(cast("Send", plan.steps[0]).data)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
        self._host.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # httptools' side

    def on_message_begin(self) -> None:
        self._target, self._body, self._headers = b"", b"", {}

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if b"expect" in self._headers:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        received = Received(
            method=self._parser.get_method().decode(), target=self._target.decode("latin-1"),
            headers=self._headers, body=self._body, keep_alive=self._parser.should_keep_alive(),
        )  # fmt: skip
        if self._task is None:
            self._answer(received)
        elif len(self._waiting) < _MOST_WAITING:
            self._waiting.append(received)
        else:
            self.reset()

    # answering

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        connected: socket.socket | None = self._transport.get_extra_info("socket")
        if connected is not None and not self._transport.is_closing():
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _answer(self, received: Received) -> None:
        """Answer at once where that takes one write; else in a task, so that the client's leaving is seen."""
        if self._transport.is_closing():
            return
        self._served += 1
        exchange = self._host.exchange(received)
        steps = exchange.plan.steps
        if len(steps) == 1 and isinstance(steps[0], Send) and self._writable.is_set():
            self._send(exchange, steps[0], last=True)
            self._finish(exchange, keep_alive=received.keep_alive)
            return
        self.current = exchange
        self._task = asyncio.get_running_loop().create_task(self._perform(exchange, received))

    def _send(self, exchange: Exchange, step: Send, *, last: bool) -> None:
        """Write; billed before the last write, so that whoever has the answer finds it in the ledger."""
        exchange.tokens += step.tokens
        exchange.begun = True
        if last:
            self._host.settle(exchange, gone=False)
        self._transport.write(step.data)

    async def _perform(self, exchange: Exchange, received: Received) -> None:
        """The steps of a plan, one by one; each write is a write of its own on the wire."""
        plan = exchange.plan
        try:
            for number, step in enumerate(plan.steps):
                if isinstance(step, Wait):
                    await _pause(step.seconds)
                    continue
                if number:
                    await self._written()
                self._send(exchange, step, last=number == len(plan.steps) - 1)
            if plan.end in (End.RESET, End.EXIT):
                await self._written()
        except asyncio.CancelledError:
            self._host.settle(exchange, gone=True)
            return
        finally:
            self.current = self._task = None
        self._finish(exchange, keep_alive=received.keep_alive)
        while self._waiting and self._task is None:
            self._answer(self._waiting.popleft())

    async def _written(self) -> None:
        """Until what was sent has gone to the kernel, and the client reads fast enough."""
        await asyncio.sleep(0)
        await self._writable.wait()

    def _finish(self, exchange: Exchange, *, keep_alive: bool) -> None:
        self._host.settle(exchange, gone=False)
        plan = exchange.plan
        if plan.end is End.EXIT:
            self._host.stop()
            os._exit(KILLED)
        elif plan.end is End.RESET:
            self.reset()
        elif plan.end is End.CLOSE or not keep_alive:
            self._transport.close()
        elif plan.idle_s is not None:
            asyncio.get_running_loop().call_later(plan.idle_s, self._close_idle, self._served)

    def _close_idle(self, served: int) -> None:
        """Close if no request came since."""
        if self._served == served:
            self._transport.close()


async def _pause(seconds: float) -> None:
    """Wait; for ever where the time is infinite."""
    if math.isinf(seconds):
        await asyncio.get_running_loop().create_future()
    elif seconds > 0:
        await asyncio.sleep(seconds)


def line_of(exchange: Exchange, *, gone: bool, now_s: float) -> dict[str, Any]:
    """A request's line in the ledger."""
    asked, plan = exchange.asked, exchange.plan
    assert asked is not None
    billed = plan.billed and exchange.begun
    return {
        "time": now_s, "id": asked.request_id, "idempotency_key": asked.idempotency_key,
        "endpoint": asked.endpoint, "model": asked.model, "status": plan.status, "stream": asked.stream,
        "billed": billed, "prompt_tokens": asked.prompt_tokens if billed else 0,
        "completion_tokens": exchange.tokens if billed else 0, "client_gone": gone, "fault": exchange.fault,
    }  # fmt: skip
