"""ASHA and Hyperband: many trials with small budgets, and more for those that are good.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, for ASHA (algorithm 2 is the
promotion type); Li et al., JMLR 18 (2018), for Hyperband. Without promotion a trial runs on and is stopped at
a rung where it is not among the best of those that came so far; in Hyperband the trials of a bracket are
compared with each other only. With promotion Hyperband's brackets are those of the paper: a rung is decided
when all its trials have ended, and meanwhile the next bracket begins.

A failed trial is never promoted and counts at no rung. A promotion that failed is not repeated, and its
parent keeps its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from modelyard.core.faults import Section
from modelyard.tuning.searcher import Rungs, Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.brackets import LENGTH, Rung, Slot, bracket, levels, slot
from modelyard.tuning.searchers.optuna_samplers import RANDOM, TPE
from modelyard.tuning.trial import Proposal, Trial, TrialState, sign_of

_NOTE = "hyperband"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The trials of one configuration: the first, its retries, and those that went on from it."""

    trials: tuple[Trial, ...]

    def at(self, budget: int) -> list[Trial]:
        """Its trials with this budget or more."""
        return [trial for trial in self.trials if trial.budget is None or trial.budget >= budget]

    def result(self, budget: int) -> tuple[float, Trial] | None:
        """Its first value at this budget, and whose it is."""
        for trial in self.at(budget):
            value = value_at(trial, budget)
            if value is not None:
                return value, trial
        return None

    def settled(self, budget: int) -> bool:
        """Whether nothing more is to come at this budget."""
        return self.result(budget) is not None or all(trial.state.final for trial in self.at(budget))


def value_at(trial: Trial, budget: int) -> float | None:
    """A trial's value when it had this budget: at the first step reported from there on.

    None where it failed, or did not come as far. The final value of a trial with exactly this budget is
    the one that the study says it has.
    """
    if trial.state is TrialState.FAILED:
        return None
    if trial.values is not None and (trial.budget == budget or not trial.curve):
        return trial.values[0] if trial.budget is None or trial.budget >= budget else None
    if budget in trial.curve:
        return trial.curve[budget]
    return trial.curve[min(later)] if (later := [step for step in trial.curve if step > budget]) else None


def configurations(trials: Iterable[Trial]) -> list[Configuration]:
    """The configurations by the numbers of their first trials."""
    chains: dict[int, list[Trial]] = {}
    first: dict[int, int] = {}
    for trial in trials:
        root = trial.number if trial.parent is None else first.get(trial.parent, trial.number)
        first[trial.number] = root
        chains.setdefault(root, []).append(trial)
    return [Configuration(tuple(chain)) for chain in chains.values()]


def stands(value: float, others: Sequence[float], *, eta: int) -> bool:
    """Whether a trial that comes to a rung goes on: among the best 1/eta there, itself counted.

    The best so far always goes on; who equals one that goes on does too. Less is better.
    """
    better = sum(other < value for other in others)
    return better < max(1, (len(others) + 1) // eta)


def promotable(members: Sequence[Configuration], budget: int, *, eta: int, sign: float) -> Trial | None:
    """The trial that ASHA promotes from a rung, the best first: of the best 1/eta, one not yet promoted."""
    found = [(sign * result[0], result[1]) for each in members if (result := each.result(budget)) is not None]
    found.sort(key=lambda pair: (pair[0], pair[1].number))
    gone = {trial.number for each in members for trial in each.trials if each.at(budget + 1)}
    for _, trial in found[: len(found) // eta]:
        if trial.number not in gone and trial.state is TrialState.COMPLETE:
            return trial
    return None


def halved(
    members: Sequence[Configuration], rungs: Sequence[Rung], *, sign: float
) -> tuple[Trial, int] | None:
    """What a full bracket promotes next, and to which budget; None where it waits or is at its end."""
    staying = list(members)
    for rung, above in pairwise(rungs):
        if not all(each.settled(rung.budget) for each in staying):
            return None
        found = [(result, each) for each in staying if (result := each.result(rung.budget)) is not None]
        found.sort(key=lambda pair: (sign * pair[0][0], pair[0][1].number))
        staying = [each for _, each in found[: above.trials]]
        for (_, trial), each in found[: above.trials]:
            if not each.at(rung.budget + 1) and trial.state is TrialState.COMPLETE:
                return trial, above.budget
    return None


class HalvingSearcher:
    """ASHA; its points come from another searcher."""

    name = "asha"

    def __init__(self, settings: SearcherSettings) -> None:
        self._settings = settings
        self._rungs = settings.rungs or Rungs()
        self._sign = sign_of(settings.directions[0])
        self._options = dict(settings.options)
        self._points = (TPE if self._options.get("sampler") == "tpe" else RANDOM)(
            replace(settings, options=(), rungs=None)
        )

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`."""
        own = [trial for trial in trials if trial.number >= 0]
        promotion = self.promotion(own) if self._rungs.promote else None
        if promotion is None:
            return self.beginning(trials, number)
        parent, budget = promotion
        return Proposal(
            point=parent.point, source=self.name, budget=budget, parent=parent.number, notes=parent.notes
        )

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """See `Searcher.keeps`."""
        if self._rungs.promote:
            return True
        mine = next(trial for trial in reversed(trials) if trial.number == number)
        if step not in mine.curve:  # a value that is no number: judged at the next one
            return True
        before = max((at for at in mine.curve if at < step), default=0)
        reached = [level for level in self.budgets(trials, mine)[:-1] if before < level <= step]
        if not reached:
            return True
        values = (value_at(t, reached[-1]) for t in self.peers(trials, mine) if t.number != number)
        others = [self._sign * value for value in values if value is not None]
        return stands(self._sign * mine.curve[step], others, eta=self._rungs.eta)

    def promotion(self, trials: Sequence[Trial]) -> tuple[Trial, int] | None:
        """Whom to promote, to which budget: from the highest rung where there is one."""
        members, steps = configurations(trials), levels(self._rungs)
        for level, above in reversed(list(pairwise(steps))):
            trial = promotable(members, level, eta=self._rungs.eta, sign=self._sign)
            if trial is not None:
                return trial, above
        return None

    def beginning(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """A new configuration."""
        return self.begun(trials, number, budget=levels(self._rungs)[0])

    def begun(self, trials: Sequence[Trial], number: int, *, budget: int) -> Proposal | None:
        """A new configuration that begins with a budget; without promotion it may run to the end."""
        proposal = self._points.propose(self._told(trials), number)
        if proposal is None:
            return None
        given = budget if self._rungs.promote else self._rungs.high
        return replace(proposal, source=self.name, budget=given)

    def budgets(self, trials: Sequence[Trial], mine: Trial) -> tuple[int, ...]:
        """Where this trial is judged; the last is the end."""
        return levels(self._rungs)

    def peers(self, trials: Sequence[Trial], mine: Trial) -> Sequence[Trial]:
        """Those with whom this trial is compared."""
        return trials

    def _told(self, trials: Sequence[Trial]) -> list[Trial]:
        """What the searcher of points is told: each configuration once, with the most that is known of it.

        What had a smaller budget is shown as stopped there: its value is not one at the end.
        """
        if not self._rungs.promote:
            return list(trials)
        shown = [_furthest(each) for each in configurations(trials)]
        return [
            replace(t, state=TrialState.PRUNED, values=None, curve={t.budget: t.values[0]})
            if t.values is not None and t.budget is not None and t.budget < self._rungs.high
            else t
            for t in sorted(shown, key=lambda t: t.number)
        ]


class HyperbandSearcher(HalvingSearcher):
    """Hyperband: several brackets that differ in how early they begin to choose."""

    name = "hyperband"

    def promotion(self, trials: Sequence[Trial]) -> tuple[Trial, int] | None:
        """Whom to promote, to which budget: from the earliest bracket that has somebody."""
        members = configurations(trials)
        begun = sum(each.trials[0].is_new for each in members)
        places = self._slots([each.trials[0] for each in members])
        full = slot(self._rungs, begun)
        brackets: dict[tuple[int, int], list[Configuration]] = {}
        for each, place in zip(members, places, strict=True):
            if (place.cycle, -place.bracket) < (full.cycle, -full.bracket):
                brackets.setdefault((place.cycle, -place.bracket), []).append(each)
        for key in sorted(brackets):
            found = halved(brackets[key], bracket(self._rungs, -key[1]), sign=self._sign)
            if found is not None:
                return found
        return None

    def beginning(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """A new configuration, with its bracket in the notes; None when all rounds are begun."""
        place = slot(self._rungs, sum(trial.is_new for trial in trials))
        cycles = self._options.get("cycles")
        if cycles is not None and place.cycle >= int(str(cycles)):
            return None
        proposal = self.begun(trials, number, budget=bracket(self._rungs, place.bracket)[0].budget)
        note = {_NOTE: {"cycle": place.cycle, "bracket": place.bracket}}
        return None if proposal is None else replace(proposal, notes=note)

    def budgets(self, trials: Sequence[Trial], mine: Trial) -> tuple[int, ...]:
        """The rungs of the trial's bracket."""
        own = self._bracket_of(trials, mine)
        return tuple(rung.budget for rung in bracket(self._rungs, own))

    def peers(self, trials: Sequence[Trial], mine: Trial) -> Sequence[Trial]:
        """The trials of this bracket, of all rounds."""
        own = self._bracket_of(trials, mine)
        places = self._slots(trials)
        return [trial for trial, place in zip(trials, places, strict=True) if place.bracket == own]

    def _bracket_of(self, trials: Sequence[Trial], mine: Trial) -> int:
        places = self._slots(trials)
        return next(p.bracket for t, p in zip(trials, places, strict=True) if t.number == mine.number)

    def _slots(self, trials: Sequence[Trial]) -> list[Slot]:
        """The place of each trial: as it notes, else by how many configurations were begun before it."""
        found, begun = [], 0
        for trial in trials:
            note = trial.notes.get(_NOTE)
            found.append(
                slot(self._rungs, begun) if note is None
                else Slot(cycle=int(note["cycle"]), bracket=int(note["bracket"]))
            )  # fmt: skip
            begun += trial.is_new
        return found


def _furthest(configuration: Configuration) -> Trial:
    """The trial of a configuration of which most is known; a running or failed one where nothing is."""
    known = [trial for trial in configuration.trials if trial.values is not None]
    return known[-1] if known else configuration.trials[-1]


def _sampler_option(section: Section) -> Options:
    return (("sampler", section.choice("sampler", "random", ("random", "tpe"))),)


def _hyperband_options(section: Section) -> Options:
    cycles: Options = (("cycles", section.integer("cycles", 1, low=1)),) if section.has("cycles") else ()
    return (*_sampler_option(section), *cycles)


def _asha(settings: SearcherSettings) -> Searcher:
    return HalvingSearcher(settings)


def _hyperband(settings: SearcherSettings) -> Searcher:
    return HyperbandSearcher(settings)


ASHA = Algorithm(name="asha", make=_asha, options=_sampler_option, rungs=True)
HYPERBAND = Algorithm(
    name="hyperband", make=_hyperband, options=_hyperband_options, rungs=True, changeable=LENGTH
)
