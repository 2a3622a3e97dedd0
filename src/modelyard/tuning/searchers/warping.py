"""Values as a Gaussian process is shown them: more is better, the order stays, the scale need not.

Errors of trainings lie close together where they are low and far apart where they are high. A process, which
expects the same roughness everywhere, sees in them a few peaks and a plain, and nothing of what makes a good
trial better. A power that makes the values as normal as it can is what HEBO shows its process (Cowen-Rivers
et al., JAIR 2022); Yeo and Johnson's (2000) takes values of both signs. Ranks tell the good ones apart
however close they lie, and nothing of how good they are (Salinas et al., ICML 2020, show a process those).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Between these the power lies; at 1 values stay as they are.
_LOWEST, _HIGHEST = -4.0, 2.0


def tamed(values: Sequence[float], *, least: float = math.inf) -> list[float]:
    """Values whose bad tail is cut: a run that diverged is bad, and no more has to be known of it.

    More is better. The cut is below the worst quarter, two times as far as that is from the best, and never
    above `least`.
    """
    ranked = sorted(values)
    quarter, best = ranked[len(ranked) // 4], ranked[-1]
    cut = min(least, quarter - 2 * (best - quarter))
    return [max(cut, value) for value in values]


def ranked(values: Sequence[float]) -> list[float]:
    """The normal quantile that each value's rank stands for; equal values share the middle of theirs."""
    from scipy import stats

    shares = (stats.rankdata(values) - 0.5) / len(values)
    found: list[float] = stats.norm.ppf(shares).tolist()
    return found


def warped(values: Sequence[float]) -> list[float]:
    """Values after the power that makes them most like normal ones; those that differ still do."""
    from scipy import stats

    costs = -np.array(tamed(values))
    middle, spread = costs.mean(), costs.std()
    if not np.isfinite(spread) or spread <= 1e-12 * abs(middle) or len(set(costs.tolist())) < 3:
        return tamed(values)
    standard = (costs - middle) / spread
    power = stats.yeojohnson_normmax(standard)
    bounded = min(_HIGHEST, max(_LOWEST, float(power)))
    found: list[float] = (-stats.yeojohnson(standard, lmbda=bounded)).tolist()
    return found
