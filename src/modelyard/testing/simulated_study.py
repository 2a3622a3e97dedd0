"""A study without jobs: trials advance step by step in one process, and a searcher decides about them.

For tests and benchmarks of searchers. Which trial advances next is drawn from a seed, so that trials
overtake each other as they do on real machines.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from modelyard.tuning.dimensions import Point
from modelyard.tuning.searcher import Searcher
from modelyard.tuning.trial import Proposal, Trial, TrialState

#: The value of a point after so many steps.
Curve = Callable[[Point, int], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """How the trials of a simulated study go."""

    curve: Curve
    # How many steps a trial without a budget makes.
    steps: int = 1
    # How many trials run at once.
    parallel: int = 1
    # The share of trials that fail, at any of their steps.
    failing: float = 0.0
    seed: int = 0
    # The point of trial 0, which the study proposes itself.
    default: Point | None = None


@dataclass(slots=True)
class _Running:
    step: int
    last: int
    fails_at: int | None


class SimulatedStudy:
    """Trials so far, and those that run. `spent` counts the steps of all trials."""

    def __init__(self, searcher: Searcher, simulation: Simulation) -> None:
        self.trials: list[Trial] = []
        self.spent = 0
        self._searcher, self._how = searcher, simulation
        self._random = random.Random(simulation.seed)
        self._running: dict[int, _Running] = {}

    def run(self, *, trials: int, spend: int | None = None, leave: bool = False) -> list[Trial]:
        """Go on until there are so many trials, or so many steps are spent, and none runs.

        With `leave`, the trials that run when the last one is begun are left running.
        """
        while True:
            while self._wants(trials, spend):
                proposal = self._proposal(len(self.trials))
                if proposal is None:
                    break
                self._begin(proposal)
            if not self._running or (leave and len(self.trials) == trials):
                return self.trials
            self.advance(self._random.choice(sorted(self._running)))

    def advance(self, number: int) -> None:
        """One step of a running trial."""
        at, trial = self._running[number], self.trials[number]
        at.step += 1
        self.spent += 1
        if at.fails_at is not None and at.step >= at.fails_at:
            self._end(replace(trial, state=TrialState.FAILED, why="it was to fail"))
            return
        value = self._how.curve(trial.point, at.step)
        trial = replace(trial, curve={**trial.curve, at.step: value})
        self.trials[number] = trial
        if at.step >= at.last:
            self._end(replace(trial, state=TrialState.COMPLETE, values=(value,)))
        elif not self._searcher.keeps(self.trials, number, at.step):
            self._end(replace(trial, state=TrialState.PRUNED, why="it was stopped"))

    def _wants(self, trials: int, spend: int | None) -> bool:
        room = len(self._running) < self._how.parallel and len(self.trials) < trials
        return room and (spend is None or self.spent < spend)

    def _proposal(self, number: int) -> Proposal | None:
        if number == 0 and self._how.default is not None:
            return Proposal(point=self._how.default, source="default")
        return self._searcher.propose(self.trials, number)

    def _begin(self, proposal: Proposal) -> None:
        number = len(self.trials)
        last = proposal.budget or self._how.steps
        begun = 0 if proposal.parent is None else (self.trials[proposal.parent].budget or 0)
        fails = self._random.random() < self._how.failing
        self._running[number] = _Running(
            begun, last, self._random.randint(begun + 1, last) if fails else None
        )
        self.trials.append(Trial(number=number, **{n: getattr(proposal, n) for n in _KEPT}))

    def _end(self, trial: Trial) -> None:
        del self._running[trial.number]
        self.trials[trial.number] = trial


_KEPT = ("point", "source", "budget", "parent", "notes")


def trial_document(trial: Trial) -> dict[str, Any]:
    """A trial as JSON."""
    return asdict(trial)


def read_trial(document: Mapping[str, Any]) -> Trial:
    """A trial from its JSON."""
    values, curve = document["values"], document["curve"]
    return Trial(
        **{
            **document,
            "state": TrialState(document["state"]),
            "values": None if values is None else tuple(values),
            "curve": {int(step): value for step, value in curve.items()},
            "excess": tuple(document["excess"]),
        }
    )


def best_value(trials: Sequence[Trial], *, sign: float = 1.0) -> float:
    """The best value of the complete trials; infinity where there is none."""
    return min((sign * trial.values[0] for trial in trials if trial.values), default=float("inf"))
