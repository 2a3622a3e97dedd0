"""NSGA-II for several objectives, by Optuna's sampler.

Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II" (2002), constraints by the rule of
its section VI, numbers crossed by simulated binary crossover and choices evenly. What Optuna writes into its
storage, which generation a trial belongs to, stands here in the trial's notes; the parents of a generation
follow from the generations before it, each time anew. A trial that ends late belongs to its generation all
the same, and may be a parent from then on.

Failed trials belong to no population. What a child is made of may come out as a point that was tried before;
then another is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import NSGAIISampler
from optuna.samplers.nsgaii import SBXCrossover
from optuna.trial import FrozenTrial

from modelyard.core.faults import Section
from modelyard.tuning.dimensions import Coordinate, Point
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.optuna_samplers import OptunaSearcher
from modelyard.tuning.trial import Proposal, Trial

_NOTE = "nsga2"
_POPULATION = 20
#: How often a child is made anew, each time as if it were the trial so many numbers later.
_TRIES, _LATER = 16, 1_000_003


class GeneticSearcher(OptunaSearcher):
    """NSGA-II; its generations stand in the notes of the trials."""

    def __init__(self, settings: SearcherSettings, *, population: int = _POPULATION) -> None:
        self._population = population
        super().__init__(settings, lambda seed: _sampler(seed, population), name="nsga2")

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`."""
        tried = {_signature(trial.point) for trial in trials}
        proposal = super().propose(trials, number)
        for again in range(1, _TRIES):
            if proposal is None or _signature(proposal.point) not in tried:
                break
            proposal = super().propose(trials, number + again * _LATER)
        if proposal is None:
            return None
        return replace(proposal, notes={_NOTE: {"generation": self._generation(self.history(trials))}})

    def history(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        """The trials as Optuna has them, with their generations; the first for those that note none."""
        generations = {trial.number: trial.notes.get(_NOTE, {}).get("generation", 0) for trial in trials}
        shown = super().history(trials)
        for frozen in shown:
            generation = {NSGAIISampler._get_generation_key(): generations[frozen.number]}
            frozen.system_attrs = {**frozen.system_attrs, **generation}  # constraints are among them
        return shown

    def _generation(self, shown: Sequence[FrozenTrial]) -> int:
        """The generation of the next trial, as the sampler counts it: the last one until that is complete."""
        complete = [
            t.system_attrs[NSGAIISampler._get_generation_key()] for t in shown if t.values is not None
        ]
        last = max(complete, default=0)
        return last + (complete.count(last) >= self._population)


def _sampler(seed: int, population: int) -> NSGAIISampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the crossover's arguments may change
        return NSGAIISampler(seed=seed, population_size=population, crossover=SBXCrossover())


def _signature(point: Point) -> tuple[Coordinate, ...]:
    return tuple(point.values())


def _options(section: Section) -> Options:
    return (("population", section.integer("population", _POPULATION, low=2, high=10_000)),)


def _searcher(settings: SearcherSettings) -> Searcher:
    return GeneticSearcher(
        settings, population=int(str(dict(settings.options).get("population", _POPULATION)))
    )


NSGA2 = Algorithm(name="nsga2", make=_searcher, options=_options, several=True)
