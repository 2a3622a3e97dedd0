"""How a search by TAO's settings goes about it: which algorithm of ours, its options, budgets and end.

`automl_max_recommendations` counts configurations, as the original does: where a configuration that is
promoted goes on as another trial, that one is not counted again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.core.faults import Faults
from modelyard.tuning.searcher import Host, Rungs, Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import algorithm_of
from modelyard.tuning.searchers.brackets import bracket, levels, most_halvings
from modelyard.tuning.spaces.space import Space
from modelyard.tuning.tao.language import advice_options, with_key
from modelyard.tuning.tao.options import ASKING, own_options
from modelyard.tuning.tao.settings import TaoSettings
from modelyard.tuning.trial import Objective, Proposal, Trial, TrialState

#: Algorithms that are through after one round of brackets where no number is given.
_ROUNDS = frozenset({"hyperband", "hyperband_es", "bohb", "dehb"})
#: Where only the results say when a search is over.
_MANY = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """When nothing new is begun, beside the number of trials."""

    # So many configurations; None: as many as there are trials.
    configurations: int | None = None
    # Once so many have come to the end of their training.
    finished: int | None = None
    # How long that is.
    top: int | None = None
    # Whether all configurations are to be begun before.
    all_begun: bool = False

    def is_over(self, trials: Sequence[Trial]) -> bool:
        """Whether enough configurations have been trained to the end."""
        if self.finished is None or (self.all_begun and _begun(trials) < (self.configurations or 0)):
            return False
        whole = [t for t in trials if t.number >= 0 and t.state is TrialState.COMPLETE]
        return sum((t.budget or 0) >= (self.top or 0) for t in whole) >= self.finished

    def admits(self, trials: Sequence[Trial], proposal: Proposal) -> bool:
        """Whether there is room for what is proposed; what goes on from another trial always has some."""
        if proposal.parent is not None or self.configurations is None:
            return True
        return _begun(trials) < self.configurations


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """An algorithm of ours with what it is given."""

    algorithm: str
    options: Mapping[str, Any]
    rungs: Rungs | None
    # How many trials there may be.
    trials: int
    # Whether that is how many there will be; otherwise the results decide.
    exact: bool
    ending: Ending

    @property
    def identity(self) -> list[Any]:
        """What a search that goes on must have in common with its beginning: the algorithm, its options."""
        return [self.algorithm, algorithm_of(self.algorithm).decisive(self.options)]

    @property
    def rung_jobs(self) -> bool:
        """Whether each rung of a configuration is a job of its own."""
        return self.rungs is not None and self.rungs.promote

    @property
    def copies(self) -> bool:
        """Whether a trial goes on from the checkpoint of another with other values, as members do."""
        return self.algorithm == "pbt"

    @property
    def promotes(self) -> bool:
        """Whether any configuration can come to a second job: a bracket chooses once it is full."""
        count, brackets = self.ending.configurations, self.algorithm in _ROUNDS - {"dehb"}
        if self.rungs is None or not self.rungs.promote or count is None or not brackets:
            return self.rung_jobs
        return count >= bracket(self.rungs, most_halvings(self.rungs))[0].trials

    def searcher(
        self, settings: TaoSettings, space: Space, objectives: tuple[Objective, ...], *, run_dir: Path,
        environment: Mapping[str, str],
    ) -> Searcher:  # fmt: skip
        """The algorithm for a space; what it is told by others is kept in the run's folder.

        Raises:
            DocumentError: An option is out of range.
            TuneError: It cannot do what is asked, or a library is missing.
            PluginError: There is no such algorithm.
        """
        host = Host(
            folder=run_dir, environment=with_key(settings.llm, environment), space=space,
            metrics=tuple(each.metric for each in objectives),
        )  # fmt: skip
        return self.made(
            SearcherSettings(
                dimensions=space.dimensions, directions=tuple(each.direction for each in objectives),
                seed=settings.seed, parallel=settings.parallel, rungs=self.rungs, default=space.default(),
                host=host,
            )
        )  # fmt: skip

    def made(self, settings: SearcherSettings) -> Searcher:
        """The algorithm with these settings and the plan's options; raises as `searcher` does."""
        made = algorithm_of(self.algorithm).configured(self.options, settings, file="automl_settings")
        return EndingSearcher(made, self.ending)


class EndingSearcher:
    """A searcher that begins nothing more once enough is begun, or has come to the end."""

    def __init__(self, searcher: Searcher, ending: Ending) -> None:
        self._searcher, self._ending = searcher, ending

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`."""
        if self._ending.is_over(trials):
            return None
        proposal = self._searcher.propose(trials, number)
        return proposal if proposal is not None and self._ending.admits(trials, proposal) else None

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """What the searcher says."""
        return self._searcher.keeps(trials, number, step)


def planned(
    settings: TaoSettings, *, rung_jobs: bool, environment: Mapping[str, str], faults: Faults
) -> SearchPlan:
    """The plan of a search; what is missing for it is a fault.

    Args:
        settings: Of the search.
        rung_jobs: Whether each rung of a configuration is to be a job of its own.
        environment: Holds what settings of a language model leave out.
        faults: Where faults go.
    """
    rungs = settings.rungs
    if rungs is not None:
        rungs = replace(rungs, promote=rung_jobs)
    options = own_options(settings.algorithm, settings.options)
    if settings.algorithm in ASKING:
        options |= advice_options(settings.llm, environment, faults)
    if settings.algorithm == "autoresearch" and settings.llm.research_program:
        options["program"] = settings.llm.research_program
    one_round = settings.algorithm in _ROUNDS and settings.max_recommendations is None
    if one_round:
        options["cycles"] = 1
    ending = _ending(settings, rungs)
    trials = _of_one_round(settings.algorithm, rungs) if one_round and rungs else _trials(settings, rungs)
    return SearchPlan(
        algorithm=settings.algorithm, options=options, rungs=rungs, trials=trials, ending=ending,
        exact=not (rungs and rungs.promote) and ending == Ending(),
    )  # fmt: skip


def _ending(settings: TaoSettings, rungs: Rungs | None) -> Ending:
    given = settings.max_recommendations
    if settings.algorithm == "asha" and rungs is not None:
        least = settings.options.get("automl_min_top_configs")
        counted = given is not None or settings.max_trials is not None or least is None
        configurations = settings.recommendations if counted and rungs.promote else None
        if least is None:
            return Ending(configurations=configurations)
        return Ending(
            configurations=configurations, finished=int(least), top=rungs.high,
            all_begun=settings.max_trials is not None and configurations is not None,
        )  # fmt: skip
    promotes = rungs is not None and rungs.promote and settings.algorithm != "dehb"
    return Ending(configurations=given) if promotes else Ending()


def _trials(settings: TaoSettings, rungs: Rungs | None) -> int:
    """The most trials of a search whose number of configurations is given, or decided by the results."""
    count = settings.recommendations
    if settings.algorithm == "pbt":
        population = int(settings.options.get("automl_population_size", 10))
        return population * int(settings.options.get("automl_max_generations", 20))
    ends = settings.algorithm == "asha" and "automl_min_top_configs" in settings.options
    if ends and settings.max_recommendations is None and settings.max_trials is None:
        return _MANY
    if rungs is None or not rungs.promote or settings.algorithm == "dehb":
        return count
    return count * len(levels(rungs))


def _of_one_round(algorithm: str, rungs: Rungs) -> int:
    """How many trials a round of all brackets has, where none of them fails."""
    whole = [bracket(rungs, s) for s in range(most_halvings(rungs) + 1)]
    every = rungs.promote or algorithm == "dehb"
    return sum(rung.trials for rungs_of in whole for rung in (rungs_of if every else rungs_of[:1]))


def _begun(trials: Sequence[Trial]) -> int:
    return sum(trial.is_new for trial in trials)
