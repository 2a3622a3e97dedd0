"""The index: an SQLite picture of the journal for listing and counting. It can be deleted at any time.

A reader brings it up to date by replaying what the journal has gained; nothing is ever written to
it that is not in the journal.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import JournalError, StateError
from modelyard.core.journal import Entry, Journal

_VERSION = 2
_TABLES = """
CREATE TABLE run (run TEXT PRIMARY KEY, kind TEXT, dir TEXT, source TEXT, created_at TEXT, ended_at TEXT,
                  outcome TEXT);
CREATE TABLE job (key TEXT PRIMARY KEY, run TEXT, step TEXT, attempt INTEGER, backend TEXT, intent_at TEXT,
                  state TEXT, exit_code INTEGER, reason TEXT, started_at TEXT, finished_at TEXT, cpu_s REAL);
CREATE TABLE artifact (digest TEXT, run TEXT, kind TEXT, path TEXT, step TEXT, stored_at TEXT, parents TEXT,
                       PRIMARY KEY (digest, run, path));
CREATE TABLE cursor (began INTEGER NOT NULL, offset INTEGER NOT NULL, digest TEXT NOT NULL);
INSERT INTO cursor VALUES (0, 0, '');
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run of the yard. `outcome` is empty until the run has ended once."""

    run: str
    kind: str
    dir: str
    source: str
    created_at: str
    ended_at: str | None
    outcome: str
    jobs: int


class Index:
    """The index of one yard."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self._path = path
        self._journal = journal

    def runs(self) -> list[RunRow]:
        """All runs, the newest last."""
        query = """SELECT run.run, kind, dir, source, created_at, ended_at, coalesce(outcome, ''), count(key)
                   FROM run LEFT JOIN job ON job.run = run.run
                   GROUP BY run.run ORDER BY created_at, run.run"""
        names = ("run", "kind", "dir", "source", "created_at", "ended_at", "outcome", "jobs")
        with self._current() as db:
            return [RunRow(**dict(zip(names, row, strict=True))) for row in db.execute(query)]

    def job_states(self, run: str) -> dict[str, int]:
        """How many attempts of a run stand in each state."""
        with self._current() as db:
            return dict(db.execute("SELECT state, count(*) FROM job WHERE run = ? GROUP BY state", (run,)))

    @contextmanager
    def _current(self) -> Iterator[sqlite3.Connection]:
        try:
            self._catch_up()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StateError(
                    f"{self._path}: cannot be used ({error}); mend its permissions or the disk"
                ) from error
            self._path.unlink()  # damaged: it holds nothing that the journal does not
            self._catch_up()
        with closing(self._open()) as db:
            yield db

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30.0, isolation_level=None)

    def _catch_up(self) -> None:
        with closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION or self._is_stale(db):
                _rebuild(db)
            offset = db.execute("SELECT offset FROM cursor").fetchone()[0]
            for entry in self._journal.read(start=offset):
                _apply(db, entry)
                db.execute(
                    "UPDATE cursor SET began = offset, offset = ?, digest = ?", (entry.end, entry.digest)
                )
            db.execute("COMMIT")

    def _is_stale(self, db: sqlite3.Connection) -> bool:
        """Whether the journal is no longer the one that was indexed: its last indexed entry is another."""
        began, offset, digest = db.execute("SELECT began, offset, digest FROM cursor").fetchone()
        if offset == 0:
            return False
        try:
            last = next(self._journal.read(start=began), None)
        except JournalError:
            return True
        return last is None or (last.end, last.digest) != (offset, digest)


def _rebuild(db: sqlite3.Connection) -> None:
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        db.execute(f"DROP TABLE {table}")
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {_VERSION}")


def _apply(db: sqlite3.Connection, entry: Entry) -> None:
    data = entry.data
    if entry.kind == "run.created":
        values = (entry.run, data["kind"], data["dir"], data["source"], data["created_at"])
        db.execute(
            "INSERT OR IGNORE INTO run (run, kind, dir, source, created_at) VALUES (?, ?, ?, ?, ?)", values
        )
    elif entry.kind == "run.ended":
        db.execute(
            "UPDATE run SET ended_at = ?, outcome = ? WHERE run = ?", (entry.time, data["outcome"], entry.run)
        )
    elif entry.kind == "job.intent":
        job = (data["key"], entry.run, data["step"], data["attempt"], data["backend"], entry.time, "PENDING")
        db.execute(
            "INSERT OR IGNORE INTO job (key, run, step, attempt, backend, intent_at, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            job,
        )
    elif entry.kind == "job.finished":
        fields = ("state", "exit_code", "reason", "started_at", "finished_at", "cpu_s", "key")
        db.execute(
            "UPDATE job SET state=?, exit_code=?, reason=?, started_at=?, finished_at=?, cpu_s=? WHERE key=?",
            tuple(data[name] for name in fields),
        )
    elif entry.kind == "artifact.stored":
        row = (
            data["digest"],
            entry.run,
            data["kind"],
            data["path"],
            data["step"],
            entry.time,
            json.dumps(data["parents"]),
        )
        db.execute("INSERT OR REPLACE INTO artifact VALUES (?, ?, ?, ?, ?, ?, ?)", row)
