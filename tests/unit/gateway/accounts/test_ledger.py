"""The ledger: each line once, dead workers settled, journals put away."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.gateway.accounts.conftest import NOON_S, Hands

from modelyard.core.errors import GatewayError
from modelyard.core.locks import held
from modelyard.gateway.accounts.journal import RequestJournal, journal_files
from modelyard.gateway.accounts.keys import VirtualKey, parse_spend_limit
from modelyard.gateway.accounts.ledger import Ledger, keep_books
from modelyard.gateway.accounts.limits import Slot, limit_accounts, slot_of
from modelyard.gateway.accounts.log_settings import LogSettings
from modelyard.gateway.accounts.records import Outcome, RequestRecord, UsageSource, line_of
from modelyard.gateway.accounts.redis_limits import RedisLimits
from modelyard.gateway.accounts.sqlite_limits import SqliteLimits
from modelyard.gateway.accounts.usage import (
    By,
    Tally,
    Usage,
    UsageQuery,
    open_usage,
    read_usage,
    total_of,
)

Write = Callable[..., Path]
Make = Callable[..., RequestRecord]
MakeKey = Callable[..., VirtualKey]
DAY_S = 86_400


def finish(ledger: Ledger, folder: Path) -> None:
    keep_books(ledger, lambda: SqliteLimits(folder), LogSettings(keep_days=None))


def held_by(folder: Path, worker: str, amounts: dict[Slot, int] | None = None) -> dict[Slot, int]:
    """Set what a worker holds, where amounts are given; what it holds."""

    async def body() -> dict[Slot, int]:
        store = SqliteLimits(folder)
        try:
            if amounts is not None:
                await store.hold(worker, amounts)
            return await store.held(worker)
        finally:
            await store.close()

    return asyncio.run(body())


def slot(key: VirtualKey, kind: str = "usd", now_s: float = NOON_S) -> Slot:
    account, period, _ = limit_accounts(key)[kind]
    return slot_of(account, period, now_s)


def logged(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("log/*/*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_requests_are_counted_by_what_they_were(folder: Path, write_journal: Write, clock: Hands) -> None:
    write_journal(
        "w1",
        {},
        {
            "cost_nano_usd": None,
            "booked_nano_usd": 900,
            "usage_source": UsageSource.NONE,
            "prompt_tokens": None,
        },
        {"outcome": Outcome.CUT, "status": 502, "usage_source": UsageSource.ESTIMATED},
        {"outcome": Outcome.CLIENT_GONE},
        {"outcome": Outcome.LOST, "usage_source": UsageSource.ESTIMATED, "status": 0},
        {"key": None, "served_model": None, "upstream": None, "outcome": Outcome.UPSTREAM_FAILED},
    )
    with Ledger(folder, clock=clock) as ledger:
        assert ledger.fold() == 6
        nobody, somebody = sorted(ledger.usage(UsageQuery()), key=lambda usage: usage.of)
        assert ledger.usage(UsageQuery(by=By.MODEL, key="")) == [nobody]
    assert somebody == Usage(
        of="k", requests=4, failures=1, lost=1, prompt_tokens=40, completion_tokens=100, estimated=1,
        unknown_cost=1, nano_usd=4000,
    )  # fmt: skip
    assert (nobody.of, nobody.requests, nobody.failures) == ("", 1, 1)


def test_folding_again_adds_only_what_is_new(folder: Path, make_record: Make, clock: Hands) -> None:
    journal = RequestJournal(folder, "w1")
    with Ledger(folder, clock=clock) as ledger, Ledger(folder, clock=clock) as other:
        for number in range(6):
            journal.append(make_record(worker="w1"))
            assert [each.fold() for each in ((ledger, other) if number % 2 else (other, ledger))] == [1, 0]
        assert ledger.usage(UsageQuery()) == other.usage(UsageQuery())
        assert ledger.usage(UsageQuery())[0].requests == 6
    journal.close()


def test_a_line_under_way_is_left_until_it_is_whole(folder: Path, make_record: Make) -> None:
    journal = RequestJournal(folder, "w1")
    [file] = journal_files(folder)
    line = line_of(make_record(worker="w1"))
    with Ledger(folder) as ledger:
        for part, expected in ((line[:100], 0), (line[100:], 1)):
            with file.path.open("ab") as opened:
                opened.write(part)
            assert ledger.fold() == expected
        assert ledger.dropped_lines() == 0
    journal.close()


def test_lines_longer_than_a_chunk_are_folded(folder: Path, write_journal: Write) -> None:
    long = "x" * (5 << 20)
    write_journal("w1", {}, {"prompt": long}, {}, {"prompt": long, "answer": long}, {})
    with Ledger(folder) as ledger:
        assert ledger.fold() == 5
        finish(ledger, folder)
    assert [len(row["prompt"] or "") for row in logged(folder)] == [0, len(long), 0, len(long), 0]


def test_usage_is_told_apart_and_within_days(folder: Path, write_journal: Write, clock: Hands) -> None:
    write_journal(
        "w1",
        {"started_at": NOON_S - DAY_S, "served_model": "large", "cost_nano_usd": 5},
        {"started_at": NOON_S - DAY_S + 12 * 3600, "upstream": "far", "cost_nano_usd": 7},
        {"key": "other", "served_model": "large", "cost_nano_usd": 11},
    )
    with Ledger(folder, clock=clock) as ledger:
        ledger.fold()

        def told(**query: Any) -> list[tuple[str, int]]:
            return [(usage.of, usage.nano_usd) for usage in ledger.usage(UsageQuery(**query))]

        days = [("2026-11-25", 5), ("2026-11-26", 18)]
        assert told(by=By.DAY) == days
        assert told(by=By.KEY) == [("k", 12), ("other", 11)]
        assert told(by=By.MODEL) == [("large", 16), ("small", 7)]
        assert told(by=By.UPSTREAM) == [("near", 16), ("far", 7)]
        assert told(by=By.KEY, key="other") == [("other", 11)]
        for first in range(2):
            day = date.fromisoformat(days[first][0])
            assert told(by=By.DAY, since=day) == days[first:]
            assert told(by=By.DAY, until=day) == days[: first + 1]
        finish(ledger, folder)  # which merges hours and workers
        assert told(by=By.DAY) == days
        assert told(by=By.MODEL) == [("large", 16), ("small", 7)]


def test_hours_of_past_days_become_one_row(folder: Path, write_journal: Write, clock: Hands) -> None:
    write_journal("w1", *({"started_at": NOON_S - hour * 3600} for hour in range(40)))
    with Ledger(folder, clock=clock) as ledger:
        finish(ledger, folder)
    with closing(open_usage(folder)[1]) as db:
        rows = db.execute("SELECT hour, requests FROM usage ORDER BY hour").fetchall()
    first_of_today = int(NOON_S) // DAY_S * 24
    assert rows == [(first_of_today - 48, 3), (first_of_today - 24, 24)] + [
        (first_of_today + hour, 1) for hour in range(13)
    ]


def test_a_dead_workers_leases_become_what_it_spent(
    folder: Path, write_journal: Write, make_key: MakeKey, clock: Hands
) -> None:
    key, other = (
        make_key(spend=parse_spend_limit("1/day"), rpm=60),
        make_key(spend=parse_spend_limit("1/hour")),
    )
    write_journal(
        "w1",
        {"key": key.id},
        {"key": key.id, "cost_nano_usd": None, "booked_nano_usd": 500},
        {"key": key.id, "started_at": NOON_S - 13 * 3600, "cost_nano_usd": 10**6},  # yesterday
        {"key": other.id, "started_at": NOON_S + 60},
        {"key": other.id, "started_at": NOON_S - 60, "cost_nano_usd": 10**6},  # the hour before
        {"key": "deleted"},
    )
    idle = slot(make_key(spend=parse_spend_limit("1")))
    held_by(folder, "w1", {slot(key): 10**9, slot(key, "rpm"): 9, idle: 77})
    with Ledger(folder, clock=clock) as ledger:
        finish(ledger, folder)
        assert held_by(folder, "w1") == {slot(key): 1500, slot(key, "rpm"): 9, idle: 0, slot(other): 1000}
        finish(ledger, folder)  # nothing of the worker is left; its leases stay what they are
        assert held_by(folder, "w1")[slot(key)] == 1500
        assert ledger.spent(key, NOON_S) == 1500
        assert ledger.spent(other, NOON_S) == 1000
        assert total_of(ledger.usage(UsageQuery())).requests == 6


def test_a_living_worker_is_left_alone_but_for_its_full_files(
    folder: Path, make_record: Make, make_key: MakeKey, clock: Hands
) -> None:
    key = make_key(spend=parse_spend_limit("1/day"))
    held_by(folder, "w1", {slot(key): 10**9})
    journal = RequestJournal(folder, "w1", roll_bytes=1)
    for number in range(3):
        journal.append(make_record(f"r{number}", worker="w1", key=key.id))
    with Ledger(folder, clock=clock) as ledger:
        finish(ledger, folder)
        assert [file.number for file in journal_files(folder)] == [4]
        assert held_by(folder, "w1") == {slot(key): 10**9}
        assert sorted(row["request_id"] for row in logged(folder)) == ["r0", "r1", "r2"]
        journal.append(make_record("r3", worker="w1", key=key.id))
        journal.close()
        finish(ledger, folder)
        # What it spent is in files that were put away long before it died, too.
        assert held_by(folder, "w1") == {slot(key): 4000}
        assert not list(journal_files(folder))
        assert total_of(ledger.usage(UsageQuery())).requests == 4
    with closing(open_usage(folder)[1]) as db:
        assert db.execute("SELECT count(*) FROM journal").fetchone() == (0,)


def test_a_torn_last_line_is_dropped_and_counted_once(folder: Path, write_journal: Write) -> None:
    write_journal("w1", {}, torn=b'{"request_id": "half')
    write_journal("w2", torn=b"{")
    with Ledger(folder) as ledger:
        assert ledger.fold() == 1
        for _ in range(2):
            finish(ledger, folder)
            assert ledger.dropped_lines() == 2
        assert [row["request_id"] for row in logged(folder)] == ["w1-0"]


def test_a_line_that_is_no_record_is_dropped_and_counted(
    folder: Path, write_journal: Write, make_record: Make
) -> None:
    write_journal("w1", {}, torn=b"half\n" + line_of(make_record("last", worker="w1")))
    with Ledger(folder) as ledger:
        finish(ledger, folder)
        assert (ledger.dropped_lines(), len(logged(folder))) == (1, 2)


def test_while_the_store_cannot_be_reached_nothing_is_put_away(folder: Path, write_journal: Write) -> None:
    write_journal("w1", {})

    async def body(ledger: Ledger) -> None:
        store = RedisLimits("redis://127.0.0.1:1/0")
        with pytest.raises(GatewayError, match="cannot be reached"):
            await ledger.finish(store)
        await store.close()

    with Ledger(folder) as ledger:
        asyncio.run(body(ledger))
        assert len(list(journal_files(folder))) == 1
        assert ledger.usage(UsageQuery())[0].requests == 1


def test_one_process_at_a_time_puts_away(folder: Path, write_journal: Write) -> None:
    write_journal("w1", {})
    with Ledger(folder) as ledger, held(folder / "finishing.lock"):
        finish(ledger, folder)
        assert len(list(journal_files(folder))) == 1


COST = st.one_of(st.none(), st.integers(0, 10**12))


@settings(max_examples=20)
@given(st.lists(st.tuples(COST, COST, st.sampled_from(["a", "b"]), st.integers(0, 10**6)), max_size=30))
def test_sums_are_exact(requests: list[tuple[int | None, int | None, str, int]]) -> None:
    tally = Tally()
    for cost, booked, key, started in requests:
        blank: dict[str, Any] = dict.fromkeys(RequestRecord._fields)
        facts = {"worker": "w", "key": key, "started_at": started, "outcome": "ok", "prompt_tokens": 3}
        tally.add({**blank, **facts, "cost_nano_usd": cost, "booked_nano_usd": booked})
    with tempfile.TemporaryDirectory() as folder, closing(open_usage(Path(folder))[1]) as db:
        tally.write(db)
        totals = [total_of(read_usage(db, UsageQuery(by=by))) for by in By]
    for total in totals:
        assert total.nano_usd == sum(cost or 0 for cost, *_ in requests)
        assert total.unknown_cost == sum(cost is None for cost, *_ in requests)
        assert (total.requests, total.prompt_tokens) == (len(requests), 3 * len(requests))


def test_windows_that_ended_long_ago_are_forgotten(folder: Path, make_key: MakeKey, clock: Hands) -> None:
    key = make_key(spend=parse_spend_limit("1/day"), rpm=60)
    held_by(folder, "w1", {slot(key): 5, slot(key, "rpm"): 6})
    with Ledger(folder, clock=clock) as ledger:
        finish(ledger, folder)
        clock.now_s += 2 * 3600
        finish(ledger, folder)
    assert held_by(folder, "w1") == {slot(key): 5}
