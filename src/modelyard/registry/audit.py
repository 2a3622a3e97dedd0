"""Holds a registry against the journal and the certificates: nothing may serve that no evidence put there.

Reads only. Moves that another yard made in the same database have their journal and their certificates
there; they are counted, and what the database alone can show of them is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from modelyard.core.errors import ModelyardError, RegistryError
from modelyard.registry.approvals import Seats, tally
from modelyard.registry.evidence import Evidence, check_evidence, trusted
from modelyard.registry.keys import with_keys
from modelyard.registry.ledger import OWN_PLACE, Ledger, check_same, place_in, read_ledger
from modelyard.registry.policy import Rule
from modelyard.registry.promotion import subject_of
from modelyard.registry.records import PROD, STAGE, Alias, Move, Version, standing
from modelyard.registry.store import Registry
from modelyard.registry.versions import trainers_of
from modelyard.runs.yard import Yard


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What the check found; the registry is sound when `faults` is empty."""

    versions: int
    moves: int
    # Moves that other yards made, whose journals and certificates are not here.
    elsewhere: int
    # Moves that a process left half done; `modelyard registry reconcile` ends them.
    open: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Sight:
    """What a check looks at."""

    yard: Yard
    registry: Registry
    ledger: Ledger
    trusted: Mapping[str, str]
    history: tuple[Move, ...]
    aliases: Mapping[str, Alias]
    versions: tuple[Version, ...]
    # Certificates that were recomputed already, or why they do not hold.
    known: dict[str, Evidence | str] = field(default_factory=dict)

    def is_own(self, row: Move | Version) -> bool:
        """Whether this yard's journal must have a row; of the registry in the yard, it must have all."""
        if place_in(self.yard, self.registry) == OWN_PLACE or row.yard == self.yard.id:
            return True
        return row.id in self.ledger.intents or row.id in self.ledger.registered


def audit(yard: Yard, registry: Registry) -> Audit:
    """Check every version, alias and row of the history. Raises `JournalError` where the log is no log."""
    ledger = read_ledger(yard, registry)
    sight = _Sight(
        yard=yard,
        registry=registry,
        ledger=ledger,
        trusted=trusted(yard),
        history=registry.history(),
        aliases=registry.aliases(),
        versions=registry.versions(),
    )
    faults = [*_replaced(sight), *_versions(sight), *_rows(sight), *_lost(sight)]
    for alias in sorted({move.alias for move in sight.history} | set(sight.aliases)):
        moves = tuple(move for move in sight.history if move.alias == alias)
        faults.extend(_links(alias, moves, sight.aliases.get(alias)))
    return Audit(
        versions=len(sight.versions),
        moves=len(sight.history),
        elsewhere=sum(not sight.is_own(move) for move in sight.history),
        open=tuple(f"{move.alias} to {move.label} (generation {move.generation})" for move in ledger.open),
        faults=tuple(faults),
    )


def _replaced(sight: _Sight) -> Iterator[str]:
    try:
        check_same(sight.registry, sight.ledger)
    except RegistryError as error:
        yield str(error)


def _versions(sight: _Sight) -> Iterator[str]:
    """Versions of this yard that the journal does not have as they stand."""
    for version in sight.versions:
        if not sight.is_own(version):
            continue
        known = sight.ledger.registered.get(version.id)
        if known is None:
            yield f"{version.label}: the journal has no registration of it"
        elif Version.of(known, version.version) != version:
            yield f"{version.label}: is not as it was registered: the row was changed"


def _lost(sight: _Sight) -> Iterator[str]:
    """Moves that the journal saw done and the database does not have."""
    there = {move.id for move in sight.history}
    for each in sight.ledger.moved:
        move = sight.ledger.intents.get(each)
        if move is None:
            yield f"move {each}: the journal has its end, but no intent"
        elif each not in there:
            yield f"{_place(move)}: is in the journal, and its row was removed from the history"


def _rows(sight: _Sight) -> Iterator[str]:
    for move in sight.history:
        own = [_unlike(sight.ledger, move), _unproven(sight, move), _unapproved(sight, move)]
        checks = [*(own if sight.is_own(move) else [_uncounted(move)]), _unstaged(sight, move)]
        for fault in chain.from_iterable(checks):
            yield f"{_place(move)}: {fault}"


def _unlike(ledger: Ledger, move: Move) -> Iterator[str]:
    """How a row differs from the journal."""
    intent = ledger.intents.get(move.id)
    if intent is None:
        yield "the journal has no intent of it: the row was not written by modelyard"
    elif intent != move:
        yield "is not as it was meant: the row was changed"
    if move.id in ledger.abandoned:
        yield "the journal says that it was abandoned"


def _unproven(sight: _Sight, move: Move) -> Iterator[str]:
    """What is wrong with the evidence of a row."""
    found = sight.known.get(move.evidence)
    if found is None:
        try:
            found = check_evidence(sight.yard, sight.yard.root / move.evidence)
        except ModelyardError as error:
            found = str(error)
        sight.known[move.evidence] = found
    if isinstance(found, str):
        yield found
        return
    if found.digest != move.evidence_digest:
        yield f"its certificate is {found.digest}, where the row names {move.evidence_digest}"
    if found.candidate_digest != move.to_digest:
        yield f"its certificate is of {found.candidate_digest}, where {move.to_digest} was put in service"
    if move.kind == "promote" and found.baseline_digest != move.from_digest:
        yield f"its certificate compares with {found.baseline_digest}, where {move.from_digest} was served"


def _unapproved(sight: _Sight, move: Move) -> Iterator[str]:
    """Approvals that were wanted then and are not there, or do not hold."""
    if move.kind == "rollback" or not move.required:
        return
    seats = Seats(
        rule=Rule(approvals=move.required),
        trusted=sight.trusted,
        trainers=with_keys(sight.yard, trainers_of(sight.versions, move.to_digest)),
        certifier="",
    )
    counted = tally(subject_of(move), move.approvals, seats)
    if not counted.enough:
        why = f" ({'; '.join(counted.refused)})" if counted.refused else ""
        yield f"{move.required} approvals were required, {len(counted.counted)} hold{why}"


def _uncounted(move: Move) -> Iterator[str]:
    """Approvals that a row of another yard lacks; whose they are is for that yard to say."""
    if move.kind != "rollback" and len(move.approvals) < move.required:
        yield f"{move.required} approvals were required, it has {len(move.approvals)}"


def _unstaged(sight: _Sight, move: Move) -> Iterator[str]:
    if move.alias != PROD or move.kind == "rollback":
        return
    if not any(each.alias == STAGE and each.to_digest == move.to_digest for each in sight.history):
        yield f"{STAGE} never served it"


def _links(alias: str, moves: Sequence[Move], served: Alias | None) -> Iterator[str]:
    """Gaps in an alias's history, and an alias that is not where its history ends."""
    before: str | None = None
    for number, move in enumerate(moves, start=1):
        if move.generation != number:
            yield f"{alias}: generation {number} is missing from the history"
            return
        if move.from_digest != before:
            yield f"{_place(move)}: came from {move.from_digest}, where {before} was served"
        before = move.to_digest
    yield from _backwards(moves)
    last = moves[-1] if moves else None
    if served is None:
        yield f"{alias}: has a history, and its alias is gone"
    elif last is None:
        yield f"{alias}: serves {served.label} without any history: it was not moved by modelyard"
    elif (served.generation, served.name, served.version, served.digest) != (
        last.generation, last.name, last.version, last.to_digest,
    ):  # fmt: skip
        yield (
            f"{alias}: serves {served.label} ({served.digest}, generation {served.generation}), where its "
            f"history ends at {last.label} ({last.to_digest}, generation {last.generation})"
        )


def _backwards(moves: Sequence[Move]) -> Iterator[str]:
    """Rollbacks to what the alias did not serve beneath."""
    for number, move in enumerate(moves):
        if move.kind != "rollback":
            continue
        beneath = standing(tuple(moves[:number]))[:-1]
        if not any(each.grounds == move.grounds for each in beneath):
            yield f"{_place(move)}: went back to {move.label}, which did not stand beneath what was served"


def _place(move: Move) -> str:
    return f"{move.alias} generation {move.generation}"
