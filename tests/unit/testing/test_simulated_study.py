"""The study without jobs: steps, failures, stops, promotions, and trials as JSON."""

from __future__ import annotations

import json

from modelyard.testing.simulated_study import (
    SimulatedStudy,
    Simulation,
    best_value,
    read_trial,
    trial_document,
)
from modelyard.tuning.trial import Proposal, Trial, TrialState


class Scripted:
    """Proposes what it was given; stops a trial at a step."""

    def __init__(self, proposals, stops=()):
        self.proposals, self.stops, self.most = proposals, set(stops), 0

    def propose(self, trials, number):
        self.most = max(self.most, 1 + sum(not t.state.final for t in trials))
        return self.proposals[number] if number < len(self.proposals) else None

    def keeps(self, trials, number, step):
        assert trials[number].curve[step] == trials[number].point["x"] - step
        return (number, step) not in self.stops


def proposal(x, **more):
    return Proposal(point={"x": x}, source="scripted", **more)


def study(searcher, **more):
    return SimulatedStudy(searcher, Simulation(curve=lambda p, step: p["x"] - step, **{"steps": 3, **more}))


def test_trials_advance_until_their_end():
    run = study(Scripted([proposal(1.0), proposal(2.0)]))
    first, second = run.run(trials=5)
    assert (first.state, first.values, first.curve) == (
        TrialState.COMPLETE,
        (-2.0,),
        {1: 0.0, 2: -1.0, 3: -2.0},
    )
    assert second.values == (-1.0,) and run.spent == 6
    assert best_value([first, second]) == -2.0 and best_value([first, second], sign=-1.0) == 1.0


def test_a_stopped_trial_keeps_its_curve():
    run = study(Scripted([proposal(1.0)], stops=[(0, 2)]))
    (only,) = run.run(trials=1)
    assert (only.state, only.values, list(only.curve)) == (TrialState.PRUNED, None, [1, 2]) and run.spent == 2


def test_a_promoted_trial_goes_on_from_its_parent():
    run = study(Scripted([proposal(1.0, budget=1), proposal(1.0, budget=3, parent=0)]))
    parent, child = run.run(trials=2)
    assert (list(parent.curve), list(child.curve), run.spent) == ([1], [2, 3], 3)


def test_so_many_run_at_once_and_no_more():
    searcher = Scripted([proposal(float(i)) for i in range(9)])
    study(searcher, parallel=4).run(trials=9)
    assert searcher.most == 4


def test_failures_have_no_value():
    trials = study(Scripted([proposal(float(i)) for i in range(200)]), failing=0.3, seed=1).run(trials=200)
    failed = [t for t in trials if t.state is TrialState.FAILED]
    assert 40 <= len(failed) <= 80 and all(t.values is None for t in failed)


def test_trials_can_be_left_running():
    trials = study(Scripted([proposal(float(i)) for i in range(9)]), parallel=3).run(trials=9, leave=True)
    assert sum(not t.state.final for t in trials) == 3


def test_the_study_ends_when_its_steps_are_spent():
    run = study(Scripted([proposal(float(i)) for i in range(100)]))
    assert len(run.run(trials=100, spend=10)) == 4


def test_the_default_is_trial_0():
    first = study(Scripted([None, proposal(1.0)]), default={"x": 5.0}).run(trials=2)[0]
    assert (first.point, first.source) == ({"x": 5.0}, "default")


def test_a_trial_comes_back_from_json():
    trial = Trial(
        number=3, point={"x": 1.5, "c": '"a"'}, source="x", state=TrialState.PRUNED, curve={10: 0.5},
        excess=(0.1,), notes={"a": [1]},
    )  # fmt: skip
    assert read_trial(json.loads(json.dumps(trial_document(trial)))) == trial
