"""The ledger: folds the journals of all workers into the table of usage, each line exactly once.

How far a file was read is kept in the same transaction as what was read. A journal that no worker writes
any more is read to its end; then a dead worker's leases become what it spent, its requests go to the request
log, and its file goes. Each step may be cut off by a kill and is done again by whoever comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import time
from types import TracebackType

from modelyard.core.failpoints import failpoint
from modelyard.core.locks import held
from modelyard.gateway.accounts.database import using, writing
from modelyard.gateway.accounts.journal import JournalFile, is_written, journal_files, remove_unnamed
from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.keys import VirtualKey
from modelyard.gateway.accounts.limits import LimitStore, Slot, limit_accounts, slot_of
from modelyard.gateway.accounts.log_settings import LogSettings
from modelyard.gateway.accounts.records import read_line
from modelyard.gateway.accounts.usage import (
    Tally,
    Usage,
    UsageQuery,
    booked_by_worker,
    booked_since,
    merge_hours,
    merge_worker,
    open_usage,
    read_usage,
)
from modelyard.gateway.accounts.windows import Period, window_of

_CHUNK_BYTES = 4 << 20
_DAY_S = 86_400
#: Ended windows are forgotten now and then, and not at once.
_EXPIRE_EVERY_S, _EXPIRE_AFTER_S = 60.0, 3600.0
_MOVE = (
    "INSERT INTO journal (name, worker, offset, settled) VALUES (?, ?, ?, 0) "
    "ON CONFLICT (name) DO UPDATE SET offset = offset + excluded.offset"
)
_SETTLE = (
    "INSERT INTO journal (name, worker, offset, settled) VALUES (?, ?, 0, 1) "
    "ON CONFLICT (name) DO UPDATE SET settled = 1"
)


class Ledger:
    """What was used, of one gateway. Processes may be many; an instance is for one thread at a time."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time) -> None:
        """`folder` is the gateway's; `clock` gives Unix seconds.

        Raises:
            GatewayError: A file of the gateway cannot be used or is of a newer version.
        """
        self._folder = folder
        self._clock = clock
        self._path, self._db = open_usage(folder)
        self._merged_day = -1
        self._expire_at_s = 0.0

    def fold(self) -> int:
        """Add what the journals have gained since; how many requests that was.

        Raises:
            GatewayError: A file cannot be read or written.
        """
        count, more = 0, True
        while more:
            with using(self._path), writing(self._db):
                offsets = dict(self._db.execute("SELECT name, offset FROM journal"))
                tally, more = Tally(), False
                # Listed and opened inside the transaction: nobody takes a file and its offset away meanwhile.
                for file in journal_files(self._folder):
                    lines, size, goes_on = _read_chunk(file, offsets.get(file.path.name, 0))
                    count += self._fold_lines(file, lines, size, tally)
                    more |= goes_on
                tally.write(self._db)
                failpoint("gateway.before_folded")
            failpoint("gateway.after_folded")
        return count

    async def finish(self, store: LimitStore, log: LogSettings | None = None) -> None:
        """Fold, and put away the journals that no worker writes any more. One process at a time does it.

        A dead worker's spend comes from its requests; its leases of rates stay until their minute ends.

        Raises:
            GatewayError: A file cannot be read or written, or the store cannot be reached: the rest is left
                for the next time.
        """
        with contextlib.suppress(BlockingIOError), held(self._folder / "finishing.lock"):
            ended = [file for file in journal_files(self._folder) if not is_written(file)]
            names = {file.path.name for file in ended}
            # Listed again: a worker that went on to its next file in between is seen to live.
            living = {file.worker for file in journal_files(self._folder) if file.path.name not in names}
            self.fold()
            for worker in sorted({file.worker for file in ended} - living):
                await self._settle(worker, store)
            if ended:
                self._put_away(ended)
            self._tidy(log or LogSettings())
            if self._clock() >= self._expire_at_s:
                self._expire_at_s = self._clock() + _EXPIRE_EVERY_S
                await store.expire(self._clock() - _EXPIRE_AFTER_S)

    def usage(self, query: UsageQuery) -> list[Usage]:
        """The sums of what was folded."""
        with using(self._path):
            return read_usage(self._db, query)

    def spent(self, key: VirtualKey, now_s: float) -> int:
        """What was booked on a key in the present window of its spend limit, in billionths of a dollar.

        Without such a limit it is what was booked in all of its life.
        """
        period = key.limits.spend.period if key.limits.spend is not None else Period.TOTAL
        with using(self._path):
            return booked_since(self._db, key.id, window_of(period, now_s).begins_at_s)

    def dropped_lines(self) -> int:
        """Lines that were not whole: the last ones of workers that died, or of a full disk."""
        with using(self._path):
            return int(self._db.execute("SELECT lines FROM dropped").fetchone()[0])

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fold_lines(self, file: JournalFile, lines: Iterable[bytes], size: int, tally: Tally) -> int:
        """Count lines and move the file's offset; how many were requests."""
        count = dropped = 0
        for line in lines:
            record = read_line(line)
            if record is None:
                dropped += 1
            else:
                tally.add(record)
                count += 1
        if size:
            self._db.execute(_MOVE, (file.path.name, file.worker, size))
        if dropped:
            self._db.execute("UPDATE dropped SET lines = lines + ?", (dropped,))
        return count

    async def _settle(self, worker: str, store: LimitStore) -> None:
        query = "SELECT count(*) FROM journal WHERE worker = ? AND settled = 1"
        with using(self._path):
            if self._db.execute(query, (worker,)).fetchone()[0]:
                return
            booked = booked_by_worker(self._db, worker)
        amounts = {slot: 0 for slot in await store.held(worker) if slot.account.endswith(":usd")}
        for slot, amount in self._slots(booked):
            amounts[slot] = amounts.get(slot, 0) + amount
        if amounts:
            await store.hold(worker, amounts)
        failpoint("gateway.after_held")
        with using(self._path), writing(self._db):
            merge_worker(self._db, worker)
            for file in journal_files(self._folder):
                if file.worker == worker:
                    self._db.execute(_SETTLE, (file.path.name, worker))
        failpoint("gateway.after_settled")

    def _slots(self, booked: Iterable[tuple[str, float, int]]) -> Iterable[tuple[Slot, int]]:
        """What was booked, in the windows of spend limits that have not ended."""
        now = self._clock()
        with KeyStore(self._folder) as keys:
            limits = {key.id: limit_accounts(key).get("usd") for key in keys.list()}
        for key, hour_s, amount in booked:
            limit = limits.get(key)
            if limit is not None:
                slot = slot_of(limit[0], limit[1], hour_s)
                if slot.ends_at_s is None or slot.ends_at_s > now:
                    yield slot, amount

    def _put_away(self, ended: Iterable[JournalFile]) -> None:
        """Write the request log of whole journals, and remove them and then their offsets."""
        from modelyard.gateway.accounts.request_log import write_log

        for file in ended:
            self._drop_torn(file)
            write_log(self._folder, file)
            failpoint("gateway.after_logged")
            file.path.unlink(missing_ok=True)
            failpoint("gateway.after_unlinked")

    def _drop_torn(self, file: JournalFile) -> None:
        """Count a last line without its end as dropped, once."""
        with using(self._path), writing(self._db), contextlib.suppress(FileNotFoundError):
            size = file.path.stat().st_size
            query = "SELECT coalesce(max(offset), 0) FROM journal WHERE name = ?"
            rest = size - self._db.execute(query, (file.path.name,)).fetchone()[0]
            if rest > 0:
                self._db.execute(_MOVE, (file.path.name, file.worker, rest))
                self._db.execute("UPDATE dropped SET lines = lines + 1")

    def _tidy(self, log: LogSettings) -> None:
        from modelyard.gateway.accounts.request_log import forget_logs

        now = self._clock()
        remove_unnamed(self._folder, now)
        with using(self._path), writing(self._db):
            known = [name for (name,) in self._db.execute("SELECT name FROM journal")]
            # Listed after: a name comes back never.
            there = {file.path.name for file in journal_files(self._folder)}
            gone = [(name,) for name in known if name not in there]
            self._db.executemany("DELETE FROM journal WHERE name = ?", gone)
            if int(now) // _DAY_S != self._merged_day:
                merge_hours(self._db, now)
        if int(now) // _DAY_S != self._merged_day:
            forget_logs(self._folder, log, now)
            self._merged_day = int(now) // _DAY_S


def keep_books(ledger: Ledger, open_store: Callable[[], LimitStore], log: LogSettings | None = None) -> None:
    """What a supervisor does each second, in a thread without an event loop: `Ledger.finish`.

    Before the first worker begins it does so once, so that what dead ones leased is free again.

    Raises:
        GatewayError: As `Ledger.finish`.
    """

    async def finish() -> None:
        store = open_store()
        try:
            await ledger.finish(store, log)
        finally:
            await store.close()

    asyncio.run(finish())


def _read_chunk(file: JournalFile, offset: int) -> tuple[list[bytes], int, bool]:
    """The next whole lines of a file, how many bytes they have, and whether there are more.

    They are at most a chunk, or one line that is longer.
    """
    try:
        with file.path.open("rb") as opened:
            left = os.fstat(opened.fileno()).st_size - offset
            if left <= 0:
                return [], 0, False
            opened.seek(offset)
            data = opened.read(min(left, _CHUNK_BYTES))
            if b"\n" not in data and left > len(data):
                data += opened.readline()
    except FileNotFoundError:
        return [], 0, False
    end = data.rfind(b"\n") + 1
    return data[:end].split(b"\n")[:-1], end, end > 0 and left > len(data)
