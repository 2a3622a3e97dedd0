"""The answers of one model by what it was asked: nothing that was answered is asked again.

One SQLite file a model and identity. A question is marked before it is sent, and its reply is on the disk
before it counts; a mark without a reply is a question that was under way when its asker was killed.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.digests import digest_json
from modelyard.core.errors import EvaluationError
from modelyard.core.locks import held
from modelyard.results.engines import Question, Reply

_SCHEMA_VERSION = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,      -- the digest of whom and what was asked
    asked_at TEXT NOT NULL,    -- last time
    times INTEGER NOT NULL,    -- how often
    answered_at TEXT,          -- null while it is under way, or was when its asker died
    final INTEGER,             -- whether asking again makes no sense
    reply TEXT                 -- JSON
) WITHOUT ROWID
"""
_ABSORB = """
INSERT OR REPLACE INTO answers SELECT * FROM other.answers theirs
WHERE theirs.reply IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM answers ours
    WHERE ours.key = theirs.key AND ours.reply IS NOT NULL AND ours.final >= theirs.final
)
"""


def answer_key(identity: Mapping[str, object], question: Question, *, by_example: bool = False) -> str:
    """Where the answer of a model to a question is kept; with `by_example` its example counts, too."""
    example = {"example": question.example_id} if by_example else {}
    return digest_json({"model": dict(identity), "question": question.content(), **example})


class AnswerStore:
    """An open file of answers; any thread may use it."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection, self._clock, self._lock = connection, clock, threading.Lock()

    def replies(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The last reply to each question that has one."""
        wanted = set(keys)
        with self._lock:
            rows = self._connection.execute(
                "SELECT key, reply FROM answers WHERE reply IS NOT NULL"
            ).fetchall()
        return {key: Reply(**json.loads(reply)) for key, reply in rows if key in wanted}

    def answered(self) -> set[str]:
        """The questions that need not be asked again."""
        return self._keys("final = 1")

    def failed(self) -> set[str]:
        """The questions whose last reply was a failure that may pass."""
        return self._keys("final = 0 AND reply IS NOT NULL")

    def in_doubt(self) -> set[str]:
        """The questions that were under way when their asker died; their answers may have been paid."""
        return self._keys("answered_at IS NULL")

    def asked(self, key: str) -> None:
        """Mark a question as under way."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO answers (key, asked_at, times) VALUES (?, ?, 1) ON CONFLICT (key) DO UPDATE SET "
                "asked_at = excluded.asked_at, times = times + 1, answered_at = NULL",
                (key, stamp(self._clock())),
            )

    def heard(self, key: str) -> None:
        """The server answered, though not the question: it is no longer under way."""
        with self._lock:
            self._connection.execute(
                "UPDATE answers SET answered_at = ? WHERE key = ?", (stamp(self._clock()), key)
            )

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; it is on the disk when this returns."""
        said = json.dumps(asdict(reply), ensure_ascii=False)
        with self._lock:
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(
                "UPDATE answers SET answered_at = ?, final = ?, reply = ? WHERE key = ?",
                (stamp(self._clock()), int(not reply.again), said, key),
            )
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def forget(self, keys: Iterable[str]) -> None:
        """Drop answers, so that they are asked for again."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany("DELETE FROM answers WHERE key = ?", ((key,) for key in keys))

    def absorb(self, path: Path) -> None:
        """Take over the replies of another file; its own are kept where they are final.

        Raises:
            EvaluationError: The other file cannot be read.
        """
        try:
            with self._lock:
                self._connection.execute("ATTACH DATABASE ? AS other", (str(path),))
                try:
                    self._connection.execute(_ABSORB)
                finally:
                    self._connection.execute("DETACH DATABASE other")
        except sqlite3.Error as error:
            raise EvaluationError(
                f"{path}: {error}; move this file away, what it alone knows will be asked again"
            ) from error

    def _keys(self, condition: str) -> set[str]:
        with self._lock:
            rows = self._connection.execute(f"SELECT key FROM answers WHERE {condition}").fetchall()
        return {key for (key,) in rows}


@contextmanager
def open_store(path: Path, *, clock: Clock = utc_now) -> Iterator[AnswerStore]:
    """The answers in a file, which is made where it is missing; one process at a time.

    Raises:
        EvaluationError: Another process asks this model now, or the file cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with held(path.with_suffix(".lock")), closing(_connected(path)) as connection:
            yield AnswerStore(connection, clock)
    except BlockingIOError as error:
        raise EvaluationError(
            f"{path}: another process asks this model now; wait for its end, or use another yard"
        ) from error
    except sqlite3.Error as error:
        raise EvaluationError(f"{path}: {error}; free the disk, or move the file away to ask anew") from error


def peek(path: Path) -> set[str]:
    """The questions that are answered in a file, without opening it for writing; none where it is missing."""
    if not path.exists():
        return set()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT key FROM answers WHERE final = 1").fetchall()
    except sqlite3.Error as error:
        raise EvaluationError(f"{path}: {error}; move the file away to ask anew") from error
    return {key for (key,) in rows}


def has_holder(path: Path) -> bool:
    """Whether a living process has the file of answers open."""
    try:
        with held(path.with_suffix(".lock")):
            return False
    except BlockingIOError:
        return True


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    connection.execute("PRAGMA journal_mode = WAL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _SCHEMA_VERSION):
        connection.close()
        raise EvaluationError(
            f"{path}: holds answers of version {version} where {_SCHEMA_VERSION} is read; "
            "use the modelyard that wrote it"
        )
    connection.execute(_TABLE)
    connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    return connection
