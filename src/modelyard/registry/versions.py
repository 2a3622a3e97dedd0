"""Registering models as versions."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.errors import ArtifactError, RegistryError
from modelyard.core.failpoints import failpoint
from modelyard.evaluation.pool import read_entry
from modelyard.registry.ledger import REGISTERED, alone, note, reconcile
from modelyard.registry.records import Registration, Version
from modelyard.registry.store import Registry
from modelyard.runs.yard import Yard

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that somebody wants to register."""

    name: str
    # What certificates name it by.
    digest: str
    # Its entry in a pool; may be empty.
    entry: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    # Key id of who trained it, or a name where no key is known.
    trained_by: str = ""
    parent_digest: str | None = None


def register(yard: Yard, registry: Registry, candidate: Candidate, *, clock: Clock = utc_now) -> Version:
    """Make a model the next version of its name; one that is a version already is given back as it is.

    Raises:
        RegistryError: The name or the digest is none, or another is on record as having trained it.
    """
    _check(candidate)
    with alone(yard):
        reconcile(yard, registry)
        known = [each for each in registry.versions(candidate.name) if each.digest == candidate.digest]
        if known:
            _check_same(known[0], candidate)
            return known[0]
        registration = Registration(
            id=uuid.uuid4().hex,
            yard=yard.id,
            name=candidate.name,
            digest=candidate.digest,
            entry=dict(candidate.entry),
            run_id=candidate.run_id,
            trained_by=candidate.trained_by,
            created_at=stamp(clock()),
            parent_digest=candidate.parent_digest,
            stored=is_stored(yard, candidate.digest),
        )
        told = {"version": registration.record()}
        note(yard, registry, REGISTERED, told, run=candidate.run_id or "")
        failpoint("registry.after_registered")
        return registry.add_version(registration)


def is_stored(yard: Yard, digest: str) -> bool:
    """Whether the yard's content store has a model, whole."""
    try:
        ArtifactStore(yard.artifacts_dir).path(digest, verify=True)
    except ArtifactError:
        return False
    return True


def check_model(yard: Yard, version: Version) -> None:
    """Look whether a model is where it was, and still the same.

    Raises:
        ArtifactError: The yard's content store had it, and has it no more.
        DocumentError: What its entry of a pool names is not there.
        RegistryError: It is another model now.
    """
    if version.stored and version.yard == yard.id:
        ArtifactStore(yard.artifacts_dir).path(version.digest, verify=True)
    if "name" in version.entry:
        model = read_entry(version.entry, place=version.label, folder=yard.root.parent)
        if model.digest != version.digest:
            raise RegistryError(
                f"{version.label}: what its entry names is {model.digest} now, where {version.digest} was "
                "registered; put the model back that it was"
            )


def find_version(registry: Registry, wanted: str, *, digest: str = "") -> Version:
    """A version by `NAME@NUMBER`, or by `NAME` alone: the one with this digest, or else the newest.

    Raises:
        RegistryError: There is none.
    """
    name, at, number = wanted.rpartition("@")
    if at and number.isdecimal():
        return registry.version(name, int(number))
    newest = registry.version(wanted)
    same = [each for each in registry.versions(wanted) if each.digest == digest]
    return same[0] if same else newest


def trainers_of(versions: Sequence[Version], digest: str) -> frozenset[str]:
    """Everybody who is on record as having trained a model, under whatever name it is registered."""
    return frozenset(each.trained_by for each in versions if each.digest == digest and each.trained_by)


def _check(candidate: Candidate) -> None:
    if not candidate.name.strip() or "@" in candidate.name:
        raise RegistryError(f"{candidate.name!r} is no name of a model; give a word without @")
    for digest in (candidate.digest, candidate.parent_digest or candidate.digest):
        if not _DIGEST.fullmatch(digest):
            raise RegistryError(
                f"{candidate.name}: {digest!r} is no digest; give sha256: and 64 hex digits, such as the "
                "candidate's digest in its certificate"
            )


def _check_same(known: Version, candidate: Candidate) -> None:
    """The first word stands: who trained a model cannot be changed by registering it again."""
    if candidate.trained_by not in ("", known.trained_by):
        raise RegistryError(
            f"{known.label}: is registered as trained by {known.trained_by or 'nobody known'}, not by "
            f"{candidate.trained_by}; leave that out, or register the model under another name"
        )
