"""What a user decides about an ensemble; every field changes what is forecast or reported."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from modelyard.core.faults import Section
from modelyard.ensemble.combining.rules import METHODS
from modelyard.ensemble.runtime.drift import DETECTORS

AUTO = "auto"
LONGEST_WINDOW = 100_000  # steps: windows are held in memory, for every lead and expert
_AT_MOST_ONE = math.nextafter(1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to learn a policy from predictions and truth."""

    horizon: int  # policy leads 1..horizon, in steps
    period: int  # season in steps: the scale of MASE
    step_s: float
    validation_until: pd.Timestamp  # truth before it teaches the policy
    method: str = AUTO  # or one of `rules.METHODS`
    beta: float | None = 0.99  # None: chosen on the validation period
    dirty_interval: int = 3
    amplitude_window: int = 24
    mutant_epsilon: float | None = None  # None: a conformal quantile of the validation period
    seed: int = 42
    drift: str = "none"  # one of `drift.DETECTORS`: a second source of observed mutants
    coverage: float = 0.9  # of the intervals around the policy's forecasts
    max_staleness_s: float | None = None  # an older forecast is as good as none: its expert sleeps


def read_settings(section: Section) -> Settings:
    """Read the `settings` of a SPEC; what is wrong is noted in the section's faults."""
    return Settings(
        method=section.choice("method", AUTO, (AUTO, *METHODS)),
        beta=read_beta(section, 0.99),
        dirty_interval=section.integer("dirty_interval", 3, low=0, high=LONGEST_WINDOW),
        amplitude_window=section.integer("amplitude_window", 24, low=1, high=LONGEST_WINDOW),
        mutant_epsilon=read_epsilon(section),
        horizon=section.integer("horizon", None, low=1),
        period=section.integer("period", None, low=1),
        step_s=section.number("step_s", None, above=0.0),
        validation_until=read_moment(section, "validation_until"),
        seed=section.integer("seed", 42, low=0),
        drift=section.choice("drift", "none", DETECTORS),
        coverage=section.number("coverage", 0.9, above=0.0, below=1.0),
        max_staleness_s=read_staleness(section),
    )


def read_beta(section: Section, default: float) -> float | None:
    """The memory in (0, 1], or None for "auto"."""
    if section.raw("beta") == AUTO:
        return None
    return section.number("beta", default, above=0.0, below=_AT_MOST_ONE)


def read_epsilon(section: Section) -> float | None:
    """A positive jump relative to the series' level, or None."""
    if section.raw("mutant_epsilon") is None:
        return None
    return section.number("mutant_epsilon", None, above=0.0)


def read_staleness(section: Section) -> float | None:
    """The longest age of a forecast that counts, in seconds, or None."""
    if section.raw("max_staleness_s") is None:
        return None
    return section.number("max_staleness_s", None, above=0.0)


def read_moment(section: Section, name: str) -> pd.Timestamp:
    """A required time; a naive one is UTC."""
    text = section.text(name)
    try:
        moment = pd.Timestamp(text or "1970-01-01")
        if moment == moment:  # "NaT" is read, and differs from itself
            return as_utc(moment)
    except ValueError:
        pass
    section.faults.add(section.key(name), text, "is not a time", "write ISO 8601, as 2013-09-01T00:00")
    return as_utc(pd.Timestamp(0))


def as_utc(moment: pd.Timestamp) -> pd.Timestamp:
    """The same moment with a time zone; a naive one is UTC."""
    return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
