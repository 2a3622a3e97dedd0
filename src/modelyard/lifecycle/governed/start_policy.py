"""From which weights a training begins; the record says what was chosen, why, and what was not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.digests import digest_path
from modelyard.core.errors import ArtifactError, GovernanceError
from modelyard.core.journal import Journal
from modelyard.lifecycle.governed.declaration import Candidate
from modelyard.lifecycle.governed.request import TrainingRequest
from modelyard.lifecycle.governed.weights import kept_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A version of the registry; `fault` says why it is not to be believed, and is empty where it is."""

    name: str
    version: int
    # The digest of its checkpoint; None where it is no file.
    weights: str | None
    alias: str
    fault: str = ""

    @property
    def id(self) -> str:
        """As `--release` has it."""
        return f"{self.name}@{self.version}"


class Releases(Protocol):
    """What was promoted, from the registry."""

    def promoted(self, names: Sequence[str]) -> Iterable[Release]:
        """The versions of these models that an alias has served, the newest first, looked at one by one."""
        ...

    def find(self, release: str) -> Release | None:
        """One version, by `NAME@VERSION` or by an alias."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """What was looked at and not taken."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStart:
    """What a training begins with."""

    policy: str
    # A folder, or a name that the training command understands.
    base: str
    # Of the weights where they are files.
    digest: str | None
    chosen: str
    why: str
    rejected: tuple[Rejected, ...] = ()

    def record(self) -> dict[str, Any]:
        """As a JSON value."""
        return {**asdict(self), "rejected": [asdict(each) for each in self.rejected]}


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFacts:
    """What a choice is made from."""

    request: TrainingRequest
    candidate: Candidate
    # Names of all candidates of the lineage.
    lineage: tuple[str, ...]
    # Where relative paths start.
    folder: Path
    iteration: int
    journal: Journal
    store: ArtifactStore
    releases: Releases


def training_start(facts: StartFacts) -> TrainingStart:
    """Where the training begins.

    Raises:
        GovernanceError: The policy finds nothing that may be used.
    """
    policies: dict[str, Callable[[StartFacts], TrainingStart]] = {
        "bootstrap": _bootstrap,
        "continue_last_promoted": _last_promoted,
        "from_release": _release,
        "resume_run": _resumed,
    }
    return policies[facts.request.start_policy](facts)


def _bootstrap(facts: StartFacts) -> TrainingStart:
    base = facts.candidate.base
    path = facts.folder / base
    there = path.exists()
    return TrainingStart(
        policy="bootstrap",
        base=str(path) if there else base,
        digest=digest_path(path) if there else None,
        chosen=f"the base of {facts.candidate.name}",
        why="the policy asks for the candidate's own base",
    )


def _last_promoted(facts: StartFacts) -> TrainingStart:
    rejected: list[Rejected] = []
    for release in facts.releases.promoted(facts.lineage):
        start, why = _usable(facts, release)
        if start is not None:
            why = f"it is the newest of the lineage {facts.candidate.lineage} that {release.alias} has served"
            return _from(release, start, facts, why, rejected)
        if release.fault:  # a release that cannot be believed is not passed over in silence
            raise GovernanceError(
                f"{facts.request.run_id}: {release.id}, the last promoted of the lineage "
                f"{facts.candidate.lineage}, cannot be believed: {why}; mend its evidence, or choose another "
                "start policy"
            )
        rejected.append(Rejected(what=release.id, why=why))
    told = "; ".join(f"{each.what}: {each.why}" for each in rejected) or "nothing of it was promoted"
    raise GovernanceError(
        f"{facts.request.run_id}: the lineage {facts.candidate.lineage} has no release to go on from "
        f"({told}); use --start-policy bootstrap"
    )


def _release(facts: StartFacts) -> TrainingStart:
    named = facts.request.release_id or ""
    release = facts.releases.find(named)
    if release is None:
        raise GovernanceError(
            f"{facts.request.run_id}: the registry has no release {named}; see `modelyard registry list`"
        )
    start, why = _usable(facts, release)
    if start is None:
        raise GovernanceError(
            f"{facts.request.run_id}: {release.id} cannot be gone on from: {why}; name another"
        )
    return _from(release, start, facts, "it was named", [])


def _resumed(facts: StartFacts) -> TrainingStart:
    """The newest checkpoint that this run has left, of this iteration or an earlier one."""
    run = facts.request.run_id
    rejected: list[Rejected] = []
    entries = list(facts.journal.read())
    for iteration in range(facts.iteration, 0, -1):
        for digest in reversed(kept_weights(entries, run, iteration)):
            what = f"iteration {iteration}, {digest[:19]}"
            try:
                path = facts.store.path(digest, verify=True)
            except ArtifactError as error:
                rejected.append(Rejected(what=what, why=str(error)))
                continue
            return TrainingStart(
                policy="resume_run", base=str(path), digest=digest, chosen=what,
                why="it is the last checkpoint of this run that is whole", rejected=tuple(rejected),
            )  # fmt: skip
    told = "; ".join(f"{each.what}: {each.why}" for each in rejected) or "it has left none"
    raise GovernanceError(f"{run}: has no checkpoint to resume from ({told}); use --start-policy bootstrap")


def _usable(facts: StartFacts, release: Release) -> tuple[Path | None, str]:
    """Where a release's weights lie, or why they may not be used."""
    if release.fault:
        return None, release.fault
    if release.weights is None:
        return None, "its weights are not files of this yard"
    try:
        return facts.store.path(release.weights, verify=True), ""
    except ArtifactError as error:
        return None, str(error)


def _from(
    release: Release, path: Path, facts: StartFacts, why: str, rejected: Sequence[Rejected]
) -> TrainingStart:
    return TrainingStart(
        policy=facts.request.start_policy, base=str(path), digest=release.weights, chosen=release.id, why=why,
        rejected=tuple(rejected),
    )  # fmt: skip
