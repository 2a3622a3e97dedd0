"""Mutants: sudden changes, foreseen by offline forecasts or observed in the truth.

A mutant is *foreseen* when the offline forecasts jump from one step to the next by more than
`epsilon` of the series' level; it is known when those forecasts are. It is *observed* when the
truth jumps more than its season does: the step from the last value, less the median step at the same
place of the last five seasons (which one odd day cannot move), standardised by its median on
validation, lies beyond a conformal quantile; it is known when the truth is. Both limits are split-conformal
1 - alpha quantiles (Vovk, Gammerman & Shafer 2005; Lei et al. 2018) of the validation period, and
frozen. A shock at m makes the rows with m <= t < m + D + h dirty: for h rows the forecast is older
than the shock, for D more its inputs hold it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.lessons import Bools, Floats
from modelyard.ensemble.runtime.drift import Drift

ALPHA = 0.02  # the share of ordinary steps that a limit may take for mutants; more where n supports less
SEASONS = 5  # how many seasons tell what step is usual
_BACK = range(1, SEASONS + 1)
_SLACK = 1.0 + 1e-9  # a limit is one of the values it was taken from: that one must not exceed it


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The frozen rule of one series."""

    level: float  # mean |y| on validation, in units of y
    jump: float  # a foreseen mutant: relative jump above it
    jump_kind: str  # "given" | "conformal" | "none", where no offline forecast taught one
    jump_rows: int  # n behind the quantile
    period: int  # season in steps; 1: none
    scale: float  # median |surprise| on validation, in units of y
    shock: float  # an observed mutant: standardised residual above it
    shock_rows: int
    alpha: float
    drift: str = "none"  # a detector that observes mutants too, one of `drift.DETECTORS`

    def foreseen(self, jumps: Floats) -> Bools:
        """Whether relative jumps of the offline forecasts are mutants."""
        return np.asarray(jumps > self.jump * _SLACK)

    def observed(self, surprises: Floats | float) -> Bools:
        """Whether steps beyond the seasonal ones, NaN where unknown, are mutants."""
        return np.asarray(np.abs(surprises) > self.shock * self.scale * _SLACK)


def conformal_quantile(values: Floats, alpha: float) -> float:
    """The split-conformal quantile: exceeded by a fresh exchangeable value with at most alpha.

    It is the ceil((n + 1)(1 - alpha))-th smallest of the finite values, infinite when n is too small
    to support alpha.
    """
    known = np.sort(values[np.isfinite(values)])
    rank = math.ceil((len(known) + 1) * (1.0 - alpha) - 1e-9)
    return float(known[rank - 1]) if rank <= len(known) else math.inf


def usual_jump(limits: Sequence[Limits]) -> float | None:
    """The median of the limits that foresee mutants; None where no series has one."""
    known = [own.jump for own in limits if math.isfinite(own.jump)]
    return float(np.median(known)) if known else None


def offline_jumps(forecast_hk: Floats, before_k: Floats, level: float) -> Floats:
    """Mean relative jump of the offline forecasts into each lead.

    Args:
        forecast_hk: Offline forecasts made at one origin for leads 1..H, `(..., H, experts)`.
        before_k: Their lead-1 forecasts for the origin itself, `(..., experts)`.
        level: The series' usual size.

    Returns:
        `(..., H)`; 0 where no expert served both steps.
    """
    path = np.concatenate([before_k[..., None, :], forecast_hk], axis=-2)
    step = np.abs(path[..., 1:, :] - path[..., :-1, :])
    known = np.isfinite(step)
    total = np.where(known, step, 0.0).sum(axis=-1)
    return np.asarray(total / (level * np.maximum(known.sum(axis=-1), 1)))


def fit_limits(
    truth_t: Floats, forecast_thk: Floats, *, epsilon: float | None, period: int = 1, alpha: float = ALPHA
) -> Limits:
    """Estimate the limits of one series from its validation period.

    Args:
        truth_t: Observed values on a regular grid, NaN where missing.
        forecast_thk: The offline experts' forecasts, `(T, H, experts)`, row = target.
        epsilon: The user's `mutant_epsilon`; None estimates it.
        period: Season in steps.
        alpha: What share of ordinary steps may exceed a limit.

    Raises:
        PolicyError: Fewer than two neighbouring observations.
    """
    steps = np.abs(surprises(truth_t, period))
    steps = steps[np.isfinite(steps)]
    if not len(steps):
        raise PolicyError("cannot fit limits: no two neighbouring observations before validation_until")
    level = float(np.nanmean(np.abs(truth_t))) or 1.0
    scale = float(np.median(steps)) or float(np.mean(steps)) or 1.0
    jumps = _path_jumps(forecast_thk, level)
    jump, kind = epsilon, "given"
    alpha = max(alpha, 1.0 / (min(len(steps), len(jumps) or len(steps)) + 1))
    if jump is None:
        jump, kind = conformal_quantile(jumps, alpha), "conformal" if len(jumps) else "none"
    return Limits(
        level=level,
        jump=jump,
        jump_kind=kind,
        jump_rows=len(jumps),
        period=period,
        scale=scale,
        shock=conformal_quantile(steps / scale, alpha),
        shock_rows=len(steps),
        alpha=alpha,
    )


def shocks(truth_t: Floats, limits: Limits) -> Bools:
    """Which steps are observed mutants, by the truth alone, `(T,)`."""
    surprise_t = surprises(truth_t, limits.period)
    found = limits.observed(surprise_t)
    if limits.drift != "none":
        detector = Drift(limits.drift, limits.scale)
        found |= np.array([detector.seen(surprise) for surprise in surprise_t.tolist()], dtype=bool)
    return found


def surprises(truth_t: Floats, period: int) -> Floats:
    """How much more each step was than the season's, `(T,)`; NaN where a neighbour is missing."""
    steps = np.diff(truth_t, prepend=np.nan)
    past = [
        np.concatenate([np.full(min(k * period, len(steps)), np.nan), steps[: -k * period]]) for k in _BACK
    ]
    usual = [_usual(column) for column in zip(*past, strict=True)] if period > 1 else 0.0
    return np.asarray(steps - usual)


class Season:
    """The newest values of a series, for the same surprises one step at a time."""

    def __init__(self, period: int) -> None:
        self.recent = np.full(SEASONS * period + 1, np.nan)  # by step modulo its length
        self._period = period

    def surprise(self, now: int, truth: float) -> float:
        """How much more the step to `truth` is than the season's; takes the value in."""
        recent, size = self.recent, len(self.recent)
        step = truth - recent[(now - 1) % size]
        before = [(now - k * self._period) % size for k in _BACK] if self._period > 1 else []
        usual = _usual([recent[at] - recent[at - 1] for at in before])
        recent[now % size] = truth
        return float(step - usual)


def _usual(steps: Sequence[float]) -> float:
    known = [step for step in steps if step == step]
    return statistics.median(known) if known else 0.0


def dirty_rows(shock_t: Bools, *, leads: int, dirty_interval: int) -> Bools:
    """Rows `(t, h)` within the dirty interval of a shock: m <= t < m + D + h, `(T, H)`."""
    steps = np.arange(len(shock_t))
    last = np.maximum.accumulate(np.where(shock_t, steps, -(10**9)))
    since = steps - last
    return np.asarray(since[:, None] < dirty_interval + np.arange(1, leads + 1)[None, :])


def _path_jumps(forecast_thk: Floats, level: float) -> Floats:
    """Every lead-1 jump of the offline forecasts: one value an origin, as each target counts once."""
    if forecast_thk.shape[2] == 0 or forecast_thk.shape[0] < 2:
        return np.empty(0)
    before, after = forecast_thk[:-1, 0, :], forecast_thk[1:, 0, :]
    served = np.isfinite(before - after).any(axis=-1)
    return offline_jumps(after[:, None, :], before, level)[served, 0]
