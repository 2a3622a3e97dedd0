"""What a study holds, read from its storage alone: the order of trials, the default, and what is told."""

from __future__ import annotations

import json
import math

import pytest

from modelyard.core.errors import TuneError
from modelyard.testing.made_studies import MadeTrial, make_study
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Parameter, Space
from modelyard.tuning.trial import Objective, TrialState
from modelyard.tuning.view import study_url, view_study

LOSS = Objective(metric="loss", direction="minimize")
GAIN = Objective(metric="gain", direction="maximize", take="best")
SPACE = Space(
    [Parameter(name="a", domain=Range(low=0, high=1)), Parameter(name="b", domain=Range(low=0, high=1))]
)
FAILED, PRUNED, RUNNING = TrialState.FAILED, TrialState.PRUNED, TrialState.RUNNING
TRIALS = [
    MadeTrial(values=(0.5,), source="default", assignments={"a": 0.5}, metrics={"size": 3.0}),
    MadeTrial(state=FAILED, why="it broke", cause="code", curve={1: -9.0}),
    MadeTrial(state=PRUNED, why="stopped at step 3", curve={1: 2.0, 3: 1.5}),
    MadeTrial(values=(0.25,), curve={1: 1.0, 2: 0.25}),
    MadeTrial(state=RUNNING, curve={1: 0.0}),
    MadeTrial(values=(0.75,)),
]  # fmt: skip


@pytest.fixture
def view(tmp_path):
    """Makes a study and reads it."""

    def make(trials, objectives=(LOSS,), **more):
        make_study(tmp_path / "one", SPACE, objectives, trials, **more)
        return view_study(tmp_path / "one")

    return make


def test_trials_are_as_they_were_stored(view):
    seen = view(TRIALS)
    assert seen.name == "one" and seen.objectives == (LOSS,)
    assert [each.trial.state for each in seen.trials] == [made.state for made in TRIALS]
    assert [each.trial.values for each in seen.trials] == [made.values for made in TRIALS]
    first, running = seen.trials[0], seen.trials[4]
    assert first.assignments == {"a": 0.5, "b": 0.5} and first.metrics == {"size": 3.0}
    assert first.job == "job-0" and first.started_at and first.ended_at >= first.started_at
    assert running.job == "" and running.started_at and running.ended_at == ""
    assert seen.trials[2].trial.curve == {1: 2.0, 3: 1.5}


def test_the_space_is_known_by_its_axes(view):
    assert view(TRIALS).dimensions == SPACE.dimensions
    assert all(isinstance(each, Dimension) for each in view(TRIALS).dimensions)


@pytest.mark.parametrize(("objective", "best"), [(LOSS, 3), (GAIN, 5)])
def test_the_best_and_the_order_of_all(view, objective, best):
    seen = view(TRIALS, (objective,))
    assert seen.best.trial.number == best and [each.trial.number for each in seen.front] == [best]
    order = [each.trial.number for each in seen.ranked]
    assert order == ([3, 0, 5] if objective is LOSS else [5, 0, 3]) + [2, 4, 1]


def test_the_best_comes_first_where_budgets_differ(view):
    seen = view(
        [
            MadeTrial(values=(0.1,), budget=1),
            MadeTrial(values=(0.5,), budget=9),
            MadeTrial(values=(0.4,), budget=9),
        ]
    )
    assert [each.trial.number for each in seen.ranked] == [2, 1, 0] and seen.best.trial.number == 2


def test_without_a_success_there_is_no_best_and_no_default(view):
    seen = view([MadeTrial(state=FAILED, source="default"), MadeTrial(state=RUNNING)])
    assert seen.best is None and seen.default is None and seen.front == ()
    assert seen.record()["best"] is None


def test_the_default_is_found_by_its_source(view):
    seen = view([MadeTrial(values=(0.1,)), MadeTrial(values=(0.9,), source="default")])
    assert seen.default.trial.number == 1


def test_the_front_of_several_objectives(view):
    values = [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (1.0, 1.0), (0.5, 0.0)]
    seen = view([MadeTrial(values=each) for each in values], (LOSS, GAIN))
    assert [each.trial.number for each in seen.front] == [0, 1, 3, 4]


def test_a_record_is_json_and_says_it_all(view):
    kept = {"trial": 3, "gain": {"mean": 0.1, "low": None, "high": None}}
    record = view(TRIALS, confirmation=kept).record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["counts"] == {"RUNNING": 1, "COMPLETE": 3, "PRUNED": 1, "FAILED": 1}
    assert record["best"]["number"] == 3 and record["best"]["curve"] == [[1, 1.0], [2, 0.25]]
    assert record["confirmation"] == kept and record["front"] == [3]
    assert record["objectives"] == [{"metric": "loss", "direction": "minimize", "take": "last"}]


def test_looking_changes_nothing(view, tmp_path):
    first = view(TRIALS)
    again = view_study(tmp_path / "one")
    assert again == first and not math.isnan(again.best.trial.value)


def test_where_there_is_no_study_it_is_told(tmp_path, view):
    with pytest.raises(TuneError, match="there is no study here; `modelyard status` lists"):
        view_study(tmp_path / "none")
    view(TRIALS)
    (tmp_path / "one/study.db").unlink()
    with pytest.raises(TuneError, match="there is no study here"):
        view_study(tmp_path / "one")


def test_a_study_that_is_being_made_is_told_as_that(tmp_path, view):
    view(TRIALS)
    (tmp_path / "one" / "study.json").unlink()  # as it is between the two
    with pytest.raises(TuneError, match="the study is being made and has no trial yet; look again"):
        view_study(tmp_path / "one")


def test_a_running_trial_tells_who_looks_after_it_and_when_that_was_heard_of(view):
    seen = view(TRIALS).trials
    assert [each.driver for each in seen] == ["", "", "", "", "made", ""]
    assert seen[4].silent_s is None


def test_a_study_is_in_its_runs_folder_unless_a_url_is_given(tmp_path):
    assert study_url(tmp_path, None) == f"sqlite:///{tmp_path}/study.db"
    assert study_url(tmp_path, "postgresql://h/x") == "postgresql://h/x"
