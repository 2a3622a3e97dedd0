"""Deferral curves: how good answers are at what mean cost, as the weight of cost moves.

Quality over relative cost, the cost of the dearest model being 1. Between two points a router may draw
lots, so that the curve is interpolated; after its last point it is flat. From UniRoute's evaluation
(Jitkrittum et al., 2025, arXiv 2502.08773, section 6), with the failures of QNC counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.routing.answers import Floats, Integers

#: Weights of relative cost, from "the cheapest always" to "cost does not count".
LAMBDAS: tuple[float, ...] = (*(float(x) for x in np.geomspace(100.0, 1e-4, 121)), 0.0)
_STEPS = 2001


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The points of a router, by rising cost."""

    # Relative mean cost and mean quality, [P].
    cost_p: Floats
    quality_p: Floats

    @classmethod
    def of(cls, cost: Floats, quality: Floats) -> Curve:
        """From points in any order; of those of one cost the best counts."""
        order = np.lexsort((-quality, cost))
        cost, quality = cost[order], quality[order]
        first = np.concatenate([[True], np.diff(cost) > 0])
        return cls(cost_p=cost[first], quality_p=quality[first])

    def at(self, cost: Floats | float) -> Floats:
        """Quality at relative costs; before the first point and after the last it is theirs."""
        return np.asarray(np.interp(cost, self.cost_p, self.quality_p), np.float64)

    def area(self, cheapest: float) -> float:
        """The mean quality over relative costs from the cheapest model's to 1."""
        if cheapest >= 1:
            return float(self.at(1.0))
        grid = np.linspace(cheapest, 1.0, _STEPS)
        return float(np.trapezoid(self.at(grid), grid) / (1.0 - cheapest))

    @property
    def peak(self) -> float:
        """The best quality of any point."""
        return float(self.quality_p.max())

    def cost_of(self, quality: float) -> float:
        """The least relative cost at which a quality is reached: QNC; NaN where it never is."""
        reached = np.flatnonzero(self.quality_p >= quality)
        if not reached.size:
            return float("nan")
        last = int(reached[0])
        if last == 0:
            return float(self.cost_p[0])
        low, high = self.quality_p[last - 1], self.quality_p[last]
        share = (quality - low) / (high - low)
        return float(self.cost_p[last - 1] + share * (self.cost_p[last] - self.cost_p[last - 1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a router's answers were at each of L weights, on each of Q prompts; [L, Q]."""

    quality_lq: Floats
    # In units of the dearest model's mean cost.
    cost_lq: Floats

    @classmethod
    def of(
        cls,
        errors_mq: Floats,
        cost: Floats,
        lambdas: Sequence[float],
        *,
        quality_mq: Floats,
        spent_mq: Floats,
    ) -> Sweep:
        """Each prompt, at each weight, to the model of least error + lambda * cost; of equals the cheapest.

        Args:
            errors_mq: As predicted.
            cost: As predicted, [M], or [M, Q] where it depends on the prompt.
            lambdas: The weights.
            quality_mq: In truth.
            spent_mq: The cost in truth, in units of the dearest model's mean cost.
        """
        prompts = np.arange(quality_mq.shape[1])
        chosen_lq = np.array([choices(errors_mq, cost, weight) for weight in lambdas])
        return cls(quality_lq=quality_mq[chosen_lq, prompts], cost_lq=spent_mq[chosen_lq, prompts])

    def curve(self) -> Curve:
        """The deferral curve on these prompts."""
        return Curve.of(self.cost_lq.mean(axis=1), self.quality_lq.mean(axis=1))

    def drawn(self, counts_bq: Floats) -> tuple[Floats, Floats]:
        """Mean costs and qualities in B samples in which prompt q stands counts_bq[b, q] times; [B, L]."""
        size = counts_bq.sum(axis=1, keepdims=True)
        return counts_bq @ self.cost_lq.T / size, counts_bq @ self.quality_lq.T / size


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What happened in truth: every model's quality on every prompt, and its mean cost."""

    # [M, Q], and relative to the dearest, [M].
    quality_mq: Floats
    cost_m: Floats

    @property
    def cheapest(self) -> float:
        """The relative cost of the cheapest model."""
        return float(self.cost_m.min())

    @property
    def best_single(self) -> float:
        """The mean quality of the best single model."""
        return float(self.quality_mq.mean(axis=1).max())

    def outcome(self, chosen_q: Integers) -> tuple[float, float]:
        """Mean relative cost and mean quality where prompt q goes to model chosen_q[q]."""
        prompts = np.arange(self.quality_mq.shape[1])
        return float(self.cost_m[chosen_q].mean()), float(self.quality_mq[chosen_q, prompts].mean())

    def curve(self, errors_mq: Floats, lambdas: tuple[float, ...] = LAMBDAS) -> Curve:
        """The curve of predicted errors: each prompt goes to the least error + lambda * cost."""
        spent_mq = np.broadcast_to(self.cost_m[:, None], self.quality_mq.shape)
        swept = Sweep.of(errors_mq, self.cost_m, lambdas, quality_mq=self.quality_mq, spent_mq=spent_mq)
        return swept.curve()

    def zero_router(self, mean_errors_m: Floats) -> Curve:
        """Mixes of two models on the hull of estimated quality over cost: what needs no router at all."""
        return self.curve(np.repeat(mean_errors_m[:, None], self.quality_mq.shape[1], axis=1))

    def oracle(self) -> Curve:
        """Each prompt to the cheapest model that is right on it."""
        return self.curve(1.0 - self.quality_mq)


def choices(errors_mq: Floats, cost: Floats, weight: float) -> Integers:
    """The model of least error + weight * cost for each prompt, [Q]; of equals the cheapest.

    Costs are of [M], or of [M, Q] where they depend on the prompt.
    """
    if cost.ndim == 2:
        scores = errors_mq + weight * cost
        tied = scores == scores.min(axis=0)
        return np.asarray(np.argmin(np.where(tied, cost, np.inf), axis=0), np.int64)
    order = np.argsort(cost, kind="stable")
    scores = errors_mq[order] + weight * cost[order, None]
    chosen: Integers = order[np.argmin(scores, axis=0)]
    return chosen
