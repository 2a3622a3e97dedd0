"""Drift of a member: are its recent errors larger than those of the validation period?

Errors are first made one number a target time (the mean over leads and series, each series in units of
its own validation error) and then the mean of blocks of one season, so that neither the season nor the
likeness of neighbouring hours counts as evidence. Where nothing has changed, blocks are taken to be
exchangeable but for what likeness of neighbouring blocks is left, by which the difference is shrunk; then
the permutation test of the difference of means (Pitman 1937), one-sided, asks for no distribution. Over
members the p-values are Holm's (1979), so that `level` bounds the chance of any false alarm in one look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
#: Fewer blocks of validation say too little of what is usual.
LEAST_REFERENCE = 7
_DRAWS = 9999
_SEED = 20090  # fixed: the same tables give the same verdict
_ROUNDING = 1e-12  # sums of the same blocks in another order are equal
_MOST_ALIKE = 0.9
_FULL = 0.5  # a block with a smaller part of its steps is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRule:
    """What is compared."""

    validation_until: str
    step_s: float
    # Steps of a block.
    period: int
    # Newest blocks that count as recent.
    recent: int
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLook:
    """What a look at one member came to; `p` is None where there is too little truth."""

    # Newest target time with a truth, ISO 8601.
    newest: str
    # Recent errors over those of validation.
    ratio: float | None = None
    p: float | None = None
    adjusted_p: float | None = None
    drifted: bool = False


def look_for_drift(
    predictions: Path, truth: Path, rule: DriftRule, *, since: Mapping[str, str]
) -> dict[str, DriftLook]:
    """Hold members of a predictions table against their validation errors.

    Args:
        predictions: The table.
        truth: What came true.
        rule: What is compared.
        since: The members, each with the target time up to which its errors are left out (it was trained
            anew for these); empty: none are. Until `recent` blocks have come after it, there is no verdict.

    Raises:
        TableError: One of the tables cannot be read.
    """
    from modelyard.results.tables import read_predictions, read_truth  # pandas loads here, not before

    errors = _errors(read_predictions(predictions), read_truth(truth), rule)
    members = {name: _blocks(errors[name], rule, after) for name, after in since.items() if name in errors}
    return judged(members, rule.level, Lots())


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Block means of one member's errors."""

    newest: str
    reference: Floats
    recent: Floats
    # How many recent blocks there must be.
    wanted: int


def judged(members: Mapping[str, Blocks], level: float, lots: Lots) -> dict[str, DriftLook]:
    """The verdict over members together."""
    enough = {
        name: blocks
        for name, blocks in members.items()
        if len(blocks.recent) >= blocks.wanted and len(blocks.reference) >= LEAST_REFERENCE
    }
    p = {name: permutation_p(blocks.recent, blocks.reference, lots) for name, blocks in enough.items()}
    adjusted = holm(p)
    looks = {}
    for name, blocks in members.items():
        told: dict[str, Any] = {}
        if name in p:
            usual = float(blocks.reference.mean())
            told = {
                "ratio": float(blocks.recent.mean()) / usual if usual > 0.0 else None,
                "p": p[name],
                "adjusted_p": adjusted[name],
                "drifted": adjusted[name] <= level,
            }
        looks[name] = DriftLook(newest=blocks.newest, **told)
    return looks


class Lots:
    """Which blocks are drawn by lot, made once for each number of blocks."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], Floats] = {}

    def of(self, chosen: int, total: int) -> Floats:
        """Draws of so many out of all, `(draws, total)`, 1 where a block is drawn."""
        if (chosen, total) not in self._made:
            order = np.random.default_rng(_SEED).random((_DRAWS, total)).argsort(axis=1)
            self._made[chosen, total] = np.asarray(order < chosen, dtype=np.float64)
        return self._made[chosen, total]


def permutation_p(recent: Floats, reference: Floats, lots: Lots) -> float:
    """The chance of so high a mean of `recent` if its blocks had been drawn from all by lot; never 0."""
    pool = np.concatenate([recent, reference])
    sums = lots.of(len(recent), len(pool)) @ pool
    usual = len(recent) * pool.mean()
    excess = (recent.sum() - usual) * _shrinkage(reference)
    as_high = np.count_nonzero(sums >= (usual + excess) * (1.0 - _ROUNDING))
    return float((1 + as_high) / (_DRAWS + 1))


def _shrinkage(reference: Floats) -> float:
    """By how much neighbouring blocks that are alike spread the means of blocks less than it seems.

    sqrt((1 - r) / (1 + r)) for an autoregression with coefficient r, estimated from consecutive blocks of
    validation, with the bias of a short series taken off (Kendall 1954) and never below 0.
    """
    rest = reference - reference.mean()
    size, spread = len(rest), float(rest @ rest)
    r = float(rest[1:] @ rest[:-1]) / spread if spread > 0.0 else 0.0
    r = min(max((size * r + 1.0) / (size - 3.0), 0.0), _MOST_ALIKE)
    return float(np.sqrt((1.0 - r) / (1.0 + r)))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down p-values."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p, key=lambda each: p[each])):
        highest = max(highest, min(1.0, (len(p) - place) * p[name]))
        adjusted[name] = highest
    return adjusted


def _errors(predictions: pd.DataFrame, truth: pd.DataFrame, rule: DriftRule) -> dict[str, pd.Series[float]]:
    """By member: the mean error of each target time, in units of validation error."""
    rows = predictions.merge(truth, on=["series", "target_time"]).dropna(subset=["y", "y_pred"])
    rows["error"] = (rows["y"] - rows["y_pred"]).abs()
    known = rows["target_time"] <= _moment(rule.validation_until)
    usual = rows[known].groupby(["model", "series"])["error"].mean().rename("usual")
    rows = rows.join(usual, on=["model", "series"])
    rows = rows[rows["usual"] > 0.0]
    means = (rows["error"] / rows["usual"]).groupby([rows["model"], rows["target_time"]]).mean()
    return {str(name): means[name] for name in means.index.get_level_values(0).unique()}


def _blocks(errors: pd.Series[float], rule: DriftRule, after: str) -> Blocks:
    until, newest = _moment(rule.validation_until), errors.index.max()
    reference = _means(errors[errors.index <= until], until, rule)
    fresh = errors[errors.index > max(until, _moment(after or rule.validation_until))]
    recent = _means(fresh, newest, rule)[: rule.recent]
    return Blocks(newest=newest.isoformat(), reference=reference, recent=recent, wanted=rule.recent)


def _means(errors: pd.Series[float], end: pd.Timestamp, rule: DriftRule) -> Floats:
    """Means of the blocks that end at `end`, the newest first, those with too few steps left out."""
    import pandas as pd

    ago_s = (pd.DatetimeIndex(errors.index) - end).total_seconds() * -1.0
    grouped = errors.groupby(np.floor(np.asarray(ago_s) / (rule.period * rule.step_s)).astype(int))
    full = grouped.count() >= _FULL * rule.period
    return np.asarray(grouped.mean()[full], dtype=np.float64)


def _moment(text: str) -> pd.Timestamp:
    import pandas as pd

    return pd.Timestamp(datetime.fromisoformat(text))
