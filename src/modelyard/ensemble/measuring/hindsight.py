"""What one could have had, knowing the truth: the best convex mixture, and the best switching sequence.

Both are bounds to look up to, not forecasts. The convex weights are those of the least absolute error,
found by reweighted least squares on the simplex (Schlossmacher 1973); what is reported is the error of
the weights found, so it is reached. The switching sequence is exact, by dynamic programming (Herbster &
Warmuth 1998, section 2): one expert at each row, changed at most `SWITCHES` times.
"""

from __future__ import annotations

import numpy as np

from modelyard.ensemble.combining.fitted import simplex_fit
from modelyard.ensemble.combining.lessons import Floats

SWITCHES = 10  # changes of expert that the best sequence may make
_ROUNDS = 30
_LEAST = 1e-6  # of the usual error: below it a row weighs no more


def best_convex(forecast_nk: Floats, truth_n: Floats) -> Floats:
    """The forecasts of the best convex mixture in hindsight, `(n,)`.

    Args:
        forecast_nk: NaN where an expert sleeps; the weights are shared among the others then.
        truth_n: Finite.
    """
    served = np.isfinite(forecast_nk)
    full = served.all(axis=1)
    error = np.where(served, forecast_nk - truth_n[:, None], 0.0)
    use = error[full] if full.sum() > 1 else error
    best_loss, best = np.inf, np.full(forecast_nk.shape[1], 1.0 / forecast_nk.shape[1])
    floor = _LEAST * float(np.abs(use).mean()) or 1.0
    pull, known = np.ones(len(use)), np.ones(use.shape[1], dtype=bool)
    for _ in range(_ROUNDS):
        weights = simplex_fit((use * pull[:, None]).T @ use, known)
        left = np.abs(use @ weights)
        if left.mean() < best_loss:
            best_loss, best = float(left.mean()), weights
        pull = 1.0 / np.maximum(left, floor)
        pull /= pull.max()
    return _mixed(forecast_nk, served, best)


def best_switching(forecast_nk: Floats, truth_n: Floats, switches: int = SWITCHES) -> Floats:
    """The forecasts of the best sequence of single experts with at most so many changes, `(n,)`.

    Args:
        forecast_nk: NaN where an expert sleeps; every row has one who is awake.
        truth_n: Finite.
        switches: The changes allowed; more where sleepers force them.
    """
    n, experts = forecast_nk.shape
    loss = np.abs(forecast_nk - truth_n[:, None])
    loss = np.where(np.isfinite(loss), loss, 1e6 * (np.nanmax(loss) + 1.0))
    cost = np.broadcast_to(loss[0], (switches + 1, experts)).copy()
    came = np.zeros((n, switches + 1, experts), dtype=np.int32)  # the expert before, at each row
    stay = np.arange(experts, dtype=np.int32)
    for t in range(1, n):
        best = cost.argmin(axis=1)
        moved = np.full_like(cost, np.inf)
        moved[1:] = cost[np.arange(switches), best[:-1]][:, None]
        move = moved < cost
        came[t] = np.where(move, np.concatenate([[0], best[:-1]])[:, None], stay)
        cost = np.where(move, moved, cost) + loss[t]
    return _traced(forecast_nk, came, cost)


def _traced(
    forecast_nk: Floats, came: np.ndarray[tuple[int, ...], np.dtype[np.int32]], cost: Floats
) -> Floats:
    """Follow the cheapest end back; a change of expert uses up one switch."""
    level = len(cost) - 1
    expert = int(cost[level].argmin())
    out = np.empty(len(came))
    for t in range(len(came) - 1, -1, -1):
        out[t] = forecast_nk[t, expert]
        before = int(came[t, level, expert])
        if t and before != expert:
            level -= 1
        expert = before if t else expert
    return out


def _mixed(
    forecast_nk: Floats, served: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], weights: Floats
) -> Floats:
    share = served * weights
    total = share.sum(axis=1)
    alone = served / np.maximum(served.sum(axis=1, keepdims=True), 1)
    share = np.where(total[:, None] > 0, share / np.where(total > 0, total, 1.0)[:, None], alone)
    return np.asarray((np.where(served, forecast_nk, 0.0) * share).sum(axis=1))
