"""Optuna's samplers asked without memory: what they are shown, constraints, several objectives, options."""

from __future__ import annotations

import random
from dataclasses import replace

import optuna
import pytest

from modelyard.core.errors import TuneError
from modelyard.core.faults import Faults, Section
from modelyard.testing.searcher_contract import MIXED, PLANE, bowl
from modelyard.testing.simulated_study import SimulatedStudy, Simulation
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.searchers.bayesian import BAYESIAN
from modelyard.tuning.searchers.evolution import CMAES
from modelyard.tuning.searchers.optuna_samplers import (
    RANDOM,
    TPE,
    GaussianSearcher,
    OptunaSearcher,
    instructive,
    trial_seed,
)
from modelyard.tuning.searchers.scaling import sobol_point
from modelyard.tuning.trial import Trial, TrialState


def settings(dimensions=PLANE, directions=("minimize",), **options):
    return SearcherSettings(dimensions=dimensions, directions=directions, options=tuple(options.items()))


def trial(number, state=TrialState.COMPLETE, value=1.0, **more):
    values = (value,) if state is TrialState.COMPLETE else None
    given = {"point": sobol_point(PLANE, seed=0, index=number), "values": values, **more}
    return Trial(number=number, source="x", state=state, **given)


def shown(searcher, trials):
    return [(frozen.number, frozen.state.name) for frozen in searcher.history(trials)]


def test_failed_trials_are_shown_as_running_ones():
    trials = [
        trial(0),
        trial(1, TrialState.FAILED),
        trial(2, TrialState.PRUNED),
        trial(3, TrialState.RUNNING),
    ]
    searcher = OptunaSearcher(settings(), lambda seed: optuna.samplers.RandomSampler(seed=seed), name="x")
    assert shown(searcher, trials) == [(0, "COMPLETE"), (1, "RUNNING"), (2, "PRUNED"), (3, "RUNNING")]
    assert [f.values for f in searcher.history(trials)] == [[1.0], None, None, None]


def test_a_trial_that_ends_is_shown_anew():
    searcher = TPE(settings())
    running = trial(0, TrialState.RUNNING)
    assert shown(searcher, [running]) == [(0, "RUNNING")]
    assert shown(searcher, [replace(running, state=TrialState.COMPLETE, values=(2.0,))]) == [(0, "COMPLETE")]
    first = searcher.history([trial(0)])[0]
    assert searcher.history([trial(0)])[0] is first


def test_trials_of_another_space_are_left_out():
    other = replace(trial(1), point={"x": 99.0, "y": 0.1})
    assert shown(TPE(settings()), [trial(0), other, replace(trial(2), point={"x": 1.0})]) == [(0, "COMPLETE")]


def test_stopped_trials_are_shown_with_their_curve_where_there_is_one_objective():
    stopped = trial(0, TrialState.PRUNED, curve={1: 0.5, 2: 0.4})
    assert TPE(settings()).history([stopped])[0].intermediate_values == {1: 0.5, 2: 0.4}
    several = TPE(settings(directions=("minimize", "maximize")))
    assert several.history([stopped])[0].intermediate_values == {}


def test_two_objectives_and_stopped_trials():
    for algorithm in (TPE, RANDOM):
        searcher = algorithm(settings(directions=("minimize", "maximize")))
        trials = []
        for number in range(30):
            point = searcher.propose(trials, number).point
            state = TrialState.PRUNED if number % 5 == 4 else TrialState.COMPLETE
            values = (bowl(point), point["x"]) if state is TrialState.COMPLETE else None
            trials.append(trial(number, state, point=point, values=values, curve={1: 0.5}))


def test_tpe_prefers_what_keeps_the_constraint():
    """Beyond x = 1 the value is best and the constraint is broken: of the last twenty most are below."""
    searcher, trials = TPE(settings()), []
    for number in range(60):
        point = searcher.propose(trials, number).point
        trials.append(trial(number, value=-point["x"], point=point, excess=(point["x"] - 1.0,)))
    assert sum(t.point["x"] <= 1.0 for t in trials[-20:]) >= 10
    free = [replace(t, excess=()) for t in trials]
    assert searcher.propose(trials, 60) != searcher.propose(free, 60)


def test_a_trial_without_the_constraints_of_others_only_repels():
    trials = [trial(0, excess=(0.5,)), trial(1), trial(2, excess=(-1.0,))]
    searcher = TPE(settings())
    assert shown(searcher, trials) == [(0, "COMPLETE"), (1, "RUNNING"), (2, "COMPLETE")]
    assert [dict(f.constraints) for f in searcher.history(trials)] == [{"0": 0.5}, {}, {"0": -1.0}]
    assert BAYESIAN(settings(engine="optuna", start=1)).propose(trials, 3) is not None


def test_gaussian_process_under_a_constraint():
    """The bowl's lowest place is forbidden; proposals stay where they may, or close by."""
    searcher, trials = GaussianSearcher(settings(), name="bayesian"), []
    for number in range(20):
        point = searcher.propose(trials, number).point
        trials.append(trial(number, value=bowl(point), point=point, excess=(point["x"] - 0.0,)))
    assert sum(t.point["x"] <= 0.5 for t in trials[-8:]) >= 6


def test_a_gaussian_process_looks_at_the_best_and_at_some_of_the_others():
    trials = [trial(i, value=float((i * 37) % 1000)) for i in range(1000)]
    kept = instructive(trials, signs=(1.0,), most=100, pending=8)
    assert len(kept) == 100 and [t.number for t in kept] == sorted({t.number for t in kept})
    assert sum(t.value < 50 for t in kept) == 50
    assert max(t.value for t in kept) > 900
    assert max(t.value for t in instructive(trials, signs=(-1.0,), most=100, pending=8)) == 999


def test_running_trials_come_before_failed_ones_and_both_are_bounded():
    trials = [trial(i, TrialState.FAILED) for i in range(10)] + [
        trial(10 + i, TrialState.RUNNING) for i in range(5)
    ]
    kept = instructive(trials, signs=(1.0,), most=10, pending=8)
    assert [t.number for t in kept] == [7, 8, 9, 10, 11, 12, 13, 14]
    assert [t.number for t in instructive(trials, signs=(1.0,), most=10, pending=3)] == [12, 13, 14]


def test_infeasible_trials_are_not_the_best():
    trials = [trial(i, value=-float(i), excess=(1.0 if i >= 50 else -1.0,)) for i in range(100)]
    best = [t.number for t in instructive(trials, signs=(1.0,), most=20, pending=1)]
    assert set(range(40, 50)) <= set(best)


def test_ten_thousand_trials():
    """Of all states; nothing here is timed, but what grew with the square would not end."""
    drawing = random.Random(1)
    trials = [
        trial(i, drawing.choice(list(TrialState)), drawing.random(), curve={1: drawing.random()},
              point={"x": drawing.uniform(-5, 10), "y": 10 ** drawing.uniform(-6, 0)})
        for i in range(10_000)
    ]  # fmt: skip
    for made in (RANDOM(settings()), TPE(settings()), BAYESIAN(settings(engine="optuna"))):
        for number in range(9_997, 10_000):
            assert made.propose(trials[:number], number) is not None


def test_a_space_of_single_values():
    single = tuple(each for each in MIXED if each.name in ("one", "only", "single"))
    for algorithm in (RANDOM, TPE, CMAES):
        proposal = algorithm(settings(single)).propose([], 0)
        assert proposal.point == {"one": 0.5, "only": '"it"', "single": 3}


def test_trial_seeds_differ_and_stay():
    assert len({trial_seed(seed, number) for seed in range(10) for number in range(100)}) == 1000
    assert trial_seed(0, 0) == random.Random("0:0").getrandbits(32)


def test_the_start_of_a_gaussian_process_is_even():
    searcher = BAYESIAN(settings(engine="optuna", start=8))
    points = [searcher.propose([], number).point for number in range(8)]
    assert sorted(int((p["x"] + 5) / 15 * 8) for p in points) == list(range(8))


def test_several_objectives_are_refused_where_one_is_meant():
    with pytest.raises(TuneError, match="cmaes: there are 2 objectives and it works with one; use bayesian"):
        CMAES(settings(directions=("minimize", "minimize")))


def test_options():
    faults = Faults(file="tune.yaml")
    assert dict(TPE.options(Section({}, faults=faults))) == {"start": 10}
    assert dict(BAYESIAN.options(Section({"engine": "optuna", "start": 3}, faults=faults))) == {
        "engine": "optuna", "start": 3,
    }  # fmt: skip
    TPE.options(Section({"start": 0}, faults=faults))
    BAYESIAN.options(Section({"engine": "ax"}, faults=faults))
    assert [f.key for f in faults.found] == ["start", "engine"]


def test_tpe_begins_to_learn_when_it_is_told_to():
    trials = SimulatedStudy(RANDOM(settings()), Simulation(curve=lambda p, s: bowl(p))).run(trials=8)
    early, late = TPE(settings(start=4)), TPE(settings(start=30))
    assert early.propose(trials, 8).point != late.propose(trials, 8).point
    # A random start depends on nothing that was tried.
    assert late.propose(trials, 8).point == late.propose(trials[:2], 8).point
