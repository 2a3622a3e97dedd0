"""More than one claim: what may be spent on each, and what is left of each p-value.

Two situations. A repair loop looks for the first iteration that passes, so every iteration has a chance
to pass by luck: it spends a part of alpha. Secondary metrics of one comparison are corrected together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from modelyard.core.errors import EvidenceError


def spent_alpha(nominal_alpha: float, iteration: int) -> float:
    """What iteration k of a repair loop may spend: nominal alpha times 6 / (pi^2 k^2).

    However many iterations follow, they spend no more than `nominal_alpha` together, since the sum of
    1/k^2 is pi^2/6. So nobody needs to say beforehand how many there will be.

    Raises:
        EvidenceError: there is no such iteration, or no such alpha.
    """
    if iteration < 1:
        raise EvidenceError(f"design: iteration {iteration} does not exist; the first is 1")
    if not 0 < nominal_alpha < 0.5:
        raise EvidenceError(f"design: nominal_alpha is {nominal_alpha}; it must lie between 0 and 0.5")
    return nominal_alpha * 6 / (math.pi * iteration) ** 2


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values after Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979), by name.

    Those below alpha can all be believed: the chance of one false among them is at most alpha, however
    the metrics depend on each other.
    """
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
