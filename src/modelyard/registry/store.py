"""The registry in a database: SQLite by default, PostgreSQL by URL.

It keeps what it is told and guards its own order: a version's number, one generation after the other, prod
from what stage serves. Who may move an alias, and on what evidence, is decided above it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    Row,
    create_engine,
    event,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from modelyard.core.errors import RegistryError
from modelyard.core.failpoints import failpoint
from modelyard.registry.records import PROD, STAGE, Alias, Move, Registration, Version, label
from modelyard.registry.schema import ALIASES, APPROVALS, HISTORY, VERSIONS, prepared

_BUSY_S = 30.0
_FILE = "sqlite"


class Registry:
    """An open registry. Threads and processes may share one; each call is a transaction of its own."""

    def __init__(self, engine: Engine, *, place: str, registry_id: str) -> None:
        self._engine = engine
        # Its address without a password.
        self.place = place
        self.id = registry_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._engine.dispose()

    def versions(self, name: str | None = None) -> tuple[Version, ...]:
        """All versions, or those of one name, by name and number."""
        query = select(VERSIONS).order_by(VERSIONS.c.name, VERSIONS.c.version)
        if name is not None:
            query = query.where(VERSIONS.c.name == name)
        with self._reading() as connection:
            return tuple(_version(row) for row in connection.execute(query))

    def version(self, name: str, number: int | None = None) -> Version:
        """One version; the newest of the name where no number is given.

        Raises:
            RegistryError: There is none.
        """
        found = [each for each in self.versions(name) if number is None or each.version == number]
        if not found:
            wanted = name if number is None else label(name, number)
            known = ", ".join(each.label for each in self.versions()) or "none"
            raise RegistryError(
                f"{wanted}: is not registered in {self.place} (known: {known}); "
                "register it with `modelyard registry register`"
            )
        return found[-1]

    def aliases(self) -> Mapping[str, Alias]:
        """What each alias serves; one that was never moved is not there."""
        with self._reading() as connection:
            rows = connection.execute(select(ALIASES).order_by(ALIASES.c.alias))
            return {row.alias: Alias(**row._mapping) for row in rows}

    def history(self, alias: str | None = None) -> tuple[Move, ...]:
        """Every move of one alias, or of all, by alias and generation."""
        query = select(HISTORY).order_by(HISTORY.c.alias, HISTORY.c.generation)
        if alias is not None:
            query = query.where(HISTORY.c.alias == alias)
        with self._reading() as connection:
            return tuple(_move(row) for row in connection.execute(query))

    def approvals(self, alias: str | None = None) -> tuple[Mapping[str, Any], ...]:
        """The signed approvals of every move of one alias, made or to come, or of all."""
        query = select(APPROVALS.c.record).order_by(*APPROVALS.primary_key)
        if alias is not None:
            query = query.where(APPROVALS.c.alias == alias)
        with self._reading() as connection:
            return tuple(json.loads(record) for record in connection.scalars(query))

    def has(self, move: Move) -> bool:
        """Whether a move was made; waits for a transaction of its process that is still under way."""
        with self._writing() as connection:
            return connection.scalar(select(HISTORY.c.id).where(HISTORY.c.id == move.id)) is not None

    def add_version(self, registration: Registration) -> Version:
        """Give a registration the next number of its name; the same registration again changes nothing.

        Raises:
            RegistryError: Its digest is a version of this name already.
        """
        with self._writing() as connection:
            known = connection.execute(select(VERSIONS).where(VERSIONS.c.id == registration.id)).first()
            if known is not None:
                return _version(known)
            last = select(func.max(VERSIONS.c.version)).where(VERSIONS.c.name == registration.name)
            version = Version.of(registration, (connection.scalar(last) or 0) + 1)
            row = {**version.record(), "entry": json.dumps(version.entry, sort_keys=True)}
            try:
                connection.execute(insert(VERSIONS).values(row))
            except IntegrityError as error:
                raise RegistryError(
                    f"{registration.name}: {registration.digest} is registered in {self.place} already; "
                    "use that version"
                ) from error
            failpoint("registry.before_version_commit")
            return version

    def add_approval(self, record: Mapping[str, Any]) -> bool:
        """Keep a signed approval; whether it is new. Of a key's approvals of one move the first stands."""
        key = dict(zip(APPROVALS.primary_key.columns.keys(), approval_key(record), strict=True))
        with self._writing() as connection:
            same = [APPROVALS.c[name] == value for name, value in key.items()]
            if connection.execute(select(APPROVALS.c.key_id).where(*same)).first() is not None:
                return False
            row = {**key, "record": json.dumps(record, sort_keys=True)}
            connection.execute(insert(APPROVALS).values(row))
            return True

    def apply(self, move: Move, *, rehearse: bool = False) -> None:
        """Move an alias and write the row of its history, both or neither.

        Args:
            move: The next generation of its alias.
            rehearse: Do all of it in the database, and take it back.

        Raises:
            RegistryError: The alias was moved meanwhile, or stage does not serve what prod is to serve.
        """
        with self._writing() as connection:
            if move.alias == PROD and move.kind != "rollback":
                self._check_stage(connection, move)
            self._check_turn(connection, move)
            row = {**move.record(), "approvals": json.dumps(move.approvals, sort_keys=True)}
            connection.execute(insert(HISTORY).values(row))
            served = {
                "name": move.name, "version": move.version, "digest": move.to_digest,
                "generation": move.generation,
            }  # fmt: skip
            if move.generation == 1:
                connection.execute(insert(ALIASES).values(alias=move.alias, **served))
            else:
                connection.execute(update(ALIASES).where(ALIASES.c.alias == move.alias).values(served))
            failpoint("registry.before_commit")
            if rehearse:
                connection.rollback()

    def _check_stage(self, connection: Connection, move: Move) -> None:
        staged = connection.scalar(select(ALIASES.c.digest).where(ALIASES.c.alias == STAGE))
        if staged != move.to_digest:
            raise RegistryError(
                f"{PROD}: {move.label} ({move.to_digest}) cannot be promoted, since {STAGE} serves "
                f"{staged or 'nothing'}; promote it to {STAGE} first"
            )

    def _check_turn(self, connection: Connection, move: Move) -> None:
        """Refuse a move that was prepared on another state than the one that is there."""
        query = select(ALIASES.c.generation, ALIASES.c.digest).where(ALIASES.c.alias == move.alias)
        row = connection.execute(query).first()
        found = (0, None) if row is None else (row.generation, row.digest)
        if found == (move.generation - 1, move.from_digest):
            return
        last = select(HISTORY).where(HISTORY.c.alias == move.alias).order_by(HISTORY.c.generation.desc())
        winner = connection.execute(last).first()
        told = f"by {winner.actor} to {label(winner.name, winner.version)}" if winner else "by hand"
        raise RegistryError(
            f"{move.alias}: was moved meanwhile {told} (generation {found[0]}, where {move.generation - 1} "
            f"was expected), so it was not moved to {move.label}; look at `modelyard registry history "
            f"{move.alias}`, and certify a candidate against what it serves now"
        )

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with guarded(self.place), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction of the only writer; kept at the end, taken back on an error."""
        with (
            guarded(self.place),
            self._engine.connect().execution_options(writing=True) as connection,
            connection.begin(),
        ):
            if connection.dialect.name == "postgresql":
                lock = text("SELECT pg_advisory_xact_lock(hashtext(:id))")
                connection.execute(lock, {"id": self.id})
            yield connection


def approval_key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an approval is for, and whose it is."""
    names = ("alias", "generation", "evidence_digest", "digest")
    return (*(record[name] for name in names), record["signature"]["key_id"])


def open_registry(url: str) -> Registry:
    """Open the registry at an address such as `sqlite:///registry.db`; tables are made where there are none.

    Raises:
        RegistryError: The database cannot be reached, or holds a registry of another version.
    """
    address = _address(url)
    place = _place(address)
    with guarded(place):
        if address.get_backend_name() == _FILE:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        engine = _engine(address)
        try:
            return Registry(engine, place=place, registry_id=prepared(engine, place))
        except BaseException:
            engine.dispose()
            raise


def file_url(path: Path) -> str:
    """The address of a registry in a file, whatever signs its path has."""
    return URL.create(_FILE, database=str(path)).render_as_string()


@contextmanager
def guarded(place: str) -> Iterator[None]:
    """Turn what a database says into an error of ours that names the place."""
    try:
        yield
    except (ImportError, OSError, SQLAlchemyError) as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise RegistryError(
            f"{place}: the registry cannot be used ({said[0] if said else type(error).__name__}); "
            "mend its address or the database and run the command again"
        ) from error


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except ArgumentError:
        raise RegistryError(  # without its cause, which may hold a password
            "the registry's address is no URL; give one such as sqlite:///registry.db or "
            "postgresql://user@host/database"
        ) from None
    if address.get_backend_name() not in (_FILE, "postgresql"):
        raise RegistryError(
            f"a registry in {address.get_backend_name()} is not supported; use SQLite or PostgreSQL"
        )
    return address.set(drivername="postgresql+psycopg") if address.drivername == "postgresql" else address


def _place(address: URL) -> str:
    """Where a registry is, for people: its file, or its address without the password."""
    if address.get_backend_name() != _FILE:
        return address.render_as_string(hide_password=True)
    if not address.database or address.database == ":memory:":
        raise RegistryError("a registry in memory is forgotten at once; name a file: sqlite:///registry.db")
    return str(Path(address.database).absolute())


def _engine(address: URL) -> Engine:
    options: dict[str, Any] = {"timeout": _BUSY_S} if address.get_backend_name() == _FILE else {}
    engine = create_engine(address, poolclass=NullPool, connect_args=options)
    if address.get_backend_name() == _FILE:
        # the driver begins transactions too late to read and write in one; so we begin them
        event.listen(engine, "connect", _leave_transactions_alone)
        event.listen(engine, "begin", _begin)
    return engine


def _leave_transactions_alone(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _version(row: Row[Any]) -> Version:
    return Version(**{**row._mapping, "entry": json.loads(row.entry)})


def _move(row: Row[Any]) -> Move:
    approvals: Sequence[Mapping[str, Any]] = json.loads(row.approvals)
    return Move.read({**row._mapping, "approvals": approvals})
