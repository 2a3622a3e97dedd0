"""Search by asking a language model behind any OpenAI-compatible endpoint.

What is known of such a search is sobering: in a fixed space it does not beat classical optimisers (Ferreira
et al., arXiv 2603.24647; see `hybrid` for what does). A failure of the endpoint is never papered over: the
search stops and can be taken up again, or an optimiser that is named takes the trial and its source says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from modelyard.core.errors import TuneError
from modelyard.core.faults import Faults, Section
from modelyard.core.plugins import load_plugin
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.trial import Proposal, Trial

if TYPE_CHECKING:
    from modelyard.tuning.advice.advising import Advice, AdviceOptions, Adviser
    from modelyard.tuning.advice.log import Outcome

#: The source of trials that a model proposed, and what stands in their notes.
SOURCE, NOTE = "llm", "advice"
OPTIMISERS = ("tpe", "cmaes", "bayesian")
CHANGEABLE = frozenset({
    "endpoint", "model", "api_key_env", "temperature", "max_tokens", "timeout_s", "price_in", "price_out",
    "max_cost_usd", "max_total_tokens", "structured", "fallback",
})  # fmt: skip
_LONGEST_WHY = 300


class LLMSearcher:
    """Every trial is the model's; of those that it fails to propose, the fallback's."""

    def __init__(
        self, settings: SearcherSettings, adviser: Adviser, fallback: Searcher | None = None, *,
        name: str = SOURCE,
    ) -> None:  # fmt: skip
        self._settings, self._adviser, self._fallback = settings, adviser, fallback
        self._name = name

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`.

        Raises:
            TuneError: There is no advice, and no fallback.
        """
        if given(self._settings, trials) and self._settings.default is not None:
            return Proposal(point=self._settings.default, source=self._name)  # the study knows better
        final: tuple[Outcome, ...] = () if self._fallback is None else ("refused", "failed")
        advice = self._adviser.advise(trials, number, final=final)
        if advice.point is not None:
            return Proposal(point=advice.point, source=self._name, notes={NOTE: advice.notes})
        if self._fallback is None:
            raise unadvised(
                self._name, number, advice.why, self._adviser, otherwise="options: {fallback: tpe}"
            )
        proposal = self._fallback.propose(trials, number)
        return None if proposal is None else without_advice(proposal, advice)

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """Every trial: this searcher does not judge running ones."""
        return True


def given(settings: SearcherSettings, trials: Sequence[Trial]) -> bool:
    """Whether the study proposes the next trial itself: the default, or what it was told to start with."""
    if settings.host is None:
        return False
    return sum(trial.source in ("default", "start") for trial in trials) < settings.host.given


def without_advice(proposal: Proposal, advice: Advice) -> Proposal:
    """An optimiser's proposal in place of advice that never came, with that in its source."""
    told = {**advice.notes, "failed": advice.why[:_LONGEST_WHY]}
    return replace(proposal, source=f"{proposal.source} (no advice)", notes={**proposal.notes, NOTE: told})


def unadvised(name: str, number: int, why: str, adviser: Adviser, *, otherwise: str) -> TuneError:
    """The error that stops a search whose model gives no advice."""
    calls = "" if adviser.log.path is None else f" (every call is in {adviser.log.path})"
    return TuneError(
        f"{name}: the model gave no advice for trial {number}: {why[:_LONGEST_WHY]}{calls}; mend the options "
        f"or the endpoint and run the same command again, or allow {otherwise}"
    )


def optimiser(settings: SearcherSettings, name: str) -> Searcher:
    """The optimiser of this name, with its own defaults."""
    made: Searcher = load_plugin("modelyard.tuners", name)(replace(settings, options=(), host=None))
    return made


def check_installed() -> None:
    """Raises `TuneError` where nothing can be asked."""
    if find_spec("httpx2") is None:
        raise TuneError("asking a model needs httpx2; pip install 'modelyard[llm]'")


def as_given(section: Section) -> Options:
    """The options as they stand, for the factory to read again."""
    return tuple(section.data.items())


def _read(section: Section) -> tuple[AdviceOptions, str]:
    check_installed()
    from modelyard.tuning.advice.advising import read_advice_options

    return read_advice_options(section), section.choice("fallback", "none", ("none", *OPTIMISERS))


def _options(section: Section) -> Options:
    _read(section)
    return as_given(section)


def _make(settings: SearcherSettings) -> Searcher:
    faults = Faults(file="options")
    options, fallback = _read(Section(dict(settings.options), faults=faults))
    faults.raise_if_any()
    from modelyard.tuning.advice.advising import Adviser

    other = None if fallback == "none" else optimiser(settings, fallback)
    return LLMSearcher(settings, Adviser(settings, options), other)


LLM = Algorithm(name="llm", make=_make, options=_options, changeable=CHANGEABLE)
