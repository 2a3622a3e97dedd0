"""A worker's part of one window of one limit, and of all limits of a key. No input, no output, no clock."""

from __future__ import annotations

import asyncio

from modelyard.gateway.accounts.keys import VirtualKey
from modelyard.gateway.accounts.limits import Grant, LeaseRequest, Slot, limit_accounts, slot_of
from modelyard.gateway.accounts.refusal import Limit, Refusal
from modelyard.gateway.accounts.windows import Period

#: A lease takes at most this part of what is left of a window, so that others find something.
_SHARE = 8
#: How long the word that nothing is left is believed.
_DRY_S = 0.25
#: When a key with too many requests in flight is asked to come again.
_PARALLEL_RETRY_S = 1.0
_FOREVER_S = float("inf")
#: The place of each shared limit in a request's needs.
_PLACES = {"usd": 0, "tpm": 1, "rpm": 2}


class Lease:
    """A worker's part of a window.

    `held` is what the store says that this worker holds, `free` what of it is neither spent nor set aside;
    `free` below 0 is what requests cost beyond what was set aside for them.
    """

    __slots__ = (
        "account", "busy", "dry_short", "dry_until_s", "ends_at_s", "free", "held", "kind", "limit", "pace",
        "period", "place", "sent", "slot", "taken", "used", "wanted",
    )  # fmt: skip

    def __init__(self, kind: str, account: str, period: Period, limit: int, now_s: float) -> None:
        self.kind, self.account, self.period, self.limit = kind, account, period, limit
        self.place = _PLACES[kind]
        self.slot: Slot = slot_of(account, period, now_s)
        self.ends_at_s = _FOREVER_S if self.slot.ends_at_s is None else self.slot.ends_at_s
        self.held = self.free = 0
        # What the store was last told, or told us, of `held`; None: not known.
        self.sent: int | None = 0
        # What was set aside since the last tick, and between the two before.
        self.taken = self.pace = 0
        # What requests wait for, and the call to the store that they wait for.
        self.wanted = 0
        self.busy: asyncio.Future[None] | None = None
        # What all workers held when the store last told.
        self.used = 0
        self.dry_short, self.dry_until_s = 0, 0.0

    def after(self, now_s: float) -> Lease:
        """The lease of a later window, with nothing in it; the pace goes on."""
        later = Lease(self.kind, self.account, self.period, self.limit, now_s)
        later.pace = max(self.pace, self.taken)
        return later

    def request(self, need: int) -> LeaseRequest:
        """What to ask of the store so that a request with this need can go on."""
        least = need - self.free
        left = max(0, self.limit - self.used)
        want = max(self.wanted, 2 * self.taken, self.pace)
        return LeaseRequest(
            slot=self.slot, want=max(least, min(want, left // _SHARE)), least=least, limit=self.limit
        )

    def receive(self, request: LeaseRequest, grant: Grant, now_s: float) -> None:
        """Take what the store gave; nothing is believed for a moment."""
        self.held += grant.amount
        self.sent = self.held
        self.free += grant.amount
        self.used = grant.used
        if grant.amount == 0:
            self.dry_short, self.dry_until_s = request.least, now_s + _DRY_S

    def refusal(self, key: str, need: int, now_s: float) -> Refusal | None:
        """Why a request with this need cannot go on, or None where the store must be asked."""
        never = need > self.limit
        if not never and (now_s >= self.dry_until_s or need - self.free < self.dry_short):
            return None
        waits = not never and self.ends_at_s != _FOREVER_S
        return Refusal(
            key=key, limit=Limit(self.kind), used=self.used, most=self.limit, need=need,
            window=self.slot.window, retry_after_s=max(0.0, self.ends_at_s - now_s) if waits else None,
        )  # fmt: skip

    def is_busy(self) -> bool:
        """Whether a call to the store is under way. One that has ended does not count, though it is here yet:
        who waited for that would not wait at all, and ask again for ever.
        """
        return self.busy is not None and not self.busy.done()

    def is_moving(self) -> bool:
        """Whether a tick has still something to do for it."""
        return bool(self.free or self.pace or self.is_busy() or self.held != self.sent)

    def trim(self) -> None:
        """Once a tick: keep free what the last one saw taken, give up the rest, own up to overruns."""
        surplus = self.free - self.taken if self.free > 0 else self.free
        if surplus > 0 or self.free < 0:
            self.held -= surplus
            self.free -= surplus
        self.pace, self.taken = self.taken, 0


class Admission:
    """A request that was let in, with what was set aside for it; it is settled once."""

    __slots__ = ("leases", "open", "owner", "tokens", "usd_nano")

    def __init__(self, owner: KeyLeases, leases: tuple[Lease, ...], usd_nano: int, tokens: int) -> None:
        self.owner = owner
        # The windows of the moment of admission: what is spent counts there, whenever it ends.
        self.leases = leases
        self.usd_nano = usd_nano
        self.tokens = tokens
        self.open = True


class KeyLeases:
    """A worker's parts of all limits of one key, and its requests in flight."""

    __slots__ = ("in_flight", "key_id", "leases", "parallel", "touched")

    def __init__(self, key: VirtualKey, now_s: float) -> None:
        self.key_id = key.id
        self.parallel = key.limits.parallel
        self.leases = tuple(
            Lease(kind, account, period, limit, now_s)
            for kind, (account, period, limit) in limit_accounts(key).items()
        )
        self.in_flight = 0
        self.touched = False

    def turn(self, now_s: float) -> None:
        """Put new leases in the place of those whose window has ended."""
        self.leases = tuple(lease if now_s < lease.ends_at_s else lease.after(now_s) for lease in self.leases)

    def take(self, usd_nano: int, tokens: int, now_s: float) -> Admission | Refusal | None:
        """Set aside what a request may need; None where a lease is short and the store must be asked."""
        if self.parallel is not None and self.in_flight >= self.parallel:
            return Refusal(
                key=self.key_id, limit=Limit.PARALLEL, used=self.in_flight, most=self.parallel, need=1,
                window="", retry_after_s=_PARALLEL_RETRY_S,
            )  # fmt: skip
        leases, needs = self.leases, (usd_nano, tokens, 1)
        for lease in leases:
            if now_s >= lease.ends_at_s:
                self.turn(now_s)
                return self.take(usd_nano, tokens, now_s)
            need = needs[lease.place]
            if lease.free < need:
                return lease.refusal(self.key_id, need, now_s)
        for lease in leases:
            need = needs[lease.place]
            lease.free -= need
            lease.taken += need
        self.in_flight += 1
        return Admission(self, leases, usd_nano, tokens)

    def short(self, usd_nano: int, tokens: int) -> tuple[Lease, int] | None:
        """The first lease that has not enough for a request, and the request's need of it."""
        needs = (usd_nano, tokens, 1)
        return next(
            ((lease, needs[lease.place]) for lease in self.leases if lease.free < needs[lease.place]), None
        )
