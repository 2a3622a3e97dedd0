"""Scores of forecasts: discounted errors, their uncertainty, and who cannot be told from the best.

Pure functions of error arrays in time order. They do not know which rows are fair to compare: that
is the aligned matrix's matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from modelyard.ensemble.combining.lessons import Bools, Floats

_DRAWS = 400
_LONGEST = 2000  # rows that a bootstrap draws from: the weights of older ones are negligible


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A discounted mean absolute error."""

    mean: float
    n: int  # rows behind it
    n_eff: float  # rows it remembers: the sum of the weights
    low: float  # 95 % moving-block bootstrap interval
    high: float


def ewma(errors: Floats, beta: float) -> float:
    """The compatible ELPA score: `s_1 = |e_1|`, `s_t = beta s + (1 - beta) |e_t|`.

    Args:
        errors: In time order, finite, at least one.
        beta: Memory in (0, 1); at 1, where the recursion would never leave its first error, the mean.
    """
    sizes = np.abs(errors)
    if beta == 1.0:
        return float(sizes.mean())
    powers = beta ** np.arange(len(sizes) - 1, -1, -1.0)
    weights = powers * (1.0 - beta)
    weights[0] = powers[0]
    return float(weights @ sizes)


def discounted_score(errors: Floats, beta: float, *, seed: int) -> Score:
    """Mean absolute error with weights `beta^age`, corrected for the start: divided by their sum.

    Args:
        errors: In time order, finite, at least one row.
        beta: Memory in (0, 1]; 1 is the plain mean.
        seed: Of the bootstrap.
    """
    sizes = np.abs(errors)
    weights = beta ** np.arange(len(sizes) - 1, -1, -1.0)
    low, high = block_bootstrap(sizes, weights, rng=np.random.default_rng(seed))
    return Score(
        mean=float(weights @ sizes / weights.sum()),
        n=len(sizes),
        n_eff=float(weights.sum()),
        low=low,
        high=high,
    )


def block_bootstrap(
    values: Floats, weights: Floats, *, rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a weighted mean by the moving-block bootstrap (Künsch 1989).

    Blocks of `m^(1/3)` neighbouring values keep their dependence; m is the number of values that the
    weights amount to, `(sum w)^2 / sum w^2`. A block is drawn with the weight at its middle, so that
    what the weighted mean forgets is not drawn either. Only the newest 2000 values are used.
    """
    values, weights = values[-_LONGEST:], weights[-_LONGEST:]
    n, amount = len(values), effective_rows(weights)
    block = min(n, max(1, math.ceil(amount ** (1 / 3))))
    middle = weights[block // 2 : block // 2 + n - block + 1]
    number = max(1, round(amount / block))
    starts = rng.choice(n - block + 1, size=(_DRAWS, number), p=middle / middle.sum())
    means = values[starts[:, :, None] + np.arange(block)].mean(axis=(1, 2))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def effective_rows(weights: Floats) -> float:
    """The number of equally weighted values with the same variance of the mean (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights @ weights))


def seasonal_scale(truth: Floats, period: int) -> float:
    """The MASE denominator: mean |y_t - y_(t-period)| (Hyndman & Koehler 2006); NaN when unknown or 0.

    Args:
        truth: On a regular grid, NaN where missing.
        period: Season in steps.
    """
    steps = np.abs(truth[period:] - truth[:-period])
    steps = steps[np.isfinite(steps)]
    return float(steps.mean()) if len(steps) and steps.any() else math.nan


def diebold_mariano(loss_a: Floats, loss_b: Floats, lead: int) -> tuple[float, float]:
    """Test of equal expected loss, with the small-sample correction for long leads.

    Diebold & Mariano (1995); Harvey, Leybourne & Newbold (1997), eqs. 5-9: the variance holds the
    autocovariances up to lead - 1, the statistic is shrunk and held against Student's t.

    Args:
        loss_a: Losses on the same rows, in time order, `(n,)`.
        loss_b: The other's.
        lead: Steps ahead of the forecasts, at least 1.

    Returns:
        The statistic (positive: b is better) and the two-sided p-value; (0, 1) for equal losses or
        fewer rows than can be tested.
    """
    gap = loss_a - loss_b
    n = len(gap)
    if n < max(3, lead + 1) or not gap.any():
        return 0.0, 1.0
    centred = gap - gap.mean()
    variance = float(centred @ centred) / n
    for lag in range(1, lead):
        variance += 2.0 * float(centred[lag:] @ centred[:-lag]) / n
    if variance <= 0.0:  # the truncated sum may be negative: Bartlett's weights cannot be
        variance = _bartlett(centred, lead)
    if variance <= 0.0:  # the same gap in every row
        return math.copysign(math.inf, gap.mean()), 0.0
    shrink = math.sqrt(max(n + 1 - 2 * lead + lead * (lead - 1) / n, 0.0) / n)
    statistic = shrink * float(gap.mean()) / math.sqrt(variance / n)
    return statistic, float(2.0 * stats.t.sf(abs(statistic), n - 1))


def tie_set(
    loss_tk: Floats, names: Sequence[str], *, best: str, beta: float, lead: int, alpha: float = 0.05
) -> tuple[str, ...]:
    """The best expert, and all that a test cannot tell to be worse.

    The test runs on the newest rows that the scores' memory amounts to, `(1 + beta) / (1 - beta)`, yet
    at least 30 and ten times the lead.

    Args:
        loss_tk: Losses on the rows that all serve, in time order, `(n, experts)`, finite.
        names: Of the experts.
        best: The one with the least score.
        beta: Memory of the scores.
        lead: Steps ahead.
        alpha: Level of each Diebold-Mariano test.
    """
    memory = (1.0 + beta) / (1.0 - beta) if beta < 1.0 else math.inf
    rows = max(memory, 30, 10 * lead)
    newest = loss_tk if rows >= len(loss_tk) else loss_tk[-math.ceil(rows) :]
    against = newest[:, names.index(best)]
    tied = [best]
    for k, name in enumerate(names):
        statistic, p_value = diebold_mariano(newest[:, k], against, lead)
        if name != best and (p_value >= alpha or statistic < 0.0):
            tied.append(name)
    return tuple(tied)


def mean_by_target(error_thk: Floats, scored_th: Bools) -> Floats:
    """Mean |e| over the leads of every target, `(T, K)`; NaN where no row is served and scored."""
    use = np.isfinite(error_thk) & scored_th[..., None]
    rows = use.sum(axis=1)
    total = np.where(use, np.abs(error_thk), 0.0).sum(axis=1)
    return np.where(rows > 0, total / np.maximum(rows, 1), np.nan)


def _bartlett(centred: Floats, lead: int) -> float:
    n = len(centred)
    variance = float(centred @ centred) / n
    for lag in range(1, lead):
        variance += 2.0 * (1.0 - lag / lead) * float(centred[lag:] @ centred[:-lag]) / n
    return variance
