"""Why a yard that has run to its end is worked on again: data that changed, a model's age, drift.

A look reads the journal, the inputs' fingerprints and the tables; it writes nothing. What is done
about its causes is `rounds`' to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from modelyard.core.digests import Fingerprints
from modelyard.core.errors import TableError
from modelyard.core.journal import Entry
from modelyard.jobs.job import JobState
from modelyard.jobs.progress import Progress, StepProgress, StepStatus
from modelyard.jobs.runner import missing_output
from modelyard.lifecycle.declaration import Declaration
from modelyard.lifecycle.planning import Places

if TYPE_CHECKING:
    from modelyard.lifecycle.watching.drift import DriftLook

ASKED, ENDED = "retrain.asked", "retrain.ended"
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One reason to run one step again. `kind`: data, age or drift."""

    step: str
    kind: str
    why: str
    # Of drift: the newest target time that was looked at.
    newest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Causes that a round was asked to act on, as the journal has them."""

    number: int
    at: str
    causes: tuple[Cause, ...]
    # The attempts that counted when this was asked, by step: the versions to fall back on.
    attempts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """What was asked of a run so far, in order, and the numbers of those that were seen to their end."""

    all: tuple[Ask, ...] = ()
    ended: frozenset[int] = frozenset()

    @property
    def open(self) -> Ask | None:
        """The one that is not seen to its end."""
        return next((ask for ask in self.all if ask.number not in self.ended), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLook:
    """What a look saw of one member that may train anew."""

    member: str
    trained_at: str
    age_s: float
    limit_s: float | None
    drift: DriftLook | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look came to."""

    causes: tuple[Cause, ...] = ()
    members: tuple[MemberLook, ...] = ()
    # Why drift could not be looked at; empty where it could.
    problem: str = ""

    def record(self) -> dict[str, Any]:
        """The look as a JSON value."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look goes by: the run's standing, what was asked before, and the time."""

    progress: Progress
    asks: Asks
    now: datetime
    fingerprints: Fingerprints = field(default_factory=Fingerprints)


def read_asks(entries: Iterable[Entry]) -> Asks:
    """The asks in a run's entries."""
    asks, ended = [], set()
    for entry in entries:
        data = entry.data
        if entry.kind == ASKED:
            causes = tuple(Cause(**cause) for cause in data["causes"])
            asks.append(
                Ask(number=data["ask"], at=data["at"], causes=causes, attempts=dict(data["attempts"]))
            )
        elif entry.kind == ENDED:
            ended.add(data["ask"])
    return Asks(all=tuple(asks), ended=frozenset(ended))


def look(declaration: Declaration, seen: Seen) -> Look:
    """What there is to do, each step once; a cause that was acted on before is none."""
    drift, problem = _drift(declaration, seen)
    members = tuple(_member(name, declaration, seen, drift) for name in _watched(declaration, seen))
    causes = {cause.step: cause for cause in _changed(seen)}
    for member in members:
        for cause in _due(member, seen):
            causes.setdefault(cause.step, cause)
    return Look(causes=tuple(causes.values()), members=members, problem=problem)


def _changed(seen: Seen) -> Iterator[Cause]:
    """Steps whose inputs are not what they were, or whose output has gone."""
    for item in seen.progress:
        last = item.last
        if last is None:
            continue
        changed = [path for path, was in last.inputs.items() if seen.fingerprints.of(path) != was]
        if changed:
            yield Cause(step=item.step.name, kind="data", why=f"{changed[0]} has changed")
        elif item.status is StepStatus.SUCCEEDED and (why := missing_output(item.step)):
            yield Cause(step=item.step.name, kind="data", why=why)


def _watched(declaration: Declaration, seen: Seen) -> list[str]:
    """Members with a `retrain` whose model is there."""
    enabled = [m.name for m in declaration.members if m.enabled and m.name in declaration.retrain]
    return [name for name in enabled if _trained(seen.progress[f"train/{name}"])]


def _trained(item: StepProgress) -> str:
    """When the model that counts was trained; empty where there is none."""
    last = item.last
    return (last.report.finished_at or "") if last is not None and last.state is JobState.SUCCEEDED else ""


def _member(name: str, declaration: Declaration, seen: Seen, drift: Mapping[str, DriftLook]) -> MemberLook:
    trained_at = _trained(seen.progress[f"train/{name}"])
    age = seen.now - datetime.fromisoformat(trained_at)
    return MemberLook(
        member=name,
        trained_at=trained_at,
        age_s=age.total_seconds(),
        limit_s=declaration.retrain[name].age_s,
        drift=drift.get(name) if declaration.retrain[name].drift else None,
    )


def _due(member: MemberLook, seen: Seen) -> Iterator[Cause]:
    step = f"train/{member.member}"
    if member.limit_s is not None:
        # One that was tried in vain is due again after as long a time, not at the next look.
        tried = [ask.at for ask in seen.asks.all if any(cause.step == step for cause in ask.causes)]
        since = max([member.trained_at, *tried], key=datetime.fromisoformat)
        if seen.now - datetime.fromisoformat(since) > timedelta(seconds=member.limit_s):
            why = f"trained {_days(member.age_s)} ago, and its limit is {_days(member.limit_s)}"
            yield Cause(step=step, kind="age", why=why)
    found = member.drift
    if found is not None and found.drifted:
        times = f"{found.ratio or 0.0:.2f} times those of validation"
        why = f"recent errors are {times} (p = {found.adjusted_p:.2g})"
        yield Cause(step=step, kind="drift", why=why, newest=found.newest)


def _drift(declaration: Declaration, seen: Seen) -> tuple[dict[str, DriftLook], str]:
    """Verdicts over the members that watch for drift, and why there are none."""
    places = Places(run_dir=declaration.scope.run_dir)
    wanted = [name for name in _watched(declaration, seen) if declaration.retrain[name].drift]
    if not wanted or not (places.predictions.exists() and places.truth.exists()):
        return {}, ""
    from modelyard.lifecycle.watching.drift import DriftRule, look_for_drift  # numpy loads here, not before

    rule = DriftRule(
        validation_until=declaration.ensemble.validation_until,
        step_s=declaration.step_s,
        period=max(declaration.period, declaration.horizon),
        recent=declaration.watch.recent,
        level=declaration.watch.level,
    )
    since = {name: _told(seen.asks.all, f"train/{name}") for name in wanted}
    try:
        return look_for_drift(places.predictions, places.truth, rule, since=since), ""
    except TableError as error:
        return {}, str(error)


def _told(asks: Sequence[Ask], step: str) -> str:
    """The newest target time that made this step run again; its errors up to then are spent."""
    return max(
        (c.newest for ask in asks for c in ask.causes if c.step == step and c.kind == "drift"), default=""
    )


def _days(seconds: float) -> str:
    unit, size = next(
        (u, s) for u, s in (("d", _DAY_S), ("h", 3600.0), ("s", 1.0)) if seconds >= s or s == 1.0
    )
    return f"{seconds / size:.3g} {unit}"
