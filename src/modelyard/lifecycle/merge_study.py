"""The trials of a merge search in Optuna's storage, and how the next candidate is proposed.

A trial enters the storage in one piece with all its values, and is proposed by a sampler seeded by its
number from the trials before it: so a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelyard.jobs.step import Resources
from modelyard.merging.search_space import Entry, SearchSpace, TrialResult, Trials, best_trial
from modelyard.merging.soup import GREEDY, best_soup, next_soup, soup_point

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What the person at the command line chooses."""

    out: Path
    # A command with {merged} for the merged folder and {trial} for the number.
    objective: str
    shell: bool = False
    direction: Literal["minimize", "maximize"] = "minimize"
    # How many trials there are to be in all, those of earlier invocations among them.
    trials: int = 30
    parallel: int = 1
    sampler: str = "tpe"
    # Of the sampler, and of methods that drop at random.
    seed: int = 0
    # Of each merge.
    threads: int = 1
    # What one run of the objective needs.
    resources: Resources = Resources()
    timeout_s: float | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSearch:
    """A search that was read and held against this machine."""

    space: SearchSpace
    options: SearchOptions
    work: Trials
    run: str
    # What makes two searches the same; the number of trials is no part of it.
    identity: Mapping[str, Any]


class MergeStudy:
    """The trials in Optuna's storage. To be used in one thread."""

    def __init__(self, prepared: PreparedSearch) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._options = prepared.space, prepared.options
        self._storage = optuna.storages.RDBStorage(f"sqlite:///{prepared.work.run_dir / 'study.db'}")
        self._study: Study = optuna.create_study(
            storage=self._storage, study_name=prepared.run, direction=self._options.direction,
            sampler=optuna.samplers.RandomSampler(), load_if_exists=True,  # never asked: see `add`
        )  # fmt: skip

    def close(self) -> None:
        """Close the storage."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def count(self) -> int:
        """How many trials there are, ended or not."""
        return len(self._frozen())

    def open_numbers(self) -> list[int]:
        """The trials of which no end is recorded."""
        return [trial.number for trial in self._frozen() if not trial.state.is_finished()]

    def assignments(self, number: int) -> dict[str, Any]:
        """The candidate of a trial."""
        return self._space.assignments(self._frozen()[number].params)

    def best(self) -> TrialResult | None:
        """The best trial so far; of a greedy soup, the soup as far as it has grown."""
        choose = best_soup if self._options.sampler == GREEDY else best_trial
        return choose(self.results(), self._options.direction)

    def add(self) -> int | None:
        """Propose a candidate and store it as a new trial, in one piece; its number.

        None where a greedy soup waits for a trial, or is done.
        """
        return self._add_to_soup() if self._options.sampler == GREEDY else self._add_sampled()

    def _add_to_soup(self) -> int | None:
        import optuna

        number, count = self.count(), len(self._space.entries)
        soup = next_soup(self.results(), started=number, count=count, direction=self._options.direction)
        if soup is None:
            return None
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=soup_point(soup, count),
            distributions={entry.key: _distribution(entry) for entry in self._space.entries},
        )
        self._study.add_trial(template)
        return number

    def _add_sampled(self) -> int:
        """A proposal of one of Optuna's samplers.

        It is made in memory, from the trials so far and a seed for this number: it does not
        depend on what an earlier process drew.
        """
        import optuna

        history = self._frozen()
        number = len(history)
        memory = optuna.create_study(direction=self._options.direction, sampler=self._sampler(number))
        memory.add_trials(history)
        if number < len(self._space.start):
            memory.enqueue_trial(dict(self._space.start[number]))
        memory.ask({name: _distribution(e) for e in self._space.entries for name in e.dimensions})
        drawn = memory.get_trials(deepcopy=False)[-1]
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=drawn.params,
            distributions=drawn.distributions, system_attrs=drawn.system_attrs,
        )  # fmt: skip
        self._study.add_trial(template)
        return number

    def tell(self, number: int, value: float | None, why: str) -> None:
        """Record the end of a trial, once; without a value it failed."""
        import optuna

        if why:
            self._storage.set_trial_user_attr(self._frozen()[number]._trial_id, "why", why)
        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        self._study.tell(number, value, state=state)

    def results(self) -> tuple[TrialResult, ...]:
        """The trials that have ended, by number."""
        return tuple(
            TrialResult(
                number=trial.number,
                assignments=self._space.assignments(trial.params),
                value=trial.value,
                why=trial.user_attrs.get("why", ""),
            )
            for trial in self._frozen()
            if trial.state.is_finished()
        )

    def _frozen(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _sampler(self, number: int) -> BaseSampler:
        from optuna import samplers

        seed = random.Random(f"{self._options.seed}:{number}").getrandbits(32)
        if self._options.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=self._options.parallel > 1)
        return samplers.RandomSampler(seed=seed)


def _distribution(entry: Entry) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if entry.choices:
        return CategoricalDistribution(entry.choices)
    if entry.integer:
        return IntDistribution(int(entry.low), int(entry.high), step=int(entry.step or 1))
    return FloatDistribution(entry.low, entry.high, step=entry.step)
