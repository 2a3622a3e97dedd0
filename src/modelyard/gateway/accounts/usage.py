"""What was used and spent: the table that the ledger folds requests into, and questions to it.

A row sums the requests of one worker, key, model, upstream and hour. The worker counts only while it may
have leases to be settled; after that, and after the day, rows are merged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from modelyard.gateway.accounts.database import Schema, open_database
from modelyard.gateway.accounts.money import in_usd
from modelyard.gateway.accounts.records import Outcome, UsageSource

_HOUR_S = 3600
_DAY_HOURS = 24
_SUMS = (
    "requests", "failures", "lost", "prompt_tokens", "completion_tokens", "estimated", "unknown_cost",
    "nano_usd", "booked_nano_usd",
)  # fmt: skip
_KEYS = ("worker", "key", "model", "upstream", "hour")
_SCHEMA = Schema(
    what="usage",
    version=1,
    durable=True,
    tables=f"""
    CREATE TABLE usage (
        worker TEXT NOT NULL,    -- empty: no longer of interest
        key TEXT NOT NULL,       -- empty: none was shown
        model TEXT NOT NULL,     -- the one that answered
        upstream TEXT NOT NULL,
        hour INTEGER NOT NULL,   -- since 1970, UTC, of the admission
        {", ".join(f"{name} INTEGER NOT NULL" for name in _SUMS)},
        PRIMARY KEY ({", ".join(_KEYS)})
    ) WITHOUT ROWID;
    CREATE INDEX usage_key ON usage (key, hour);
    CREATE TABLE journal (
        name TEXT PRIMARY KEY,
        worker TEXT NOT NULL,
        offset INTEGER NOT NULL,          -- what of the file is in the table above
        settled INTEGER NOT NULL          -- whether its worker's leases have become what it spent
    ) WITHOUT ROWID;
    CREATE TABLE dropped (lines INTEGER NOT NULL);
    INSERT INTO dropped VALUES (0)
    """,
)
_ADD = (
    f"INSERT INTO usage ({', '.join((*_KEYS, *_SUMS))}) "
    "{values} "
    f"ON CONFLICT ({', '.join(_KEYS)}) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)
)
_ADD_ROW = _ADD.format(values=f"VALUES ({', '.join('?' * (len(_KEYS) + len(_SUMS)))})")
_ADDED_UP = ", ".join(f"sum({name})" for name in _SUMS)
_MERGE_WORKER = _ADD.format(
    values=f"SELECT '', key, model, upstream, hour, {_ADDED_UP} FROM usage WHERE worker = ? "
    "GROUP BY key, model, upstream, hour"
)
_OLD = f"hour % {_DAY_HOURS} <> 0 AND hour < ?"
_MERGE_HOURS = _ADD.format(
    values=f"SELECT worker, key, model, upstream, hour / {_DAY_HOURS} * {_DAY_HOURS} AS day, {_ADDED_UP} "
    f"FROM usage WHERE {_OLD} GROUP BY worker, key, model, upstream, day"
)
_NOT_FAILED = (Outcome.OK, Outcome.CLIENT_GONE, Outcome.LOST)


class By(StrEnum):
    """What usage is told apart by."""

    KEY = "key"
    MODEL = "model"
    UPSTREAM = "upstream"
    DAY = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """What of the usage is asked for; days are of UTC and both belong to it."""

    by: By = By.KEY
    since: date | None = None
    until: date | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The sums of some requests."""

    # The key's id, the model, the upstream or the day; empty where there was none.
    of: str
    requests: int
    failures: int
    # Attempts beside them that gave no answer and may be billed; their tokens and costs are in the sums.
    lost: int
    prompt_tokens: int
    completion_tokens: int
    # Requests whose tokens were counted here because the upstream told none.
    estimated: int
    # Requests whose cost is not known; they are in no sum of money.
    unknown_cost: int
    nano_usd: int

    def record(self) -> dict[str, Any]:
        """The sums as JSON."""
        sums = {name: getattr(self, name) for name in _SUMS if not name.endswith("nano_usd")}
        return {"of": self.of, **sums, "usd": in_usd(self.nano_usd), "nano_usd": self.nano_usd}


def total_of(parts: Sequence[Usage]) -> Usage:
    """The sums over parts."""
    names = [name for name in _SUMS if name != "booked_nano_usd"]
    return Usage(of="", **{name: sum(getattr(part, name) for part in parts) for name in names})


class Tally:
    """Requests added up in memory, to be written in one go."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str, str, int], list[int]] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one request, or one lost attempt of a request."""
        place = (
            record["worker"], record["key"] or "", record["served_model"] or "", record["upstream"] or "",
            int(record["started_at"]) // _HOUR_S,
        )  # fmt: skip
        sums = self._rows.get(place)
        if sums is None:
            sums = self._rows[place] = [0] * len(_SUMS)
        cost, booked, outcome = record["cost_nano_usd"], record["booked_nano_usd"], record["outcome"]
        lost = outcome == Outcome.LOST
        sums[0] += not lost
        sums[1] += outcome not in _NOT_FAILED
        sums[2] += lost
        sums[3] += record["prompt_tokens"] or 0
        sums[4] += record["completion_tokens"] or 0
        sums[5] += not lost and record["usage_source"] == UsageSource.ESTIMATED
        sums[6] += cost is None
        sums[7] += cost or 0
        sums[8] += (cost or 0) if booked is None else booked

    def write(self, db: sqlite3.Connection) -> None:
        """Add the sums to the table, inside the caller's transaction."""
        db.executemany(_ADD_ROW, ((*place, *sums) for place, sums in self._rows.items()))


def open_usage(folder: Path) -> tuple[Path, sqlite3.Connection]:
    """The file of usage in the gateway's folder, and a connection to it."""
    path = folder / "usage.db"
    return path, open_database(path, _SCHEMA)


def merge_worker(db: sqlite3.Connection, worker: str) -> None:
    """Let a worker's rows be nobody's, inside the caller's transaction."""
    db.execute(_MERGE_WORKER, (worker,))
    db.execute("DELETE FROM usage WHERE worker = ?", (worker,))


def merge_hours(db: sqlite3.Connection, now_s: float) -> None:
    """Let the hours of the days before today be one row a day, inside the caller's transaction."""
    today = int(now_s) // _HOUR_S // _DAY_HOURS * _DAY_HOURS
    db.execute(_MERGE_HOURS, (today,))
    db.execute(f"DELETE FROM usage WHERE {_OLD}", (today,))


def booked_by_worker(db: sqlite3.Connection, worker: str) -> list[tuple[str, float, int]]:
    """What a worker's requests were booked with: key, Unix seconds of the hour, billionths of a dollar."""
    query = "SELECT key, hour, sum(booked_nano_usd) FROM usage WHERE worker = ? GROUP BY key, hour"
    return [(key, float(hour * _HOUR_S), amount) for key, hour, amount in db.execute(query, (worker,))]


def booked_since(db: sqlite3.Connection, key: str, since_s: float) -> int:
    """What the requests of a key were booked with since the beginning of an hour of today, or of a day."""
    query = "SELECT coalesce(sum(booked_nano_usd), 0) FROM usage WHERE key = ? AND hour >= ?"
    return int(db.execute(query, (key, int(since_s) // _HOUR_S)).fetchone()[0])


def read_usage(db: sqlite3.Connection, query: UsageQuery) -> list[Usage]:
    """The sums that are asked for: days in order, everything else the dearest first."""
    column = f"hour / {_DAY_HOURS}" if query.by is By.DAY else query.by.value
    conditions, values = ["1"], list[object]()
    for condition, value in (
        (f"hour / {_DAY_HOURS} >= ?", _day_number(query.since)),
        (f"hour / {_DAY_HOURS} <= ?", _day_number(query.until)),
        ("key = ?", query.key),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    rows = db.execute(
        f"SELECT {column} AS part, {_ADDED_UP} FROM usage WHERE {' AND '.join(conditions)} GROUP BY part "
        f"ORDER BY {'part' if query.by is By.DAY else 'sum(nano_usd) DESC, part'}",
        values,
    ).fetchall()
    return [_usage(row, query.by) for row in rows]


def _usage(row: tuple[Any, ...], by: By) -> Usage:
    of = _day_text(row[0]) if by is By.DAY else row[0]
    sums = dict(zip(_SUMS, row[1:], strict=True))
    sums.pop("booked_nano_usd")
    return Usage(of=of, **sums)


def _day_number(day: date | None) -> int | None:
    return None if day is None else (day - date(1970, 1, 1)).days


def _day_text(number: int) -> str:
    return datetime.fromtimestamp(number * _DAY_HOURS * _HOUR_S, UTC).date().isoformat()
