"""The median rule: a running trial ends where the middle one of those before it did better by then.

Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017, section 3.2.2: a trial is
stopped at a step where its best value so far is worse than the median, over the complete trials, of their
values there; as in Optuna's `MedianPruner`, of the values at that very step, or with `average` of the means
of all values up to it, as in the paper. It needs no rungs and goes with any algorithm; only complete
trials are looked at, so that two trials never stop each other.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.tuning.searcher import Searcher
from modelyard.tuning.trial import Direction, Proposal, Trial, TrialState, sign_of


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianRule:
    """When trials are held against the median."""

    # So many trials must be complete before.
    after_trials: int = 5
    # The first step at which anybody is stopped.
    from_step: int = 1
    # Steps from one judgement to the next.
    every: int = 1
    # Whether the others' means up to a step are taken, instead of their values there.
    average: bool = False

    def judges(self, curve: Mapping[int, float], step: int) -> bool:
        """Whether a trial is judged at this step: at the first that it reports in an interval."""
        if step < self.from_step:
            return False
        begun = self.from_step + (step - self.from_step) // self.every * self.every
        return max((at for at in curve if at < step), default=-math.inf) < begun


def stands(
    curve: Mapping[int, float], others: Sequence[Mapping[int, float]], step: int, *, average: bool = False
) -> bool:
    """Whether the best value of a curve up to a step is no worse than the median of the others there.

    Curves without a value at the step do not count; where none is left, it stands. Less is better.
    """
    there = [_mean(other, step) if average else other[step] for other in others if step in other]
    mine = min(value for at, value in curve.items() if at <= step)
    return not there or mine <= statistics.median(there)


class MedianStopping:
    """Another searcher, with running trials judged by the median rule."""

    def __init__(self, searcher: Searcher, rule: MedianRule, *, direction: Direction) -> None:
        self._searcher, self._rule = searcher, rule
        self._sign = sign_of(direction)

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """What the other searcher proposes."""
        return self._searcher.propose(trials, number)

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """See `Searcher.keeps`."""
        if not self._searcher.keeps(trials, number, step):
            return False
        mine = next(trial for trial in reversed(trials) if trial.number == number)
        if step not in mine.curve or not self._rule.judges(mine.curve, step):
            return True
        complete = [t for t in trials if t.state is TrialState.COMPLETE and t.number != number]
        if len(complete) < self._rule.after_trials:
            return True
        others = [self._less(trial.curve) for trial in complete]
        return stands(self._less(mine.curve), others, step, average=self._rule.average)

    def _less(self, curve: Mapping[int, float]) -> dict[int, float]:
        return {step: self._sign * value for step, value in curve.items()}


def _mean(curve: Mapping[int, float], step: int) -> float:
    return statistics.fmean(value for at, value in curve.items() if at <= step)
