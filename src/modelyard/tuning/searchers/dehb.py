"""DEHB: Hyperband's brackets, with new points by differential evolution.

Awad, Mallik and Hutter, "DEHB: Evolutionary Hyperband for Scalable, Robust and Efficient Hyperparameter
Optimization", IJCAI 2021, arXiv 2105.09821, with its defaults: rand/1/bin, F = 0.5, p = 0.5, and values
outside their range drawn anew. Each budget has a population of its own. In the first round of brackets the
best are promoted, as in Hyperband. After it every trial is new: a mutant of the best at the budget below,
crossed with the member of its own budget's population whose turn it is; it takes that one's place where it
is as good.

The populations are nowhere stored: a trial notes whose place it is for, and in each place stands the best of
those that were for it. A failed trial takes no place. Brackets wait for their rungs, and meanwhile the next
bracket begins. With `rungs.promote` what is promoted goes on from its checkpoint; otherwise it begins anew.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.faults import Section
from modelyard.tuning.dimensions import Coordinate, Dimension, Point
from modelyard.tuning.searcher import Rungs, Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.brackets import LENGTH, Rung, bracket, most_halvings
from modelyard.tuning.searchers.optuna_samplers import trial_seed
from modelyard.tuning.searchers.scaling import even, fixed, inside, place, size
from modelyard.tuning.trial import Proposal, Trial, TrialState, sign_of

Floats = NDArray[np.float64]
_NOTE = "dehb"
_FACTOR, _CROSSOVER = 0.5, 0.5
#: Three members make a mutant.
_PARENTS = 3
#: How often a child is made anew where it came to a point that was tried before.
_TRIES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is due: a trial of a rung in a bracket. Brackets are counted through all rounds."""

    bracket: int
    rung: int
    rungs: tuple[Rung, ...]

    @property
    def budget(self) -> int:
        """The steps of the trial."""
        return self.rungs[self.rung].budget

    @property
    def below(self) -> int:
        """The budget whose best are the parents: its own in the lowest rung."""
        return self.rungs[max(0, self.rung - 1)].budget


class EvolutionSearcher:
    """Differential evolution at every budget."""

    def __init__(self, settings: SearcherSettings) -> None:
        self._settings = settings
        self._rungs = settings.rungs or Rungs()
        options: Mapping[str, Any] = dict(settings.options)
        self._factor = float(options.get("factor", _FACTOR))
        self._crossover = float(options.get("crossover", _CROSSOVER))
        self._rounds = options.get("cycles")
        self._sign = sign_of(settings.directions[0])
        self._fixed = fixed(settings.dimensions)
        self._free = tuple(each for each in settings.dimensions if each.name not in self._fixed)
        self._sizes = population_sizes(self._rungs)

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`."""
        known = [t for t in trials if _NOTE in t.notes and inside(self._settings.dimensions, t.point)]
        job = self._due(known)
        if job is None:
            return None
        turn = sum(t.budget == job.budget and t.source != "retry" for t in known)
        target = turn % self._sizes[job.budget]
        notes = {_NOTE: {"bracket": job.bracket, "rung": job.rung, "place": target}}
        if job.rung and job.bracket <= most_halvings(self._rungs):
            best = self._promoted(known, job)
            if best is not None:
                parent = best.number if self._rungs.promote else None
                return Proposal(
                    point=best.point, source="dehb", budget=job.budget, parent=parent, notes=notes
                )
        point = self._new(known, job, target, number)
        return Proposal(point=point, source="dehb", budget=job.budget, notes=notes)

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """Every trial: each has its budget from the beginning."""
        return True

    def _due(self, trials: Sequence[Trial]) -> Job | None:
        """The next trial of the earliest bracket that does not wait; None when all rounds are begun."""
        halvings = most_halvings(self._rungs)
        begun: dict[tuple[int, int], int] = {}
        waiting = set()
        for trial in trials:
            where = (int(trial.notes[_NOTE]["bracket"]), int(trial.notes[_NOTE]["rung"]))
            begun[where] = begun.get(where, 0) + (trial.source != "retry")
            if not trial.state.final:
                waiting.add(where)
        for number in count():
            if self._rounds is not None and number // (halvings + 1) >= int(self._rounds):
                return None
            rungs = bracket(self._rungs, halvings - number % (halvings + 1))
            rung = next((r for r, each in enumerate(rungs) if begun.get((number, r), 0) < each.trials), None)
            if rung is not None and (number, rung - 1) not in waiting:
                return Job(bracket=number, rung=rung, rungs=rungs)
        raise AssertionError

    def _promoted(self, trials: Sequence[Trial], job: Job) -> Trial | None:
        """The best at the budget below that has not been tried at this one."""
        tried = [t.point for t in trials if t.budget == job.budget or t.state is TrialState.FAILED]
        standing = sorted(self._standing(trials, job.below).values(), key=self._rank)
        return next((t for t in standing if t.state is TrialState.COMPLETE and t.point not in tried), None)

    def _standing(self, trials: Sequence[Trial], budget: int) -> dict[int, Trial]:
        """Who stands in which place of a budget's population, as far as places are taken."""
        found: dict[int, Trial] = {}
        for trial in trials:
            if trial.budget == budget and trial.state is TrialState.COMPLETE:
                where = int(trial.notes[_NOTE]["place"])
                if where not in found or self._rank(trial)[:2] <= self._rank(found[where])[:2]:
                    found[where] = trial
        return found

    def _rank(self, trial: Trial) -> tuple[float, float, int]:
        beyond = math.fsum(max(0.0, part) for part in trial.excess)
        return (beyond, self._sign * (trial.values or (math.inf,))[0], trial.number)

    def _population(self, trials: Sequence[Trial], budget: int) -> list[Floats]:
        """The population of a budget, the best first; places not taken hold random vectors, at the end."""
        standing = self._standing(trials, budget)
        order = sorted(standing, key=lambda each: self._rank(standing[each]))
        free = [each for each in range(self._sizes[budget]) if each not in standing]
        return [self._vector(standing[each].point) for each in order] + [
            self._first(budget, each) for each in free
        ]

    def _member(self, trials: Sequence[Trial], budget: int, where: int) -> Floats:
        standing = self._standing(trials, budget).get(where)
        return self._first(budget, where) if standing is None else self._vector(standing.point)

    def _first(self, budget: int, where: int) -> Floats:
        """What stands in a place before anything has taken it."""
        rng = random.Random(f"{self._settings.seed}:{budget}:{where}")
        return np.array([rng.random() for _ in self._free])

    def _new(self, trials: Sequence[Trial], job: Job, target: int, number: int) -> Point:
        """A child for a place; the first population of all is evaluated as it is."""
        tried = {tuple(trial.point.items()) for trial in trials}
        if job.bracket == job.rung == 0:
            first = self._point(self._first(job.budget, target))
            if tuple(first.items()) not in tried:
                return first
        rng = np.random.default_rng(trial_seed(self._settings.seed, number))
        member = self._member(trials, job.budget, target)
        parents = self._population(trials, job.below)[: job.rungs[job.rung].trials]
        others = [each for budget in self._sizes for each in self._population(trials, budget)]
        point: Point = {}
        for _ in range(_TRIES):
            point = self._point(self._child(member, parents, others, rng))
            if tuple(point.items()) not in tried:
                break
        return point

    def _child(
        self, member: Floats, parents: Sequence[Floats], others: Sequence[Floats], rng: np.random.Generator
    ) -> Floats:
        """A mutant of the parents crossed with a member; mutants of all make up for too few parents."""
        if not self._free:
            return member
        pool = [each for each in parents if not np.array_equal(each, member)]
        while len(pool) < _PARENTS:
            pool.append(within(mutant(others, self._factor, rng), rng))
        child = within(mutant(pool, self._factor, rng), rng)
        crossed = rng.random(len(member)) < self._crossover
        crossed[rng.integers(len(member))] |= not crossed.any()
        return np.where(crossed, child, member)

    def _vector(self, point: Point) -> Floats:
        return np.array([_from(each, point[each.name]) for each in self._free])

    def _point(self, vector: Floats) -> dict[str, Coordinate]:
        found = {each.name: even(each, float(at)) for each, at in zip(self._free, vector, strict=True)}
        return {
            each.name: found.get(each.name, self._fixed.get(each.name, 0.0))
            for each in self._settings.dimensions
        }


def population_sizes(rungs: Rungs) -> dict[int, int]:
    """How many members each budget's population has: as many trials as a bracket gives it at most."""
    sizes: dict[int, int] = {}
    for s in range(most_halvings(rungs), -1, -1):
        for rung in bracket(rungs, s):
            sizes[rung.budget] = max(rung.trials, sizes.get(rung.budget, 0))
    return sizes


def mutant(pool: Sequence[Floats], factor: float, rng: np.random.Generator) -> Floats:
    """rand/1: one of three that were drawn, moved by the factor times the difference of the others."""
    a, b, c = (pool[i] for i in rng.choice(len(pool), size=_PARENTS, replace=len(pool) < _PARENTS))
    moved: Floats = a + factor * (b - c)
    return moved


def within(vector: Floats, rng: np.random.Generator) -> Floats:
    """The vector with what lies outside 0 and 1 drawn anew."""
    return np.where((vector < 0) | (vector > 1), rng.random(len(vector)), vector)


def _from(dimension: Dimension, value: Coordinate) -> float:
    """Where a coordinate stands; of dimensions whose values are drawn evenly the middle of its share."""
    held = size(dimension)
    if dimension.kind == "choice":
        return (dimension.choices.index(str(value)) + 0.5) / len(dimension.choices)
    if held is None or dimension.log:
        return place(dimension, value)
    return (round((float(value) - dimension.low) / (dimension.step or 1)) + 0.5) / held


def _options(section: Section) -> Options:
    cycles: Options = (("cycles", section.integer("cycles", 1, low=1)),) if section.has("cycles") else ()
    return (
        ("factor", section.number("factor", _FACTOR, above=0, below=2 + 1e-9)),
        ("crossover", section.number("crossover", _CROSSOVER, above=-1e-9, below=1 + 1e-9)),
        *cycles,
    )


def _searcher(settings: SearcherSettings) -> Searcher:
    return EvolutionSearcher(settings)


DEHB = Algorithm(name="dehb", make=_searcher, options=_options, rungs=True, changeable=LENGTH)
