"""What paired scores show: difference, bounds and p-value by the method that a report names.

Written from the definitions, apart from the code that issues certificates. Item i has the scores b and c
(means over samples), d = c - b, the weight w and a cluster; delta = sum w d / sum w. The claim is that
delta is above -margin; each bound is one-sided at level 1 - alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from modelyard.verify.dossier import Dossier, Pair

#: Methods that count wins and losses of items which are independent and alike.
COUNTED = ("mcnemar_exact", "sign", "tango_score")
_NOTHING = 1e-12
_TIED = 1e-9
_HALVINGS = 60

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A difference with its bounds; the p-value lies between two where draws of a bootstrap tie."""

    delta: float
    low: float
    high: float
    p: tuple[float, float]


def estimate(pairs: Sequence[Pair], design: Mapping[str, Any]) -> Estimate:
    """The estimate of a design's method, at its `alpha_final`."""
    alpha, margin = float(design["alpha_final"]), float(design["margin"])
    if not pairs:
        return Estimate(delta=0.0, low=-1.0, high=1.0, p=(1.0, 1.0))
    if design["method"] in COUNTED:
        return _counted(design["method"], pairs, margin, alpha)
    moved, weights = cluster_sums(pairs)
    if design["method"] == "cluster_bootstrap":
        return _bootstrapped(moved, weights, margin, alpha, (int(design["bootstrap"]), int(design["seed"])))
    return _robust(moved, weights, margin, alpha)


def method_fault(dossier: Dossier, design: Mapping[str, Any]) -> str:
    """Why a design's method must not be used for these items; empty where it may."""
    method, pack = design["method"], dossier.pack
    if method not in (*COUNTED, "cluster_robust", "cluster_bootstrap"):
        return "is none that decides"
    if method not in COUNTED:
        return ""
    if method == "tango_score" and not design["margin"] > 0:
        return "needs a margin"
    if method != "tango_score" and design["margin"] != 0:
        return "knows no margin"
    if design["samples"] != 1:
        return "needs one sample of each item"
    if len({item.cluster for item in pack}) != len(pack):
        return "takes items for independent, but some share a cluster"
    if len({item.weight for item in pack}) > 1:
        return "takes items for alike, but their weights differ"
    if any(difference(pair) not in (-1.0, 0.0, 1.0) for pair in dossier.pairs):
        return "counts wins and losses, but a difference is neither -1, 0 nor 1"
    return ""


def difference(pair: Pair) -> float:
    """Candidate minus baseline, of the means over samples."""
    baseline, candidate = pair.means
    return candidate - baseline


def cluster_sums(pairs: Sequence[Pair]) -> tuple[Floats, Floats]:
    """Of each cluster, in the order of their first items: the sum of w d, and of w."""
    sums: dict[str, list[float]] = {}
    for pair in pairs:
        known = sums.setdefault(pair.item.cluster, [0.0, 0.0])
        known[0] += pair.item.weight * difference(pair)
        known[1] += pair.item.weight
    moved, weights = np.array(list(sums.values()), np.float64).T
    return moved, weights


def two_sided_mcnemar(pairs: Sequence[Pair]) -> float:
    """The exact McNemar test of passes (mean scores of 1/2 and above)."""
    wins, losses = _discordant([(b >= 0.5, c >= 0.5) for b, c in (pair.means for pair in pairs)])
    return min(1.0, 2 * float(special.bdtr(min(wins, losses), wins + losses, 0.5)))


def share_bounds(passed: int, n: int, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds of a share, each one-sided at level 1 - alpha."""
    low = float(special.betaincinv(passed, n - passed + 1, alpha)) if passed else 0.0
    high = float(special.betaincinv(passed + 1, n - passed, 1 - alpha)) if passed < n else 1.0
    return low, high


def _counted(method: str, pairs: Sequence[Pair], margin: float, alpha: float) -> Estimate:
    wins, losses = _discordant([pair.means for pair in pairs])
    n, moved = len(pairs), wins + losses
    delta = (wins - losses) / n
    if method == "tango_score":
        p = float(special.ndtr(-_tango(wins, losses, n, -margin)))
        return Estimate(delta=delta, **_tango_bounds(wins, losses, n, alpha), p=(p, p))
    if not moved:
        most = 1 - alpha ** (1 / n)
        return Estimate(delta=delta, low=-most, high=most, p=(1.0, 1.0))
    p = float(special.bdtr(losses, moved, 0.5))  # as likely as so few losses
    low, high = ((2 * bound - 1) * moved / n for bound in share_bounds(wins, moved, alpha))
    return Estimate(delta=delta, low=low, high=high, p=(p, p))


def _discordant(scores: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """How often the candidate is above the baseline, and below it."""
    return sum(c > b for b, c in scores), sum(c < b for b, c in scores)


def _tango(wins: int, losses: int, n: int, difference: float) -> float:
    """Tango's (1998) score statistic against a true difference; 0 where its variance vanishes."""
    a = 2.0 * n
    b = (2 * n - wins + losses) * difference - wins - losses
    c = -losses * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    share = min(max(share, -difference, 0.0), 1.0)
    variance = 2 * share + difference * (1 - difference)
    return 0.0 if variance <= _NOTHING else (wins - losses - n * difference) / math.sqrt(n * variance)


def _tango_bounds(wins: int, losses: int, n: int, alpha: float) -> dict[str, float]:
    """The differences at which the statistic reaches the quantiles of alpha."""
    z, delta = -float(special.ndtri(alpha)), (wins - losses) / n

    def bound(end: float, quantile: float) -> float:
        inside, outside = delta, end
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            if abs(_tango(wins, losses, n, middle)) < quantile:
                inside = middle
            else:
                outside = middle
        return outside

    return {"low": bound(-1.0, z), "high": bound(1.0, z)}


def _robust(moved: Floats, weights: Floats, margin: float, alpha: float) -> Estimate:
    """Cluster-robust t with G - 1 degrees of freedom; never more certain than a sign test of clusters."""
    count, whole = len(weights), weights.sum()
    delta = float(moved.sum() / whole)
    unvaried = _without_spread(moved, weights, margin, alpha)
    if unvaried is not None:
        return unvaried
    floor = margin * (1 - margin) * float((weights**2).sum()) / whole**2
    error = math.sqrt(max(_variance(moved, weights), floor))
    p = float(special.stdtr(count - 1, -(delta + margin) / error))
    half = -float(special.stdtrit(count - 1, alpha)) * error
    low, high = max(-1.0, delta - half), min(1.0, delta + half)
    if margin == 0:
        least = 2.0 ** -int(np.count_nonzero(moved))
        p = max(p, least)
        if least > alpha:
            low, high = min(low, 0.0), max(high, 0.0)
    return Estimate(delta=delta, low=low, high=high, p=(p, p))


def _variance(moved: Floats, weights: Floats) -> float:
    count, whole = len(weights), weights.sum()
    residuals = moved - moved.sum() / whole * weights
    return float(count / (count - 1) * (residuals @ residuals) / whole**2)


def _without_spread(moved: Floats, weights: Floats, margin: float, alpha: float) -> Estimate | None:
    """Fewer than two clusters, or clusters that all show the same; None where something varies."""
    count, whole = len(weights), float(weights.sum())
    delta = float(moved.sum()) / whole
    if count < 2:
        return Estimate(delta=delta, low=-1.0, high=1.0, p=(1.0, 1.0))
    if float(np.abs(moved - delta * weights).max()) > _NOTHING * whole:
        return None
    p = min(1.0, ((1 - margin) / (1 + delta)) ** count) if delta > -margin else 1.0
    rest = alpha ** (1 / count)
    return Estimate(delta=delta, low=(1 + delta) * rest - 1, high=1 - (1 - delta) * rest, p=(p, p))


def _bootstrapped(
    moved: Floats, weights: Floats, margin: float, alpha: float, drawing: tuple[int, int]
) -> Estimate:
    """The studentised bootstrap over clusters; a draw without spread counts against claim and bounds."""
    unvaried = _without_spread(moved, weights, margin, alpha)
    if unvaried is not None:
        return unvaried
    draws, seed = drawing
    delta, error = float(moved.sum() / weights.sum()), math.sqrt(_variance(moved, weights))
    above, below = np.empty(draws), np.empty(draws)
    rng, count = np.random.default_rng(seed), len(weights)
    for draw in range(draws):
        chosen = rng.integers(0, count, size=count)
        spread = _variance(moved[chosen], weights[chosen])
        if spread <= _NOTHING * error**2:
            above[draw], below[draw] = math.inf, -math.inf
        else:
            mean = moved[chosen].sum() / weights[chosen].sum()
            above[draw] = below[draw] = (mean - delta) / math.sqrt(spread)
    reached = (delta + margin) / error
    tied = _TIED * max(1.0, abs(reached))
    p = tuple(float(1 + (above >= reached + slack).sum()) / (draws + 1) for slack in (tied, -tied))
    rank = int(alpha * (draws + 1) + 1e-9)
    low = delta - float(np.sort(above)[draws - rank]) * error if rank else -1.0
    high = delta - float(np.sort(below)[rank - 1]) * error if rank else 1.0
    return Estimate(delta=delta, low=max(-1.0, low), high=min(1.0, high), p=(p[0], p[1]))
