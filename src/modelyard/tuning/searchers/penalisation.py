"""Upper confidence bounds, penalised around the trials that run.

González et al., "Batch Bayesian Optimization via Local Penalization" (AISTATS 2016): section 3.2 for the
penaliser, 3.3 for the acquisition that it multiplies. A trial that runs at x_j excludes a ball around it: if
the function is nowhere steeper than L, and nowhere above M, nothing within (M - f(x_j)) / L of it can be the
highest place. What is thought of f(x_j) makes that a chance, which the bound is multiplied with.

L is the steepest slope of the model's mean, and M the best value so far. Two options of a choice are a
distance of 1 apart. The model's values are standardised.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.generation.gen import gen_candidates_scipy
from botorch.models.gp_regression import SingleTaskGP
from botorch.utils.sampling import draw_sobol_samples
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
from modelyard.tuning.searchers.warping import tamed
from modelyard.tuning.trial import Trial

#: How many places the steepest slope is looked for at, and what it is where the model is flat.
_LOOKS, _FLAT, _SLOPE_OF_FLAT = 512, 1e-7, 10.0


def least_crowded(
    dimensions: Sequence[Dimension], trials: Sequence[Trial], *, sign: float, kappa: float, seed: int,
    conditions: Conditions | None = None,
) -> list[float]:  # fmt: skip
    """The place whose penalised bound is highest: a number from 0 to 1 each, of a choice its index.

    Args:
        dimensions: Those with more than one value.
        trials: Complete ones among them; `sign` times their values is to be low.
        sign: 1 or -1.
        kappa: How many standard deviations above the mean the bound lies.
        seed: Of all that is drawn.
        conditions: What counts where; None: everything.

    Raises:
        NoModel: The numbers allow none.
    """
    steps = most_steps(conditions)
    return highest(
        lambda: _promise(dimensions, known(trials), sign, kappa=kappa, steps=steps),
        dimensions, seed=seed, conditions=conditions,
    )  # fmt: skip


def _promise(
    dimensions: Sequence[Dimension], trials: Known, sign: float, *, kappa: float, steps: int | None
) -> Promise:
    weights = chances(dimensions, trials, steps=steps)
    if not trials.feasible:
        return Promise(weights[0], None, weights)
    values = _standardised(tamed([-sign * (trial.value or 0.0) for trial in trials.feasible]))
    model = fitted(dimensions, trials.feasible, values, steps=steps)
    crowd = [*trials.running, *trials.failed]
    penalty = Penalty(model, places(dimensions, crowd), dimensions, best=max(values)) if crowd else None
    return Promise(model, PenalisedBound(model, penalty, kappa=kappa), weights)


class Penalty:
    """The logarithm of the chance that a place lies outside the balls around others."""

    def __init__(
        self, model: SingleTaskGP, centres: Tensor, dimensions: Sequence[Dimension], *, best: float,
        slope: float | None = None,
    ) -> None:  # fmt: skip
        """`slope` is looked for where it is not given."""
        self._slope = steepest(model, dimensions) if slope is None else slope
        self._choices = [each.kind == "choice" for each in dimensions]
        self._centres = centres
        with torch.no_grad():
            mean, deviation = _believed(model, centres.unsqueeze(-2))
        self._radii = (best - mean) / self._slope
        self._widths = deviation / self._slope

    def __call__(self, places_nd: Tensor) -> Tensor:
        """Of places n x d, n values."""
        apart = places_nd.unsqueeze(-2) - self._centres
        other = torch.where(torch.tensor(self._choices), (apart.abs() > 0.5).to(apart), apart)
        distances = torch.linalg.vector_norm(other, dim=-1)
        outside: Tensor = torch.special.log_ndtr((distances - self._radii) / self._widths)
        return outside.sum(dim=-1)


class PenalisedBound(AcquisitionFunction):
    """The logarithm of an upper confidence bound, made positive by softplus, times the penalty."""

    def __init__(self, model: SingleTaskGP, penalty: Penalty | None, *, kappa: float) -> None:
        super().__init__(model=model)
        self.penalty, self.kappa, self._believing = penalty, kappa, model
        self.X_baseline = model.train_inputs[0]

    def forward(self, X: Tensor) -> Tensor:
        """Of places b x 1 x d, b values."""
        mean, deviation = _believed(self._believing, X)
        total = torch.nn.functional.softplus(mean + self.kappa * deviation).log()
        return total if self.penalty is None else total + self.penalty(X.squeeze(-2))


def steepest(model: SingleTaskGP, dimensions: Sequence[Dimension]) -> float:
    """The steepest slope of a model's mean: of many places the steepest, and uphill from there."""
    numeric = [i for i, each in enumerate(dimensions) if each.kind != "choice"]
    tops = [1.0 if each.kind != "choice" else len(each.choices) - 1.0 for each in dimensions]
    bounds = torch.tensor([[0.0] * len(tops), tops], dtype=torch.double)
    looks = draw_sobol_samples(bounds, n=_LOOKS, q=1, seed=0)
    options = {i: round(top) + 1 for i, top in enumerate(tops) if i not in numeric}
    for i in options:
        looks[..., i] = looks[..., i].round()
    found = max((_difference(model, looks, i, count) for i, count in options.items()), default=0.0)
    if numeric:
        slope = _Slope(model, numeric)
        start = looks[slope(looks).argmax()].unsqueeze(0)
        held = {i: float(start[0, 0, i]) for i in options}
        _, height = gen_candidates_scipy(start, slope, bounds[0], bounds[1], fixed_features=held or None)
        found = max(found, float(height.max()))
    return found if found > _FLAT else _SLOPE_OF_FLAT


class _Slope(AcquisitionFunction):
    """How steep the mean is."""

    def __init__(self, model: SingleTaskGP, numeric: Sequence[int]) -> None:
        super().__init__(model=model)
        self._believing, self._numeric = model, list(numeric)

    def forward(self, X: Tensor) -> Tensor:
        """Of places b x 1 x d, b values."""
        with torch.enable_grad():
            at = X if X.requires_grad else X.detach().clone().requires_grad_(True)
            total = _believed(self._believing, at)[0].sum()
            (gradient,) = torch.autograd.grad(total, at, create_graph=X.requires_grad)
        norms: Tensor = torch.linalg.vector_norm(gradient[..., self._numeric], dim=-1)
        return norms.squeeze(-1)


def _difference(model: SingleTaskGP, looks: Tensor, column: int, count: int) -> float:
    """The largest difference that one choice makes."""
    means = []
    for option in range(count):
        changed = looks.clone()
        changed[..., column] = float(option)
        with torch.no_grad():
            means.append(_believed(model, changed)[0])
    stacked = torch.stack(means)
    return float((stacked.max(dim=0).values - stacked.min(dim=0).values).max())


def _believed(model: SingleTaskGP, X: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation at places b x 1 x d, b values each."""
    posterior = model.posterior(X)
    mean, variance = posterior.mean, posterior.variance
    return mean.squeeze(-1).squeeze(-1), variance.clamp_min(1e-10).sqrt().squeeze(-1).squeeze(-1)


def _standardised(values: Sequence[float]) -> list[float]:
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / (spread if math.isfinite(spread) and spread > 0 else 1.0) for value in values]
