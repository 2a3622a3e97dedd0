"""Local penalisation: the penaliser's formula, the steepest slope, and where proposals then lie."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.stats import norm

from modelyard.core.errors import TuneError
from modelyard.testing.searcher_contract import PLANE, bowl
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.searchers.bfbo import BFBO, kappa
from modelyard.tuning.searchers.scaling import place
from modelyard.tuning.trial import Trial, TrialState

pytestmark = [
    pytest.mark.skipif(find_spec("botorch") is None, reason="the extra bo is not installed"),
    pytest.mark.filterwarnings("ignore"),  # of BoTorch's parts and of small models, as searchers ignore them
]

SQUARE = tuple(Dimension(name=name, kind="float", low=0.0, high=1.0) for name in ("a", "b"))
CHOICES = (SQUARE[0], Dimension(name="c", kind="choice", choices=("p", "q", "r")))


def complete(dimensions, points, values):
    names = [each.name for each in dimensions]
    return [
        Trial(
            number=i, point=dict(zip(names, p, strict=True)), source="x",
            state=TrialState.COMPLETE, values=(v,),
        )
        for i, (p, v) in enumerate(zip(points, values, strict=True))
    ]  # fmt: skip


def waves(points):
    return np.sin(5 * points[:, 0]) + points[:, 1] ** 2


@pytest.fixture(scope="module")
def model():
    """A process through twelve values on the square, and the best of these values."""
    from modelyard.tuning.searchers.gaussian import fitted

    points = np.random.default_rng(0).random((12, 2))
    values = waves(points)
    values = ((values - values.mean()) / values.std()).tolist()
    return fitted(SQUARE, complete(SQUARE, points.tolist(), values), values), max(values)


def believed(model, points):
    import torch

    with torch.no_grad():
        posterior = model.posterior(torch.tensor(points).unsqueeze(-2))
    return posterior.mean.numpy().ravel(), posterior.variance.numpy().ravel() ** 0.5


def test_the_penaliser_is_that_of_the_paper(model):
    """Section 3.2: 1/2 erfc(-z), z = (L |x_j - x| - M + mean_j) / sqrt(2 variance_j), multiplied over j."""
    import torch

    from modelyard.tuning.searchers.penalisation import Penalty

    drawn = np.random.default_rng(1)
    centres, at = drawn.random((3, 2)), drawn.random((50, 2))
    mean, deviation = believed(model[0], centres)
    distances = np.linalg.norm(at[:, None] - centres[None], axis=2)
    for slope in (0.5, 7.0):
        expected = norm.logcdf((slope * distances - model[1] + mean) / deviation).sum(axis=1)
        penalty = Penalty(model[0], torch.tensor(centres), SQUARE, best=model[1], slope=slope)
        assert penalty(torch.tensor(at)).numpy() == pytest.approx(expected, rel=1e-9)


def test_the_penaliser_is_that_of_emukit(model):
    """Its logarithm and its slope, of the same model turned over: emukit minimises."""
    reference = "emukit.bayesian_optimization.local_penalization_calculator"
    emukit = pytest.importorskip(reference, reason="peer: emukit is not installed")
    import torch
    from emukit.core import ContinuousParameter, ParameterSpace

    from modelyard.tuning.searchers.penalisation import Penalty, steepest

    drawn = np.random.default_rng(1)
    centres, at = drawn.random((3, 2)), drawn.random((50, 2))
    turned = Turned(model[0])
    slope = emukit._estimate_lipschitz_constant(
        ParameterSpace([ContinuousParameter(name, 0, 1) for name in ("a", "b")]), turned
    )
    assert steepest(model[0], SQUARE) == pytest.approx(slope, rel=1e-6)
    theirs = emukit.LocalPenalization(turned)
    theirs.update_batches(centres, slope, -model[1])
    penalty = Penalty(model[0], torch.tensor(centres), SQUARE, best=model[1], slope=slope)
    assert penalty(torch.tensor(at)).numpy() == pytest.approx(theirs.evaluate(at).ravel(), rel=1e-9)


class Turned:
    """A model as emukit knows them, to be minimised."""

    def __init__(self, model):
        self._model, self.X = model, model.train_inputs[0].numpy()

    def predict(self, x):
        mean, deviation = believed(self._model, x)
        return -mean[:, None], deviation[:, None] ** 2

    def get_prediction_gradients(self, x):
        import torch

        at = torch.tensor(np.atleast_2d(x)).requires_grad_(True)
        (gradient,) = torch.autograd.grad(-self._model.posterior(at.unsqueeze(-2)).mean.sum(), at)
        return gradient.numpy(), None


def test_the_steepest_slope_is_the_models_and_not_an_options(model):
    """No difference quotient of the mean is larger, and one nearly reaches it."""
    from modelyard.tuning.searchers.penalisation import steepest

    grid = np.stack(np.meshgrid(np.linspace(0, 1, 101), np.linspace(0, 1, 101)), axis=-1)
    means = believed(model[0], grid.reshape(-1, 2))[0].reshape(101, 101)
    quotients = np.hypot(*np.gradient(means, 0.01))
    assert quotients.max() == pytest.approx(steepest(model[0], SQUARE), rel=0.02)


def test_a_choice_has_a_slope_too():
    """The values leap by 4 deviations between options and hardly change along the number."""
    from modelyard.tuning.searchers.gaussian import fitted
    from modelyard.tuning.searchers.penalisation import steepest

    points = [(a, c) for a in (0.0, 0.5, 1.0) for c in "pqr"]
    values = [2.0 if c == "q" else -2.0 + 0.1 * a for a, c in points]
    found = steepest(fitted(CHOICES, complete(CHOICES, points, values), values), CHOICES)
    assert 3.0 < found < 4.5


def test_options_are_a_distance_of_one_apart():
    import torch

    from modelyard.tuning.searchers.gaussian import fitted
    from modelyard.tuning.searchers.penalisation import Penalty

    points = [(a, c) for a in (0.0, 1.0) for c in "pqr"]
    model = fitted(CHOICES, complete(CHOICES, points, range(6)), [0.0, 1.0, 2.0, 1.0, 2.0, 3.0])
    penalty = Penalty(model, torch.tensor([[0.5, 0.0]]).double(), CHOICES, best=3.0, slope=1.0)
    near, other, third = penalty(torch.tensor([[0.5, 0.0], [0.5, 1.0], [0.5, 2.0]]).double()).tolist()
    assert near < other == third
    by_number = Penalty(model, torch.tensor([[0.0, 0.0]]).double(), CHOICES, best=3.0, slope=1.0)
    across = by_number(torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()).tolist()
    assert across[0] == pytest.approx(across[1])


def test_where_everything_is_equal_the_slope_is_a_steep_one():
    """So that the balls are small and nothing is divided by nothing."""
    from modelyard.tuning.searchers.gaussian import fitted
    from modelyard.tuning.searchers.penalisation import steepest

    points = [(a, b) for a in (0.0, 1.0) for b in (0.0, 1.0)]
    assert steepest(fitted(SQUARE, complete(SQUARE, points, [0.0] * 4), [0.0] * 4), SQUARE) == 10.0


def test_the_bound_comes_down_to_the_mean():
    assert (kappa(0), kappa(1), kappa(28), kappa(500)) == (2.0, 1.9, 0.5, 0.5)
    assert kappa(10) == pytest.approx(2 * 0.95**10)


def asked(trials, dimensions=PLANE, directions=("minimize",)):
    return BFBO(SearcherSettings(dimensions=dimensions, directions=directions, seed=1)).propose(
        trials, len(trials)
    )


def measured(count=8):
    drawn = np.random.default_rng(3).random((count, 2))
    points = [(-5 + 15 * a, 10 ** (-6 * b)) for a, b in drawn]
    return complete(PLANE, points, [bowl({"x": x, "y": y}) for x, y in points])


def apart(one, other):
    return math.dist(*[[place(each, point[each.name]) for each in PLANE] for point in (one, other)])


@pytest.mark.parametrize("excess", [(), (1.0,)])
def test_running_trials_keep_others_away(excess):
    """Four at once: no two within a twentieth of the plane; without the penalty all four are one place.

    With a constraint that no trial keeps they look for one that does, and keep apart as well.
    """
    trials = [
        Trial(
            number=t.number, point=t.point, source="x", state=t.state, values=t.values,
            excess=tuple(e + t.point["x"] / 10 for e in excess),
        )
        for t in measured()
    ]  # fmt: skip
    first = asked(trials)
    for _ in range(4):
        trials.append(Trial(number=len(trials), point=asked(trials).point, source="bfbo"))
    running = [t.point for t in trials[-4:]]
    assert min(apart(a, b) for i, a in enumerate(running) for b in running[:i]) > 0.05
    assert apart(running[0], first.point) < 1e-9


def test_failed_trials_keep_others_away():
    trials = measured()
    tried = asked(trials).point
    failed = Trial(number=len(trials), point=tried, source="bfbo", state=TrialState.FAILED)
    assert apart(asked([*trials, failed]).point, tried) > 0.05


def test_it_knows_one_objective():
    with pytest.raises(TuneError, match="2 objectives"):
        asked([], directions=("minimize", "minimize"))
