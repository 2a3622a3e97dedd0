"""The Gaussian process behind Bayesian optimisation by BoTorch, and the place it promises most of.

A process whose length scales are expected to grow with the number of dimensions (Hvarfner et al., ICML
2024), and log noisy expected improvement over the complete trials, running ones among them as if they had
ended as the model thinks (Ament et al., arXiv 2310.20708). Failed trials have no value: a second model
learns from them where trials end well, and the improvement is weighted with that chance, as it is for
constraints (Gardner et al., ICML 2014).

Needs torch and BoTorch, which take seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models.gp_regression import SingleTaskGP
from botorch.models.kernels.categorical import CategoricalKernel
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from botorch.optim.optimize import optimize_acqf
from botorch.optim.optimize_mixed import optimize_acqf_mixed_alternating
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.sampling import manual_seed
from gpytorch.constraints import GreaterThan  # type: ignore[import-untyped]
from gpytorch.kernels import Kernel, ScaleKernel  # type: ignore[import-untyped]
from gpytorch.likelihoods import GaussianLikelihood  # type: ignore[import-untyped]
from gpytorch.mlls import ExactMarginalLogLikelihood  # type: ignore[import-untyped]
from gpytorch.priors import LogNormalPrior  # type: ignore[import-untyped]
from gpytorch.utils.errors import NanError, NotPSDError  # type: ignore[import-untyped]
from torch import Tensor

from modelyard.tuning.dimensions import Coordinate, Dimension
from modelyard.tuning.searchers.scaling import coordinate, place, size
from modelyard.tuning.trial import Trial, TrialState

#: Dimensions with more values than these are searched as numbers and rounded.
_MOST_VALUES = 20
#: What is expected of the noise of standardised values, a log-normal variance: it may be next to nothing, for
#: BoTorch's own floor keeps a search from the last decimals. Of what is only 1 or -1 a tenth: without it such
#: a model believes in nothing between two trials.
_VALUES, _LABELS = (-7.0, 3.0), (-2.3, 0.5)
_SAMPLES, _RESTARTS, _RAW = 128, 8, 512


class NoModel(Exception):  # noqa: N818  (the case it names)
    """No model could be fitted to these trials."""


def most_promising(
    dimensions: Sequence[Dimension], trials: Sequence[Trial], *, sign: float, seed: int
) -> list[float]:
    """The place that promises most: a number from 0 to 1 for each dimension, of a choice its index.

    Args:
        dimensions: Those with more than one value.
        trials: Complete ones among them; `sign` times their values is to be low.
        sign: 1 or -1.
        seed: Of all that is drawn.

    Raises:
        NoModel: The numbers allow none.
    """
    with _deterministic(seed):
        try:
            found: list[float] = _highest(_promise(dimensions, trials, sign), dimensions).tolist()
        except (ModelFittingError, NanError, NotPSDError) as error:
            raise NoModel(str(error)) from error
    return found


def _promise(dimensions: Sequence[Dimension], trials: Sequence[Trial], sign: float) -> Promise:
    of = {state: [t for t in trials if t.state is state] for state in TrialState}
    complete, failed = of[TrialState.COMPLETE], of[TrialState.FAILED]
    feasible = [trial for trial in complete if all(part <= 0 for part in trial.excess)]
    ahead = _places(dimensions, [*of[TrialState.RUNNING], *failed])
    chances = _chances(dimensions, complete, failed)
    if not feasible:
        return Promise(chances[0], None, chances)
    values = [-sign * (trial.values or (math.nan,))[0] for trial in feasible]
    model = _fitted(dimensions, feasible, _tamed(values))
    improvement = qLogNoisyExpectedImprovement(
        model=model,
        X_baseline=_places(dimensions, feasible),
        X_pending=ahead if len(ahead) else None,
        sampler=SobolQMCNormalSampler(torch.Size([_SAMPLES]), seed=0),
    )
    return Promise(model, improvement, chances)


def _chances(
    dimensions: Sequence[Dimension], complete: Sequence[Trial], failed: Sequence[Trial]
) -> list[SingleTaskGP]:
    """Models that are above 0 where trials end well, and where each constraint holds."""
    models = []
    if failed:
        ends = [1.0] * len(complete) + [-1.0] * len(failed)
        models.append(_fitted(dimensions, [*complete, *failed], ends, noise=_LABELS))
    width = max((len(trial.excess) for trial in complete), default=0)
    measured = [trial for trial in complete if len(trial.excess) == width]
    kept = [[-trial.excess[i] for trial in measured] for i in range(width)]
    return [*models, *(_fitted(dimensions, measured, values) for values in kept)]


def _fitted(
    dimensions: Sequence[Dimension], trials: Sequence[Trial], values: Sequence[float],
    *, noise: tuple[float, float] = _VALUES,
) -> SingleTaskGP:  # fmt: skip
    targets = torch.tensor(values, dtype=torch.double).unsqueeze(-1)
    places = _places(dimensions, trials)
    model = SingleTaskGP(places, targets, likelihood=_likelihood(*noise), covar_module=_kernel(dimensions))
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def _places(dimensions: Sequence[Dimension], trials: Sequence[Trial]) -> Tensor:
    rows = [[_column(each, trial.point[each.name]) for each in dimensions] for trial in trials]
    return torch.tensor(rows, dtype=torch.double)


class Promise(AcquisitionFunction):
    """The logarithm of an improvement, weighted with the chances that models are above 0."""

    improvement: AcquisitionFunction | None
    X_baseline: Tensor | None

    def __init__(
        self, model: SingleTaskGP, improvement: AcquisitionFunction | None, chances: Sequence[SingleTaskGP]
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


def _tamed(values: Sequence[float]) -> list[float]:
    """Values whose bad tail is cut: a run that diverged is bad, and no more has to be known of it.

    More is better. The cut is below the worst quarter, two times as far as that is from the best.
    """
    ranked = sorted(values)
    quarter, best = ranked[len(ranked) // 4], ranked[-1]
    return [max(quarter - 2 * (best - quarter), value) for value in values]


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
