"""Starts the workers of a gateway and keeps them: a dead one is replaced, a changed file is served.

It answers no request itself. The listening sockets are its own, so that what has connected to a worker that
died waits for the next one; and it folds what the workers journal into the ledger.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelyard.core.errors import GatewayError, ModelyardError
from modelyard.core.locks import held
from modelyard.gateway.config import GatewayConfig
from modelyard.gateway.control import (
    CONTROL_VARIABLE,
    DRAIN,
    LISTEN_VARIABLE,
    READY,
    REFUSED,
    RELOAD,
    RELOADED,
    WorkerSpec,
    line,
    new_name,
    read_line,
)
from modelyard.gateway.metrics import forget

#: What workers begin with; and what they are asked to serve next, which takes its place when one does.
SPEC, NEXT = "worker.json", "worker-next.json"
_LOCK = "gateway.lock"
_BACKLOG = 2048
#: How often files are looked at, and journals folded.
_WATCH_S, _FOLD_S = 0.5, 1.0
#: A worker that dies sooner than this is not replaced at once.
_YOUNG_S, _PAUSE_S = 2.0, 1.0
#: How long the first workers may take to be ready.
_START_S = 60.0

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True, kw_only=True)
class _Child:
    """A worker's process and the line to it."""

    name: str
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    # Of the configuration that it began with.
    number: int
    ready: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a supervisor keeps running."""

    # The configuration as its files say now. Raises `ModelyardError` where they cannot be served.
    load: Callable[[], GatewayConfig]
    # Files of a configuration, whose change is a wish to serve them.
    watched: Callable[[GatewayConfig], Sequence[Path]]
    spec: WorkerSpec
    workers: int
    # Folds journals into the ledger, and clears up after dead workers; called in a thread.
    fold: Callable[[], object]


class Supervisor:
    """See the module."""

    def __init__(self, running: Running, listening: Sequence[socket.socket], tell: Tell) -> None:
        self._running, self._listening, self._tell = running, listening, tell
        self._spec = running.spec
        self._children: dict[int, _Child] = {}
        self._stopping = asyncio.Event()
        # The newest configuration and its number, until workers have taken it or refused it.
        self._next: tuple[int, WorkerSpec] | None = None
        self._number = self._asked = 0
        self._reloading = asyncio.Lock()
        self._signals = 0
        self._told_ready = False

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            GatewayError: The workers do not begin, or another gateway uses this folder.
        """
        folder = self._spec.folder
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with held(folder / _LOCK):
                forget(folder)
                await asyncio.to_thread(self._running.fold)  # what dead workers leased is free again
                self._spec.write(folder / SPEC)
                await self._kept()
        except BlockingIOError as error:
            raise GatewayError(
                f"{folder}: another gateway uses it; end that one, or give another --yard"
            ) from error

    async def _kept(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self._reload()))
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self._running.workers)]
        beats = [asyncio.create_task(self._watch()), asyncio.create_task(self._fold())]
        try:
            await self._begun(keepers)
            await self._stopping.wait()
        finally:
            self._stopping.set()
            for child in self._children.values():
                child.writer.write(line(DRAIN))
            await self._ended(keepers)
            for beat in beats:
                beat.cancel()
            await asyncio.gather(*beats, return_exceptions=True)
            await asyncio.to_thread(self._running.fold)

    def _stop(self) -> None:
        """The first signal drains; the second ends at once."""
        self._signals += 1
        self._stopping.set()
        for listening in self._listening:
            listening.close()
        if self._signals > 1:
            for child in self._children.values():
                child.process.kill()

    async def _begun(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Wait until all workers are ready for the first time. Raises `GatewayError`."""
        until = asyncio.get_running_loop().time() + _START_S
        while asyncio.get_running_loop().time() < until and not self._stopping.is_set():
            children = [self._children.get(number) for number in range(self._running.workers)]
            if all(child is not None and child.ready.is_set() for child in children):
                self._tell({"event": "ready", "workers": self._running.workers})
                self._told_ready = True
                return
            for keeper in keepers:
                if keeper.done():
                    keeper.result()
            await asyncio.sleep(0.01)
        if not self._stopping.is_set():
            raise GatewayError(f"the workers were not ready within {_START_S:g} s; see what they say")

    async def _ended(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Wait for the workers to finish what they have, and end those that do not."""
        _, late = await asyncio.wait(keepers, timeout=self._spec.config.drain_s + 5.0)
        for child in self._children.values():
            if child.process.returncode is None:
                child.process.kill()
        if late:
            await asyncio.wait(late)

    async def _keep(self, number: int) -> None:
        """Run one worker, and another when it dies. Raises `GatewayError` if the first does not begin."""
        loop, first = asyncio.get_running_loop(), True
        while not self._stopping.is_set():
            begun = loop.time()
            child = await self._start(number)
            self._children[number] = child
            await self._hear(child)
            status = await child.process.wait()
            if self._stopping.is_set():
                return
            if first and not child.ready.is_set():
                raise GatewayError(
                    f"a worker ended with status {status} before it was ready; see what it says"
                )
            first = False
            self._tell({"event": "worker_died", "worker": child.name, "status": status})
            if loop.time() - begun < _YOUNG_S:
                await asyncio.sleep(_PAUSE_S)

    async def _start(self, number: int) -> _Child:
        ours, theirs = socket.socketpair()
        number_of = self._number
        listening, name = self._listening[number], new_name(number)
        listen, control = os.dup(listening.fileno()), theirs.detach()
        environment = {**os.environ, LISTEN_VARIABLE: str(listen), CONTROL_VARIABLE: str(control)}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "modelyard.gateway", str(self._spec.folder / SPEC), name,
                pass_fds=(listen, control), env=environment, stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            os.close(listen)
            os.close(control)
        reader, writer = await asyncio.open_connection(sock=ours)
        return _Child(name=name, process=process, reader=reader, writer=writer, number=number_of)

    async def _hear(self, child: _Child) -> None:
        """What a worker says, until it has gone."""
        try:
            while data := await child.reader.readline():
                message = read_line(data)
                said = message.get("say")
                if said == READY:
                    child.ready.set()
                    if self._told_ready:
                        self._tell({"event": "worker_ready", "worker": child.name})
                    if self._stopping.is_set():
                        child.writer.write(line(DRAIN))
                    elif self._next is not None or child.number < self._number:
                        self._ask(child)
                elif said in (RELOADED, REFUSED):
                    self._heard_of(int(message["number"]), taken=said == RELOADED)
                    self._tell(
                        {
                            "event": said,
                            "worker": child.name,
                            **{k: v for k, v in message.items() if k != "say"},
                        }
                    )
        except ConnectionError:
            pass
        finally:
            child.writer.close()

    async def _watch(self) -> None:
        """Serve files when they have changed and are still."""
        seen = self._stamps()
        while True:
            await asyncio.sleep(_WATCH_S)
            now = self._stamps()
            if now != seen:
                seen = now
                await self._reload()

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._running.watched(self._spec.config)]

    async def _reload(self) -> None:
        """Ask the workers to serve a new configuration, if it can be; else all stays as it is."""
        async with self._reloading:
            try:
                config = await asyncio.to_thread(self._running.load)
            except ModelyardError as error:
                self._tell({"event": "refused", "why": str(error)})
                return
            self._asked += 1
            self._next = (self._asked, replace(self._spec, config=config))
            self._next[1].write(self._spec.folder / NEXT)
            for child in self._children.values():
                if child.ready.is_set() and child.process.returncode is None:
                    self._ask(child)

    def _ask(self, child: _Child) -> None:
        """Ask one worker to serve what is newest."""
        number, file = (self._next[0], NEXT) if self._next is not None else (self._number, SPEC)
        child.writer.write(line(RELOAD, spec=str(self._spec.folder / file), number=number))

    def _heard_of(self, number: int, *, taken: bool) -> None:
        """A worker has taken a configuration, so that the next one begins with it; or it has refused it."""
        if self._next is None or self._next[0] != number:
            return
        if taken:
            self._number, self._spec = self._next
            self._spec.write(self._spec.folder / SPEC)
        self._next = None

    async def _fold(self) -> None:
        """Bring the ledger up to date, and clear up after workers that have gone."""
        while True:
            await asyncio.sleep(_FOLD_S)
            try:
                await asyncio.to_thread(self._running.fold)
            except (ModelyardError, OSError) as error:
                self._tell({"event": "ledger", "why": str(error)})


def listen(host: str, port: int, workers: int) -> list[socket.socket]:
    """Sockets that listen at one address, one a worker, among which the kernel shares out connections.

    Raises:
        GatewayError: The address cannot be had.
    """
    made: list[socket.socket] = []
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for _ in range(workers):
            one = socket.socket(family, socket.SOCK_STREAM)
            made.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if workers > 1:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind((host, made[0].getsockname()[1] if len(made) > 1 else port))
            one.listen(_BACKLOG)
            one.setblocking(False)
    except OSError as error:
        for one in made:
            one.close()
        raise GatewayError(
            f"{host}:{port}: cannot be listened on ({error.strerror or error}); choose another"
        ) from error
    return made


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from what it was."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
