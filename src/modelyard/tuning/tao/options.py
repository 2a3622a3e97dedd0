"""Options of single algorithms among `automl_settings`, and what each of them means to ours.

An option that the chosen algorithm has no use for is told, because a search that was to be another one must
not pass for it. Nothing here knows a space or an SDK.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.core.faults import Section

#: Algorithms that compare trials at several budgets, each with rungs of its own.
BUDGETED = frozenset({"hyperband", "hyperband_es", "bohb", "asha", "dehb"})
#: Algorithms that ask a language model.
ASKING = frozenset({"llm", "hybrid", "autoresearch"})
_ANY = float("inf")
_NOWHERE: frozenset[str] = frozenset()
#: Which algorithms read a setting, of those that are not for all.
_READERS: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        ("automl_max_epochs", "automl_reduction_factor", "epoch_multiplier", "automl_rungs"), BUDGETED
    ),
    **dict.fromkeys(("automl_max_trials", "automl_min_top_configs"), frozenset({"asha"})),
    **dict.fromkeys(
        (
            "automl_population_size", "automl_max_generations", "automl_eval_interval",
            "automl_perturbation_factor",
        ),
        frozenset({"pbt"}),
    ),
    **dict.fromkeys(("automl_mutation_factor", "automl_crossover_prob"), frozenset({"dehb"})),
    **dict.fromkeys(
        ("automl_kde_samples", "automl_top_n_percent", "automl_min_points_in_model"), frozenset({"bohb"})
    ),
    "automl_min_early_stop_epochs": frozenset({"hyperband_es"}),
    "automl_max_experiments": frozenset({"hybrid", "autoresearch"}),
    "research_program": frozenset({"autoresearch"}),
    **dict.fromkeys(
        (
            "llm_endpoint", "llm_model", "llm_api_key", "llm_api_key_env", "llm_temperature",
            "llm_max_tokens", "llm_timeout", "llm_max_cost_usd", "llm_price_in", "llm_price_out",
            "llm_max_total_tokens",
        ),
        ASKING,
    ),
}  # fmt: skip
#: Settings that nothing reads, and why.
_WITHOUT_MEANING = {
    "automl_early_stop_threshold": (
        "hyperband_es stops what cannot be hoped to reach the best, by the spread of its own curve, and has "
        "no threshold of how well a curve must fit"
    ),
    "hybrid_enable_llm_range_narrowing": "a model advises points, and never narrows the ranges",
    "evolvable_text_parameters": (
        "a model proposes values that the space has; give the texts that may be taken as the options of a "
        "parameter"
    ),
    "llm_analysis_interval": "a model is asked on a share of the trials, and not every so many",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """The model that advises, and what it is told. None: it was not said."""

    endpoint: str = ""
    model: str = ""
    api_key: str = field(default="", repr=False)
    # The environment variable that holds the key, in place of the key itself.
    api_key_env: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout_s: float | None = None
    # What the calls of a search may cost, and the USD for a million tokens; as our own searchers have them.
    max_cost_usd: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    max_total_tokens: int | None = None
    narrows_ranges: bool = False
    analysis_interval: int = 5
    research_program: str | None = None
    evolvable_texts: tuple[str, ...] = ()


def read_options(section: Section) -> dict[str, float]:
    """Options of single algorithms that were given; their ends are strict."""
    whole = {
        "automl_population_size": 2, "automl_max_generations": 1, "automl_eval_interval": 1,
        "automl_min_early_stop_epochs": 1, "automl_kde_samples": 1, "automl_min_points_in_model": 1,
        "automl_min_top_configs": 1,
    }  # fmt: skip
    ranges = {
        "automl_perturbation_factor": (1.0, _ANY), "automl_mutation_factor": (0.0, 2.0),
        "automl_crossover_prob": (-1e-12, 1.0 + 1e-12), "automl_early_stop_threshold": (-_ANY, _ANY),
        "automl_top_n_percent": (0.0, 100.0),
    }  # fmt: skip
    found: dict[str, float] = {}
    for name, low in whole.items():
        if section.raw(name) is not None:
            found[name] = section.integer(name, low, low=low)
    for name, (above, below) in ranges.items():
        if section.raw(name) is not None:
            found[name] = section.number(name, None, above=above, below=below)
    return found


def read_language_model(section: Section) -> LanguageModel:
    """The settings of the model that advises."""
    key = section.raw("llm_api_key")
    if key is not None and not isinstance(key, str):
        section.faults.add("llm_api_key", None, "is not a string", "give the key as text")
    return LanguageModel(
        endpoint=section.optional_text("llm_endpoint") or "",
        model=section.optional_text("llm_model") or "",
        api_key=key if isinstance(key, str) else "",
        api_key_env=section.optional_text("llm_api_key_env"),
        temperature=_number(section, "llm_temperature", above=-1e-12, below=10.0),
        max_tokens=_integer(section, "llm_max_tokens"),
        timeout_s=_number(section, "llm_timeout", above=0.0),
        max_cost_usd=_number(section, "llm_max_cost_usd", above=-1e-12),
        price_in=_number(section, "llm_price_in", above=-1e-12),
        price_out=_number(section, "llm_price_out", above=-1e-12),
        max_total_tokens=_integer(section, "llm_max_total_tokens"),
        narrows_ranges=section.flag("hybrid_enable_llm_range_narrowing", default=False),
        analysis_interval=section.integer("llm_analysis_interval", 5, low=1),
        research_program=section.optional_text("research_program"),
        evolvable_texts=_words(section, "evolvable_text_parameters"),
    )


def without_use(algorithm: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Notes on the settings that the algorithm has no use for; those that say no are passed over."""
    notes = []
    for name, value in given.items():
        readers = _READERS.get(name, _NOWHERE)
        if value in (None, False, "", []):
            continue
        if name in _WITHOUT_MEANING:
            notes.append(f"{name} has no effect: {_WITHOUT_MEANING[name]}")
        elif name in _READERS and algorithm not in readers:
            notes.append(f"{name} has no effect on {algorithm}: it is for {' and '.join(sorted(readers))}")
    return tuple(notes)


def own_options(algorithm: str, given: Mapping[str, float]) -> dict[str, Any]:
    """The options of our algorithm of this name that have the meaning of those that were given."""
    return {
        option: translate(given[name])
        for name, (owners, option, translate) in _MEANINGS.items()
        if name in given and algorithm in owners
    }


def _as_it_is(value: float) -> float:
    return value


def _percent(value: float) -> int:
    """The nearest whole percentage that our model takes."""
    return min(99, max(1, round(value)))


def _each_side(value: float) -> int:
    """Of so many points that a model needs in all, how many must be good ones, and how many bad ones."""
    return math.ceil(value / 2)


def _points(value: float) -> int:
    """A curve of fewer than three points says nothing."""
    return max(3, int(value))


_Meaning = tuple[Collection[str], str, Callable[[float], Any]]
#: By the setting: the algorithms that it belongs to, the name of their option, and how its value is taken.
_MEANINGS: dict[str, _Meaning] = {
    "automl_population_size": (("pbt",), "population", int),
    "automl_perturbation_factor": (("pbt",), "factor", _as_it_is),
    "automl_mutation_factor": (("dehb",), "factor", _as_it_is),
    "automl_crossover_prob": (("dehb",), "crossover", _as_it_is),
    "automl_kde_samples": (("bohb",), "samples", int),
    "automl_top_n_percent": (("bohb",), "top_percent", _percent),
    "automl_min_points_in_model": (("bohb",), "least", _each_side),
    "automl_min_early_stop_epochs": (("hyperband_es",), "least", _points),
}


def _number(section: Section, name: str, *, above: float, below: float = math.inf) -> float | None:
    return section.number(name, None, above=above, below=below) if section.raw(name) is not None else None


def _integer(section: Section, name: str) -> int | None:
    return section.integer(name, 1, low=1) if section.raw(name) is not None else None


def _words(section: Section, name: str) -> tuple[str, ...]:
    """A list of words, or one text with commas between them."""
    value = section.raw(name)
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return section.texts(name)
