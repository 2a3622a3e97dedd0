"""A worker's limiter: lets requests in out of what it has leased, and books what they cost.

The common case asks nobody and waits for nothing. How much is leased at a time follows the pace of the last
second, and shrinks with what is left of a window; each second what was idle goes back. So a window's
limit is held to by all workers together, and near its end nothing lies about for longer than two ticks.

A request may cost more than was set aside for it: it is booked in full, and the window then exceeds its
limit by that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import time

from modelyard.core.errors import GatewayError
from modelyard.gateway.accounts.keys import VirtualKey
from modelyard.gateway.accounts.lease import Admission, KeyLeases, Lease
from modelyard.gateway.accounts.limits import LimitStore
from modelyard.gateway.accounts.refusal import Refusal


class Limiter:
    """The limits of all keys in one worker; for the tasks of one event loop."""

    def __init__(self, store: LimitStore, worker: str, *, clock: Callable[[], float] = time) -> None:
        """`worker` is the name of its request journal; `clock` gives Unix seconds."""
        self._store = store
        self._worker = worker
        self._clock = clock
        self._keys: dict[str, KeyLeases] = {}
        self._touched: list[KeyLeases] = []

    def try_admit(
        self, key: VirtualKey, usd_nano: int, tokens: int, now_s: float
    ) -> Admission | Refusal | None:
        """Let a request in, or tell why not; None where the store must be asked: then await `admit`.

        Args:
            key: Whose request it is.
            usd_nano: The most that it may cost, in billionths of a dollar.
            tokens: The most that it may take, of prompt and answer.
            now_s: Unix seconds.
        """
        state = self._keys.get(key.id)
        if state is None:
            state = self._keys[key.id] = KeyLeases(key, now_s)
        if not state.touched:
            self._touch(state)
        return state.take(usd_nano, tokens, now_s)

    async def admit(self, key: VirtualKey, usd_nano: int, tokens: int) -> Admission | Refusal:
        """Let a request in, or tell why not, leasing more where that is needed.

        Raises:
            GatewayError: The store of limits cannot be reached.
        """
        while True:
            outcome = self.try_admit(key, usd_nano, tokens, self._clock())
            if outcome is not None:
                return outcome
            short = self._keys[key.id].short(usd_nano, tokens)
            if short is not None:
                await self._refill(*short)

    def settle(self, admission: Admission, usd_nano: int, tokens: int) -> None:
        """Book what an admitted request took in place of what was set aside; a second time does nothing.

        What is not known is booked as set aside: give the admission's `usd_nano` and `tokens` back.
        """
        if not admission.open:
            return
        admission.open = False
        owner = admission.owner
        owner.in_flight -= 1
        backs = (admission.usd_nano - usd_nano, admission.tokens - tokens, 0)
        for lease in admission.leases:
            lease.free += backs[lease.place]
        if not owner.touched:
            self._touch(owner)

    async def tick(self) -> None:
        """Once a second: give back what is idle, book what went beyond a lease.

        Raises:
            GatewayError: The store cannot be reached; the next tick makes up for it.
        """
        now = self._clock()
        touched, self._touched = self._touched, []
        due = []
        for state in touched:
            state.touched = False
            leases = [lease for lease in state.leases if now < lease.ends_at_s]
            for lease in leases:
                if not lease.is_busy():
                    lease.trim()
                    due.append(lease)
            if state.in_flight or any(lease.is_moving() for lease in leases):
                self._touch(state)
        await self._send(due)

    async def close(self) -> None:
        """Give back all that is free; what is in flight stays set aside.

        Raises:
            GatewayError: The store cannot be reached; what the journal says then counts in time.
        """
        leases = [lease for state in self._keys.values() for lease in state.leases]
        for lease in leases:
            if lease.busy is not None:
                await asyncio.wait([lease.busy])
            lease.held -= lease.free
            lease.free = 0
        await self._send(leases)

    def _touch(self, state: KeyLeases) -> None:
        state.touched = True
        self._touched.append(state)

    async def _refill(self, lease: Lease, need: int) -> None:
        """Wait until the store was asked once for more of this lease; whoever waits has asked together."""
        lease.wanted += need
        try:
            busy = lease.busy
            if busy is None or busy.done():
                busy = self._start(self._lease(lease, need), [lease])
            # The call serves all who wait: that one of them goes away must not end it.
            await asyncio.shield(busy)
        finally:
            lease.wanted -= need

    async def _lease(self, lease: Lease, need: int) -> None:
        if lease.free < 0:
            lease.held -= lease.free
            lease.free = 0
        if lease.held != lease.sent:
            await self._hold([lease])
        if lease.free >= need:
            return
        request = lease.request(need)
        try:
            grant = await self._store.lease(self._worker, request)
        except GatewayError:
            lease.sent = None  # whether it was given is not known: the next tick says what is held
            raise
        lease.receive(request, grant, self._clock())

    async def _send(self, leases: list[Lease]) -> None:
        """Tell the store what is held where it does not know; refills of these leases wait meanwhile."""
        changed = [lease for lease in leases if lease.held != lease.sent]
        if changed:
            await asyncio.shield(self._start(self._hold(changed), changed))

    async def _hold(self, leases: list[Lease]) -> None:
        await self._store.hold(self._worker, {lease.slot: lease.held for lease in leases})
        for lease in leases:
            lease.sent = lease.held

    def _start(self, call: Coroutine[None, None, None], leases: list[Lease]) -> asyncio.Future[None]:
        """Run a call to the store that these leases are busy with until it ends."""

        task = asyncio.ensure_future(call)
        for lease in leases:
            lease.busy = task
        return task
