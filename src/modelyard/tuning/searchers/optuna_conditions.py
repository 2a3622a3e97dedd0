"""Optuna's Gaussian process in a conditional space: it is asked at moved places only (`conditions.py`).

Optuna lets a sampler choose how the best place is looked for (`GPSampler._optimize_acqf`) without promising
that it stays so; a test says whether it is still asked.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from optuna.samplers import GPSampler

from modelyard.tuning.dimensions import Coordinate, Dimension
from modelyard.tuning.searchers.conditions import Conditions
from modelyard.tuning.searchers.scaling import nearest, place

if TYPE_CHECKING:
    from torch import Tensor


class ConditionalSampler(GPSampler):
    """Optuna's sampler, whose model is asked with all that does not count at its default."""

    def __init__(self, conditions: Conditions, *, seed: int) -> None:
        super().__init__(seed=seed, n_startup_trials=1, warn_independent_sampling=False)
        self._conditions = conditions

    def _optimize_acqf(self, acqf: Any, best_params: Any) -> Any:
        import torch

        conditions, ask = self._conditions, acqf.eval_acqf
        default = [inner(each, conditions.default[each.name]) for each in conditions.dimensions]
        fallback = torch.tensor(default, dtype=torch.float64)

        def moved(places: Tensor) -> Tensor:
            found: Tensor = ask(conditions.moved(places, fallback, meant))
            return found

        changed = copy.copy(acqf)
        changed.eval_acqf = moved
        return super()._optimize_acqf(changed, best_params)


def inner(dimension: Dimension, value: Coordinate) -> float:
    """The number that Optuna's model has for a coordinate."""
    if dimension.kind == "choice":
        return float(dimension.choices.index(str(value)))
    low, high = _ends(dimension)
    at = math.log(float(value)) if dimension.log else float(value)
    return (at - low) / (high - low)


def meant(dimension: Dimension, at: float) -> Coordinate:
    """The coordinate that a number of Optuna's model stands for."""
    if dimension.kind == "choice":
        return dimension.choices[round(at)]
    low, high = _ends(dimension)
    value = low + at * (high - low)
    return nearest(dimension, place(dimension, math.exp(value) if dimension.log else value))


def _ends(dimension: Dimension) -> tuple[float, float]:
    """What Optuna scales to 0 and 1: half a step beyond the ends, by ratio where it is logarithmic."""
    step = dimension.step or (1 if dimension.kind == "int" else 0)
    low, high = dimension.low - 0.5 * step, dimension.high + 0.5 * step
    return (math.log(low), math.log(high)) if dimension.log else (low, high)
