"""A governed run follows the aliases: once a version of it is served, its state says so.

What an alias serves is for the registry to say; the run's state is brought up to that, by moves that rest
on the registry's evidence. Doing it again changes nothing: a death in between is mended by the next look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from modelyard.registry.ledger import alone
from modelyard.registry.records import PROD, STAGE, Move
from modelyard.registry.store import Registry
from modelyard.runs.states import Standing, move, standings
from modelyard.runs.yard import Yard

#: The way to each alias; the states that are there already are passed over.
_WAY = {STAGE: ("approval", "stage"), PROD: ("shadow", "prod")}


def follow_all(yard: Yard, registry: Registry) -> None:
    """Bring every run of this yard up to what its versions are served by; one process at a time does it.

    Raises:
        RegistryError: Another process changes the registry all the time.
    """
    with alone(yard):
        history = sorted(registry.history(), key=lambda made: made.at)
        moved = {digest for made in history for digest in (made.from_digest, made.to_digest)}
        own: defaultdict[str, set[str]] = defaultdict(set)
        for version in registry.versions():
            if version.run_id and version.yard == yard.id and version.digest in moved:
                own[version.run_id].add(version.digest)
        for run, now in standings(yard.journal, own).items():
            if now.has_been("pass"):
                _follow(yard, now, own[run], history)


def _follow(yard: Yard, now: Standing, own: Collection[str], history: Sequence[Move]) -> None:
    for made in history:
        if made.kind != "rollback" and made.to_digest in own:
            now = _walk(yard, now, made, _WAY[made.alias])
        elif made.kind == "rollback" and made.from_digest in own and now.state == made.alias:
            now = _walk(yard, now, made, ("rolled_back",))


def _walk(yard: Yard, now: Standing, made: Move, way: Sequence[str]) -> Standing:
    evidence = [made.evidence_digest]
    for target in way:
        if not now.has_been(target):
            reason = f"{made.alias} serves {made.label}" + (f": {made.reason}" if made.reason else "")
            now = move(yard.journal, now.run, target, actor=made.actor, reason=reason, evidence=evidence)
    return now
