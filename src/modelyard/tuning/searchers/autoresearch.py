"""Search by a model that does research: findings, a hypothesis, an experiment, the verdict of the numbers.

One call a trial. What is known of searches by a model alone holds here as for `llm`: in a fixed space they
do not beat classical optimisers (Ferreira et al., arXiv 2603.24647). What this one leaves is its notebook:
the findings and the hypothesis of every trial stand in its notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.core.faults import Faults, Section
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.llm import (
    CHANGEABLE,
    OPTIMISERS,
    LLMSearcher,
    as_given,
    check_installed,
    optimiser,
)

if TYPE_CHECKING:
    from modelyard.tuning.advice.advising import AdviceOptions

_LONGEST_PROGRAM = 4000


def _read(section: Section) -> tuple[AdviceOptions, str, str]:
    """Whom to ask, the optimiser that takes over, and the research program."""
    check_installed()
    from modelyard.tuning.advice.advising import read_advice_options

    program = section.optional_text("program") or ""
    if len(program) > _LONGEST_PROGRAM:
        section.faults.add(
            section.key("program"), None, f"has {len(program)} characters",
            f"say in at most {_LONGEST_PROGRAM} what is to be found out",
        )  # fmt: skip
    return read_advice_options(section), section.choice("fallback", "none", ("none", *OPTIMISERS)), program


def _options(section: Section) -> Options:
    _read(section)
    return as_given(section)


def _make(settings: SearcherSettings) -> Searcher:
    faults = Faults(file="options")
    options, fallback, program = _read(Section(dict(settings.options), faults=faults))
    faults.raise_if_any()
    from modelyard.tuning.advice.advising import Adviser
    from modelyard.tuning.advice.conversation import outline_of
    from modelyard.tuning.advice.research import ResearchForm

    form = ResearchForm(outline=outline_of(settings), program=program)
    other = None if fallback == "none" else optimiser(settings, fallback)
    return LLMSearcher(settings, Adviser(settings, options, form=form), other, name="autoresearch")


AUTORESEARCH = Algorithm(
    name="autoresearch", make=_make, options=_options, changeable=CHANGEABLE | {"program"}
)
