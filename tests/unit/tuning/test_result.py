"""What a study came to: the best is complete, feasible and whole; the front is what nothing beats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.tuning.result import best_trial, comparable, pareto_front
from modelyard.tuning.trial import Objective, Trial, TrialState

LESS, MORE = (Objective(metric="m", direction=each) for each in ("minimize", "maximize"))


def trial(number, *values, state=TrialState.COMPLETE, **more):
    return Trial(number=number, point={}, source="x", state=state, values=values or None, **more)


@st.composite
def histories(draw):
    """Trials in any state, with two values, a budget and perhaps a broken constraint."""
    made = []
    for number in range(draw(st.integers(0, 8))):
        state = draw(st.sampled_from(TrialState))
        values = (draw(st.integers(-3, 3)), draw(st.integers(-3, 3))) if state is TrialState.COMPLETE else ()
        excess = draw(st.sampled_from([(), (0.0,), (-1.0,), (0.5,)]))
        curve = {1: -1e9} if state is not TrialState.COMPLETE else {}
        budget = draw(st.sampled_from([None, 3, 9]))
        made.append(trial(number, *values, state=state, excess=excess, curve=curve, budget=budget))
    return made


def test_a_failed_trial_and_a_stopped_one_are_never_the_best():
    trials = [
        trial(0, state=TrialState.FAILED), trial(1, state=TrialState.PRUNED, curve={1: -100.0}),
        trial(2, 5.0), trial(3, state=TrialState.RUNNING, curve={1: 100.0}),
    ]  # fmt: skip
    assert best_trial(trials, LESS).number == best_trial(trials, MORE).number == 2
    assert best_trial([trials[0], trials[1], trials[3]], LESS) is None


def test_of_equals_the_first_is_the_best():
    trials = [trial(0, 1.0), trial(1, 0.5), trial(2, 0.5), trial(3, 1.0)]
    assert best_trial(trials, LESS).number == 1 and best_trial(trials, MORE).number == 0


def test_zero_is_a_value():
    assert best_trial([trial(0, 1.0), trial(1, 0.0), trial(2, -0.5)], MORE).number == 0
    assert best_trial([trial(0, -1.0), trial(1, 0.0)], MORE).number == 1


def test_small_budgets_are_not_compared_with_large_ones():
    trials = [trial(0, 0.1, budget=3), trial(1, 0.5, budget=9), trial(2, 0.6, budget=9)]
    assert best_trial(trials, LESS).number == 1
    assert [t.number for t in comparable(trials)] == [1, 2]


def test_what_breaks_a_constraint_is_not_the_best():
    trials = [trial(0, 0.1, excess=(0.5,)), trial(1, 0.5, excess=(0.0, -1.0))]
    assert best_trial(trials, LESS).number == 1


@given(histories(), st.sampled_from([LESS, MORE]))
def test_the_best_is_one_that_no_comparable_one_beats(trials, objective):
    best, candidates = best_trial(trials, objective), comparable(trials)
    assert (best is None) == (not candidates)
    assert all(t.state is TrialState.COMPLETE and max(t.excess, default=0) <= 0 for t in candidates)
    if best is not None:
        assert objective.sign * best.value == min(objective.sign * t.value for t in candidates)


@given(histories(), st.sampled_from([LESS, MORE]), st.sampled_from([LESS, MORE]))
def test_the_front_is_exactly_what_nothing_beats(trials, one, other):
    def cost(t):
        return (one.sign * t.values[0], other.sign * t.values[1])

    front, candidates = pareto_front(trials, (one, other)), comparable(trials)
    for t in candidates:
        beaten = any(
            cost(o)[0] <= cost(t)[0] and cost(o)[1] <= cost(t)[1] and cost(o) != cost(t) for o in candidates
        )
        assert (t in front) == (not beaten)
    assert all(t in candidates for t in front)
    best = best_trial(trials, one)
    assert best is None or any(t.values[0] == best.values[0] for t in front)


@pytest.mark.parametrize("objective", [LESS, MORE])
def test_with_one_objective_the_front_is_the_best(objective):
    trials = [trial(0, 3.0), trial(1, 1.0), trial(2, 7.0)]
    assert pareto_front(trials, (objective,)) == (best_trial(trials, objective),)
