"""Promotion: an alias moves to a version when its certificate, its approvals and its turn are right.

The certificate must compare the version with what the alias serves now, each by digest. It counts once for an
alias: a version that was rolled back needs new evidence. Prod takes only what stage serves.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.errors import ArtifactError, DocumentError, RegistryError
from modelyard.core.failpoints import failpoint
from modelyard.core.signing import Signer
from modelyard.registry.approvals import Seats, Subject, Tally, objection, signed_approval, tally
from modelyard.registry.evidence import Evidence, check_evidence, keep_evidence, kept_body, trusted
from modelyard.registry.keys import with_keys
from modelyard.registry.ledger import (
    APPROVED,
    alone,
    carry_out,
    check_same,
    note,
    read_ledger,
    reconcile,
)
from modelyard.registry.policy import read_policy
from modelyard.registry.records import PROD, STAGE, Alias, Move, Version, check_asked
from modelyard.registry.store import Registry, approval_key
from modelyard.registry.versions import check_model, find_version, trainers_of
from modelyard.runs.yard import Yard

Result = Literal["moved", "already", "waiting", "would_move", "would_wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What somebody wants: that an alias serves a version, on this evidence."""

    # `NAME` or `NAME@VERSION`; a bare name means the version that the evidence is of.
    version: str
    alias: str
    # A certificate's report.
    evidence: Path
    # Who asks, by name.
    actor: str
    reason: str = ""
    # With it the actor approves too.
    signer: Signer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """What became of a promotion. `move` is what was or would be done; it may lack approvals."""

    result: Result
    move: Move
    tally: Tally

    @property
    def enough(self) -> bool:
        """Whether nothing is missing."""
        return self.result not in ("waiting", "would_wait")


def promote(yard: Yard, registry: Registry, promotion: Promotion, *, clock: Clock = utc_now) -> Promoted:
    """Move an alias, or keep an approval and tell who is missing. Again after a crash, it goes on.

    Raises:
        EvidenceError: The certificate does not hold.
        RegistryError: It is not for this version and alias, the approval cannot count, or somebody moved
            the alias first.
    """
    check_asked("promotion", promotion.alias, promotion.actor)
    evidence = keep_evidence(yard, promotion.evidence)
    with alone(yard):
        reconcile(yard, registry)
        case = _case(yard, registry, promotion, evidence, clock)
        if case.done is not None:
            return case.already()
        case.refuse_faults()
        if promotion.signer is not None:
            _approve(yard, registry, case, promotion)
        counted = case.count(registry.approvals(promotion.alias))
        move = replace(case.move, approvals=counted.counted)
        if not counted.enough:
            return Promoted(result="waiting", move=move, tally=counted)
        carry_out(yard, registry, move)
    return Promoted(result="moved", move=move, tally=counted)


def rehearse(yard: Yard, registry: Registry, promotion: Promotion, *, clock: Clock = utc_now) -> Promoted:
    """All checks of a promotion, and nothing changed. Raises as `promote` does."""
    check_asked("promotion", promotion.alias, promotion.actor)
    evidence = check_evidence(yard, promotion.evidence)
    check_same(registry, read_ledger(yard, registry))
    case = _case(yard, registry, promotion, evidence, clock)
    if case.done is not None:
        return case.already()
    case.refuse_faults()
    given = [case.approval(promotion)] if promotion.signer is not None else []
    counted = case.count([*registry.approvals(promotion.alias), *given])
    move = replace(case.move, approvals=counted.counted)
    return Promoted(result="would_move" if counted.enough else "would_wait", move=move, tally=counted)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A promotion held against what is there now."""

    # What is to be done, without approvals.
    move: Move
    seats: Seats
    # The alias's last move where it is this very one.
    done: Move | None
    faults: tuple[str, ...]

    def already(self) -> Promoted:
        if self.done is None:
            raise AssertionError("a move that was not made")
        return Promoted(
            result="already", move=self.done, tally=_tally(self.done, self.done.approvals, self.seats)
        )

    def refuse_faults(self) -> None:
        if self.faults:
            raise RegistryError(
                f"{self.move.alias}: cannot be moved to {self.move.label}: {'; '.join(self.faults)}"
            )

    def count(self, approvals: Sequence[Mapping[str, Any]]) -> Tally:
        """Of approvals of this alias, those of other moves left out."""
        mine = [each for each in approvals if not subject_of(self.move).differs(each)]
        return _tally(self.move, mine, self.seats)

    def approval(self, promotion: Promotion) -> Mapping[str, Any]:
        """What the actor signs; refused where it could not count."""
        if promotion.signer is None:
            raise AssertionError("an approval without a key")
        subject = subject_of(self.move)
        record = signed_approval(subject, promotion.signer, approver=promotion.actor, at=self.move.at)
        problem = objection(subject, record, self.seats)
        if problem:
            raise RegistryError(
                f"{self.move.alias}: the approval of {promotion.actor} ({promotion.signer.key_id}) does not "
                f"count: {problem}; let somebody else approve"
            )
        return record


def subject_of(move: Move) -> Subject:
    """What approvals of a move say."""
    return Subject(
        alias=move.alias,
        generation=move.generation,
        name=move.name,
        version=move.version,
        digest=move.to_digest,
        evidence_digest=move.evidence_digest,
    )


def _case(yard: Yard, registry: Registry, promotion: Promotion, evidence: Evidence, clock: Clock) -> _Case:
    aliases = registry.aliases()
    version = find_version(registry, promotion.version, digest=evidence.candidate_digest)
    now = aliases.get(promotion.alias)
    rule = read_policy(yard.root)[promotion.alias]
    move = Move(
        id=uuid.uuid4().hex,
        yard=yard.id,
        alias=promotion.alias,
        generation=now.generation + 1 if now else 1,
        kind="promote" if now else "bootstrap",
        name=version.name,
        version=version.version,
        from_digest=now.digest if now else None,
        to_digest=version.digest,
        actor=promotion.actor,
        at=stamp(clock()),
        reason=promotion.reason or f"certificate {evidence.id or evidence.digest} passed",
        evidence_digest=evidence.digest,
        evidence=evidence.path,
        approvals=(),
        required=rule.approvals,
    )
    history = registry.history(promotion.alias)
    last = history[-1] if history else None
    same = last is not None and last.kind != "rollback" and last.grounds == move.grounds
    seats = Seats(
        rule=rule,
        trusted=trusted(yard),
        trainers=with_keys(yard, trainers_of(registry.versions(), version.digest)),
        certifier=evidence.key_id,
    )
    return _Case(
        move=move,
        seats=seats,
        done=last if same else None,
        faults=(
            *rule.objections(evidence.design, evidence.pack),
            *_faults(move, evidence, aliases, history),
            *_reused(yard, move, evidence, history),
            *_changed(yard, version),
        ),
    )


def _faults(
    move: Move, evidence: Evidence, aliases: Mapping[str, Alias], history: Sequence[Move]
) -> Iterator[str]:
    """Why this evidence does not let this alias move to this version; none where it does."""
    if evidence.candidate_digest != move.to_digest:
        yield (
            f"the certificate is of {evidence.candidate_digest}, the version is {move.to_digest}; name the "
            "version that was certified"
        )
    if move.from_digest == move.to_digest:
        yield f"{move.alias} serves it already"
    elif move.from_digest is not None and evidence.baseline_digest != move.from_digest:
        yield (
            f"the certificate compares it with {evidence.baseline_digest}, {move.alias} serves "
            f"{aliases[move.alias].label} ({move.from_digest}); certify it against that"
        )
    staged = aliases.get(STAGE)
    if move.alias == PROD and (staged is None or staged.digest != move.to_digest):
        served = f"{staged.label} ({staged.digest})" if staged else "nothing"
        yield (
            f"{STAGE} serves {served}, and {PROD} takes only what {STAGE} serves; promote it to {STAGE} first"
        )


def _reused(yard: Yard, move: Move, evidence: Evidence, history: Sequence[Move]) -> Iterator[str]:
    """That the certificate has moved this alias before, be its file laid out or signed anew."""
    for each in history:
        if each.evidence_digest == move.evidence_digest or kept_body(yard, each.evidence) == evidence.body:
            yield (
                f"the certificate was used for generation {each.generation} of {move.alias}, and counts "
                "once; certify it anew"
            )
            return


def _changed(yard: Yard, version: Version) -> Iterator[str]:
    """That the model is not what it was; one that cannot be looked at from here is left to a drill."""
    try:
        check_model(yard, version)
    except DocumentError:
        return
    except (ArtifactError, RegistryError) as error:
        yield str(error)


def _approve(yard: Yard, registry: Registry, case: _Case, promotion: Promotion) -> None:
    """Keep the actor's approval, in the journal first; a second one by the same key changes nothing."""
    record = case.approval(promotion)
    known = {approval_key(each) for each in registry.approvals(promotion.alias)}
    if approval_key(record) in known:
        return
    note(yard, registry, APPROVED, {"approval": record})
    failpoint("registry.after_approved")
    registry.add_approval(record)


def _tally(move: Move, approvals: Sequence[Mapping[str, Any]], seats: Seats) -> Tally:
    return tally(subject_of(move), approvals, seats)
