"""The contract of `modelyard.gateway.accounts.limits.LimitStore` as tests: every store passes it.

class TestMine(LimitStoreContract):
    def opener(self) -> Callable[[], LimitStore]: ...   # opens the one store of a test again and again
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.accounts.limits import Grant, LeaseRequest, LimitStore, Slot

T = TypeVar("T")

#: A billionth of a dollar short of a million dollars: beyond 32 bits, within what every store counts exactly.
_MUCH = 10**15 - 1
_ASKED = st.tuples(st.integers(0, 2), st.integers(1, 40), st.integers(1, 40), st.booleans())


class LimitStoreContract:
    """Derive from it and say how the store is opened."""

    def opener(self) -> Callable[[], LimitStore]:
        """Gives a function that opens a store; all that it opens are one, and empty at first."""
        raise NotImplementedError

    def run(self, body: Callable[[Sequence[LimitStore]], Awaitable[T]], *, stores: int = 1) -> T:
        """Run a body with several connections to the one store, which are closed at the end."""
        opener = self.opener()

        async def whole() -> T:
            opened = [opener() for _ in range(stores)]
            try:
                return await body(opened)
            finally:
                for store in opened:
                    await store.close()

        return asyncio.run(whole())

    def test_a_lease_is_whole_or_what_is_left_or_nothing(self) -> None:
        async def body(stores: Sequence[LimitStore]) -> list[Grant]:
            asked = [(60, 10), (60, 10), (60, 10), (60, 1)]
            return [await stores[0].lease("a", _asking(want, least, 100)) for want, least in asked]

        granted = [(grant.amount, grant.used) for grant in self.run(body)]
        assert granted == [(60, 60), (40, 100), (0, 100), (0, 100)]

    def test_too_little_left_is_not_given(self) -> None:
        async def body(stores: Sequence[LimitStore]) -> list[int]:
            asked = [(95, 95), (50, 6), (5, 5)]
            return [(await stores[0].lease("a", _asking(want, least, 100))).amount for want, least in asked]

        assert self.run(body) == [95, 0, 5]

    def test_windows_and_accounts_do_not_touch_each_other(self) -> None:
        async def body(stores: Sequence[LimitStore]) -> list[int]:
            slots = [_slot(), _slot(account="b:usd"), _slot(window="day:2026-11-27")]
            for slot in slots:
                await stores[0].lease("a", _asking(100, 100, 100, slot=slot))
            return [await stores[0].used(slot) for slot in [*slots, _slot(account="c:usd")]]

        assert self.run(body) == [100, 100, 100, 0]

    def test_what_is_held_is_set_and_setting_it_again_changes_nothing(self) -> None:
        async def body(stores: Sequence[LimitStore]) -> tuple[int, int, dict[Slot, int]]:
            first, second = stores
            other = _slot(account="b:rpm", ends_at_s=None)
            await first.lease("a", _asking(80, 80, 100))
            await second.lease("b", _asking(20, 20, 100))
            for _ in range(2):
                await second.hold("a", {_slot(): 30, other: 7})
            got = (await first.lease("b", _asking(50, 50, 100))).amount
            return got, await second.used(_slot()), await first.held("a")

        assert self.run(body, stores=2) == (50, 100, {_slot(): 30, _slot(account="b:rpm", ends_at_s=None): 7})

    def test_what_was_overrun_is_booked_beyond_the_limit(self) -> None:
        async def body(stores: Sequence[LimitStore]) -> tuple[int, Grant]:
            await stores[0].lease("a", _asking(100, 100, 100))
            await stores[0].hold("a", {_slot(): 130})
            return await stores[0].used(_slot()), await stores[0].lease("b", _asking(1, 1, 100))

        assert self.run(body) == (130, Grant(amount=0, used=130))

    def test_large_amounts_are_exact(self) -> None:
        async def body(stores: Sequence[LimitStore]) -> tuple[Grant, int]:
            await stores[0].hold("a", {_slot(): _MUCH})
            return await stores[0].lease("b", _asking(5, 1, _MUCH + 3)), await stores[0].used(_slot())

        assert self.run(body) == (Grant(amount=3, used=_MUCH + 3), _MUCH + 3)

    def test_a_worker_that_held_nothing_holds_nothing(self) -> None:
        async def body(stores: Sequence[LimitStore]) -> dict[Slot, int]:
            await stores[0].hold("a", {})
            return await stores[0].held("a")

        assert self.run(body) == {}

    def test_windows_that_have_ended_are_forgotten_and_others_are_not(self) -> None:
        async def body(stores: Sequence[LimitStore]) -> dict[Slot, int]:
            ended = _slot(window="day:1970-01-01", ends_at_s=86_400.0)
            await stores[0].hold("a", {ended: 5, _slot(): 6, _slot(account="t:usd", ends_at_s=None): 7})
            await stores[0].expire(time.time())
            return await stores[0].held("a")

        assert self.run(body) == {_slot(): 6, _slot(account="t:usd", ends_at_s=None): 7}

    def test_many_at_once_get_exactly_what_there_is(self) -> None:
        async def body(stores: Sequence[LimitStore]) -> int:
            asking = [stores[n % 3].lease(f"w{n % 3}", _asking(7, 1, 100)) for n in range(45)]
            return sum(grant.amount for grant in await asyncio.gather(*asking))

        assert self.run(body, stores=3) == 100

    def test_leases_never_exceed_the_limit(self) -> None:
        """Whatever workers lease and give back, in whatever order, what is used is what they hold."""
        opener, number = self.opener(), iter(range(10**9))

        @given(st.lists(_ASKED, max_size=25))
        def check(asked: list[tuple[int, int, int, bool]]) -> None:
            asyncio.run(_replay(opener, asked, _slot(account=f"h{next(number)}:usd")))

        check()


async def _replay(
    opener: Callable[[], LimitStore], asked: list[tuple[int, int, int, bool]], slot: Slot
) -> None:
    store, held = opener(), dict.fromkeys(range(3), 0)
    try:
        for worker, first, second, gives_back in asked:
            if gives_back:
                held[worker] = max(0, held[worker] - first)
                await store.hold(f"h{worker}", {slot: held[worker]})
            else:
                want, least = max(first, second), min(first, second)
                grant = await store.lease(f"h{worker}", _asking(want, least, 100, slot=slot))
                assert grant.amount == 0 or least <= grant.amount <= want
                held[worker] += grant.amount
                assert grant.used == sum(held.values())
            assert await store.used(slot) == sum(held.values()) <= 100
    finally:
        await store.close()


def _slot(
    account: str = "k:usd", window: str = "day:2026-11-26", ends_at_s: float | None = 4_000_000_000.0
) -> Slot:
    return Slot(account, window, ends_at_s)


def _asking(want: int, least: int, limit: int, *, slot: Slot | None = None) -> LeaseRequest:
    return LeaseRequest(slot=slot or _slot(), want=want, least=least, limit=limit)
