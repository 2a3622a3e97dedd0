"""Approvals: signed words of people, each by a key of its own, bound to one move of one alias.

An approval names the alias and the generation that it is to have, the version's digest and the evidence; so
it cannot be used for another model, on other evidence, or once the alias has moved on. Who trained a model
cannot approve it, and who signed its certificate not alone. Counting is a pure function of records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from modelyard.core.errors import RegistryError, SignatureError
from modelyard.core.signing import Signer, verify_record
from modelyard.registry.policy import Rule
from modelyard.registry.records import label

SCHEMA = "modelyard.approval/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is approved: that an alias, in its next generation, serves this version on this evidence."""

    alias: str
    generation: int
    name: str
    version: int
    digest: str
    evidence_digest: str

    def record(self) -> dict[str, Any]:
        """The fields of an approval that say what it is for."""
        return asdict(self)

    def differs(self, approval: Mapping[str, Any]) -> list[str]:
        """The fields in which an approval is for something else."""
        return [name for name, value in asdict(self).items() if approval.get(name) != value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seats:
    """Whose word counts."""

    rule: Rule
    # Public keys that count, by key id.
    trusted: Mapping[str, str]
    # Key ids or names of who trained the model; and the key of who signed its certificate.
    trainers: frozenset[str]
    certifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The approvals that count, those that do not and why, and how many are missing."""

    counted: tuple[Mapping[str, Any], ...]
    refused: tuple[str, ...]
    missing: int
    # Key ids of those whose approval would help.
    open_seats: tuple[str, ...]
    # Whether the only approval is that of who signed the certificate.
    certifier_alone: bool

    @property
    def enough(self) -> bool:
        """Whether the alias may move."""
        return self.missing == 0


def signed_approval(subject: Subject, signer: Signer, *, approver: str, at: str) -> dict[str, Any]:
    """An approval by whoever has the key.

    Raises:
        RegistryError: The approver has no name.
    """
    if not approver.strip():
        raise RegistryError("an approval needs the name of who gives it; name them with --as")
    return signer.sign({"schema": SCHEMA, **subject.record(), "approver": approver, "at": at})


def tally(subject: Subject, approvals: Sequence[Mapping[str, Any]], seats: Seats) -> Tally:
    """Count approvals of a subject, at most one a key."""
    counted: dict[str, Mapping[str, Any]] = {}
    refused = []
    for record in approvals:
        problem = objection(subject, record, seats)
        if problem:
            refused.append(f"{record.get('approver')}: {problem}")
        else:
            counted.setdefault(str(record["signature"]["key_id"]), record)
    short = max(0, seats.rule.approvals - len(counted))
    others = set(counted) - {seats.certifier}
    alone = seats.rule.approvals > 0 and short == 0 and not others
    missing = 1 if alone else short
    # one more approval, and none of others yet: that of who signed the certificate would not do
    useless = set() if others or missing != 1 else {seats.certifier}
    able = set(seats.rule.approvers or seats.trusted) & set(seats.trusted)
    return Tally(
        counted=tuple(counted.values()),
        refused=tuple(refused),
        missing=missing,
        open_seats=tuple(sorted(able - set(counted) - seats.trainers - useless)),
        certifier_alone=alone,
    )


def objection(subject: Subject, record: Mapping[str, Any], seats: Seats) -> str:
    """Why an approval does not count; empty where it does."""
    try:
        key_id = verify_record(record, seats.trusted)
    except SignatureError as error:
        return str(error)
    if record.get("schema") != SCHEMA:
        return f"has schema {record.get('schema')!r} where {SCHEMA} is required"
    wrong = subject.differs(record)
    if wrong:
        to = label(subject.name, subject.version)
        return f"is for another {', '.join(wrong)} than the move of {subject.alias} to {to}"
    if key_id in seats.trainers or record.get("approver") in seats.trainers:
        return "trained the model, and who trained it cannot approve it"
    if seats.rule.approvers and key_id not in seats.rule.approvers:
        return "is not among the approvers that the policy names"
    return ""
