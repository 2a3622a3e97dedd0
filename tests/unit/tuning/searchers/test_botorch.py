"""BoTorch's Gaussian process: failures, constraints, noise, diverged values, and how it begins."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise

import pytest

from modelyard.testing.searcher_contract import PLANE, bowl
from modelyard.testing.simulated_study import SimulatedStudy, Simulation, best_value
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.searchers.bayesian import BAYESIAN
from modelyard.tuning.searchers.botorch import BOTORCH
from modelyard.tuning.trial import Trial, TrialState

pytestmark = pytest.mark.skipif(find_spec("botorch") is None, reason="the extra bo is not installed")


def made(dimensions=PLANE, algorithm=BOTORCH, *, seed=1, **options):
    return algorithm(
        SearcherSettings(
            dimensions=dimensions, directions=("minimize",), seed=seed, options=tuple(options.items())
        )
    )


def searched(
    value, count, *, even=0, seed=1, fails=lambda point: False, excess=lambda point: (), dimensions=PLANE
):
    """A search whose trials end as their points say; the first `even` are the Sobol sequence's."""
    searcher, sequence, trials = made(dimensions, seed=seed), made(dimensions, seed=seed, start=count), []
    for number in range(count):
        point = (sequence if number < even else searcher).propose(trials, number).point
        state = TrialState.FAILED if fails(point) else TrialState.COMPLETE
        values = None if fails(point) else (value(point),)
        trials.append(
            Trial(number=number, point=point, source="x", state=state, values=values, excess=excess(point))
        )
    return trials


@pytest.fixture(scope="module")
def plain():
    """The search that nothing disturbs."""
    return tuple(searched(bowl, 14))


def test_it_finds_the_lowest_place(plain):
    """Random search of 14 trials has a regret of 0.14 in the median."""
    assert best_value(plain) < 0.002


def test_bayesian_is_botorch_where_it_is_installed(plain):
    trials = plain[:8]
    mine, other = made(algorithm=BAYESIAN).propose(trials, 8), made().propose(trials, 8)
    assert mine.point == other.point and (mine.source, other.source) == ("bayesian", "botorch")
    assert made(algorithm=BAYESIAN, engine="optuna").propose(trials, 8).point != mine.point


def test_it_learns_where_trials_fail():
    """All beyond x = 4 fail: of six proposals of each of two searches at most three do.

    Without the second model it was six.
    """
    failed = 0
    for seed in (1, 3):
        trials = searched(bowl, 18, even=12, seed=seed, fails=lambda point: point["x"] > 4.0)
        failed += sum(t.state is TrialState.FAILED for t in trials[12:])
        assert best_value(trials) < 0.002
    assert failed <= 3


def test_it_keeps_constraints():
    """The same border as a constraint that was measured: the last trials keep it, at its very edge.

    Without its model they all broke it by 0.2, and the best that kept it was 0.44 above the lowest.
    """
    trials = searched(bowl, 15, even=8, seed=2, excess=lambda point: (3.0 - point["x"],))
    assert all(t.excess[0] <= 0.05 for t in trials[-3:])
    assert min(t.value for t in trials if t.excess[0] <= 0) < 0.1


def test_where_no_trial_keeps_the_constraints_it_looks_for_one():
    trials = searched(bowl, 12, even=12, excess=lambda point: (9.0 - point["x"],))
    broken = [t for t in trials if t.excess[0] > 0][:8]
    proposal = made().propose(broken, 12)
    assert proposal.point["x"] > max(t.point["x"] for t in broken)


def test_a_value_that_diverged_does_not_hide_the_others():
    trials = searched(lambda p: 1e12 if p["x"] > 8 else bowl(p), 14, even=8)
    assert any(t.value == 1e12 for t in trials)
    assert best_value(trials) < 0.01


def test_noise_is_seen_as_noise():
    """Values with a spread of 0.2: most of the last proposals gather within 0.25 of the lowest."""
    drawing = random.Random(0)
    trials = searched(lambda p: bowl(p) + drawing.gauss(0.0, 0.2), 22, even=16)
    assert sorted(bowl(t.point) for t in trials[16:])[3] < 0.25


def test_integers_and_choices_come_to_the_lowest_place():
    dimensions = (
        Dimension(name="layers", kind="int", low=1, high=6),
        Dimension(name="optimizer", kind="choice", choices=('"adam"', '"sgd"', "null")),
        Dimension(name="rate", kind="float", low=1e-5, high=1.0, log=True),
    )
    trials = searched(bowl, 14, even=8, dimensions=dimensions)
    best = min(trials, key=lambda t: t.value)
    assert (best.point["layers"], best.point["optimizer"]) == (3, '"sgd"') and best.value < 0.01


def test_choices_alone():
    choices = tuple(Dimension(name=n, kind="choice", choices=("a", "b", "c")) for n in "xyz")
    trials = searched(lambda p: float(sum(p[n] != "b" for n in "xyz")), 12, even=6, dimensions=choices)
    assert best_value(trials) == 0


def test_equal_values_are_no_obstacle():
    trials = searched(lambda p: 1.0, 8)
    assert len({(t.point["x"], t.point["y"]) for t in trials}) == 8


def test_a_point_tried_twice_is_no_obstacle(plain):
    trials = plain[:6]
    double = [*trials, replace(trials[-1], number=6)]
    assert made().propose(double, 7) is not None


def test_running_trials_are_spread():
    how = Simulation(curve=lambda p, s: bowl(p), parallel=6, seed=1)
    trials = SimulatedStudy(made(), how).run(trials=18)
    places = sorted(t.point["x"] for t in trials)
    assert min(b - a for a, b in pairwise(places)) > 1e-6
    assert best_value(trials) < 0.02


def test_the_callers_draws_and_threads_are_left_alone(plain):
    import torch

    trials = plain[:6]
    torch.manual_seed(5)
    expected = torch.rand(1).item()
    torch.manual_seed(5)
    before = torch.get_num_threads()
    made().propose(trials, 6)
    assert (torch.rand(1).item(), torch.get_num_threads()) == (expected, before)
