"""Two routers on the same held-out prompts: the difference of their areas, with a paired interval.

Prompts are drawn with replacement, and both routers are measured on each sample, so that what makes a
prompt hard for both cancels out (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
13: percentiles). The routers are held fixed: the interval tells how the difference would vary with other
prompts, not with other answers to fit on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.routing.answers import Floats
from modelyard.routing.deferral import Sweep
from modelyard.routing.measuring import bootstrap

_LEVEL = (0.025, 0.975)
_NARROWEST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The area of B minus that of A, with a 95 % interval."""

    area: float
    low: float
    high: float
    draws: int
    seed: int


def paired_difference(a: Sweep, b: Sweep, *, cheapest: float, draws: int, seed: int) -> Difference:
    """How much more area B has than A, on the same prompts in the same order.

    Args:
        a: The first.
        b: The second.
        cheapest: Where areas begin, a relative cost; they end at 1.
        draws: How many samples are drawn.
        seed: Of the samples.
    """
    prompts = a.quality_lq.shape[1]
    whole = np.ones((1, prompts))
    drawn = np.concatenate(
        [
            areas(*b.drawn(counts), cheapest) - areas(*a.drawn(counts), cheapest)
            for counts in bootstrap(prompts, draws, seed)
        ]
    )
    low, high = np.quantile(drawn, _LEVEL)
    return Difference(
        area=float((areas(*b.drawn(whole), cheapest) - areas(*a.drawn(whole), cheapest))[0]),
        low=float(low),
        high=float(high),
        draws=draws,
        seed=seed,
    )


def areas(cost_bl: Floats, quality_bl: Floats, cheapest: float) -> Floats:
    """The exact `Curve.area` of B curves at once, [B], from their points in any order, [B, L]."""
    low = min(cheapest, 1.0 - _NARROWEST)
    order = np.lexsort((-quality_bl, cost_bl), axis=1)
    cost, quality = np.take_along_axis(cost_bl, order, 1), np.take_along_axis(quality_bl, order, 1)
    first = np.concatenate([np.ones((len(cost), 1), np.bool_), np.diff(cost, axis=1) > 0], axis=1)
    best = np.maximum.accumulate(np.where(first, np.arange(cost.shape[1]), 0), axis=1)
    quality = np.take_along_axis(quality, best, 1)  # of points at one cost the best counts
    cost = np.concatenate([np.minimum(cost[:, :1], low), cost, np.maximum(cost[:, -1:], 1.0)], axis=1)
    quality = np.concatenate([quality[:, :1], quality, quality[:, -1:]], axis=1)
    begin, end = np.clip(cost[:, :-1], low, 1.0), np.clip(cost[:, 1:], low, 1.0)
    width = np.diff(cost, axis=1)
    share = ((begin + end) / 2 - cost[:, :-1]) / np.where(width > 0, width, 1.0)
    middle = quality[:, :-1] + share * np.diff(quality, axis=1)
    total: Floats = ((end - begin) * middle).sum(axis=1)
    return total / (1.0 - low)
