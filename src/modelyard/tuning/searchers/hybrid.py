"""An optimiser on every trial, and a language model that advises on a share of them.

Paper: Ferreira et al., arXiv 2603.24647, whose Centaur has CMA-ES on every trial and a model that sees its
state on 30 % of them: better there than either alone, and worse with a larger share. The model sees the
space, the trials, what the optimiser would try and what else it might have drawn; it may propose another
point. TPE and the Gaussian process learn from advised trials as from their own; CMA-ES does not, since they
are not drawn from its distribution.

Where there is no advice the optimiser's own proposal is tried, and its source says so. An endpoint that has
never answered stops the search, and so does a model whose first answers are all no advice: that is a
mistake in the options, and not bad luck.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modelyard.core.faults import Faults, Section
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.llm import (
    CHANGEABLE,
    NOTE,
    OPTIMISERS,
    SOURCE,
    as_given,
    check_installed,
    given,
    optimiser,
    unadvised,
    without_advice,
)
from modelyard.tuning.trial import Proposal, Trial

if TYPE_CHECKING:
    from modelyard.tuning.advice.advising import AdviceOptions, Adviser
    from modelyard.tuning.advice.conversation import OptimiserState
    from modelyard.tuning.advice.log import Outcome

_SHARE = 0.3
#: How many other draws of the optimiser the model sees.
_OTHERS = 3
#: So many trials may go without advice from a model that has never given any.
_PATIENCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridOptions:
    """How optimiser and model work together."""

    optimiser: str = "tpe"
    # Of the trials, on how many the model is asked; drawn from the seed.
    share: float = _SHARE
    # Whether the search goes on without advice.
    goes_on: bool = True


class HybridSearcher:
    """An optimiser with an adviser."""

    def __init__(self, settings: SearcherSettings, adviser: Adviser, options: HybridOptions) -> None:
        self._settings, self._adviser, self._options = settings, adviser, options
        self._optimiser = optimiser(settings, options.optimiser)

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`.

        Raises:
            TuneError: There is no advice, and never was, or the search is not to go on without.
        """
        own = self._optimiser.propose(trials, number)
        if own is None or given(self._settings, trials) or not self._asks(number):
            return own
        final = self._borne(trials)
        advice = self._adviser.advise(trials, number, self._state(own, trials, number), final=final)
        if advice.point is None:
            if advice.outcome in final:
                return without_advice(own, advice)
            otherwise = f"a share of 0, or the algorithm {self._options.optimiser} alone"
            raise unadvised("hybrid", number, advice.why, self._adviser, otherwise=otherwise)
        notes = {NOTE: advice.notes}
        if self._adviser.agrees(advice.point, own.point):
            return replace(own, notes={**own.notes, **notes})
        return Proposal(point=advice.point, source=SOURCE, notes=notes)

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """What the optimiser says."""
        return self._optimiser.keeps(trials, number, step)

    def _borne(self, trials: Sequence[Trial]) -> tuple[Outcome, ...]:
        """The ends of a conversation after which the optimiser's own proposal is tried."""
        asked = [trial.notes[NOTE] for trial in trials if NOTE in trial.notes]
        if not self._options.goes_on:
            return ()
        if any("failed" not in notes for notes in asked):
            return ("refused", "failed")
        return ("refused",) if len(asked) < _PATIENCE else ()

    def _asks(self, number: int) -> bool:
        drawn = random.Random(f"advice:{self._settings.seed}:{number}").random()
        return drawn < self._options.share

    def _state(self, own: Proposal, trials: Sequence[Trial], number: int) -> OptimiserState:
        from modelyard.tuning.advice.conversation import OptimiserState

        # Drawn for numbers that are yet to come: what they would be if nothing happened until then.
        others = [self._optimiser.propose(trials, number + i) for i in range(1, _OTHERS + 1)]
        points = tuple(each.point for each in others if each is not None)
        return OptimiserState(name=self._options.optimiser, proposal=own.point, others=points)


def _read(section: Section) -> tuple[AdviceOptions, HybridOptions]:
    check_installed()
    from modelyard.tuning.advice.advising import read_advice_options

    own = HybridOptions(
        optimiser=section.choice("optimiser", "tpe", OPTIMISERS),
        share=section.number("share", _SHARE, above=-1e-9, below=1.0 + 1e-9),
        goes_on=section.choice("fallback", "optimiser", ("optimiser", "none")) == "optimiser",
    )
    return read_advice_options(section), own


def _options(section: Section) -> Options:
    _read(section)
    return as_given(section)


def _make(settings: SearcherSettings) -> Searcher:
    faults = Faults(file="options")
    options, own = _read(Section(dict(settings.options), faults=faults))
    faults.raise_if_any()
    from modelyard.tuning.advice.advising import Adviser

    return HybridSearcher(settings, Adviser(settings, options), own)


HYBRID = Algorithm(name="hybrid", make=_make, options=_options, changeable=CHANGEABLE)
