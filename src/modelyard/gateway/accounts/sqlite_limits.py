"""Limits shared through an SQLite file, `limits.db` in the gateway's folder: for workers of one machine."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from modelyard.gateway.accounts.database import Schema, open_database, using, writing
from modelyard.gateway.accounts.limits import Grant, LeaseRequest, Slot

T = TypeVar("T")

_SCHEMA = Schema(
    what="shared limits",
    version=1,
    # A lease is worth less than a sync of the disk; the usage ledger, which tells what was spent, is durable.
    durable=False,
    tables="""
    CREATE TABLE held (
        account TEXT NOT NULL,
        window TEXT NOT NULL,
        worker TEXT NOT NULL,
        amount INTEGER NOT NULL,
        ends_at_s REAL,
        PRIMARY KEY (account, window, worker)
    ) WITHOUT ROWID;
    CREATE INDEX held_worker ON held (worker)
    """,
)
_SUM = "SELECT coalesce(sum(amount), 0) FROM held WHERE account = ? AND window = ?"
_ADD = (
    "INSERT INTO held (account, window, worker, amount, ends_at_s) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (account, window, worker) DO UPDATE SET amount = amount + excluded.amount"
)
_SET = _ADD.replace("amount + excluded.amount", "excluded.amount")


class SqliteLimits:
    """A `LimitStore` in a file. It waits for other workers in a thread of its own, never in the loop's."""

    def __init__(self, folder: Path) -> None:
        """Open the store in the gateway's folder.

        Raises:
            GatewayError: The file cannot be used or is of a newer version.
        """
        self.path = folder / "limits.db"
        self._db = open_database(self.path, _SCHEMA)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="limits")

    async def lease(self, worker: str, request: LeaseRequest) -> Grant:
        """See `LimitStore`."""
        return await self._run(lambda db: _lease(db, worker, request))

    async def hold(self, worker: str, amounts: Mapping[Slot, int]) -> None:
        """See `LimitStore`."""
        rows = [
            (slot.account, slot.window, worker, amount, slot.ends_at_s) for slot, amount in amounts.items()
        ]

        def write(db: sqlite3.Connection) -> None:
            with writing(db):
                db.executemany(_SET, rows)

        await self._run(write)

    async def held(self, worker: str) -> dict[Slot, int]:
        """See `LimitStore`."""
        query = "SELECT account, window, ends_at_s, amount FROM held WHERE worker = ?"
        rows = await self._run(lambda db: db.execute(query, (worker,)).fetchall())
        return {Slot(account, window, ends): amount for account, window, ends, amount in rows}

    async def used(self, slot: Slot) -> int:
        """See `LimitStore`."""
        return await self._run(lambda db: _used(db, slot))

    async def expire(self, now_s: float) -> None:
        """See `LimitStore`."""

        def write(db: sqlite3.Connection) -> None:
            with writing(db):
                db.execute("DELETE FROM held WHERE ends_at_s < ?", (now_s,))

        await self._run(write)

    async def close(self) -> None:
        """See `LimitStore`."""
        await self._run(lambda db: db.close())
        self._thread.shutdown()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def guarded() -> T:
            with using(self.path):
                return work(self._db)

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)


def _lease(db: sqlite3.Connection, worker: str, request: LeaseRequest) -> Grant:
    slot = request.slot
    with writing(db):
        used = _used(db, slot)
        amount = min(request.want, request.limit - used)
        if amount < request.least or amount <= 0:
            return Grant(amount=0, used=used)
        db.execute(_ADD, (slot.account, slot.window, worker, amount, slot.ends_at_s))
    return Grant(amount=amount, used=used + amount)


def _used(db: sqlite3.Connection, slot: Slot) -> int:
    return int(db.execute(_SUM, (slot.account, slot.window)).fetchone()[0])
