"""Where the improvement that a trial promises is largest, by one objective or by several.

By one: log noisy expected improvement over the complete trials (Ament et al., arXiv 2310.20708). By several:
the logarithm of how much more the front would dominate (Daulton et al., arXiv 2105.08195; its logarithm by
Ament et al.), each objective with a process of its own, above the corner of the worst values, those that
diverged cut. Running trials count as if they had ended as the model thinks, and so do failed ones, so that
their places promise nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.models.model import Model
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searchers.conditions import Conditions
from modelyard.tuning.searchers.gaussian import (
    Known,
    Promise,
    chances,
    fitted,
    highest,
    known,
    most_steps,
    places,
)
from modelyard.tuning.searchers.warping import ranked, tamed
from modelyard.tuning.trial import Trial

_SAMPLES, _SAMPLES_OF_SEVERAL = 128, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelled:
    """How the values of one objective are modelled."""

    # What a process is shown of them.
    shown: Callable[[Sequence[float]], list[float]]
    # The most steps of a fit.
    steps: int | None


def most_promising(
    dimensions: Sequence[Dimension], trials: Sequence[Trial], *, signs: Sequence[float], seed: int,
    conditions: Conditions | None = None, by_rank: bool = False,
) -> list[float]:  # fmt: skip
    """The place that promises most: a number from 0 to 1 for each dimension, of a choice its index.

    Args:
        dimensions: Those with more than one value.
        trials: Complete ones among them; `signs` times their values are to be low.
        signs: 1 or -1 for each objective.
        seed: Of all that is drawn.
        conditions: What counts where; None: everything.
        by_rank: Whether the model of one objective is shown the ranks of the values, and not the values.

    Raises:
        NoModel: The numbers allow none.
    """
    modelled = Modelled(shown=ranked if by_rank else tamed, steps=most_steps(conditions))
    return highest(
        lambda: _promise(dimensions, known(trials), signs, modelled),
        dimensions, seed=seed, conditions=conditions,
    )  # fmt: skip


def _promise(
    dimensions: Sequence[Dimension], trials: Known, signs: Sequence[float], modelled: Modelled
) -> Promise:
    weights = chances(dimensions, trials, steps=modelled.steps)
    if not trials.feasible:
        return Promise(weights[0], None, weights)
    if len(signs) > 1:
        return Promise(*_of_several(dimensions, trials, signs, modelled.steps), weights)
    return Promise(*_of_one(dimensions, trials, signs[0], modelled), weights)


def _of_one(
    dimensions: Sequence[Dimension], trials: Known, sign: float, modelled: Modelled
) -> tuple[Model, AcquisitionFunction]:
    values = modelled.shown([-sign * _value(t, 0) for t in trials.feasible])
    model = fitted(dimensions, trials.feasible, values, steps=modelled.steps)
    improvement = qLogNoisyExpectedImprovement(
        model=model,
        X_baseline=places(dimensions, trials.feasible),
        X_pending=_ahead(dimensions, trials),
        sampler=SobolQMCNormalSampler(torch.Size([_SAMPLES]), seed=0),
    )
    return model, improvement


def _of_several(
    dimensions: Sequence[Dimension], trials: Known, signs: Sequence[float], steps: int | None
) -> tuple[Model, AcquisitionFunction]:
    rows = [[-sign * _value(t, i) for i, sign in enumerate(signs)] for t in trials.feasible]
    values = torch.tensor(rows, dtype=torch.double)
    front = values[is_non_dominated(values)]
    least = front.min(dim=0).values.tolist()  # what is on the front is not bad, however far away
    columns = [tamed(values[:, i].tolist(), least=least[i]) for i in range(len(signs))]
    model = ModelListGP(*(fitted(dimensions, trials.feasible, column, steps=steps) for column in columns))
    # BoTorch would compile a faster kernel here, under a lock that a killed process leaves behind: every
    # later search would wait for it without end.
    logei._load_attempted = True
    improvement = qLogNoisyExpectedHypervolumeImprovement(
        model=model,
        ref_point=[min(column) for column in columns],
        X_baseline=places(dimensions, trials.feasible),
        X_pending=_ahead(dimensions, trials),
        sampler=SobolQMCNormalSampler(torch.Size([_SAMPLES_OF_SEVERAL]), seed=0),
        prune_baseline=True,
    )
    return model, improvement


def _ahead(dimensions: Sequence[Dimension], trials: Known) -> Tensor | None:
    ahead = [*trials.running, *trials.failed]
    return places(dimensions, ahead) if ahead else None


def _value(trial: Trial, objective: int) -> float:
    return trial.values[objective] if trial.values else math.nan
