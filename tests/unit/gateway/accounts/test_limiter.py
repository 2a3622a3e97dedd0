"""The limiter of a worker, over a real store."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.gateway.accounts.conftest import NOON_S, Hands

from modelyard.core.errors import GatewayError
from modelyard.gateway.accounts.keys import KeyLimits, VirtualKey, parse_spend_limit
from modelyard.gateway.accounts.lease import Admission
from modelyard.gateway.accounts.limiter import Limiter
from modelyard.gateway.accounts.limits import Grant, LeaseRequest, Slot, limit_accounts, slot_of
from modelyard.gateway.accounts.redis_limits import RedisLimits
from modelyard.gateway.accounts.refusal import Limit, Refusal
from modelyard.gateway.accounts.sqlite_limits import SqliteLimits


class Desk:
    """Limiters of several workers over one store, and a clock."""

    def __init__(self, folder: Path, clock: Hands) -> None:
        self.store, self.clock = SqliteLimits(folder), clock
        self.workers = [Limiter(self.store, f"w{n}", clock=clock) for n in range(3)]

    async def ask(
        self, key: VirtualKey, usd: int = 0, tokens: int = 0, *, worker: int = 0
    ) -> Admission | Refusal:
        return await self.workers[worker].admit(key, usd, tokens)

    async def admitted(self, key: VirtualKey, usd: int = 0, tokens: int = 0, *, worker: int = 0) -> Admission:
        got = await self.ask(key, usd, tokens, worker=worker)
        assert isinstance(got, Admission), got
        return got

    async def refused(self, key: VirtualKey, usd: int = 0, tokens: int = 0, *, worker: int = 0) -> Refusal:
        got = await self.ask(key, usd, tokens, worker=worker)
        assert isinstance(got, Refusal)
        return got

    async def pass_second(self) -> None:
        self.clock.now_s += 1
        for worker in self.workers:
            await worker.tick()

    async def used(self, key: VirtualKey, kind: str = "usd") -> int:
        return await self.store.used(slot(key, kind, self.clock()))


def slot(key: VirtualKey, kind: str, now_s: float) -> Slot:
    account, period, _ = limit_accounts(key)[kind]
    return slot_of(account, period, now_s)


@pytest.fixture
def at_desk(folder: Path, clock: Hands) -> Callable[[Callable[[Desk], Awaitable[None]]], None]:
    """Runs a body with a desk."""

    def run(body: Callable[[Desk], Awaitable[None]]) -> None:
        async def whole() -> None:
            desk = Desk(folder, clock)
            try:
                await body(desk)
            finally:
                await desk.store.close()

        asyncio.run(whole())

    return run


At = Callable[[Callable[[Desk], Awaitable[None]]], None]
MakeKey = Callable[..., VirtualKey]


def test_a_key_without_limits_asks_nobody(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        got = desk.workers[0].try_admit(make_key(), 10**12, 10**9, NOON_S)
        assert isinstance(got, Admission)
        desk.workers[0].settle(got, 10**12, 10**9)

    at_desk(body)


def test_what_is_leased_is_spent_without_asking(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key, worker = make_key(rpm=100_000), desk.workers[0]
        assert worker.try_admit(key, 0, 0, NOON_S) is None
        asked = 0
        for _ in range(5000):
            if worker.try_admit(key, 0, 0, NOON_S) is None:
                asked += 1
                await desk.admitted(key)
        assert asked < 20
        assert 5000 <= await desk.used(key, "rpm") <= 2 * 5000

    at_desk(body)


def test_a_steady_pace_asks_once_a_second(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key, worker = make_key(rpm=1_000_000), desk.workers[0]
        asked = 0
        for second in range(20):
            for _ in range(100):
                if worker.try_admit(key, 0, 0, desk.clock()) is None:
                    asked += second >= 10
                    await desk.admitted(key)
            await desk.pass_second()
        assert asked <= 10

    at_desk(body)


@pytest.mark.parametrize(
    ("limits", "usd", "tokens", "limit", "wait_s", "said"),
    [
        ({"spend": parse_spend_limit("1/day")}, 10**9, 0, Limit.USD, 43_200.0,
         "has 1.00 USD of 1.00 USD this day used or set aside; this request may need 1.00 USD; "
         "try again in 43200 s"),
        ({"spend": parse_spend_limit("1")}, 10**9, 0, Limit.USD, None,
         "has 1.00 USD of 1.00 USD in total used or set aside; this request may need 1.00 USD"),
        ({"rpm": 1}, 0, 0, Limit.RPM, 60.0,
         "has 1 requests of 1 this minute used or set aside; this request may need 1; try again in 60 s"),
        ({"tpm": 50}, 0, 50, Limit.TPM, 60.0,
         "has 50 tokens of 50 this minute used or set aside; this request may need 50; try again in 60 s"),
        ({"parallel": 1}, 0, 0, Limit.PARALLEL, 1.0,
         "has 1 requests in flight of at most 1; try again in 1 s"),
    ],
)  # fmt: skip
def test_the_second_request_is_refused(
    at_desk: At, make_key: MakeKey, limits: dict[str, Any], usd: int, tokens: int, limit: Limit,
    wait_s: float | None, said: str,
) -> None:  # fmt: skip
    async def body(desk: Desk) -> None:
        key = make_key(**limits)
        await desk.admitted(key, usd, tokens)
        refusal = await desk.refused(key, usd, tokens)
        assert (refusal.limit, refusal.retry_after_s) == (limit, wait_s)
        assert refusal.message == f"key {key.id} {said}"

    at_desk(body)


def test_a_request_beyond_the_limit_itself_is_never_asked_for(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        got = desk.workers[0].try_admit(make_key(tpm=100), 0, 101, NOON_S)
        assert isinstance(got, Refusal)
        assert (got.limit, got.need, got.most, got.retry_after_s) == (Limit.TPM, 101, 100, None)

    at_desk(body)


def test_a_refusal_takes_nothing_of_the_other_limits(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key = make_key(spend=parse_spend_limit("1/day"), rpm=1)
        await desk.admitted(key, 1000)
        for _ in range(10):
            assert (await desk.refused(key, 1000)).limit is Limit.RPM
        desk.clock.now_s += 60
        await desk.pass_second()
        await desk.pass_second()
        assert await desk.used(key) == 1000

    at_desk(body)


def test_settling_returns_what_was_not_needed_and_once_only(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key = make_key(spend=parse_spend_limit("1/day"), tpm=1000, parallel=1)
        first = await desk.admitted(key, 10**9, 1000)
        for _ in range(3):
            desk.workers[0].settle(first, 10**8, 400)
        second = await desk.admitted(key, 9 * 10**8, 600)
        assert (await desk.refused(key)).limit is Limit.PARALLEL
        desk.workers[0].settle(second, 9 * 10**8, 600)
        assert (await desk.refused(key, 1)).limit is Limit.USD

    at_desk(body)


def test_a_new_window_begins_with_nothing_used(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key = make_key(spend=parse_spend_limit("1/hour"))
        late = await desk.admitted(key, 10**9)
        await desk.refused(key, 10**9)
        desk.clock.now_s = NOON_S + 3600
        await desk.admitted(key, 10**9)
        # What began in the hour before counts there.
        desk.workers[0].settle(late, 5 * 10**9, 0)
        await desk.pass_second()
        assert await desk.used(key) == 10**9

    at_desk(body)


def test_what_cost_more_than_was_set_aside_is_booked_in_full(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key = make_key(spend=parse_spend_limit("1/day"))
        dear = await desk.admitted(key, 10)
        desk.workers[0].settle(dear, 3 * 10**9, 0)
        # At once in the worker itself, by the next tick in all of them.
        assert (await desk.refused(key, 1)).used == 3 * 10**9
        await desk.pass_second()
        assert await desk.used(key) == 3 * 10**9
        assert (await desk.refused(key, 1, worker=1)).used == 3 * 10**9

    at_desk(body)


def test_an_overrun_without_further_requests_is_booked_by_the_tick(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key = make_key(spend=parse_spend_limit("1/day"))
        desk.workers[0].settle(await desk.admitted(key, 0), 7, 0)
        await desk.pass_second()
        assert await desk.used(key) == 7

    at_desk(body)


def test_what_is_idle_goes_back_within_two_ticks(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key = make_key(rpm=1000)
        for _ in range(100):
            await desk.admitted(key)
        assert await desk.used(key, "rpm") > 100
        for _ in range(2):
            await desk.pass_second()
        assert await desk.used(key, "rpm") == 100

    at_desk(body)


def test_with_demand_enough_all_workers_together_use_the_limit_up(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key, admitted = make_key(rpm=300), 0
        for turn in range(12):
            for n in range(60):
                admitted += isinstance(await desk.ask(key, worker=(n + turn) % 3), Admission)
            await desk.pass_second()
        assert admitted == 300 == await desk.used(key, "rpm")

    at_desk(body)


def test_many_waiting_at_once_ask_together(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key = make_key(rpm=100)
        got = await asyncio.gather(*(desk.ask(key) for _ in range(150)))
        assert sum(isinstance(each, Admission) for each in got) == 100
        assert {each.used for each in got if isinstance(each, Refusal)} == {100}

    at_desk(body)


def test_who_stops_waiting_holds_nobody_up(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key = make_key(rpm=2)
        gone, stays = asyncio.ensure_future(desk.ask(key)), asyncio.ensure_future(desk.ask(key))
        await asyncio.sleep(0)
        gone.cancel()
        assert isinstance(await stays, Admission)
        assert gone.cancelled()
        await desk.admitted(key)
        await desk.refused(key)

    at_desk(body)


def test_a_closed_limiter_holds_what_was_spent_and_is_in_flight(at_desk: At, make_key: MakeKey) -> None:
    async def body(desk: Desk) -> None:
        key = make_key(spend=parse_spend_limit("1/day"))
        desk.workers[0].settle(await desk.admitted(key, 1000), 300, 0)
        await desk.admitted(key, 5000)
        await desk.workers[0].close()
        assert await desk.used(key) == 5300

    at_desk(body)


class Flaky(SqliteLimits):
    """A store whose answers are lost now and then, after it has done what it was told."""

    losing = False

    async def lease(self, worker: str, request: LeaseRequest) -> Any:
        got = await super().lease(worker, request)
        if self.losing:
            raise GatewayError("the answer was lost")
        return got


def test_a_lease_whose_answer_was_lost_is_put_right(folder: Path, clock: Hands, make_key: MakeKey) -> None:
    async def body() -> None:
        store = Flaky(folder)
        limiter, key = Limiter(store, "w0", clock=clock), make_key(rpm=10)
        await limiter.admit(key, 0, 0)
        store.losing = True
        with pytest.raises(GatewayError, match="lost"):
            await limiter.admit(key, 0, 0)
        store.losing = False
        assert await store.used(slot(key, "rpm", clock())) == 2
        await limiter.tick()
        assert await store.used(slot(key, "rpm", clock())) == 1
        for _ in range(9):
            assert isinstance(await limiter.admit(key, 0, 0), Admission)
        assert isinstance(await limiter.admit(key, 0, 0), Refusal)
        await store.close()

    asyncio.run(body())


def test_without_its_store_a_limiter_says_so(clock: Hands, make_key: MakeKey) -> None:
    async def body() -> None:
        store = RedisLimits("redis://127.0.0.1:1/0")
        limiter, key = Limiter(store, "w0", clock=clock), make_key(rpm=10)
        for _ in range(2):
            with pytest.raises(GatewayError, match="the shared limits cannot be reached"):
                await limiter.admit(key, 0, 0)
        with pytest.raises(GatewayError, match="the shared limits cannot be reached"):
            await limiter.tick()
        await store.close()

    asyncio.run(body())


class InMemory:
    """A store that answers at once, so that its calls have ended before anybody else runs."""

    def __init__(self) -> None:
        self.amounts: dict[tuple[str, Slot], int] = {}

    async def lease(self, worker: str, request: LeaseRequest) -> Grant:
        used = await self.used(request.slot)
        amount = min(request.want, request.limit - used)
        if amount < request.least:
            return Grant(amount=0, used=used)
        self.amounts[worker, request.slot] = self.amounts.get((worker, request.slot), 0) + amount
        return Grant(amount=amount, used=used + amount)

    async def hold(self, worker: str, amounts: Mapping[Slot, int]) -> None:
        self.amounts.update({(worker, slot): amount for slot, amount in amounts.items()})

    async def held(self, worker: str) -> dict[Slot, int]:
        return {slot: amount for (owner, slot), amount in self.amounts.items() if owner == worker}

    async def used(self, slot: Slot) -> int:
        return sum(amount for (_, each), amount in self.amounts.items() if each == slot)

    async def expire(self, now_s: float) -> None:
        pass

    async def close(self) -> None:
        pass


def test_who_asks_just_when_a_call_has_ended_does_not_ask_for_ever(make_key: MakeKey) -> None:
    """It was so: who waited for a call that had ended already never let go of the loop."""
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        assert looks < 1000, "asked for ever"
        return NOON_S

    async def later(limiter: Limiter, key: VirtualKey) -> Admission | Refusal:
        await asyncio.sleep(0)  # in this turn of the loop the first one's call ends, and nobody knows yet
        return await limiter.admit(key, 0, 500)

    async def body() -> None:
        limiter, key = Limiter(InMemory(), "w0", clock=clock), make_key(tpm=1000)
        got = await asyncio.gather(limiter.admit(key, 0, 1), later(limiter, key))
        assert [isinstance(each, Admission) for each in got] == [True, True]

    asyncio.run(body())


STEP = st.tuples(
    st.sampled_from(["ask", "ask", "ask", "settle", "tick"]), st.integers(0, 2), st.integers(1, 60)
)


@settings(max_examples=25)
@given(st.lists(STEP, max_size=40))
def test_workers_never_let_in_more_than_the_limit(steps: list[tuple[str, int, int]]) -> None:
    """For any interleaving: what was spent and is set aside stays within the limit, and nothing is lost."""
    key = VirtualKey(
        id="k", name="", created_at_s=0, expires_at_s=None, revoked_at_s=None, models=frozenset(),
        limits=KeyLimits(tpm=200), log_prompts=False, last="",
    )  # fmt: skip

    async def body(folder: str) -> None:
        desk = Desk(Path(folder), Hands())
        flying: list[tuple[int, Admission]] = []
        spent = 0
        for what, worker, tokens in steps:
            if what == "ask":
                got = await desk.ask(key, 0, tokens, worker=worker)
                flying += [(worker, got)] if isinstance(got, Admission) else []
            elif what == "settle" and flying:
                owner, admission = flying.pop(tokens % len(flying))
                spent += min(tokens, admission.tokens)
                desk.workers[owner].settle(admission, 0, min(tokens, admission.tokens))
            else:
                await desk.workers[worker].tick()
            assert spent + sum(admission.tokens for _, admission in flying) <= 200
        for owner, admission in flying:
            desk.workers[owner].settle(admission, 0, 0)
        for _ in range(3):
            for limiter in desk.workers:
                await limiter.tick()
        assert await desk.used(key, "tpm") == spent
        await desk.store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(body(folder))
