"""Going back: an alias serves again what it served before, on the evidence of that time, verified anew.

A rollback goes down: to the version before, or to an earlier one that still stands beneath. A version that
was rolled back from does not come back by a rollback; it needs new evidence. No approval is asked, since
going back is what one does in an emergency; a reason is. A drill does everything but the move, the
database's transaction included, and keeps in the journal what it found.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.errors import EvidenceError, ModelyardError, RegistryError
from modelyard.registry.evidence import check_evidence
from modelyard.registry.ledger import alone, carry_out, check_same, note, read_ledger, reconcile
from modelyard.registry.records import Move, Version, check_asked, standing
from modelyard.registry.store import Registry
from modelyard.registry.versions import check_model
from modelyard.runs.yard import Yard

DRILLED = "rollback.drilled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """What somebody wants: that an alias goes back."""

    alias: str
    actor: str
    reason: str
    # `NAME@VERSION`, or a version's number where one name was served; empty: the version before.
    to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What a rehearsal of a rollback found; it would work where there is no fault."""

    move: Move
    faults: tuple[str, ...]
    # What was not looked at, and why.
    notes: tuple[str, ...]


def rollback(yard: Yard, registry: Registry, wanted: Rollback, *, clock: Clock = utc_now) -> Move:
    """Move an alias back. Again after a crash in the middle of it, it is finished and not done twice.

    Raises:
        EvidenceError: The evidence of that time is not there or does not hold any more.
        RegistryError: There is nothing to go back to, or no reason is given.
    """
    if not wanted.reason.strip():
        raise RegistryError(f"{wanted.alias}: a rollback needs a reason; give one with --reason")
    with alone(yard):
        finished = reconcile(yard, registry).moved
        last = next(reversed(registry.history(wanted.alias)), None)
        if last is not None and last.id in finished and last.kind == "rollback":
            return last
        move = _planned(yard, registry, wanted, clock)
        _check_evidence(yard, move)
        carry_out(yard, registry, move)
    return move


def rehearse(yard: Yard, registry: Registry, wanted: Rollback, *, clock: Clock = utc_now) -> Move:
    """The rollback that would be done: its evidence is verified, nothing changed. Raises as `rollback`."""
    check_same(registry, read_ledger(yard, registry))
    move = _planned(yard, registry, wanted, clock)
    _check_evidence(yard, move)
    return move


def drill(yard: Yard, registry: Registry, wanted: Rollback, *, clock: Clock = utc_now) -> Drill:
    """Prove that a rollback would work: the evidence, the transaction (taken back), the model at its place.

    A model is looked for in the content store, where that had it when it was registered, and by its entry of
    a pool, whose paths start at the folder that holds the yard.

    Raises:
        RegistryError: There is nothing to go back to.
    """
    with alone(yard):
        reconcile(yard, registry)
        move = _planned(yard, registry, wanted, clock)
        version = registry.version(move.name, move.version)
        steps: list[Callable[[], object]] = [
            lambda: _check_evidence(yard, move),
            lambda: registry.apply(move, rehearse=True),
            lambda: check_model(yard, version),
        ]
        faults = [fault for fault in map(_fault, steps) if fault]
        notes = [] if _can_be_found(yard, version) else [f"where {version.label} lies is not on record"]
        found = Drill(move=move, faults=tuple(faults), notes=tuple(notes))
        told = {"alias": move.alias, "to": move.label, "digest": move.to_digest, "actor": wanted.actor}
        note(yard, registry, DRILLED, {**told, "faults": list(found.faults)})
    return found


def _planned(yard: Yard, registry: Registry, wanted: Rollback, clock: Clock) -> Move:
    """The move that a rollback is."""
    check_asked("rollback", wanted.alias, wanted.actor)
    history = registry.history(wanted.alias)
    if not history:
        raise RegistryError(f"{wanted.alias}: serves nothing, so there is nothing to go back to")
    target = _target(history, wanted)
    now = registry.aliases()[wanted.alias]
    return Move(
        id=uuid.uuid4().hex,
        yard=yard.id,
        alias=wanted.alias,
        generation=now.generation + 1,
        kind="rollback",
        name=target.name,
        version=target.version,
        from_digest=now.digest,
        to_digest=target.to_digest,
        actor=wanted.actor,
        at=stamp(clock()),
        reason=wanted.reason,
        evidence_digest=target.evidence_digest,
        evidence=target.evidence,
        approvals=(),
        required=0,
    )


def _target(history: Sequence[Move], wanted: Rollback) -> Move:
    """The move to whose version the alias goes back: the nearest that still stands."""
    *below, top = standing(tuple(history))
    names = {each.name for each in history}
    found = [
        each
        for each in below
        if wanted.to in ("", each.label) or (len(names) == 1 and wanted.to == str(each.version))
    ]
    if found:
        return found[-1]
    place = f"{wanted.alias}: serves {top.label}"
    if not below:
        raise RegistryError(f"{place}, and nothing stands beneath it; promote another version with evidence")
    known = ", ".join(dict.fromkeys(each.label for each in reversed(below)))
    if wanted.to in (top.label, str(top.version)):
        raise RegistryError(f"{place} now; go back to one of {known}")
    if wanted.to in {each.label for each in history}:
        raise RegistryError(
            f"{place}, and {wanted.to} was rolled back from; go back to one of {known}, or certify and "
            f"promote {wanted.to} anew"
        )
    raise RegistryError(f"{place}, and {wanted.to!r} does not stand beneath it; go back to one of {known}")


def _check_evidence(yard: Yard, move: Move) -> None:
    """Verify the evidence of the time when the version was promoted.

    Raises:
        EvidenceError: It is not there, does not hold, or is another one.
    """
    found = check_evidence(yard, yard.root / move.evidence)
    if (found.candidate_digest, found.digest) != move.grounds:
        raise EvidenceError(
            f"{yard.root / move.evidence}: is not the evidence on which {move.alias} served {move.label} "
            f"({move.evidence_digest}); restore it from a backup"
        )


def _can_be_found(yard: Yard, version: Version) -> bool:
    """Whether it is on record where a model lies or is served."""
    return (version.stored and version.yard == yard.id) or "name" in version.entry


def _fault(step: Callable[[], object]) -> str:
    try:
        step()
    except ModelyardError as error:
        return str(error)
    return ""
