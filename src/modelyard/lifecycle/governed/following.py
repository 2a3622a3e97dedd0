"""A governed run follows the aliases: once a version of it is served, its state says so.

What an alias serves is for the registry to say; the run's state is brought up to that, by moves that rest
on the registry's evidence. Doing it again changes nothing: a death in between is mended by the next look.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.registry.records import PROD, STAGE, Move
from modelyard.registry.store import Registry
from modelyard.runs.states import Standing, move, standing
from modelyard.runs.yard import Yard

#: The way to each alias; the states that are there already are passed over.
_WAY = {STAGE: ("approval", "stage"), PROD: ("shadow", "prod")}


def follow(yard: Yard, registry: Registry, run: str) -> Standing:
    """Bring a run's state up to what its versions are served by."""
    now = standing(yard.journal, run)
    own = {version.digest for version in registry.versions() if version.run_id == run}
    if not own or not now.has_been("pass"):
        return now
    for each in sorted(registry.history(), key=lambda made: made.at):
        if each.kind != "rollback" and each.to_digest in own:
            now = _walk(yard, run, now, each, _WAY[each.alias])
        elif each.kind == "rollback" and each.from_digest in own and now.state == each.alias:
            now = _walk(yard, run, now, each, ("rolled_back",))
    return now


def follow_all(yard: Yard, registry: Registry) -> None:
    """Bring every run up whose version an alias serves or has served."""
    for run in sorted({version.run_id for version in registry.versions() if version.run_id}):
        follow(yard, registry, run)


def _walk(yard: Yard, run: str, now: Standing, made: Move, way: Sequence[str]) -> Standing:
    evidence = [made.evidence_digest]
    for target in way:
        if not now.has_been(target):
            reason = f"{made.alias} serves {made.label}" + (f": {made.reason}" if made.reason else "")
            now = move(yard.journal, run, target, actor=made.actor, reason=reason, evidence=evidence)
    return now
