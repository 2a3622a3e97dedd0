"""What is declared of models beside answers: context, tools, vision, group, latency; unknown is unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Floats, Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is declared of one model; None is not known."""

    # How long a prompt with its answer may be.
    context_tokens: int | None = None
    # Whether it calls tools, and whether it reads images.
    tools: bool | None = None
    vision: bool | None = None
    # Whether it learns while it serves (ELPA's group online) or was trained once (offline).
    online: bool | None = None
    # How long an answer takes, in the mean and for 95 of 100.
    latency_s: float | None = None
    latency_p95_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("context_tokens", "latency_s", "latency_p95_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RoutingError(f"{name} of a model is {value}; give a number above 0")

    def known(self) -> dict[str, int | float | bool]:
        """What is known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def updated(self, other: Facts) -> Facts:
        """With what the other knows instead."""
        return Facts(**{**self.known(), **other.known()})  # type: ignore[arg-type]  # by their names


FACTS = tuple(field.name for field in fields(Facts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a request may ask of M models besides error and cost; arrays of [M], NaN where not known."""

    # How many answers each has given.
    answers_m: Integers
    # By the names of `Facts`; 1 for yes and 0 for no.
    facts: Mapping[str, Floats]

    @classmethod
    def of(cls, names: Sequence[str], facts: Mapping[str, Facts], answers_m: Integers) -> Traits:
        """From what is declared, by model."""
        columns = {name: np.full(len(names), np.nan) for name in FACTS}
        for row, name in enumerate(names):
            for fact, value in facts[name].known().items() if name in facts else ():
                columns[fact][row] = float(value)
        return cls(answers_m=answers_m, facts=columns)
