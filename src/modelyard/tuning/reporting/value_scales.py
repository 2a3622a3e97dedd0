"""Scales for the values of a study's objectives: what is shown of them, and what is drawn at the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from modelyard.reports.panels import Scale
from modelyard.tuning.reporting.insights import counted, standing
from modelyard.tuning.trial import Trial, TrialState
from modelyard.tuning.view import StudyView

#: An axis of values is logarithmic where all are above zero and span so much.
_WIDE = 30.0
#: Values that are farther from the best than so many times what three quarters are lie at the edge.
_FAR = 4.0
#: How far below all values failures are marked, as a part of the scale.
_FOOT = 0.14


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueScale:
    """The axis of an objective: its scale, and where values beyond it are drawn."""

    scale: Scale
    sign: float
    edge: float

    def at(self, value: float) -> float:
        """The value, or the edge."""
        return self.sign * min(self.sign * value, self.sign * self.edge)

    def bad_end(self) -> float:
        """Where the worst value is drawn."""
        end = self.scale.high if self.sign > 0 else self.scale.low
        return 0.0 if end is None else end

    def foot(self) -> float:
        """A height below all values, where failures are marked."""
        low, high = self.scale.low, self.scale.high
        if low is None or high is None:
            return 0.0
        if self.scale.log:
            return float(low / max(1.2, (high / low) ** _FOOT))
        return low - (_FOOT * (high - low) or 0.5)


def objective_scale(view: StudyView, place: int, values: Sequence[float]) -> Scale:
    """The scale of one objective over these values, and which of its ends is the good one."""
    objective = view.objectives[place]
    better = "less" if objective.direction == "minimize" else "more"
    log = bool(values) and min(values) > 0 and max(values) > _WIDE * min(values)
    return Scale(label=f"{objective.metric} ({better} is better)", log=log,
                 low=min(values, default=None), high=max(values, default=None))  # fmt: skip


def values_of(view: StudyView, *, stopped: bool = True) -> ValueScale:
    """The axis of the first objective over complete trials, and over the last values of stopped ones."""
    full = [trial.value for trial in counted(view) if trial.value is not None]
    known = (standing(each.trial) for each in view.trials if each.trial.state is not TrialState.FAILED)
    return _fenced(view, full, [value for value in known if value is not None] if stopped else full)


def values_of_curves(view: StudyView, trials: Sequence[Trial]) -> ValueScale:
    """The axis of the first objective over all that trials have reported."""
    every = [value for trial in trials for value in trial.curve.values()]
    return _fenced(view, every, every, what="values")


def _fenced(
    view: StudyView, usual: Sequence[float], drawn: Sequence[float], *, what: str = "trials"
) -> ValueScale:
    """An axis that shows all of what is usual, but not everything at the price of that."""
    sign = view.objectives[0].sign
    scale = objective_scale(view, 0, drawn)
    plain = ValueScale(scale=scale, edge=sign * math.inf, sign=sign)
    if scale.low is None or scale.high is None or scale.log:
        return plain
    best = min(sign * value for value in drawn)
    away = np.array([sign * value - best for value in usual or drawn])
    fence = _FAR * float(np.quantile(away, 0.75))
    near = [sign * value - best for value in drawn if sign * value - best <= fence]
    beyond = len(drawn) - len(near)
    if max(near) <= 0 or not beyond:
        return plain
    edge = sign * (best + 1.1 * max(near))
    low, high = sorted((sign * best, edge))
    told = f"{beyond} {what if beyond > 1 else what[:-1]} beyond the scale drawn at its end"
    return ValueScale(
        scale=replace(scale, label=f"{scale.label}; {told}", low=low, high=high), edge=edge, sign=sign
    )
