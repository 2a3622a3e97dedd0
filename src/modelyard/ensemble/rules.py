"""Aggregation rules: how the losses of experts become their weights.

A rule keeps plain arrays, one row a lead and one column a slot; leads, and the mixtures that the
slots belong to, are independent problems solved side by side. It speaks in log weights, so that
nothing underflows; who is awake, and that weights sum to one, is the caller's matter (`mixture`).
Rules know neither time nor delay: a row is learnt whenever its truth arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import PolicyError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
State = dict[str, Floats]

_SMALLEST_SCORE = 1e-12  # of the largest score beside it: an expert without error gets this one
_LOWEST = -1e300  # below every log weight
_LEAST_REACH = 1e-150  # its inverse and its square are still ordinary numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What one step of time teaches; every array is `(leads, slots)`."""

    regret: Floats  # slope of the loss times (mixture - forecast); 0 where asleep
    awake: Floats  # 1 where the slot had a forecast in the mixture, else 0
    error: Floats  # |forecast - truth|; anything finite where not scored
    scored: Floats  # 1 where the row counts for scores (awake, not censored), else 0


class Rule(Protocol):
    """Turns lessons into log weights. A slot is an expert's place in one mixture."""

    def start(self, shape: tuple[int, int]) -> State:
        """Arrays of a rule that has learnt nothing; all weights are equal."""

    def learn(self, state: State, lesson: Lesson) -> None:
        """Update the arrays in place by one row of every lead."""

    def log_weights(self, state: State) -> Floats:
        """Unnormalised log weights, finite, `(leads, slots)`."""


@dataclass(frozen=True, slots=True)
class Uniform:
    """Equal weights: the baseline that every rule has to beat."""

    def start(self, shape: tuple[int, int]) -> State:
        """The shape is all there is to keep."""
        return {"zero": np.zeros(shape)}

    def learn(self, state: State, lesson: Lesson) -> None:
        """Learn nothing."""

    def log_weights(self, state: State) -> Floats:
        """Zeros."""
        return state["zero"]


@dataclass(frozen=True, slots=True)
class InverseScore:
    """Weights proportional to `1 / score`, the score being the discounted mean absolute error.

    The rule of the public ELPA skill, with its score corrected for the start: `sum(beta^i |e|) /
    sum(beta^i)` over the scored rows. An expert without a scored row gets the mean of the others.
    """

    beta: float

    def start(self, shape: tuple[int, int]) -> State:
        """Discounted sums of error and of rows."""
        return {"sum": np.zeros(shape), "rows": np.zeros(shape)}

    def learn(self, state: State, lesson: Lesson) -> None:
        """Discount both sums where the row was scored, and add it."""
        add_discounted(state["sum"], lesson.error, lesson.scored, self.beta)
        add_discounted(state["rows"], lesson.scored, lesson.scored, self.beta)

    def log_weights(self, state: State) -> Floats:
        """Minus the log of the scores."""
        known = state["rows"] > 0
        score = np.where(known, state["sum"] / np.where(known, state["rows"], 1.0), 0.0)
        top = score.max(axis=-1, keepdims=True)
        number = known.sum(axis=-1, keepdims=True)
        usual = score.sum(axis=-1, keepdims=True) / np.maximum(number, 1)
        score = np.maximum(np.where(known, score, usual), _SMALLEST_SCORE * top)
        return np.asarray(-np.log(np.where(top > 0, score, 1.0)))


@dataclass(frozen=True, slots=True)
class Boa:
    """Bernstein Online Aggregation with one adaptive learning rate an expert.

    Wintenberger (2017), "Optimal learning with Bernstein online aggregation", section 3: the
    second-order regret `R_k = sum r_k - eta_k r_k^2` and `w_k ~ eta_k exp(eta_k R_k)` with `eta_k =
    min(1 / (2 B_k), sqrt(ln K / V_k))`, `V_k` the sum of squares and `B_k` the largest |r_k|. The
    gradient trick (Cesa-Bianchi & Lugosi 2006, 2.5) makes the guarantee hold against mixtures too.
    A sleeping expert's regret is zero (Gaillard, Stoltz & van Erven 2014; Devaine et al. 2013).
    `beta` discounts R, V and B (Cesa-Bianchi & Lugosi 2006, 2.11); 1 forgets nothing. Sleep discounts
    nothing either: V and B would vanish, the rate with them explode, and who wakes would rule.

    Attributes:
        beta: The memory, in (0, 1].
        log_rivals: ln K, of the number of experts in the mixture of each slot, `(slots,)`.
    """

    beta: float
    log_rivals: Floats

    def start(self, shape: tuple[int, int]) -> State:
        """Regret, squares and range, stacked; and the rates they lead to."""
        return {"moments": np.zeros((3, *shape)), "rate": np.ones(shape)}

    def learn(self, state: State, lesson: Lesson) -> None:
        """Discount and add the second-order regret, at the rate that already knows this row."""
        regret, square, reach = state["moments"]
        state["moments"] *= 1.0 - (1.0 - self.beta) * lesson.awake
        squared = lesson.regret * lesson.regret
        square += squared
        np.maximum(reach, np.abs(lesson.regret), out=reach)
        np.maximum(reach, _LEAST_REACH, out=reach, where=reach > 0)
        rate = self._rate(square, reach)
        state["rate"][...] = rate
        regret += lesson.regret - rate * squared

    def log_weights(self, state: State) -> Floats:
        """`ln eta + eta R`."""
        rate = state["rate"]
        return np.asarray(np.log(rate) + rate * state["moments"][0])

    def _rate(self, square: Floats, reach: Floats) -> Floats:
        if not reach.all():  # somebody has not been awake yet: give it the caution of the widest
            top = reach.max(axis=-1, keepdims=True)
            reach = np.where(reach > 0, reach, np.where(top > 0, top, 0.5))
        spread = np.sqrt(square / self.log_rivals)
        return np.asarray(1.0 / np.maximum(2.0 * reach, spread))


METHODS = ("boa", "inverse_score", "uniform")


def make_rule(method: str, *, beta: float, rivals: NDArray[np.intp]) -> Rule:
    """The rule of that name.

    Args:
        method: One of `METHODS`.
        beta: The memory, in (0, 1].
        rivals: The number of experts in the mixture of each slot, `(slots,)`.

    Raises:
        PolicyError: Unknown method, or beta out of range.
    """
    if not 0.0 < beta <= 1.0:
        raise PolicyError(f"beta = {beta} is out of range; use a number above 0 and at most 1")
    if method == "boa":
        return Boa(beta, np.log(np.maximum(rivals, 2)))
    if method == "inverse_score":
        return InverseScore(beta)
    if method == "uniform":
        return Uniform()
    raise PolicyError(f"method {method!r} is not known; use one of {', '.join(METHODS)}")


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
    exponent = np.where(awake > 0, log_weights, -np.inf)
    top = np.maximum.reduce(exponent, axis=1, keepdims=True, initial=_LOWEST)
    weight = np.exp(exponent - top)
    total = np.add.reduce(weight, axis=1, keepdims=True)
    weight /= np.maximum(total, 1.0)  # a row with somebody awake has a total of at least 1
    return weight, np.asarray(np.add.reduce(weight * forecast, axis=1))
