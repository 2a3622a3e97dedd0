"""The stores of shared limits keep the contract of limit stores."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import redis_server

from modelyard.core.errors import GatewayError
from modelyard.gateway.accounts.limits import LimitStore, Slot
from modelyard.gateway.accounts.redis_limits import RedisLimits
from modelyard.gateway.accounts.sqlite_limits import SqliteLimits
from modelyard.testing.limit_store_contract import LimitStoreContract


class TestSqlite(LimitStoreContract):
    """A file."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def opener(self) -> Callable[[], LimitStore]:
        return lambda: SqliteLimits(self.folder)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server.server() as url:
        if url is None:
            pytest.skip("no redis-server")
        yield url


class TestRedis(LimitStoreContract):
    """A real server."""

    @pytest.fixture(autouse=True)
    def _place(self, redis_url: str) -> None:
        self.url, self.prefix = redis_url, uuid.uuid4().hex

    def opener(self) -> Callable[[], LimitStore]:
        return lambda: RedisLimits(self.url, prefix=self.prefix)

    def test_a_window_goes_by_itself(self) -> None:
        from redis import Redis

        def ends(slot: Slot) -> int:
            self.run(lambda stores: stores[0].hold("a", {slot: 1}))
            with Redis.from_url(self.url) as redis:
                return int(redis.pexpiretime(f"{{{self.prefix}}}:window:{slot.account}:{slot.window}"))

        assert ends(Slot("k:usd", "day:2096-10-02", 4_000_000_000.0)) == 4_000_003_600_000
        assert ends(Slot("k:usd", "total", None)) == -1


def test_an_unreachable_redis_is_told_without_its_password() -> None:
    async def ask() -> None:
        store = RedisLimits("redis://me:hunter22@127.0.0.1:1/0")
        try:
            await store.used(Slot("k:usd", "total", None))
        finally:
            await store.close()

    with pytest.raises(GatewayError, match=r"redis://127\.0\.0\.1:1/0: the shared limits") as told:
        asyncio.run(ask())
    assert "hunter22" not in str(told.value)
