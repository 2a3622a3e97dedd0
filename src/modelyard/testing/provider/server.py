"""The provider itself: its listener, its script and ledger, and the questions that a test asks of it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from modelyard.core.errors import DocumentError
from modelyard.core.faults import Faults, Section
from modelyard.testing.provider.answers import answer
from modelyard.testing.provider.asked import Asked, Refusal, listing, read_request
from modelyard.testing.provider.connection import Connection, Exchange, Received, line_of
from modelyard.testing.provider.faults import FAULTS, Scene
from modelyard.testing.provider.ledger import Ledger
from modelyard.testing.provider.plans import Plan, error_body, plain, refuse, whole
from modelyard.testing.provider.script import Rule, Script, read_script

_BACKLOG = 4096
_MODELS_PATH = "/v1/models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How the provider behaves beside its script."""

    # The models that are served; any where none is named.
    models: tuple[str, ...] = ()
    # The words of an answer, where a request does not say.
    words: int = 16
    # The key that a request must have; any will do where it is empty.
    api_key: str = ""
    # How many of the latest requests are kept for a test to look at, with headers and body.
    recorded: int = 0


@dataclass(slots=True, kw_only=True)
class Stats:
    """What the provider has seen."""

    requests: int = 0
    connections: int = 0
    connections_refused: int = 0
    cancelled_requests: int = 0
    cancelled_streams: int = 0
    unreadable_requests: int = 0
    open: set[Connection] = field(default_factory=set)


class Provider:
    """The host of all connections. One event loop, one thread."""

    def __init__(self, conduct: Conduct, script: Script, ledger: Ledger) -> None:
        self._conduct, self._script, self._ledger = conduct, script, ledger
        self._stats = Stats()
        self._recent: deque[dict[str, Any]] = deque(maxlen=conduct.recorded)
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._closed_for_a_time: asyncio.Task[None] | None = None
        self._wanted = f"Bearer {conduct.api_key}".encode()

    # listening

    async def listen(self, port: int) -> int:
        """Listen on the loopback; the port, which is a free one where 0 is given."""
        bound = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), sock=bound, backlog=_BACKLOG)
        self._port = int(bound.getsockname()[1])
        return self._port

    async def listen_for_control(self) -> int:
        """A second port, for questions and new scripts only, which no fault closes."""
        bound = socket.create_server(("127.0.0.1", 0))
        await asyncio.get_running_loop().create_server(lambda: Connection(_Control(self)), sock=bound)
        return int(bound.getsockname()[1])

    async def _refuse_for(self, seconds: float) -> None:
        """Close the listener and every connection, and listen again after a time."""
        assert self._listener is not None
        self._listener.close()
        for connection in tuple(self._stats.open):
            connection.reset()
        await asyncio.sleep(seconds)
        await self.listen(self._port)

    # what a connection asks of its host

    def opened(self, connection: Connection) -> None:
        """Count a connection, and let it meet the script."""
        self._stats.connections += 1
        self._stats.open.add(connection)
        rule = self._script.at_accept(time.monotonic())
        if rule is None:
            return
        self._stats.connections_refused += 1
        connection.reset()
        if rule.fault == "refuse":
            closing = self._refuse_for(rule.given["for_s"])
            self._closed_for_a_time = asyncio.get_running_loop().create_task(closing)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._stats.open.discard(connection)

    def exchange(self, received: Received) -> Exchange:
        """Read a request and plan its answer."""
        if received.target.startswith("/_"):
            return Exchange(plan=self.told(received))
        if received.target == "/health":
            return Exchange(plan=whole(200, b"{}"))
        self._stats.requests += 1
        if self._conduct.recorded:
            self._record(received)
        asked = self._read(received)
        if isinstance(asked, Refusal):
            self._stats.unreadable_requests += 1
            return Exchange(plan=refuse(asked))
        made = answer(asked, words=self._conduct.words, models=self._conduct.models)
        rule = self._script.at_request(asked, time.monotonic())
        if rule is None:
            return Exchange(plan=plain(made), asked=asked)
        scene = Scene(made=made, given=rule.given, now_s=time.time())
        return Exchange(plan=FAULTS[rule.fault].plan(scene), asked=asked, fault=rule.fault)

    def settle(self, exchange: Exchange, *, gone: bool) -> None:
        """Bill a request, unless that is done."""
        if exchange.settled:
            return
        exchange.settled = True
        if gone:
            self._stats.cancelled_requests += 1
            self._stats.cancelled_streams += exchange.asked is not None and exchange.asked.stream
        if exchange.asked is not None:
            self._ledger.note(line_of(exchange, gone=gone, now_s=time.time()))

    def stop(self) -> None:
        """Bill what is under way, and write everything down."""
        for connection in self._stats.open:
            if connection.current is not None:
                self.settle(connection.current, gone=False)
        self._ledger.flush()

    # reading requests

    def _read(self, received: Received) -> Asked | Refusal:
        if self._conduct.api_key and received.headers.get(b"authorization") != self._wanted:
            return Refusal(status=401, message="Incorrect API key provided.", code="invalid_api_key")
        path = received.target.partition("?")[0]
        if received.method == "GET" and (path == _MODELS_PATH or path.startswith(_MODELS_PATH + "/")):
            return self._read_listing(path.removeprefix(_MODELS_PATH).removeprefix("/"), received)
        if received.method != "POST":
            return Refusal(status=405, message=f"Not allowed to {received.method} on {path}.")
        return read_request(path, received.body, received.headers, self._conduct.models)

    def _read_listing(self, model: str, received: Received) -> Asked | Refusal:
        if model and model not in self._conduct.models:
            return Refusal(status=404, message=f"The model `{model}` does not exist.", code="model_not_found")
        return listing(model, received.headers)

    def _record(self, received: Received) -> None:
        self._recent.append({
            "method": received.method, "target": received.target,
            "headers": {k.decode("latin-1"): v.decode("latin-1") for k, v in received.headers.items()},
            "body": received.body.decode("utf-8", "replace"),
        })  # fmt: skip

    # questions of a test

    def told(self, received: Received) -> Plan:
        """The answer to a question of a test, or to a new script."""
        asked = (received.method, received.target)
        if asked == ("POST", "/_script"):
            return self._new_script(received.body)
        known = {
            "/_ledger": self._ledger.totals, "/_stats": self._told_stats,
            "/_requests": lambda: list(self._recent), "/_script": self._script.taken,
        }  # fmt: skip
        if received.method != "GET" or received.target not in known:
            return refuse(Refusal(status=404, message=f"There is no {' '.join(asked)}."))
        return whole(200, orjson.dumps(known[received.target]()))

    def _new_script(self, body: bytes) -> Plan:
        try:
            self._script = Script(script_of(body))
        except DocumentError as error:
            return whole(400, error_body(Refusal(status=400, message=str(error))))
        return whole(200, b"{}")

    def _told_stats(self) -> dict[str, int]:
        """The counts, and the requests under way."""
        counts = ("requests", "connections", "connections_refused", "cancelled_requests")
        more = ("cancelled_streams", "unreadable_requests")
        under_way = sum(connection.current is not None for connection in self._stats.open)
        told = {name: getattr(self._stats, name) for name in (*counts, *more)}
        return {**told, "connections_open": len(self._stats.open), "under_way": under_way}


class _Control:
    """The host of the connections on the second port: questions only, not counted."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def opened(self, connection: Connection) -> None:
        """Nothing."""

    def closed(self, connection: Connection) -> None:
        """Nothing."""

    def exchange(self, received: Received) -> Exchange:
        """The answer to a question."""
        return Exchange(plan=self._provider.told(received))

    def settle(self, exchange: Exchange, *, gone: bool) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


def script_of(data: bytes, place: str = "script") -> tuple[Rule, ...]:
    """The rules of a script's text. Raises `DocumentError` with all its faults."""
    faults = Faults(file=place)
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        faults.add("", None, f"is not JSON ({error})", "correct it there")
        document = {}
    rules = read_script(Section(document, faults=faults))
    faults.raise_if_any()
    return rules
