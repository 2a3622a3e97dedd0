"""Where virtual keys are kept: `keys.db` in the gateway's folder, with digests in place of tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any

from modelyard.core.errors import GatewayError
from modelyard.gateway.accounts.database import Schema, open_database, using, writing
from modelyard.gateway.accounts.keys import (
    KeyLimits,
    KeyRequest,
    VirtualKey,
    digest_of,
    last_of,
    new_id,
    new_token,
)

_SCHEMA = Schema(
    what="virtual keys",
    version=1,
    durable=True,
    tables="""
    CREATE TABLE key (
        id TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL,
        last TEXT NOT NULL,
        created_at_s REAL NOT NULL,
        expires_at_s REAL,
        revoked_at_s REAL,
        models TEXT NOT NULL,     -- JSON
        limits TEXT NOT NULL,     -- JSON
        log_prompts INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)
_FIELDS = "id, name, last, created_at_s, expires_at_s, revoked_at_s, models, limits, log_prompts"


class KeyStore:
    """The keys of one gateway. Processes may be many; an instance is for one thread at a time."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time) -> None:
        """`folder` is the gateway's; `clock` gives Unix seconds."""
        self.path = folder / "keys.db"
        self._clock = clock
        self._db = open_database(self.path, _SCHEMA)

    def create(self, request: KeyRequest) -> tuple[VirtualKey, str]:
        """Make a key; the second value is its token, which is not kept and cannot be shown again."""
        now = self._clock()
        key_id = new_id()
        token = new_token(key_id)
        expires = None if request.expires_in_s is None else now + request.expires_in_s
        row = (
            key_id, digest_of(token.encode()), request.name, last_of(token), now, expires, None,
            json.dumps(sorted(request.models)), json.dumps(request.limits.record()), int(request.log_prompts),
        )  # fmt: skip
        with using(self.path), writing(self._db):
            self._db.execute(f"INSERT INTO key VALUES ({', '.join('?' * len(row))})", row)
        return self.get(key_id), token

    def get(self, key_id: str) -> VirtualKey:
        """A key by its id.

        Raises:
            GatewayError: There is none.
        """
        with using(self.path):
            row = self._db.execute(f"SELECT {_FIELDS} FROM key WHERE id = ?", (key_id,)).fetchone()
        if row is None:
            raise GatewayError(f"key = {key_id}: there is none with this id; see `modelyard keys list`")
        return _key(row)

    def list(self) -> list[VirtualKey]:
        """All keys, revoked ones too, the oldest first."""
        with using(self.path):
            rows = self._db.execute(f"SELECT {_FIELDS} FROM key ORDER BY created_at_s, id").fetchall()
        return [_key(row) for row in rows]

    def revoke(self, key_id: str) -> VirtualKey:
        """Let a key open nothing any more; one that was revoked before stays as it was.

        Raises:
            GatewayError: There is no such key.
        """
        with using(self.path), writing(self._db):
            self._db.execute(
                "UPDATE key SET revoked_at_s = ? WHERE id = ? AND revoked_at_s IS NULL",
                (self._clock(), key_id),
            )
        return self.get(key_id)

    def version(self) -> int:
        """A number that is another one after other connections changed the keys, and mostly only then."""
        with using(self.path):
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def by_digest(self, known: Mapping[bytes, VirtualKey]) -> dict[bytes, VirtualKey]:
        """All keys by the digests of their tokens; those that are known and as they were are taken over."""
        with using(self.path):
            revoked = dict(self._db.execute("SELECT digest, revoked_at_s FROM key"))
            found = {d: k for d, k in known.items() if d in revoked and revoked[d] == k.revoked_at_s}
            query = f"SELECT {_FIELDS} FROM key WHERE digest = ?"
            for digest in revoked.keys() - found.keys():
                found[digest] = _key(self._db.execute(query, (digest,)).fetchone())
        return found

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def __enter__(self) -> KeyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key(row: tuple[Any, ...]) -> VirtualKey:
    key_id, name, last, created, expires, revoked, models, limits, log_prompts = row
    return VirtualKey(
        id=key_id, name=name, last=last, created_at_s=created, expires_at_s=expires, revoked_at_s=revoked,
        models=frozenset(json.loads(models)), limits=KeyLimits.of(json.loads(limits)),
        log_prompts=bool(log_prompts),
    )  # fmt: skip
