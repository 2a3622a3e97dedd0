"""Bayesian optimisation by BoTorch, of one objective or of several: the extra `bo`.

What the model is, and how a place is chosen by it, is in `gaussian.py` and `improvement.py`, which are
imported when they are needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from modelyard.tuning.dimensions import Coordinate, Dimension, Point
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm
from modelyard.tuning.searchers.conditions import beginning, conditions
from modelyard.tuning.searchers.optuna_samplers import instructive, start_option, trial_seed
from modelyard.tuning.searchers.scaling import at_place, fixed, inside, sobol_point
from modelyard.tuning.trial import Proposal, Trial, TrialState, sign_of

START = 5
_MOST_COMPLETE, _MOST_PENDING = 200, 64


class BoTorchSearcher:
    """A Gaussian process after a few points of a Sobol sequence.

    A point tells nothing of what does not count there: each dimension that does not always count asks for
    one point more. In a space that has such, trials are proposed by turns by a model of the values, which
    leaves a branch whose promise is small, and by one of their ranks, which finds in a branch what is better
    by little.
    """

    def __init__(self, settings: SearcherSettings, *, name: str) -> None:
        self.settings, self._name = settings, name
        self._fixed = fixed(settings.dimensions)
        self._free = tuple(each for each in settings.dimensions if each.name not in self._fixed)
        self.conditions = conditions(settings, self._free)
        self._start = beginning(int(str(dict(settings.options).get("start", START))), self.conditions)
        self._signs = tuple(map(sign_of, settings.directions))

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`."""
        known = [trial for trial in trials if inside(self.settings.dimensions, trial.point)]
        complete = sum(trial.state is TrialState.COMPLETE for trial in known)
        if not self._free or complete < self._start:
            return self._from_sequence(number, {})
        kept = instructive(known, signs=self._signs, most=_MOST_COMPLETE, pending=_MOST_PENDING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BoTorch warns of what it then tries again, or of its own parts
            from modelyard.tuning.searchers.gaussian import NoModel

            try:
                found = self.best_place(self._free, kept, number)
            except NoModel as error:
                return self._from_sequence(number, {"model": f"could not be fitted: {error}"})
        return Proposal(point=self._point(found), source=self._name)

    def best_place(
        self, dimensions: Sequence[Dimension], trials: Sequence[Trial], number: int
    ) -> list[float]:
        """The place to be tried as the trial of this number, as `gaussian.highest` gives it."""
        from modelyard.tuning.searchers.improvement import most_promising

        return most_promising(
            dimensions, trials, signs=self._signs, seed=trial_seed(self.settings.seed, number),
            conditions=self.conditions, by_rank=self.conditions is not None and number % 2 == 0,
        )  # fmt: skip

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """Every trial: this searcher does not judge running ones."""
        return True

    def _from_sequence(self, number: int, notes: dict[str, str]) -> Proposal:
        dimensions = self.settings.dimensions
        point = sobol_point(dimensions, seed=self.settings.seed, index=number)
        return Proposal(point=point, source=self._name, notes=notes)

    def _point(self, found: Sequence[float]) -> Point:
        point: dict[str, Coordinate] = dict(self._fixed)
        for each, at in zip(self._free, found, strict=True):
            point[each.name] = at_place(each, at)
        return {each.name: point[each.name] for each in self.settings.dimensions}


def _searcher(settings: SearcherSettings) -> Searcher:
    return BoTorchSearcher(settings, name="botorch")


BOTORCH = Algorithm(name="botorch", make=_searcher, options=start_option(START), several=True)
