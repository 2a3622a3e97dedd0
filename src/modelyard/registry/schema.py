"""The tables of a registry, and the guard of their version.

A database without them gets them; one that another version of modelyard wrote is refused. All tables begin
with `registry_`, so that a registry may share a database with others' tables.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    insert,
    inspect,
    select,
    text,
)

from modelyard.core.clock import stamp
from modelyard.core.errors import RegistryError

#: Raised by one when a table changes; a database of another number is refused.
VERSION = 1
#: Of the lock under which tables are made in PostgreSQL, where two who open a new database meet.
_MAKING = 0x6D6F64656C

METADATA = MetaData()

SCHEMA = Table(
    "registry_schema",
    METADATA,
    Column("only", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
    # Of this registry, whatever its address: a journal names it.
    Column("id", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)

VERSIONS = Table(
    "registry_versions",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("yard", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("entry", Text, nullable=False),
    Column("run_id", Text),
    Column("trained_by", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("parent_digest", Text),
    Column("stored", Boolean, nullable=False),
    UniqueConstraint("name", "digest"),
)

ALIASES = Table(
    "registry_aliases",
    METADATA,
    Column("alias", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    ForeignKeyConstraint(["name", "version"], ["registry_versions.name", "registry_versions.version"]),
)

HISTORY = Table(
    "registry_history",
    METADATA,
    Column("alias", Text, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("yard", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("from_digest", Text),
    Column("to_digest", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence_digest", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("approvals", Text, nullable=False),
    Column("required", Integer, nullable=False),
    ForeignKeyConstraint(["name", "version"], ["registry_versions.name", "registry_versions.version"]),
)

APPROVALS = Table(
    "registry_approvals",
    METADATA,
    Column("alias", Text, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("evidence_digest", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    # The signed approval, whole.
    Column("record", Text, nullable=False),
)


def prepared(engine: Engine, place: str) -> str:
    """Make the tables where there are none; the id of the registry.

    Raises:
        RegistryError: The tables there are of another version, or not whole.
    """
    with engine.connect() as connection:
        there = _are_there(connection)
    if not there:
        with engine.connect().execution_options(writing=True) as connection, connection.begin():
            _make(connection)
    with engine.connect() as connection:
        row = connection.execute(select(SCHEMA.c.version, SCHEMA.c.id)).first()
    if row is None:
        raise RegistryError(
            f"{place}: has the tables of a registry, but not their version; restore it from a backup"
        )
    if row.version != VERSION:
        older = row.version < VERSION
        raise RegistryError(
            f"{place}: is a registry of schema {row.version} where this version of modelyard has {VERSION}; "
            + ("use the version that wrote it" if older else "install a newer modelyard")
        )
    return str(row.id)


def _are_there(connection: Connection) -> bool:
    return inspect(connection).has_table(SCHEMA.name)


def _make(connection: Connection) -> None:
    """All tables and their version in one transaction; whoever came first has done it."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MAKING})
    if _are_there(connection):
        return
    METADATA.create_all(connection)
    made = {"only": 1, "version": VERSION, "id": uuid.uuid4().hex, "created_at": stamp(datetime.now(UTC))}
    connection.execute(insert(SCHEMA).values(made))
