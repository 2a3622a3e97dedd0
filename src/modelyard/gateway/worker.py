"""One worker: an event loop that answers requests until it is told to stop, or its supervisor has gone."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.core.errors import ModelyardError
from modelyard.gateway.accounts.journal import RequestJournal
from modelyard.gateway.accounts.key_ring import KeyRing
from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.limiter import Limiter
from modelyard.gateway.accounts.limits import LimitStore
from modelyard.gateway.books import Books
from modelyard.gateway.config import GatewayConfig
from modelyard.gateway.control import (
    DRAIN,
    READY,
    REFUSED,
    RELOAD,
    RELOADED,
    WorkerSpec,
    line,
    open_limits,
    read_line,
)
from modelyard.gateway.exchanges.attempt import Waiting
from modelyard.gateway.exchanges.choosing import Chooser
from modelyard.gateway.exchanges.spent import packaged_counter
from modelyard.gateway.exchanges.ticket import Serving
from modelyard.gateway.health import RetryBudget
from modelyard.gateway.metrics import Metrics
from modelyard.gateway.service import Service
from modelyard.gateway.upstreams import Upstreams
from modelyard.gateway.wire.inbound import ClientConnection, connection_factory
from modelyard.gateway.wire.settings import WireLimits
from modelyard.routing.router import Router

if TYPE_CHECKING:
    from modelyard.gateway.traces import Traces

#: How often answers are looked at whose time may be over, and everything else.
_SWEEP_S = 0.1
_TICK_S = 0.5
#: Objects that are made before the collector of garbage looks for circles: requests make none.
_GARBAGE_THRESHOLD = 50_000


@dataclass(slots=True, kw_only=True)
class Worker:
    """See the module."""

    name: str
    spec: WorkerSpec
    environment: Mapping[str, str]
    service: Service
    limits: LimitStore
    connections: set[ClientConnection] = field(default_factory=set)
    wire: WireLimits = WireLimits()
    _ending: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, listening: socket.socket, control: socket.socket) -> None:
        """Serve until told to stop; then finish what is under way."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._ending.set)
        loop.add_signal_handler(
            signal.SIGINT, lambda: None
        )  # it came to the whole group: the supervisor decides
        reader, writer = await asyncio.open_connection(sock=control)
        factory = connection_factory(self.service.handle, self.wire, self.connections, self.service.clock)
        server = await loop.create_server(factory, sock=listening, ssl=_tls(self.spec), backlog=2048)
        beats = [
            asyncio.create_task(_every(_SWEEP_S, self._sweep, self.service.log)),
            asyncio.create_task(_every(_TICK_S, self._tick, self.service.log)),
            asyncio.create_task(self._listen(reader, writer)),
        ]
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE_THRESHOLD, 20, 100)
        writer.write(line(READY))
        await self._ending.wait()
        server.close()
        await self._drain()
        for beat in beats:
            beat.cancel()
        await asyncio.gather(*beats, return_exceptions=True)
        await self._end()

    # -- beats -------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        self.service.waiting.sweep(self.service.clock())

    async def _tick(self) -> None:
        service, now = self.service, self.service.clock()
        for connection in list(self.connections):
            connection.sweep(now)
        for upstream in service.serving.upstreams.all():
            upstream.connections.sweep()
        service.ring.refresh()
        await service.books.limiter.tick()
        gauges = service.books.metrics.gauges
        gauges["connections"], gauges["requests_in_flight"] = len(self.connections), service.in_flight
        gauges["upstreams_open"] = sum(not u.breaker.allows(now) for u in service.serving.upstreams.all())
        service.books.metrics.write(service.folder, self.name)
        await asyncio.to_thread(service.books.journal.sync)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what the supervisor says; without it, end."""
        with suppress(ConnectionError):
            while data := await reader.readline():
                message = read_line(data)
                if message.get("say") == DRAIN:
                    break
                if message.get("say") == RELOAD:
                    try:
                        await self._reload(Path(message["spec"]))
                        writer.write(line(RELOADED, number=message["number"]))
                    except (ModelyardError, OSError, KeyError, TypeError) as error:
                        writer.write(line(REFUSED, number=message["number"], why=str(error)))
        self._ending.set()

    async def _reload(self, path: Path) -> None:
        """Serve what comes from now on by a new configuration; what is under way goes on by the old one."""
        spec, before = WorkerSpec.read(path), self.service.serving
        router = await asyncio.to_thread(_router, spec.config)
        serving = _serving(spec.config, router, self.environment, before)
        self.service.serving, self.service.keys_required = serving, spec.keys_required
        before.upstreams.close_others(serving.upstreams)

    # -- the end -----------------------------------------------------------------------------

    async def _drain(self) -> None:
        self.service.draining = True
        until = self.service.clock() + self.service.serving.config.drain_s
        for connection in list(self.connections):
            connection.drain()
        while self.connections and self.service.clock() < until:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)

    async def _end(self) -> None:
        books = self.service.books
        try:
            await books.limiter.close()
            await self.limits.close()
        except ModelyardError as error:
            self.service.log(f"limits: {error}")
        if books.traces is not None:
            await asyncio.to_thread(books.traces.close)
        books.metrics.gauges.clear()
        books.metrics.write(self.service.folder, self.name)
        books.journal.sync()
        books.journal.close()
        for upstream in self.service.serving.upstreams.all():
            upstream.connections.close()


def make_worker(
    name: str, spec: WorkerSpec, environment: Mapping[str, str], log: Callable[[str], None]
) -> Worker:
    """A worker with all that it needs, within a running event loop.

    Raises:
        ModelyardError: Something that it needs is missing.
    """
    limits = open_limits(spec.folder, spec.redis)
    service = Service(
        serving=_serving(spec.config, _router(spec.config), environment, None),
        ring=KeyRing(KeyStore(spec.folder)),
        keys_required=spec.keys_required,
        books=Books(
            worker=name,
            journal=RequestJournal(spec.folder, name),
            limiter=Limiter(limits, name),
            metrics=Metrics(),
            count=packaged_counter(),
            traces=_traces(spec, name),
        ),
        waiting=Waiting(),
        clock=time.monotonic,  # the loop's own counts whole milliseconds
        folder=spec.folder,
        log=log,
    )
    return Worker(name=name, spec=spec, environment=environment, service=service, limits=limits)


def _serving(
    config: GatewayConfig, router: Router | None, environment: Mapping[str, str], before: Serving | None
) -> Serving:
    patience = config.patience
    retries = RetryBudget(share=patience.retry_share, per_s=patience.retries_per_s)
    return Serving(
        config=config,
        chooser=Chooser(config, router),
        upstreams=Upstreams.of(config, environment, None if before is None else before.upstreams),
        retries=retries if before is None or before.config.patience != patience else before.retries,
    )


def _router(config: GatewayConfig) -> Router | None:
    return None if config.router is None else Router.load(Path(config.router))


def _traces(spec: WorkerSpec, name: str) -> Traces | None:
    if spec.traces is None:
        return None
    from modelyard.gateway.traces import Traces

    return Traces.over_http(spec.traces, name)


def _tls(spec: WorkerSpec) -> ssl.SSLContext | None:
    if spec.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(spec.certificate, spec.certificate_key)
    return context


async def _every(seconds: float, beat: Callable[[], Awaitable[None]], log: Callable[[str], None]) -> None:
    """Do something again and again; a beat that fails is told, and the next one comes."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await beat()
        except (ModelyardError, OSError) as error:
            log(f"gateway: {error}")
