"""Aggregation rules: how the losses of experts become their weights, and every rule by its name.

The plain ones and BOA stand here; those that hedge are in `hedging`, those that fit in `fitted`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.fitted import Greedy, Moments, Nnls
from modelyard.ensemble.combining.hedging import AdaHedge, FixedShare, MlPoly
from modelyard.ensemble.combining.lessons import Floats, Lesson, Rule, State, add_discounted, blocks_of

_SMALLEST_SCORE = 1e-12  # of the largest score beside it: an expert without error gets this one
_LEAST_REACH = 1e-150  # its inverse and its square are still ordinary numbers


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
        beta: The memory, in (0, 1]; of all slots, or one a slot.
        log_rivals: ln K, of the number of experts in the mixture of each slot, `(slots,)`.
    """

    beta: float | Floats
    log_rivals: Floats

    def start(self, shape: tuple[int, int]) -> State:
        """Regret, squares and range, stacked; and the rates they lead to."""
        return {"moments": np.zeros((3, *shape)), "rate": np.ones(shape)}

    def learn(self, state: State, lesson: Lesson) -> None:
        """Discount and add the second-order regret, at the rate that already knows this row."""
        moments, rate, given = state["moments"], state["rate"], lesson.regret
        regret, square, reach = moments
        moments *= self.beta if lesson.awake.all() else 1.0 - (1.0 - self.beta) * lesson.awake
        squared = given * given
        square += squared
        np.maximum(reach, np.abs(given), out=reach)
        if np.minimum.reduce(reach, axis=None) < _LEAST_REACH:  # somebody has not been awake yet, or as good
            np.maximum(reach, _LEAST_REACH, out=reach, where=reach > 0)
        self._rate(square, reach, rate)
        squared *= rate
        regret += given
        regret -= squared

    def log_weights(self, state: State) -> Floats:
        """`ln eta + eta R`."""
        rate = state["rate"]
        found: Floats = np.log(rate)
        found += rate * state["moments"][0]
        return found

    def _rate(self, square: Floats, reach: Floats, rate: Floats) -> None:
        if not reach.all():  # somebody has not been awake yet: give it the caution of the widest
            top = reach.max(axis=-1, keepdims=True)
            reach = np.where(reach > 0, reach, np.where(top > 0, top, 0.5))
        np.divide(square, self.log_rivals, out=rate)
        np.sqrt(rate, out=rate)
        np.maximum(rate, 2.0 * reach, out=rate)
        np.reciprocal(rate, out=rate)


COMMITTEE = "committee"  # several rules side by side: `committee`
RULES = ("boa", "mlpoly", "adahedge", "fixed_share", "nnls", "greedy", "inverse_score", "uniform")
METHODS = (COMMITTEE, *RULES)


def make_rule(method: str, *, beta: float, rivals: NDArray[np.intp]) -> Rule:
    """The rule of that name.

    Args:
        method: One of `RULES`.
        beta: The memory, in (0, 1].
        rivals: The number of experts in the mixture of each slot, `(slots,)`; the slots of a mixture
            stand side by side.

    Raises:
        PolicyError: Unknown method, or beta out of range.
    """
    if not 0.0 < beta <= 1.0:
        raise PolicyError(f"beta = {beta} is out of range; use a number above 0 and at most 1")
    blocks = blocks_of(rivals)
    rules: dict[str, Rule] = {
        "boa": Boa(beta, np.log(np.maximum(rivals, 2))),
        "mlpoly": MlPoly(beta, blocks),
        "adahedge": AdaHedge(beta, blocks),
        "fixed_share": FixedShare(beta, blocks),
        "nnls": Nnls(Moments(beta, blocks)),
        "greedy": Greedy(Moments(beta, blocks)),
        "inverse_score": InverseScore(beta),
        "uniform": Uniform(),
    }
    if method not in rules:
        raise PolicyError(f"method {method!r} is not known; use one of {', '.join(RULES)}")
    return rules[method]
