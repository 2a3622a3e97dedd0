"""Gaussian processes over trials, and the place where a function of them is highest.

A process whose length scales are expected to grow with the number of dimensions (Hvarfner et al., ICML
2024). Failed trials have no value: a second model learns from them where trials end well, and what is
searched for is weighted with that chance, as it is for constraints (Gardner et al., ICML 2014). What is
searched for is in `improvement.py` and `penalisation.py`.

Needs torch and BoTorch, which take seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models.gp_regression import SingleTaskGP
from botorch.models.gpytorch import BatchedMultiOutputGPyTorchModel
from botorch.models.kernels.categorical import CategoricalKernel
from botorch.models.model import Model
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from botorch.optim.optimize import optimize_acqf
from botorch.optim.optimize_mixed import optimize_acqf_mixed_alternating
from botorch.utils.sampling import manual_seed
from gpytorch.constraints import GreaterThan  # type: ignore[import-untyped]
from gpytorch.kernels import Kernel, ScaleKernel  # type: ignore[import-untyped]
from gpytorch.likelihoods import GaussianLikelihood  # type: ignore[import-untyped]
from gpytorch.mlls import ExactMarginalLogLikelihood  # type: ignore[import-untyped]
from gpytorch.priors import LogNormalPrior  # type: ignore[import-untyped]
from gpytorch.utils.errors import NanError, NotPSDError  # type: ignore[import-untyped]
from torch import Tensor

from modelyard.tuning.dimensions import Coordinate, Dimension
from modelyard.tuning.searchers.conditions import Conditions
from modelyard.tuning.searchers.scaling import at_place, coordinate, place, size
from modelyard.tuning.trial import Trial, TrialState

#: Dimensions with more values than these are searched as numbers and rounded.
_MOST_VALUES = 20
#: What is expected of the noise of standardised values, a log-normal variance: it may be next to nothing, for
#: BoTorch's own floor keeps a search from the last decimals. Of what is only 1 or -1 a tenth: without it such
#: a model believes in nothing between two trials.
_VALUES, _LABELS = (-7.0, 3.0), (-2.3, 0.5)
_RESTARTS, _RAW = 8, 512
#: A fit in a space with conditions ends after so many steps: where two choices seem to be wholly unlike, the
#: likelihood of a few trials goes on growing a little for hundreds, which took most of a search's time.
#: Elsewhere the last steps count (ten times the regret on two of two seeds of Hartmann's function).
_STEPS = 100


class NoModel(Exception):  # noqa: N818  (the case it names)
    """No model could be fitted to these trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Trials by what models learn from them."""

    complete: tuple[Trial, ...]
    # Of the complete ones, those that keep all constraints.
    feasible: tuple[Trial, ...]
    failed: tuple[Trial, ...]
    running: tuple[Trial, ...]


def known(trials: Sequence[Trial]) -> Known:
    """The trials by what models learn from them; stopped ones, which have no value, are left out."""
    of = {state: tuple(t for t in trials if t.state is state) for state in TrialState}
    complete = of[TrialState.COMPLETE]
    return Known(
        complete=complete,
        feasible=tuple(trial for trial in complete if trial.feasible),
        failed=of[TrialState.FAILED],
        running=of[TrialState.RUNNING],
    )


def highest(
    function: Callable[[], AcquisitionFunction], dimensions: Sequence[Dimension], *, seed: int,
    conditions: Conditions | None = None,
) -> list[float]:  # fmt: skip
    """The place where a function is highest: a number from 0 to 1 for each dimension, of a choice its index.

    Args:
        function: Makes it, and the models it is made of.
        dimensions: Those with more than one value.
        seed: Of all that is drawn.
        conditions: What counts where; None: everything.

    Raises:
        NoModel: The numbers allow none.
    """
    with _deterministic(seed):
        try:
            asked = function()
            asked = asked if conditions is None else Moved(asked, dimensions, conditions)
            found: list[float] = _highest(asked, dimensions).tolist()
        except (ModelFittingError, NanError, NotPSDError) as error:
            raise NoModel(str(error)) from error
    return found


def chances(
    dimensions: Sequence[Dimension], trials: Known, *, steps: int | None = None
) -> list[BatchedMultiOutputGPyTorchModel]:
    """Models, fitted in so many steps at most, that are above 0 where trials end well, or a constraint holds.

    As long as no trial keeps the constraints there is nothing else to go by, and trials that run count for
    these models as if they had ended as the models think: there nothing more is to be learnt.
    """
    models: list[BatchedMultiOutputGPyTorchModel] = []
    if trials.failed:
        ends = [1.0] * len(trials.complete) + [-1.0] * len(trials.failed)
        models.append(
            fitted(dimensions, [*trials.complete, *trials.failed], ends, noise=_LABELS, steps=steps)
        )
    width = max((len(trial.excess) for trial in trials.complete), default=0)
    measured = [trial for trial in trials.complete if len(trial.excess) == width]
    kept = [[-trial.excess[i] for trial in measured] for i in range(width)]
    models += [fitted(dimensions, measured, values, steps=steps) for values in kept]
    if trials.feasible or not trials.running:
        return models
    return [_as_if_ended(model, places(dimensions, trials.running)) for model in models]


def most_steps(conditions: Conditions | None) -> int | None:
    """The most steps of a fit; None: as many as it takes."""
    return None if conditions is None else _STEPS


def fitted(
    dimensions: Sequence[Dimension], trials: Sequence[Trial], values: Sequence[float],
    *, noise: tuple[float, float] = _VALUES, steps: int | None = None,
) -> SingleTaskGP:  # fmt: skip
    """A process through one value for each of the trials, fitted in so many steps at most."""
    targets = torch.tensor(values, dtype=torch.double).unsqueeze(-1)
    at = places(dimensions, trials)
    model = SingleTaskGP(at, targets, likelihood=_likelihood(*noise), covar_module=_kernel(dimensions))
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    limit = {} if steps is None else {"options": {"maxiter": steps}}
    fit_gpytorch_mll(likelihood, optimizer_kwargs=limit)
    return model


def places(dimensions: Sequence[Dimension], trials: Sequence[Trial]) -> Tensor:
    """Where trials are: trials x dimensions."""
    rows = [[_column(each, trial.point[each.name]) for each in dimensions] for trial in trials]
    return torch.tensor(rows, dtype=torch.double)


def _as_if_ended(model: BatchedMultiOutputGPyTorchModel, at: Tensor) -> BatchedMultiOutputGPyTorchModel:
    with torch.no_grad():
        return model.condition_on_observations(at, model.posterior(at).mean)


class Promise(AcquisitionFunction):
    """The logarithm of what is searched for, weighted with the chances that models are above 0."""

    improvement: AcquisitionFunction | None
    X_baseline: Tensor | None

    def __init__(
        self,
        model: Model,
        improvement: AcquisitionFunction | None,
        chances: Sequence[BatchedMultiOutputGPyTorchModel],
    ) -> None:
        super().__init__(model=model)
        self.improvement = improvement
        self.chances = tuple(chances)
        self.X_baseline = getattr(improvement, "X_baseline", None)

    def forward(self, X: Tensor) -> Tensor:
        """Of places b x 1 x d, b values."""
        total = self.improvement(X) if self.improvement is not None else X.new_zeros(X.shape[0])
        for model in self.chances:
            posterior = model.posterior(X)
            ratio = posterior.mean / posterior.variance.clamp_min(1e-12).sqrt()
            total = total + torch.special.log_ndtr(ratio).squeeze(-1).squeeze(-1)
        return total


class Moved(AcquisitionFunction):
    """A function where it is asked at places with all that does not count at its default."""

    def __init__(
        self, function: AcquisitionFunction, dimensions: Sequence[Dimension], conditions: Conditions
    ) -> None:
        super().__init__(model=function.model)
        self.function, self._conditions = function, conditions
        self.X_baseline = getattr(function, "X_baseline", None)
        default = [_column(each, conditions.default[each.name]) for each in dimensions]
        self._default = torch.tensor(default, dtype=torch.double)

    def forward(self, X: Tensor) -> Tensor:
        """Of places b x 1 x d, b values."""
        found: Tensor = self.function(self._conditions.moved(X, self._default, at_place))
        return found


def _kernel(dimensions: Sequence[Dimension]) -> Kernel:
    numeric = [i for i, each in enumerate(dimensions) if each.kind != "choice"]
    choices = [i for i, each in enumerate(dimensions) if each.kind == "choice"]
    parts: list[Kernel] = []
    if numeric:
        parts.append(get_covar_module_with_dim_scaled_prior(ard_num_dims=len(numeric), active_dims=numeric))
    if choices:
        parts.append(CategoricalKernel(ard_num_dims=len(choices), active_dims=choices))
    expected = LogNormalPrior(0.0, 1.0)
    floor = GreaterThan(1e-2, transform=None, initial_value=1.0)
    whole = math.prod(parts[1:], start=parts[0])
    return ScaleKernel(whole, outputscale_prior=expected, outputscale_constraint=floor)


def _likelihood(middle: float, spread: float) -> GaussianLikelihood:
    floor = GreaterThan(1e-6, transform=None, initial_value=math.exp(max(middle, -7.0)))
    return GaussianLikelihood(noise_prior=LogNormalPrior(middle, spread), noise_constraint=floor)


def _column(dimension: Dimension, value: Coordinate) -> float:
    if dimension.kind == "choice":
        return float(dimension.choices.index(str(value)))
    return place(dimension, value)


def _highest(function: AcquisitionFunction, dimensions: Sequence[Dimension]) -> Tensor:
    """Where the function is highest."""
    choices, grids = {}, {}
    for i, each in enumerate(dimensions):
        count = size(each)
        if each.kind == "choice":
            choices[i] = [float(k) for k in range(count or 1)]
        elif count is not None and count <= _MOST_VALUES:
            grids[i] = [place(each, coordinate(each, k)) for k in range(count)]
    ends = [[0.0, choices[i][-1] if i in choices else 1.0] for i in range(len(dimensions))]
    bounds = torch.tensor(ends, dtype=torch.double).T
    if choices or grids:
        found, _ = optimize_acqf_mixed_alternating(
            function, bounds, discrete_dims=grids, cat_dims=choices, num_restarts=_RESTARTS, raw_samples=_RAW
        )
    else:
        found, _ = optimize_acqf(
            function, bounds, q=1, num_restarts=_RESTARTS, raw_samples=_RAW,
            options={"sample_around_best": function.X_baseline is not None},
        )  # fmt: skip
    return found[0]


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Draws from this seed, in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with manual_seed(seed):
            yield
    finally:
        torch.set_num_threads(threads)
