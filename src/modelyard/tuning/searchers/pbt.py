"""Population based training: several members are trained at once, and values change while they train.

Jaderberg et al., "Population Based Training of Neural Networks", arXiv 1711.09846, with truncation selection.
A member is a chain of trials, each of which goes on from its parent's checkpoint for one interval of
`rungs.low` steps, until `rungs.high` are reached. A member that has come to a step goes on as it is, unless
it is among the worst of those that have come there too: then it goes on from the checkpoint of one of the
best of them, with that one's values moved a little. So only what may change during training belongs in the
space.

Nothing waits for a whole generation: whoever has come least far goes on first, and is compared with the
members that have come as far. Paper and peers compare the newest results of all, whatever their steps.

A member that failed is replaced by a copy of one of the best at the step where it stood, or by a new point
where it had none. What has failed is nobody's parent.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelyard.core.errors import TuneError
from modelyard.core.faults import Section
from modelyard.tuning.dimensions import Coordinate, Dimension, Point
from modelyard.tuning.searcher import Rungs, Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.optuna_samplers import RANDOM, trial_seed
from modelyard.tuning.searchers.scaling import coordinate, nearest, place, size
from modelyard.tuning.trial import Proposal, Trial, TrialState, sign_of

_NOTE = "pbt"
_POPULATION, _QUANTILE, _FACTOR, _RESAMPLE = 10, 0.2, 1.2, 0.25
#: A checkpoint from which so many trials failed, and none came through, is no longer copied.
_BARREN = 3
#: How often values are moved anew where they came to a point that was tried before.
_TRIES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """How a copied member's values are moved."""

    # What values on a logarithmic scale are multiplied or divided by; others move by as much as that is
    # in the middle of a range that begins at 0: by (factor - 1) / 2 of their range.
    factor: float = _FACTOR
    # How likely each value is drawn anew instead.
    resample: float = _RESAMPLE

    def moved(self, dimension: Dimension, value: Coordinate, rng: random.Random) -> Coordinate:
        """Another value of a dimension; choices stay unless they are drawn anew."""
        count = size(dimension)
        if count == 1:
            return value
        if rng.random() < self.resample:
            return _drawn(dimension, rng)
        if dimension.kind == "choice":
            return value
        up = rng.random() < 0.5
        there = self._beside(dimension, value, up=up)
        # At an end there is only one way to go.
        return self._beside(dimension, value, up=not up) if there == value else there

    def _beside(self, dimension: Dimension, value: Coordinate, *, up: bool) -> Coordinate:
        step = (self.factor - 1) / 2
        if dimension.log:
            step = math.log(self.factor) / math.log(dimension.high / dimension.low)
        there = nearest(dimension, place(dimension, value) + (step if up else -step))
        count = size(dimension)
        if there != value or count is None:
            return there
        index = round((float(value) - dimension.low) / (dimension.step or 1)) + (1 if up else -1)
        return coordinate(dimension, min(count - 1, max(0, index)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One place in the population."""

    number: int
    # Where it stands: None before its first trial.
    newest: Trial | None
    # The steps that it has behind it.
    reached: int

    @property
    def ready(self) -> bool:
        """Whether it does not run."""
        return self.newest is None or self.newest.state.final


class PopulationSearcher:
    """Population based training."""

    def __init__(self, settings: SearcherSettings) -> None:
        self._settings = settings
        self._rungs = settings.rungs or Rungs(promote=True)
        if not self._rungs.promote:
            raise TuneError(
                "pbt: rungs.promote is false and members go on from checkpoints; "
                "set promote: true in rungs, and let the command begin from {parent_dir}"
            )
        options: Mapping[str, Any] = dict(settings.options)
        self._population = int(options.get("population", _POPULATION))
        self._quantile = float(options.get("quantile", _QUANTILE))
        self._exploration = Exploration(
            factor=float(options.get("factor", _FACTOR)), resample=float(options.get("resample", _RESAMPLE))
        )
        self._sign = sign_of(settings.directions[0])
        self._points = RANDOM(replace(settings, options=(), rungs=None))

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`."""
        members = self._members(trials)
        ready = [each for each in members if each.ready and each.reached < self._rungs.high]
        if not ready:
            return None
        member = min(ready, key=lambda each: (each.reached, each.number))
        notes = {_NOTE: {"member": member.number}}
        budget = min(member.reached + self._rungs.low, self._rungs.high)
        rng = random.Random(trial_seed(self._settings.seed, number))
        parent = self._parent(trials, member, rng)
        if parent is None:
            fresh = self._points.propose(trials, number)
            if fresh is None:
                return None
            return replace(fresh, source="pbt", budget=min(self._rungs.low, self._rungs.high), notes=notes)
        point = parent.point if parent is member.newest else self._explored(trials, parent.point, rng)
        return Proposal(point=point, source="pbt", budget=budget, parent=parent.number, notes=notes)

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """Every trial: members are replaced at the ends of their intervals."""
        return True

    def _members(self, trials: Sequence[Trial]) -> list[Member]:
        newest: dict[int, Trial] = {int(t.notes[_NOTE]["member"]): t for t in trials if _NOTE in t.notes}
        budgets = {trial.number: trial.budget or 0 for trial in trials}
        found = []
        for number in range(self._population):
            last = newest.get(number)
            reached = 0
            if last is not None:
                complete = last.state is TrialState.COMPLETE
                reached = budgets[last.number] if complete else budgets.get(_root(last), 0)
            found.append(Member(number=number, newest=last, reached=reached))
        return found

    def _parent(self, trials: Sequence[Trial], member: Member, rng: random.Random) -> Trial | None:
        """The trial from which a member goes on; None where it begins anew."""
        ranked = self._ranked(trials, member.reached)
        newest = member.newest
        if newest is not None and newest.state is TrialState.COMPLETE:
            count = quantile_size(len(ranked), self._quantile)
            if newest not in ranked[len(ranked) - count :]:
                return newest
            return rng.choice(ranked[:count])
        fertile = [trial for trial in ranked if not _barren(trials, trial)]
        best = fertile[: max(1, quantile_size(len(fertile), self._quantile))]
        return rng.choice(best) if best else None

    def _ranked(self, trials: Sequence[Trial], step: int) -> list[Trial]:
        """What each member had at this step, the best first; the last where it was there more than once."""
        there = {
            int(trial.notes[_NOTE]["member"]): trial
            for trial in trials
            if _NOTE in trial.notes and trial.budget == step and trial.state is TrialState.COMPLETE
        }
        return sorted(there.values(), key=self._rank)

    def _rank(self, trial: Trial) -> tuple[float, float, int]:
        beyond = math.fsum(max(0.0, part) for part in trial.excess)
        return (beyond, self._sign * (trial.values or (math.inf,))[0], trial.number)

    def _explored(self, trials: Sequence[Trial], point: Point, rng: random.Random) -> Point:
        """The point with its values moved to where no trial has been: two members alike teach nothing."""
        known = {tuple(trial.point.items()) for trial in trials}
        moved = dict(point)
        for _ in range(_TRIES):
            moved = {
                each.name: self._exploration.moved(each, point[each.name], rng)
                for each in self._settings.dimensions
            }
            if not any(_alike(moved, dict(other)) for other in known):
                break
        return moved


def quantile_size(count: int, quantile: float) -> int:
    """How many of so many members are the best, and as many the worst: at least one of two, at most half."""
    return min(count // 2, math.ceil(count * quantile - 1e-9))


def _alike(one: Point, other: Point) -> bool:
    """Whether two points are the same: up and down again is not quite the same number."""
    return all(
        math.isclose(value, float(there), rel_tol=1e-6, abs_tol=1e-12)
        if not isinstance(value, str) and not isinstance(there := other[name], str)
        else value == other[name]
        for name, value in one.items()
    )


def _root(trial: Trial) -> int:
    return -1 if trial.parent is None else trial.parent


def _barren(trials: Sequence[Trial], parent: Trial) -> bool:
    """Whether nothing came through that went on from a trial, though it was often tried."""
    children = [trial for trial in trials if trial.parent == parent.number]
    failed = sum(child.state is TrialState.FAILED for child in children)
    return failed >= _BARREN and failed == len(children)


def _drawn(dimension: Dimension, rng: random.Random) -> Coordinate:
    count = size(dimension)
    if dimension.kind == "choice" or (count is not None and not dimension.log):
        return coordinate(dimension, rng.randrange(count or 1))
    return nearest(dimension, rng.random())


def _options(section: Section) -> Options:
    return (
        ("population", section.integer("population", _POPULATION, low=2)),
        ("quantile", section.number("quantile", _QUANTILE, above=0, below=0.5)),
        ("factor", section.number("factor", _FACTOR, above=1)),
        ("resample", section.number("resample", _RESAMPLE, above=-1e-9, below=1 + 1e-9)),
    )


def _searcher(settings: SearcherSettings) -> Searcher:
    return PopulationSearcher(settings)


PBT = Algorithm(name="pbt", make=_searcher, options=_options, rungs=True)
