"""Where workers share limits: each leases a part of what a window allows, and spends it without asking.

What is used of a window is the sum of what its workers hold of it: what they have spent and what they have
leased and not given back. Amounts are whole numbers (requests, tokens, billionths of a dollar).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from modelyard.gateway.accounts.keys import VirtualKey
from modelyard.gateway.accounts.windows import Period, window_of


class Slot(NamedTuple):
    """One window of one limit: `<key>:usd`, `<key>:rpm` or `<key>:tpm`, and when it ends (Unix seconds)."""

    account: str
    window: str
    ends_at_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """What a worker asks for."""

    slot: Slot
    # As much as this, if it is there ...
    want: int
    # ... and nothing at all if not even this is there.
    least: int
    # The most that all workers may hold.
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a worker got: 0, or between the least and what it wanted; and what all hold now."""

    amount: int
    used: int


class LimitStore(Protocol):
    """Shared limits. A worker is an incarnation of a process: its name is used once.

    Any task of one event loop may call; calls that wait for others do not hold the loop up. Each method
    raises `GatewayError` when the store cannot be reached; whether a change was made is then not known, and
    `hold`, which says what is and not what has changed, puts it right.
    """

    async def lease(self, worker: str, request: LeaseRequest) -> Grant:
        """Give a worker a part of a window. Leases never make the sum over all workers exceed the limit.

        Other workers' leases at the same time are before or after this one, never in between.
        """

    async def hold(self, worker: str, amounts: Mapping[Slot, int]) -> None:
        """Set what a worker holds of windows, all or none.

        So it gives back (less than before), books what went beyond its lease (more than before; the limit
        does not matter then), and so a dead worker's leases become what it spent. Doing it again changes
        nothing.
        """

    async def held(self, worker: str) -> dict[Slot, int]:
        """What a worker holds of each window that has not expired."""

    async def used(self, slot: Slot) -> int:
        """What all workers hold of a window."""

    async def expire(self, now_s: float) -> None:
        """Forget windows that ended before a moment (Unix seconds), where they do not go by themselves."""

    async def close(self) -> None:
        """Let the store go."""


def limit_accounts(key: VirtualKey) -> dict[str, tuple[str, Period, int]]:
    """The shared limits of a key by what they limit: its account, its period and the limit."""
    limits = key.limits
    found: dict[str, tuple[str, Period, int]] = {}
    if limits.spend is not None:
        found["usd"] = (f"{key.id}:usd", limits.spend.period, limits.spend.nano_usd)
    if limits.rpm is not None:
        found["rpm"] = (f"{key.id}:rpm", Period.MINUTE, limits.rpm)
    if limits.tpm is not None:
        found["tpm"] = (f"{key.id}:tpm", Period.MINUTE, limits.tpm)
    return found


def slot_of(account: str, period: Period, now_s: float) -> Slot:
    """The window of a limit at a moment."""
    window = window_of(period, now_s)
    return Slot(account, f"{period}:{window.id}", window.ends_at_s)
