"""The scorecard: how every expert did on the validation period of a series, on the same rows.

Rows in the dirty interval of an observed mutant are censored, for everybody, and counted. It does not
know aggregation rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.ensemble.combining.lessons import Bools, Floats
from modelyard.ensemble.measuring.scores import (
    discounted_score,
    ewma,
    mean_by_target,
    seasonal_scale,
    tie_set,
)
from modelyard.ensemble.policies.policy import finite
from modelyard.ensemble.runtime.matrix import SeriesMatrix
from modelyard.ensemble.runtime.mutants import Limits, dirty_rows, shocks

LEAST_SERVED = 0.95  # of the rows of the expert that serves most: below it nobody can be the best


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scorecard:
    """Errors of one series before the cut."""

    error_thk: Floats  # |e|, NaN where not served or not observed
    clean_th: Bools  # not censored
    beta: float
    scale: float  # MASE denominator, NaN when unknown

    @property
    def censored_share(self) -> float:
        """Of all rows (target, lead)."""
        return float(1.0 - self.clean_th.mean())

    def by_target(self, expert: int) -> tuple[Floats, int]:
        """Mean error over the leads of every scored target, and the rows censored.

        An expert without one clean row is scored on the dirty ones: some score beats none.
        """
        own = self.error_thk[..., expert : expert + 1]
        served = np.isfinite(own[..., 0])
        censored = int((served & ~self.clean_th).sum())
        values = mean_by_target(own, self.clean_th)[:, 0]
        values = values[np.isfinite(values)]
        if len(values) or not served.any():
            return values, censored
        values = mean_by_target(own, np.ones_like(self.clean_th))[:, 0]
        return values[np.isfinite(values)], 0

    def served_rows(self, expert: int) -> int:
        """Rows (target, lead) with a truth that the expert serves."""
        return int(np.isfinite(self.error_thk[..., expert]).sum())

    def compatible_scores(self, experts: Sequence[str], beta: float) -> dict[str, float]:
        """What the public skill would compute: its exponentially weighted error over all rows."""
        found = {}
        for k, name in enumerate(experts):
            errors = self.error_thk[..., k].ravel()
            errors = errors[np.isfinite(errors)]
            if len(errors):
                found[name] = ewma(errors, beta)
        return found


def make_card(
    part: SeriesMatrix, limits: Limits, *, beta: float, dirty_interval: int, period: int
) -> Scorecard:
    """Hold every forecast of the series against its truth."""
    leads = part.forecast_thk.shape[1]
    dirty = dirty_rows(shocks(part.truth_t, limits), leads=leads, dirty_interval=dirty_interval)
    return Scorecard(
        error_thk=np.abs(part.forecast_thk - part.truth_t[:, None, None]),
        clean_th=~dirty,
        beta=beta,
        scale=seasonal_scale(part.truth_t, period),
    )


def card_detail(cards: Sequence[Scorecard], expert: int, *, seed: int) -> dict[str, Any]:
    """The entry of one expert in `score_detail`: over several series, the mean of their scores."""
    scored, mases, censored_rows = [], [], 0
    for card in cards:
        values, censored = card.by_target(expert)
        censored_rows += censored
        if len(values):
            score = discounted_score(values, card.beta, seed=seed)
            scored.append(score)
            mases.append(score.mean / card.scale)
    return {
        "mean": float(np.mean([s.mean for s in scored])),
        "n": sum(s.n for s in scored),
        "n_eff": math.fsum(s.n_eff for s in scored),
        "ci95": [float(np.mean([s.low for s in scored])), float(np.mean([s.high for s in scored]))],
        "mase": finite(float(np.mean(mases))),
        "censored": censored_rows,
    }


def card_ties(
    cards: Sequence[Scorecard], columns: Sequence[int], names: Sequence[str], *, best: str | None, lead: int
) -> tuple[str, ...]:
    """The best of these experts and those that a Diebold-Mariano test cannot tell to be worse.

    Several series are tested one after the other in time, each in units of its own mean error, on the
    targets that all serve. Only experts that are `comparable` take part.
    """
    if best is None:
        return ()
    fit = comparable(cards, columns)
    names = [name for name, k in zip(names, columns, strict=True) if k in fit]
    losses = [mean_by_target(card.error_thk[..., fit], card.clean_th) for card in cards]
    loss_tk = np.concatenate([own / _usual(own) for own in losses])
    common = loss_tk[np.isfinite(loss_tk).all(axis=1)]
    if best not in names or not len(common):
        return (best,)
    return tie_set(common, names, best=best, beta=cards[0].beta, lead=lead)


def comparable(cards: Sequence[Scorecard], columns: Sequence[int]) -> list[int]:
    """Of these experts, those that may be called the best: who serves enough to be compared.

    That is 95 % of the rows of whoever serves most, over all series: one that serves only lead 1, where
    errors are small, has the least score but has not won.
    """
    rows = {k: sum(card.served_rows(k) for card in cards) for k in columns}
    most = max(rows.values(), default=0)
    return [k for k in columns if rows[k] >= LEAST_SERVED * most]


def best_of(scores: Mapping[str, float], names: Sequence[str]) -> str | None:
    """The name with the least score; None when there is none."""
    return min(names, key=lambda name: scores[name], default=None)


def inverse_weights(scores: Mapping[str, float]) -> dict[str, float]:
    """Weights proportional to 1/score; an expert without any error counts as 1e-12 of the worst."""
    worst = max(scores.values(), default=0.0)
    floor = 1e-12 * worst
    parts = {name: worst / max(score, floor) if floor > 0 else 1.0 for name, score in scores.items()}
    total = math.fsum(parts.values())
    return {name: part / total for name, part in parts.items()}


def _usual(loss_tk: Floats) -> float:
    known = loss_tk[np.isfinite(loss_tk)]
    return float(known.mean()) or 1.0 if len(known) else 1.0
