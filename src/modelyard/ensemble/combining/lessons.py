"""What rules of aggregation share: a lesson, the contract, and how weights make a forecast.

A rule keeps plain arrays, one row a lead (or a series) and one column a slot; rows, and the mixtures
that the slots belong to, are independent problems solved side by side. It speaks in log weights, so
that nothing underflows; who is awake, and that weights sum to one, is the caller's matter (`mixture`).
Rules know neither time nor delay: a row is learnt whenever its truth arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
State = dict[str, Floats]

LOWEST = -1e300  # below every log weight; where nobody stands above it, the awake share equally


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What one step of time teaches; every array is `(rows, slots)`."""

    regret: Floats  # slope of the loss times (mixture - forecast); 0 where asleep
    awake: Floats  # 1 where the slot had a forecast in the mixture, else 0
    gap: Floats  # forecast - truth; anything finite where asleep
    error: Floats  # the loss of the forecast; anything finite where not scored
    scored: Floats  # 1 where the row counts for scores (awake, not censored), else 0


class Rule(Protocol):
    """Turns lessons into log weights. A slot is an expert's place in one mixture."""

    def start(self, shape: tuple[int, int]) -> State:
        """Arrays of a rule that has learnt nothing; all weights are equal."""

    def learn(self, state: State, lesson: Lesson) -> None:
        """Update the arrays in place by one lesson; rows in which nobody is awake stay as they are."""

    def log_weights(self, state: State) -> Floats:
        """Unnormalised log weights, finite, `(rows, slots)`."""


def blocks_of(rivals: NDArray[np.intp]) -> tuple[slice, ...]:
    """The mixtures that the slots belong to, from the number of experts in the mixture of each slot."""
    found, start = [], 0
    while start < len(rivals):
        stop = start + int(rivals[start])
        found.append(slice(start, stop))
        start = stop
    return tuple(found)


def add_discounted(total: Floats, value: Floats, scored: Floats, beta: float) -> None:
    """`total <- beta total + value` in place, where scored is 1; elsewhere nothing changes."""
    total *= 1.0 - (1.0 - beta) * scored
    total += value * scored


def mixture(log_weights: Floats, awake: Floats, forecast: Floats) -> tuple[Floats, Floats]:
    """Weights on the awake experts and the forecast they make.

    Args:
        log_weights: `(rows, experts)`, finite, of any size.
        awake: 1 or 0, the same shape; a sleeping expert gets exactly 0.
        forecast: The same shape, finite (anything where asleep).

    Returns:
        Weights `(rows, experts)`, a simplex in every row with an awake expert and zeros in the
        others, and the mixture `(rows,)`, 0 in the others.
    """
    exponent = log_weights if awake.all() else np.where(awake > 0, log_weights, -np.inf)
    top = np.maximum.reduce(exponent, axis=1, keepdims=True, initial=LOWEST)
    weight = np.subtract(exponent, top)
    np.exp(weight, out=weight)
    total = np.add.reduce(weight, axis=1, keepdims=True)
    weight /= np.maximum(total, 1.0)  # a row with somebody awake has a total of at least 1
    return weight, np.asarray(np.add.reduce(weight * forecast, axis=1))
