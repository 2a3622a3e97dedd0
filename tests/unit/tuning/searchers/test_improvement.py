"""Several objectives by Gaussian processes: the front is found, extended, and kept to where it may be."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.searchers.bayesian import BAYESIAN
from modelyard.tuning.searchers.optuna_samplers import instructive
from modelyard.tuning.trial import Trial, TrialState

pytestmark = [
    pytest.mark.skipif(find_spec("botorch") is None, reason="the extra bo is not installed"),
    pytest.mark.filterwarnings("ignore"),  # of BoTorch's parts, as the searcher ignores them
]
SQUARE = tuple(Dimension(name=name, kind="float", low=0.0, high=1.0) for name in "ab")
MIXED = (SQUARE[0], Dimension(name="c", kind="choice", choices=("p", "q")))
LESS = ("minimize", "minimize")
ENGINES = pytest.mark.parametrize("engine", ["botorch", "optuna"])


def valley(point):
    """Two lowest places, a = 0.2 and a = 0.8, both with b = 0.5; between them lies the front."""
    return tuple(10 * (point["a"] - at) ** 2 + 4 * (point.get("b", 0.5) - 0.5) ** 2 for at in (0.2, 0.8))


def ended(number, point, values, excess=()):
    return Trial(
        number=number, point=point, source="x", state=TrialState.COMPLETE, values=values, excess=excess
    )


def drawn(count=7, value=valley, excess=lambda point: (), names="ab"):
    places = np.random.default_rng(5).random((count, len(names))).tolist()
    points = [dict(zip(names, place, strict=True)) for place in places]
    return [ended(i, p, value(p), excess(p)) for i, p in enumerate(points)]


def made(engine="botorch", dimensions=SQUARE, directions=LESS, seed=1):
    return BAYESIAN(
        SearcherSettings(
            dimensions=dimensions, directions=directions, seed=seed, options=(("engine", engine),)
        )
    )


def proposed(trials, engine="botorch", **changes):
    return made(engine, **changes).propose(trials, len(trials))


def dominated(trials, corner=(4.0, 4.0)):
    total, last = 0.0, corner[1]
    for f, g in sorted(t.values for t in trials if all(e <= 0 for e in t.excess)):
        if f < corner[0] and g < last:
            total += (corner[0] - f) * (last - g)
            last = g
    return total


def zdt1(point):
    """Zitzler, Deb and Thiele's first problem."""
    rest = 1 + 3 * (point["b"] + point["c"] + point["d"])
    return point["a"], rest * (1 - (point["a"] / rest) ** 0.5)


@ENGINES
def test_six_trials_find_more_of_a_front_than_eighty_by_chance(engine):
    trials = drawn(9, zdt1, names="abcd")
    cube = tuple(Dimension(name=name, kind="float", low=0.0, high=1.0) for name in "abcd")
    searcher = made(engine, dimensions=cube)
    for number in range(9, 15):
        point = searcher.propose(trials, number).point
        trials.append(ended(number, point, zdt1(point)))
    assert dominated(trials) > dominated(drawn(89, zdt1, names="abcd"))


@ENGINES
def test_a_proposal_follows_from_the_trials_alone_and_more_is_better_exactly_as_less_is(engine):
    trials = drawn()
    used = made(engine)
    used.propose(trials[:6], 6)
    proposal = used.propose(trials, 7)
    turned = [replace(t, values=(t.values[0], -t.values[1])) for t in trials]
    assert proposed(turned, engine, directions=("minimize", "maximize")) == proposal
    assert proposal.source == "bayesian"


@ENGINES
def test_running_and_failed_trials_keep_others_away(engine):
    trials = drawn()
    for state in (TrialState.FAILED, TrialState.RUNNING):
        point = proposed(trials, engine).point
        trials.append(Trial(number=len(trials), point=point, source="x", state=state))
    asked = [*(t.point for t in trials[-2:]), proposed(trials, engine).point]
    gaps = [np.hypot(p["a"] - q["a"], p["b"] - q["b"]) for i, p in enumerate(asked) for q in asked[:i]]
    assert min(gaps) > 0.02


def test_constraints_are_kept():
    """Only a >= 0.6 is allowed: the proposals keep it, of which without the constraint one in six did."""

    def excess(point):
        return (0.6 - point["a"],)

    trials, searcher = drawn(excess=excess), made()
    for number in range(7, 11):
        point = searcher.propose(trials, number).point
        trials.append(ended(number, point, valley(point), excess(point)))
    assert sum(t.point["a"] >= 0.55 for t in trials[-4:]) >= 3


def test_nothing_is_compiled():
    """BoTorch's compiler waits for ever for a lock that a killed process has left."""
    from botorch.acquisition.multi_objective import logei

    proposed(drawn(excess=lambda point: (0.6 - point["a"],)))
    assert logei._load_attempted
    assert logei._C is None


def test_while_no_trial_keeps_the_constraints_one_is_looked_for():
    trials = drawn(excess=lambda point: (1.5 - point["a"],))
    points = []
    for _ in range(2):
        points.append(proposed(trials).point)
        trials.append(Trial(number=len(trials), point=points[-1], source="x"))
    assert points[0]["a"] > 0.9
    assert points[0] != points[1]  # what runs is not tried once more


def test_a_value_that_diverged_is_cut_unless_it_is_on_the_front():
    from modelyard.tuning.searchers.warping import tamed

    values = [-1.0, -2.0, -3.0, -4.0, -1e12]
    assert tamed(values) == tamed(values, least=-4.0) == [-1.0, -2.0, -3.0, -4.0, -10.0]
    assert tamed([-1.0, -2.0, -3.0, -4.0, -50.0], least=-50.0)[-1] == -50.0


def test_choices_are_searched_too():
    """With q the first objective is better by 1, and nothing is lost: q is taken."""
    points = [{"a": a, "c": c} for a, c in ((0.1, "p"), (0.4, "q"), (0.6, "p"), (0.9, "q"), (0.5, "p"))]
    values = [(f + (p["c"] == "p"), g) for p in points for f, g in [valley(p)]]
    trials = [ended(i, p, v) for i, (p, v) in enumerate(zip(points, values, strict=True))]
    assert proposed(trials, dimensions=MIXED).point["c"] == "q"


def test_three_objectives():
    def three(point):
        return (*valley(point), (point["b"] - 0.9) ** 2)

    assert proposed(drawn(value=three), directions=("minimize",) * 3).source == "bayesian"


def test_what_few_others_dominate_is_kept_for_the_model():
    """Of 200 trials 40 are kept: the whole front of eleven, none of it infeasible, and others."""
    points = [(i / 10, 1 - i / 10) for i in range(11)] + [(1 + i, 2 + i % 7) for i in range(179)]
    trials = [ended(i, {"a": 0.5, "b": 0.5}, values) for i, values in enumerate(points)]
    broken = [ended(190 + i, {"a": 0.5, "b": 0.5}, (-1.0, -1.0), (1.0,)) for i in range(10)]
    kept = instructive([*trials, *broken], signs=(1.0, 1.0), most=40, pending=4)
    numbers = {t.number for t in kept}
    assert len(kept) == 40 and set(range(11)) <= numbers and len(numbers & set(range(190, 200))) < 3
    turned = [replace(t, values=(-t.values[0], t.values[1])) for t in [*trials, *broken]]
    assert [t.number for t in instructive(turned, signs=(-1.0, 1.0), most=40, pending=4)] == sorted(numbers)
