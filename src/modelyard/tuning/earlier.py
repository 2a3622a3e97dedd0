"""Warm starts: what earlier studies of the same objective have measured, shown to a search that begins.

The trials of an earlier study inform the algorithm as trials that have ended; its best configurations are
tried right after the default one, because a value of another study is no value of this one. Nothing of an
earlier study counts: not in the limits, not as best, not at a rung, and nobody goes on from its checkpoints.

What was taken is stored with the study that begins, once. So a search that is resumed, or driven by
several processes, decides from the same trials, whatever has become of the earlier studies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import TuneError
from modelyard.core.files import read_json
from modelyard.tuning.dimensions import Point
from modelyard.tuning.result import comparable
from modelyard.tuning.spaces.space import Space
from modelyard.tuning.study import Stored, read_stored
from modelyard.tuning.trial import Constraint, Direction, Objective, Trial, TrialState, sign_of

#: Of the trials that were left out, how many reasons are told.
_REASONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One earlier study: in a run's folder, or by its name in a database."""

    # The folder; of a study in a database its name.
    study: str
    # None: the database in the folder.
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """From which studies a search learns, and how."""

    sources: tuple[Source, ...]
    # How many of their best configurations are tried after the default one and those given.
    first: int = 1
    # Whether their values are shown to the algorithm; where not, they may be of another objective.
    inform: bool = True

    def within(self, runs_dir: Path, *, study: str) -> WarmStart:
        """The same for a study of this name, with those named without a folder in this one.

        Raises:
            TuneError: It is to learn from itself.
        """
        if any(each.url is None and runs_dir / each.study == runs_dir / study for each in self.sources):
            raise TuneError(
                f"warm_start: {study} would learn from itself; name another study, or give this one "
                "another name"
            )
        return replace(
            self,
            sources=tuple(
                each if each.url is not None else replace(each, study=str(runs_dir / each.study))
                for each in self.sources
            ),
        )

    def record(self) -> dict[str, Any]:
        """What makes two of them the same, as a JSON value."""
        return {
            "from": [[Path(each.study).name, bool(each.url)] for each in self.sources],
            "first": self.first, "inform": self.inform,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What was taken from earlier studies."""

    # Complete, numbered below 0 so that they are before all others and nobody takes them for those.
    trials: tuple[Trial, ...] = ()
    # What is to be tried, the best first, with the study and trial that it comes from.
    first: tuple[tuple[Point, str], ...] = ()
    # For a person: how many trials of each study were taken, and why others were not.
    told: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As a JSON value with its digest."""
        kept = {
            "trials": [
                {
                    "point": dict(each.point), "values": list(each.values or ()), "budget": each.budget,
                    "excess": list(each.excess), "curve": list(each.curve.items()), "source": each.source,
                }
                for each in self.trials
            ],
            "first": [[dict(point), whose] for point, whose in self.first],
            "told": list(self.told),
        }  # fmt: skip
        return {**kept, "digest": digest_json(kept)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What the search that begins is after; earlier trials are held against it."""

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    # What is tried anyway: the default, and the configurations given.
    given: tuple[Point, ...] = ()
    # Whether curves are of use: where there are rungs.
    curves: bool = False


def gathered(warm: WarmStart, sought: Sought) -> Earlier:
    """Read earlier studies and keep what can be learnt from.

    Kept are complete trials of the largest budget of their study whose values lie in the space; a parameter
    that a study did not vary counts as at its default. Of several studies, the best of each take turns
    in being tried first.

    Raises:
        TuneError: A study is not there, seeks something else, or has fewer such trials than wanted.
    """
    found, ranked, told = [], [], []
    for source in warm.sources:
        name, stored = _read(source)
        if warm.inform:
            _check_objectives(name, stored, sought.objectives)
        usable, why_not = _usable(stored, sought, constraints=warm.inform)
        left = f"; left out: {_reasons(why_not)}" if why_not else ""
        told.append(f"{name}: {len(usable)} trials{left}")
        ranked.append(_ranked(usable, name, stored.directions[0]))
        found += usable
    first = _distinct(_in_turns(ranked), besides=sought.given)[: warm.first]
    if not found or len(first) < warm.first:
        raise TuneError(
            f"warm_start: {len(first)} configurations of {'; '.join(told)} could be tried first, and "
            f"{warm.first} are wanted; name studies with more trials of this space, or say "
            f"first: {len(first)}"
        )
    count = len(found) if warm.inform else 0
    return Earlier(
        trials=tuple(_as_earlier(found[i], i - count, curves=sought.curves) for i in range(count)),
        first=tuple(first), told=tuple(told),
    )  # fmt: skip


def read_earlier(record: Mapping[str, Any]) -> Earlier:
    """What `Earlier.record` wrote."""
    count = len(record["trials"])
    return Earlier(
        trials=tuple(
            Trial(
                **{
                    **each, "number": i - count, "state": TrialState.COMPLETE,
                    "values": tuple(each["values"]), "excess": tuple(each["excess"]),
                    "curve": dict(each["curve"]),
                }
            )
            for i, each in enumerate(record["trials"])
        ),
        first=tuple((point, whose) for point, whose in record["first"]),
        told=tuple(record["told"]),
    )  # fmt: skip


def _read(source: Source) -> tuple[str, Stored]:
    """The study's name, and what there is of it."""
    if source.url is not None:
        return source.study, read_stored(source.url, source.study)
    folder = Path(source.study)
    if not (folder / "run.json").exists() or not (folder / "study.db").exists():
        raise TuneError(
            f"warm_start: {folder}: there is no study here; give the name of a study of this yard, a run's "
            "folder, or {study: NAME, storage: URL}"
        )
    name = str(read_json(folder / "run.json")["run"])
    return name, read_stored(f"sqlite:///{folder / 'study.db'}", name)


def _check_objectives(name: str, stored: Stored, objectives: Sequence[Objective]) -> None:
    """Refuse values that are not of the same thing. Of a study that is not ours only directions are known."""
    own = [[each.metric, each.direction, each.take] for each in objectives]
    theirs = stored.remembered.get("identity", {}).get("objectives")
    if theirs is None:
        same = list(stored.directions) == [each.direction for each in objectives]
        theirs = [["?", direction, "?"] for direction in stored.directions]
    else:
        same = theirs == own
    if not same:
        raise TuneError(
            f"warm_start: {name}: it was to {_phrase(theirs)}, this one is to {_phrase(own)}; values of "
            "other objectives say nothing here: say inform: false to try its best configurations only"
        )


def _phrase(objectives: Iterable[Sequence[str]]) -> str:
    return " and ".join(f"{direction} the {take} {metric}" for metric, direction, take in objectives)


def _usable(stored: Stored, sought: Sought, *, constraints: bool) -> tuple[list[Trial], list[str]]:
    """Trials with their points in the present space; and why others are not."""
    complete = [(t, values) for t, values in stored.trials if t.state is TrialState.COMPLETE]
    largest = max((trial.budget or 0 for trial, _ in complete), default=0)
    usable, why_not = [], []
    for trial, assignments in complete:
        if (trial.budget or 0) < largest:
            continue
        if constraints and len(trial.excess) != len(sought.constraints):
            why_not.append("other constraints were measured")
            continue
        try:
            point = sought.space.point(assignments)
        except ValueError as error:
            why_not.append(str(error))
            continue
        usable.append(replace(trial, point=point))
    return usable, why_not


def _reasons(why_not: Sequence[str]) -> str:
    """How many, and the first few reasons."""
    shown = list(dict.fromkeys(why_not))
    more = f"; and {len(shown) - _REASONS} other reasons" if len(shown) > _REASONS else ""
    return f"{len(why_not)} ({'; '.join(shown[:_REASONS])}{more})"


def _ranked(trials: Sequence[Trial], study: str, direction: Direction) -> list[tuple[Point, str]]:
    """Those that may be called best, the best first, each with the study and its number there."""
    best = sorted(comparable(trials), key=lambda t: (sign_of(direction) * (t.value or 0.0), t.number))
    return [(trial.point, f"{study}/{trial.number}") for trial in best]


def _in_turns(ranked: Sequence[Sequence[tuple[Point, str]]]) -> list[tuple[Point, str]]:
    """The best of each, then the second of each, and so on."""
    longest = max(map(len, ranked), default=0)
    return [each[i] for i in range(longest) for each in ranked if i < len(each)]


def _distinct(pairs: Iterable[tuple[Point, str]], besides: Iterable[Point]) -> list[tuple[Point, str]]:
    """Each point once, without those that are tried anyway."""
    seen = [dict(point) for point in besides]
    kept = []
    for point, whose in pairs:
        if dict(point) not in seen:
            seen.append(dict(point))
            kept.append((point, whose))
    return kept


def _as_earlier(trial: Trial, number: int, *, curves: bool) -> Trial:
    return Trial(
        number=number, point=trial.point, source="earlier", state=trial.state, budget=trial.budget,
        values=trial.values, excess=trial.excess, curve=trial.curve if curves else {},
    )  # fmt: skip
