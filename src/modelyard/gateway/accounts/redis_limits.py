"""Limits shared through Redis: for the workers of several machines.

Each change is one script, which Redis runs whole. A window is a hash: what each worker holds, and their sum.
It goes by itself an hour after the window's end. Redis must keep what it is told over a restart
(`appendonly yes`), or the windows begin anew; and its scripts count exactly up to 2^53, nine million dollars.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from modelyard.core.errors import GatewayError
from modelyard.gateway.accounts.limits import Grant, LeaseRequest, Slot

_TIMEOUT_S = 2.0
_AFTER_END_MS = 3_600_000
#: Longer than any window that ends: which windows a worker holds is known at least so long.
_WORKER_MS = 40 * 86_400_000
_SUM = ":sum"

_SET = """
local function set(key, index, slot, worker, amount, ends_ms)
  local before = tonumber(redis.call('HGET', key, worker) or '0')
  redis.call('HSET', key, worker, string.format('%.0f', amount))
  redis.call('HINCRBY', key, ':sum', string.format('%.0f', amount - before))
  if ends_ms ~= '' then redis.call('PEXPIREAT', key, ends_ms) end
  redis.call('SADD', index, slot)
  redis.call('PEXPIRE', index, ARGV[2])
end
"""
#: KEYS: the worker's windows, the window. ARGV: worker, ms, slot, end, want, least, limit.
_LEASE = (
    _SET
    + """
local used = tonumber(redis.call('HGET', KEYS[2], ':sum') or '0')
local amount = math.min(tonumber(ARGV[5]), tonumber(ARGV[7]) - used)
if amount < tonumber(ARGV[6]) or amount <= 0 then return {'0', string.format('%.0f', used)} end
local before = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
set(KEYS[2], KEYS[1], ARGV[3], ARGV[1], before + amount, ARGV[4])
return {string.format('%.0f', amount), string.format('%.0f', used + amount)}
"""
)
#: KEYS: the worker's windows, the windows. ARGV: worker, ms, then slot, end and amount of each window.
_HOLD = (
    _SET
    + """
for i = 2, #KEYS do
  local at = 3 * (i - 1)
  set(KEYS[i], KEYS[1], ARGV[at], ARGV[1], tonumber(ARGV[at + 2]), ARGV[at + 1])
end
"""
)


class RedisLimits:
    """A `LimitStore` in Redis 6.2 or newer, not a cluster of several masters."""

    def __init__(self, url: str, *, prefix: str = "modelyard") -> None:
        """`url` as redis-py has it (`redis://`, `rediss://`, `unix://`); nothing is connected yet."""
        self._prefix = prefix
        self._place = _without_secrets(url)
        # A call that was repeated behind our back would lease twice.
        self._redis = Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        self._lease = self._redis.register_script(_LEASE)
        self._hold = self._redis.register_script(_HOLD)

    async def lease(self, worker: str, request: LeaseRequest) -> Grant:
        """See `LimitStore`."""
        slot = request.slot
        words = (
            worker,
            _WORKER_MS,
            _slot_text(slot),
            _end_ms(slot),
            request.want,
            request.least,
            request.limit,
        )
        async with self._reached():
            amount, used = await self._lease(keys=[self._index(worker), self._key(slot)], args=words)
        return Grant(amount=int(amount), used=int(used))

    async def hold(self, worker: str, amounts: Mapping[Slot, int]) -> None:
        """See `LimitStore`."""
        words = [word for slot, n in amounts.items() for word in (_slot_text(slot), _end_ms(slot), n)]
        keys = [self._index(worker), *map(self._key, amounts)]
        async with self._reached():
            await self._hold(keys=keys, args=[worker, _WORKER_MS, *words])

    async def held(self, worker: str) -> dict[Slot, int]:
        """See `LimitStore`."""
        async with self._reached():
            slots = [Slot(*json.loads(text)) for text in await self._redis.smembers(self._index(worker))]
            pipeline = self._redis.pipeline(transaction=False)
            for slot in slots:
                pipeline.hget(self._key(slot), worker)
            amounts = await pipeline.execute()
        return {slot: int(amount) for slot, amount in zip(slots, amounts, strict=True) if amount is not None}

    async def used(self, slot: Slot) -> int:
        """See `LimitStore`."""
        async with self._reached():
            return int(await self._redis.hget(self._key(slot), _SUM) or 0)

    async def expire(self, now_s: float) -> None:
        """See `LimitStore`; here they go by themselves."""

    async def close(self) -> None:
        """See `LimitStore`."""
        await self._redis.aclose()

    def _key(self, slot: Slot) -> str:
        return f"{{{self._prefix}}}:window:{slot.account}:{slot.window}"

    def _index(self, worker: str) -> str:
        return f"{{{self._prefix}}}:worker:{worker}"

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            raise GatewayError(
                f"{self._place}: the shared limits cannot be reached ({error}); "
                "start Redis there, or mend the address"
            ) from error


def _slot_text(slot: Slot) -> str:
    return json.dumps(list(slot))


def _end_ms(slot: Slot) -> int | str:
    return "" if slot.ends_at_s is None else round(slot.ends_at_s * 1000) + _AFTER_END_MS


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
