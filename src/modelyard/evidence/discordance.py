"""Paired counts: exact McNemar and sign tests, and the score test of a difference against a margin.

Only pairs in which the two models differ speak about who is better: `wins` (the candidate passes, the
baseline fails) and `losses` (the other way round), of `n` pairs in all. Counts may be arrays; results have
their shape. These functions know nothing of items, and trust that pairs are independent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from modelyard.evidence.outcomes import Floats

_HALVINGS = 60


def exact_p(wins: ArrayLike, losses: ArrayLike) -> Floats:
    """One-sided p of "the candidate is no better": P(Bin(wins + losses, 1/2) >= wins); 1 without discordance.

    The exact McNemar test (1947) of 0/1 scores and the sign test of judged wins are this one formula.
    """
    won, lost = np.asarray(wins), np.asarray(losses)
    p: Floats = np.asarray(stats.binom.sf(won - 1, won + lost, 0.5), np.float64)
    return p


def exact_two_sided_p(wins: ArrayLike, losses: ArrayLike) -> Floats:
    """Two-sided p of "both are alike": twice the smaller tail, at most 1, as statsmodels' exact McNemar."""
    won, lost = np.asarray(wins), np.asarray(losses)
    tail = stats.binom.cdf(np.minimum(won, lost), won + lost, 0.5)
    return np.minimum(1.0, 2 * np.asarray(tail, np.float64))


def share_bounds(passed: int, n: int, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's (1934) bounds of a share, each one-sided at level 1 - `alpha`."""
    low = float(stats.beta.ppf(alpha, passed, n - passed + 1)) if passed else 0.0
    high = float(stats.beta.isf(alpha, passed + 1, n - passed)) if passed < n else 1.0
    return low, high


def exact_interval(wins: int, losses: int, n: int, alpha: float) -> tuple[float, float]:
    """Bounds of the difference, each one-sided at level 1 - `alpha`, that agree with `exact_p`.

    The bounds of the share of wins among discordant pairs, pi, mapped to (2 pi - 1)(wins + losses) / n: the
    number of discordant pairs is taken as given. Without any, it is what their share may still be:
    plus and minus 1 - alpha^(1/n).
    """
    discordant = wins + losses
    if not discordant:
        most = 1 - alpha ** (1 / n) if n else 1.0
        return -most, most
    low, high = share_bounds(wins, discordant, alpha)
    return (2 * low - 1) * discordant / n, (2 * high - 1) * discordant / n


def score_z(wins: ArrayLike, losses: ArrayLike, n: ArrayLike, difference: ArrayLike) -> Floats:
    """Tango's score statistic against a true difference; large where the candidate is better than that.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998), equations 4 to 6: the difference observed minus
    that of the hypothesis, over its standard error where the discordant shares are those most likely under
    the hypothesis. At 0 it is McNemar's statistic. 0 where the standard error is 0.
    """
    won, lost, pairs, delta = (np.asarray(each, np.float64) for each in (wins, losses, n, difference))
    linear = (2 * pairs - won + lost) * delta - won - lost
    constant = -lost * delta * (1 - delta)
    root = np.sqrt(np.maximum(linear**2 - 8 * pairs * constant, 0.0))
    lost_share = np.clip((root - linear) / (4 * pairs), np.maximum(-delta, 0.0), 1.0)
    variance = pairs * (2 * lost_share + delta * (1 - delta))
    safe = variance > 1e-12 * pairs
    excess = won - lost - pairs * delta
    return np.where(safe, excess / np.sqrt(np.where(safe, variance, 1.0)), 0.0)


def score_p(wins: ArrayLike, losses: ArrayLike, n: ArrayLike, margin: float) -> Floats:
    """One-sided p of "the candidate is worse by `margin` or more"; 1 without margin and discordance.

    Asymptotic, yet close: at a nominal 5 % its rate of false passes at the margin, summed over all outcomes,
    is at most 5.5 % for 50 to 1,000 items, margins of 0.01 to 0.1 and up to 40 % discordant pairs, and 6.0 %
    where the candidate never wins.
    """
    z = score_z(wins, losses, n, -margin)
    nothing = (np.asarray(wins) + np.asarray(losses) == 0) & (margin == 0)
    return np.where(nothing, 1.0, stats.norm.sf(z))


def score_interval(wins: int, losses: int, n: int, alpha: float) -> tuple[float, float]:
    """Tango's interval: the differences `score_z` does not refuse, each bound one-sided at 1 - `alpha`."""
    z = float(stats.norm.isf(alpha))
    return -_highest(losses, wins, n, z), _highest(wins, losses, n, z)


def _highest(wins: int, losses: int, n: int, z: float) -> float:
    """The difference at which the statistic falls to -z, by bisection: it falls as the difference grows."""
    low, high = (wins - losses) / n, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if score_z(wins, losses, n, middle) > -z else (low, middle)
    return high
