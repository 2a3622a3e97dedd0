"""Before and after: what difference a number of items can show, and how many items a difference needs."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

#: The chance with which a difference shall be found.
POWER = 0.8
_MOST_ITEMS = 10_000_000
_MOST_SUMMED = 100_000


def detectable_difference(standard_error: float, alpha: float) -> float:
    """How far above the margin's end the truth must lie to be found with a chance of 80 %.

    (z of alpha + z of 0.2) standard errors, of a one-sided test. For superiority it is the smallest
    difference worth asking this many items about; with a margin the truth may lie lower by the margin.
    """
    return _spread(alpha) * standard_error


def items_needed(n: int, excess: float, standard_error: float, alpha: float) -> int | None:
    """How many items in all would prove the claim with a chance of 80 %, were the truth as observed.

    Args:
        n: Items that gave the estimate; more of the same kind (and clusters of the same size) are thought.
        excess: The estimate plus the margin.
        standard_error: Of the estimate.
        alpha: One-sided.

    Returns:
        None where the estimate lies on the wrong side, or needs more than ten million items.
    """
    if excess <= 0:
        return None
    needed = n * (_spread(alpha) * standard_error / excess) ** 2
    return math.ceil(needed) if needed <= _MOST_ITEMS else None


def exact_power(n: int, win_share: float, loss_share: float, alpha: float) -> float:
    """The exact chance that `exact_p` of n independent pairs is at most `alpha`.

    Summed over the number of discordant pairs, of which each is a win with the same chance.
    """
    share = win_share + loss_share
    if not share:
        return 0.0
    discordant = np.arange(n + 1)
    # The fewest wins whose p is at most alpha: one more than the quantile of the other tail.
    fewest = stats.binom.isf(alpha, discordant, 0.5) + 1
    found = stats.binom.sf(fewest - 1, discordant, win_share / share)
    return float((stats.binom.pmf(discordant, n, share) * found).sum())


def exact_items_needed(win_share: float, loss_share: float, alpha: float) -> int | None:
    """How many independent pairs give the exact McNemar test a power of 80 %; None if no number would.

    The exact power falls a little here and there as items are added: the answer is a number whose power
    suffices and whose predecessor's does not. Beyond 100,000 it is that of the normal approximation
    (Connor, Biometrics 43, 1987), where the search begins.
    """
    gap, share = win_share - loss_share, win_share + loss_share
    if gap <= 0:
        return None
    spread = stats.norm.isf(alpha) * math.sqrt(share) + stats.norm.ppf(POWER) * math.sqrt(share - gap**2)
    enough = max(1, math.ceil(float(spread / gap) ** 2))
    if enough > _MOST_SUMMED:
        return enough if enough <= _MOST_ITEMS else None
    while exact_power(enough, win_share, loss_share, alpha) < POWER:
        enough += max(1, enough // 20)
    few = 0
    while enough - few > 1:
        middle = (few + enough) // 2
        if exact_power(middle, win_share, loss_share, alpha) < POWER:
            few = middle
        else:
            enough = middle
    return enough


def _spread(alpha: float) -> float:
    return float(stats.norm.isf(alpha) + stats.norm.ppf(POWER))
