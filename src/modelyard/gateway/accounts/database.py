"""SQLite files of the gateway: opened alike, with the version of their tables in `user_version`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import GatewayError

_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The tables of one kind of file. A file made by a newer version is refused."""

    what: str
    version: int
    tables: str
    # Whether a commit outlives a loss of power; without it the last ones may be lost (a killed process
    # loses none).
    durable: bool


def open_database(path: Path, schema: Schema) -> sqlite3.Connection:
    """Open a file, making it where it is missing; one thread at a time may use the connection.

    Raises:
        GatewayError: The file cannot be opened, is no such file, or was made by a newer version.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with using(path):
        connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path, schema)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Tell what SQLite says of a file as an error of ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise GatewayError(
            f"{path}: cannot be used ({error}); mend its permissions, free the disk, or restore the file"
        ) from error


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that begins as a writer, so that it never fails half way for another one."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _prepare(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    _write_ahead(connection)
    connection.execute(f"PRAGMA synchronous = {'FULL' if schema.durable else 'NORMAL'}")
    found = _version(connection)
    if found == 0:
        with writing(connection):
            if _version(connection) == 0:  # else another process was first
                for statement in filter(str.strip, schema.tables.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {schema.version}")
        found = _version(connection)
    if found != schema.version:
        raise GatewayError(
            f"{path}: holds {schema.what} of version {found} where this modelyard reads {schema.version}; "
            "use the version that wrote it"
        )


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Readers do not wait for writers. SQLite does not wait while another process turns this on: we do."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
