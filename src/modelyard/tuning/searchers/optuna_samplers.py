"""Random search, TPE and Bayesian optimisation by Optuna's samplers.

A sampler is made anew for each trial, seeded by the trial's number, and asked with the trials so far as
its whole history: nothing depends on what an earlier process drew. Papers: Bergstra et al., "Algorithms
for Hyper-Parameter Optimization" (2011) and Watanabe, arXiv 2304.11127, for TPE; Ament et al., arXiv
2310.20708, for the acquisition function behind Optuna's Gaussian process.

Trials that run repel: both models take them for trials whose value is still to come. Failed ones are shown
to the models in the same way, so that a failure is not a value and its place is not proposed again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, create_trial

from modelyard.core.faults import Section
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.conditions import beginning, conditions
from modelyard.tuning.searchers.optuna_conditions import ConditionalSampler
from modelyard.tuning.searchers.scaling import fixed, inside, settled, sobol_point
from modelyard.tuning.searchers.warping import warped
from modelyard.tuning.study import distribution
from modelyard.tuning.trial import Proposal, Trial, TrialState, sign_of

#: A Gaussian process looks at no more trials than these: its cost grows with their cube.
_MOST_COMPLETE, _MOST_PENDING = 200, 32
#: Points of a Sobol sequence before a Gaussian process is asked, the default configuration among them.
START = 5
_SHOWN = {
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.PRUNED: optuna.trial.TrialState.PRUNED,
    TrialState.RUNNING: optuna.trial.TrialState.RUNNING,
    TrialState.FAILED: optuna.trial.TrialState.RUNNING,
}


def trial_seed(seed: int, number: int) -> int:
    """The seed of whatever is drawn for one trial."""
    return random.Random(f"{seed}:{number}").getrandbits(32)


class OptunaSearcher:
    """A searcher that asks one of Optuna's samplers."""

    def __init__(
        self, settings: SearcherSettings, sampler: Callable[[int], BaseSampler], *, name: str,
        joint: bool = True,
    ) -> None:  # fmt: skip
        """`sampler` makes one from a seed; `joint` says whether it draws all dimensions at once."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._settings, self._sampler, self._name, self._joint = settings, sampler, name, joint
        self._fixed = fixed(settings.dimensions)
        self._free = {
            each.name: distribution(each) for each in settings.dimensions if each.name not in self._fixed
        }
        self._shown: dict[int, tuple[Trial, FrozenTrial]] = {}

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`."""
        history = self.history(trials)
        study = optuna.create_study(
            storage=_History(history),
            directions=list(self._settings.directions),
            sampler=self._sampler(trial_seed(self._settings.seed, number)),
        )
        point = {**self._fixed, **self._drawn(study, number)} if self._free else self._fixed
        settled_point = {each.name: settled(each, point[each.name]) for each in self._settings.dimensions}
        return Proposal(point=settled_point, source=self._name)

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """Every trial: this searcher does not judge running ones."""
        return True

    def history(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        """The trials as Optuna has them; those of another space are left out."""
        width = max((len(t.excess) for t in trials if t.state is TrialState.COMPLETE), default=0)
        shown = [self._frozen(trial, width) for trial in trials]
        return [frozen for frozen in shown if frozen is not None]

    def _frozen(self, trial: Trial, width: int) -> FrozenTrial | None:
        known = self._shown.get(trial.number)
        if known is not None and (known[0] is trial or known[0] == trial):
            frozen = known[1]
        elif inside(self._settings.dimensions, trial.point):
            frozen = self._convert(trial)
            self._shown[trial.number] = (trial, frozen)
        else:
            return None
        # A trial whose constraints nobody measured is not known to be good: it only repels.
        unknown = trial.state is TrialState.COMPLETE and len(trial.excess) != width
        return self._convert(trial, state=TrialState.RUNNING) if unknown else frozen

    def _convert(self, trial: Trial, *, state: TrialState | None = None) -> FrozenTrial:
        shown = _SHOWN[state or trial.state]
        complete = shown is optuna.trial.TrialState.COMPLETE
        # Optuna ranks stopped trials by their curves, of one objective only.
        curve = dict(trial.curve) if len(self._settings.directions) == 1 else {}
        frozen = create_trial(
            state=shown,
            values=trial.values if complete else None,
            params={name: trial.point[name] for name in self._free},
            distributions=self._free,
            intermediate_values=curve,
            constraints={str(i): value for i, value in enumerate(trial.excess)} if complete else None,
        )
        frozen.number = trial.number
        return frozen

    def _drawn(self, study: optuna.Study, number: int) -> dict[str, Any]:
        now = create_trial(state=optuna.trial.TrialState.RUNNING)
        now.number = number
        together: dict[str, BaseDistribution] = self._free if self._joint else {}
        drawn = study.sampler.sample_relative(study, now, together)
        for name, alone in self._free.items():
            if name not in drawn:
                drawn[name] = study.sampler.sample_independent(study, now, name, alone)
        return drawn


class GaussianSearcher(OptunaSearcher):
    """Optuna's Gaussian process after a few points of a Sobol sequence."""

    def __init__(self, settings: SearcherSettings, *, name: str, start: int = START) -> None:
        super().__init__(settings, _gaussian, name=name)
        free = [each for each in settings.dimensions if each.name in self._free]
        found = conditions(settings, free)
        if found is not None:
            self._sampler = lambda seed: ConditionalSampler(found, seed=seed)
        self._start = beginning(start, found)
        self._signs = tuple(map(sign_of, settings.directions))

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`."""
        complete = sum(trial.state is TrialState.COMPLETE for trial in trials)
        if complete < self._start:
            settings = self._settings
            point = sobol_point(settings.dimensions, seed=settings.seed, index=number)
            return Proposal(point=point, source=self._name)
        return super().propose(trials, number)

    def history(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        """As many trials as a Gaussian process can carry."""
        kept = instructive(trials, signs=self._signs, most=_MOST_COMPLETE, pending=_MOST_PENDING)
        return super().history(self._warped(kept))

    def _warped(self, trials: Sequence[Trial]) -> list[Trial]:
        """Trials with the values that a model of one objective is shown."""
        if len(self._signs) > 1:
            return list(trials)
        (sign,) = self._signs
        measured = {
            trial.number: -sign * trial.values[0]
            for trial in trials
            if trial.state is TrialState.COMPLETE and trial.values
        }
        shown = dict(zip(measured, warped(list(measured.values())), strict=True)) if measured else {}
        return [
            replace(trial, values=(-sign * shown[trial.number],)) if trial.number in shown else trial
            for trial in trials
        ]


def instructive(trials: Sequence[Trial], *, signs: Sequence[float], most: int, pending: int) -> list[Trial]:
    """Those trials from which a model of limited size learns most, by number.

    Of the complete ones the best half, feasible ones first, and of the others as many again, spread evenly
    over their numbers; then the running ones, and failed ones as far as there is room, the latest first. With
    several objectives those are best that the fewest others dominate.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if len(complete) > most:
        ranked = _ranked(complete, signs)
        best, others = ranked[: most // 2], sorted(ranked[most // 2 :], key=lambda t: t.number)
        room = most - len(best)
        complete = best + [others[i * len(others) // room] for i in range(room)]
    running = [trial for trial in trials if trial.state is TrialState.RUNNING][-pending:]
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    kept = failed[max(0, len(failed) - (pending - len(running))) :]
    return sorted([*complete, *running, *kept], key=lambda trial: trial.number)


def _ranked(complete: Sequence[Trial], signs: Sequence[float]) -> list[Trial]:
    """Complete trials from the best to the worst, infeasible ones last."""
    costs = np.array([[s * v for s, v in zip(signs, t.values or (), strict=True)] for t in complete])
    if len(signs) == 1:
        worse = costs[:, 0]
    else:
        worse = np.array([((costs <= one).all(axis=1) & (costs < one).any(axis=1)).sum() for one in costs])
    return [
        complete[i] for i in sorted(range(len(complete)), key=lambda i: (not complete[i].feasible, worse[i]))
    ]


class _History(InMemoryStorage):
    """A storage whose one study has the trials given; what samplers write is dropped."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._given = trials

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[optuna.trial.TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials in one of these states."""
        return [trial for trial in self._given if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Samplers share here what the next trial is; ours are told it as a running trial."""


def _gaussian(seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False)


def _random(settings: SearcherSettings) -> Searcher:
    return OptunaSearcher(settings, lambda seed: RandomSampler(seed=seed), name="random", joint=False)


def _tpe(settings: SearcherSettings) -> Searcher:
    start = int(str(dict(settings.options).get("start", 10)))

    def sampler(seed: int) -> BaseSampler:
        return TPESampler(seed=seed, n_startup_trials=start, constant_liar=True)

    # Optuna draws dimension by dimension where there are several objectives.
    return OptunaSearcher(settings, sampler, name="tpe", joint=len(settings.directions) == 1)


def start_option(default: int) -> Callable[[Section], Options]:
    """Reads `start`: how many trials are to be complete before a model is asked."""
    return lambda section: (("start", section.integer("start", default, low=1)),)


RANDOM = Algorithm(name="random", make=_random, several=True)
TPE = Algorithm(name="tpe", make=_tpe, options=start_option(10), several=True)
