"""What a registry holds: versions of models, the aliases that serve one of them, and how each alias moved.

A model version is known by its digest. An alias is served from exactly one version; every move of it is a
numbered generation with who, when, why and on what evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from modelyard.core.errors import RegistryError

#: The aliases that there are: where a candidate proves itself in service, and what users get.
STAGE, PROD = "stage", "prod"
ALIASES = (STAGE, PROD)

Kind = Literal["promote", "rollback", "bootstrap"]


def label(name: str, version: int) -> str:
    """How a version is written for people and on the command line."""
    return f"{name}@{version}"


def check_asked(what: str, alias: str, actor: str) -> None:
    """Refuse a move of an alias that there is not, or by nobody. Raises `RegistryError`."""
    if alias not in ALIASES:
        raise RegistryError(f"{alias!r} is no alias; use {' or '.join(ALIASES)}")
    if not actor.strip():
        raise RegistryError(f"a {what} needs the name of who asks for it; name them with --as")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A model that is to become a version of its name."""

    # Of this registration: doing it again after a crash changes nothing.
    id: str
    # The yard that registered it.
    yard: str
    name: str
    digest: str
    # How the model is asked: its entry in a pool; may be empty.
    entry: Mapping[str, Any]
    run_id: str | None
    # Key id of who trained it, or a name where no key is known; empty where nobody is.
    trained_by: str
    created_at: str
    parent_digest: str | None
    # Whether the yard's content store had it then; a drill looks for it again.
    stored: bool

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version(Registration):
    """One version of a model's name."""

    version: int

    @property
    def label(self) -> str:
        """`NAME@VERSION`."""
        return label(self.name, self.version)

    @classmethod
    def of(cls, registration: Registration, version: int) -> Self:
        """A registration with its number."""
        return cls(**{**registration.record(), "version": version})


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """What an alias serves now."""

    alias: str
    name: str
    version: int
    digest: str
    # How often it was moved.
    generation: int

    @property
    def label(self) -> str:
        """`NAME@VERSION`."""
        return label(self.name, self.version)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move of an alias. The journal's intent and the row of the history are this same record."""

    # Binds the journal's intent, the database's row and the journal's end of it.
    id: str
    # The yard whose journal has the intent.
    yard: str
    alias: str
    generation: int
    kind: Kind
    name: str
    version: int
    # What the alias served before; None where it served nothing.
    from_digest: str | None
    to_digest: str
    actor: str
    at: str
    reason: str
    # Of the certificate's report, and the report's path in the yard.
    evidence_digest: str
    evidence: str
    # The signed approvals that counted, whole, and how many the policy wanted.
    approvals: tuple[Mapping[str, Any], ...]
    required: int

    @property
    def label(self) -> str:
        """`NAME@VERSION` of what is served after it."""
        return label(self.name, self.version)

    @property
    def grounds(self) -> tuple[str, str]:
        """What is put in service, and on what evidence."""
        return self.to_digest, self.evidence_digest

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "approvals": [dict(each) for each in self.approvals]}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """From `record`; `KeyError` and `TypeError` pass through."""
        return cls(**{**record, "approvals": tuple(record["approvals"])})


def standing(history: tuple[Move, ...]) -> tuple[Move, ...]:
    """The moves of one alias that a rollback may go back to, the one in force last.

    A promotion is laid on top of what was served; a rollback takes away what lay above its target. So a
    version that was rolled back from is not among them: it needs new evidence.
    """
    stack: list[Move] = []
    for move in history:
        if move.kind != "rollback":
            stack.append(move)
            continue
        stack = stack[:-1]
        while stack and stack[-1].to_digest != move.to_digest:
            stack.pop()
    return tuple(stack)
