"""Losses of a forecast and their slopes: absolute, squared, and pinball at a level.

The gradient trick (Cesa-Bianchi & Lugosi 2006, 2.5) needs only the slope at the mixture; it makes a
rule's regret hold against every convex combination of the experts.
"""

from __future__ import annotations

import numpy as np

from modelyard.ensemble.combining.lessons import Floats

LOSSES = ("absolute", "squared", "pinball")


def loss_of(gap: Floats, loss: str, level: Floats) -> Floats:
    """The loss of a forecast that lies `gap` above the truth.

    Args:
        gap: Forecast - truth.
        loss: One of `LOSSES`.
        level: Of pinball, in (0, 1), broadcast against `gap` (Koenker & Bassett 1978); not used else.
    """
    if loss == "absolute":
        return np.abs(gap)
    if loss == "squared":
        return np.asarray(gap * gap)
    return np.maximum((1.0 - level) * gap, -level * gap)


def slope_of(gap: Floats, loss: str, level: Floats) -> Floats:
    """The derivative of `loss_of` by the forecast; 0 at a kink."""
    if loss == "absolute":
        return np.sign(gap)
    if loss == "squared":
        return np.asarray(2.0 * gap)
    return np.where(gap > 0, 1.0 - level, np.where(gap < 0, -level, 0.0))
