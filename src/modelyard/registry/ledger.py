"""What a yard's journal says of a registry, and how the two are brought to agree after a crash.

Everything that changes a registry is written in this order: the journal's intent, one transaction of the
database, the journal's end of it. All of it happens under the yard's lock, so an intent without an end
belongs to a process that died; whether its transaction was kept, the database tells. The journal holds what
was meant; the database what is served.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from modelyard.core.errors import RegistryError
from modelyard.core.failpoints import failpoint
from modelyard.core.journal import Draft, Entry
from modelyard.core.locks import held
from modelyard.registry.records import Move, Registration
from modelyard.registry.store import Registry, approval_key, file_url
from modelyard.runs.yard import Yard

REGISTERED, APPROVED = "registry.registered", "approval.given"
INTENT, MOVED, ABANDONED = "alias.intent", "alias.moved", "alias.abandoned"
#: What the journal calls a yard's own registry, wherever the yard lies.
OWN_PLACE = "registry.db"
_KINDS = (REGISTERED, APPROVED, INTENT, MOVED, ABANDONED)
_WAIT_S, _LOOK_S = 60.0, 0.02


@dataclass(slots=True, kw_only=True)
class Ledger:
    """What a journal has of one registry, each by its id."""

    registered: dict[str, Registration] = field(default_factory=dict)
    approvals: list[Mapping[str, Any]] = field(default_factory=list)
    intents: dict[str, Move] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)  # id -> generation
    abandoned: set[str] = field(default_factory=set)
    # The registry that the journal knows at this one's address; empty where it knows none.
    here: str = ""

    @property
    def open(self) -> list[Move]:
        """Moves that were begun, and of which the journal has no end."""
        ended = self.abandoned | set(self.moved)
        return [move for each, move in self.intents.items() if each not in ended]

    def generation(self, alias: str) -> int:
        """The last generation of an alias that this yard made."""
        made = [move for each, move in self.intents.items() if each in self.moved]
        return max((move.generation for move in made if move.alias == alias), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What was brought to agree: ids of moves, and how many registrations and approvals were missing."""

    moved: tuple[str, ...]
    abandoned: tuple[str, ...]
    registered: int
    approvals: int

    @property
    def nothing(self) -> bool:
        """Whether the two agreed."""
        return not (self.moved or self.abandoned or self.registered or self.approvals)


@contextmanager
def alone(yard: Yard, *, wait_s: float = _WAIT_S) -> Iterator[None]:
    """Be the only process of this yard that changes registries.

    Raises:
        RegistryError: Another process was at it all the time.
    """
    deadline = time.monotonic() + wait_s
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(yard.root / "registry.lock"))
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise RegistryError(
                        f"{yard.root}: another process has been changing the registry for {wait_s:g} s; "
                        "wait for it and run the command again"
                    ) from error
                time.sleep(_LOOK_S)
        yield


def read_ledger(yard: Yard, registry: Registry) -> Ledger:
    """Replay the journal. Raises `RegistryError` where an entry of a registry is none."""
    ledger, place = Ledger(), place_in(yard, registry)
    for entry in yard.journal.read():
        if entry.kind not in _KINDS:
            continue
        try:
            _take(ledger, entry, registry, place)
        except (KeyError, TypeError) as error:
            raise RegistryError(
                f"{yard.journal.folder}: entry {entry.seq} ({entry.kind}) is not as modelyard writes it; "
                "run `modelyard audit verify`"
            ) from error
    return ledger


def note(yard: Yard, registry: Registry, kind: str, data: Mapping[str, Any], *, run: str = "") -> None:
    """Append one entry of a registry to the journal."""
    told = {"registry": registry.id, "place": place_in(yard, registry), **data}
    yard.journal.append([Draft(kind=kind, run=run, data=told)])


def place_in(yard: Yard, registry: Registry) -> str:
    """The registry's address as the journal has it."""
    return OWN_PLACE if registry.place == str(yard.root / OWN_PLACE) else registry.place


def registry_url(yard: Yard, given: str | None = None) -> str:
    """The address that was given, or that of the yard's own registry."""
    return given or file_url(yard.root / OWN_PLACE)


def carry_out(yard: Yard, registry: Registry, move: Move) -> None:
    """Move an alias: intent, transaction, end. To be called within `alone`.

    Raises:
        RegistryError: Somebody else was first; the journal says that this move was abandoned.
    """
    note(yard, registry, INTENT, {"move": move.record()})
    failpoint("registry.after_intent")
    try:
        registry.apply(move)
    except RegistryError as error:
        # whether the transaction was kept is for the database to say, not for the error
        if not _settle(yard, registry, move, why=str(error)):
            raise
        return
    failpoint("registry.after_commit")
    _end(yard, registry, move)
    failpoint("registry.after_moved")


def reconcile(yard: Yard, registry: Registry) -> Reconciled:
    """Finish in the journal and in the database what a crash left half done. To be called within `alone`.

    Raises:
        RegistryError: The database is not the one that the journal knows, or is older than the journal.
    """
    ledger = read_ledger(yard, registry)
    check_same(registry, ledger)
    why = "the process that began it ended before it was done"
    settled = {move.id: _settle(yard, registry, move, why=why) for move in ledger.open}
    known = {(each.name, each.digest) for each in registry.versions()}
    lost = [each for each in ledger.registered.values() if (each.name, each.digest) not in known]
    for registration in lost:
        registry.add_version(registration)
    counted = {approval_key(record) for record in registry.approvals()}
    given = [record for record in ledger.approvals if approval_key(record) not in counted]
    for record in given:
        registry.add_approval(record)
    return Reconciled(
        moved=tuple(each for each, kept in settled.items() if kept),
        abandoned=tuple(each for each, kept in settled.items() if not kept),
        registered=len(lost),
        approvals=len(given),
    )


def check_same(registry: Registry, ledger: Ledger) -> None:
    """Refuse a database that was put in the place of another, or back to an older state."""
    if ledger.here not in ("", registry.id):
        raise RegistryError(
            f"{registry.place}: holds the registry {registry.id}, where the journal knows {ledger.here}: "
            "it was replaced; restore the database that the journal knows"
        )
    served = registry.aliases()
    for alias in sorted({move.alias for move in ledger.intents.values()}):
        found = served[alias].generation if alias in served else 0
        if found < ledger.generation(alias):
            raise RegistryError(
                f"{registry.place}: has generation {found} of {alias}, where the journal knows "
                f"{ledger.generation(alias)}: it was set back; restore the newest database"
            )


def _settle(yard: Yard, registry: Registry, move: Move, *, why: str) -> bool:
    """Write the end of an open move; whether the database has it."""
    kept = registry.has(move)
    if kept:
        _end(yard, registry, move)
    else:
        note(yard, registry, ABANDONED, {"move": move.id, "alias": move.alias, "reason": why})
    return kept


def _end(yard: Yard, registry: Registry, move: Move) -> None:
    told = {"move": move.id, "alias": move.alias, "generation": move.generation, "digest": move.to_digest}
    note(yard, registry, MOVED, told)


def _take(ledger: Ledger, entry: Entry, registry: Registry, place: str) -> None:
    data = entry.data
    if data["place"] == place and not ledger.here:
        ledger.here = data["registry"]
    if data["registry"] != registry.id:
        return
    if entry.kind == REGISTERED:
        registration = Registration(**data["version"])
        ledger.registered[registration.id] = registration
    elif entry.kind == APPROVED:
        ledger.approvals.append(data["approval"])
    elif entry.kind == INTENT:
        move = Move.read(data["move"])
        ledger.intents[move.id] = move
    elif entry.kind == MOVED:
        ledger.moved[data["move"]] = data["generation"]
    else:
        ledger.abandoned.add(data["move"])
