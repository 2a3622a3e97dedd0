"""The result dictionary: every key of the original, and no failed trial with a score."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.tuning.tao.result import (
    Kept,
    NoSuccessError,
    Outcome,
    baseline_record,
    best_of,
    comparison,
    final_record,
    number_of,
    progress_record,
    recommendation,
    result_record,
    score,
    status_record,
    values_of,
)
from modelyard.tuning.tao.settings import Evaluations, read_tao_settings
from modelyard.tuning.trial import Trial, TrialState

COMPLETE, FAILED, PRUNED, RUNNING = (
    TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED, TrialState.RUNNING,
)  # fmt: skip
NOTHING = ({"metric_value": None, "status": "unavailable"}, {"metric_value": None, "status": "unavailable"})


def settings(**given_settings):
    return read_tao_settings({"algorithm": "tpe", "metric": "loss", **given_settings})


ONE = settings()
TWO = settings(
    objectives=[{"metric": "acc", "weight": 2}, {"metric": "ms", "direction": "minimize", "scale": 100}]
)


def trial(number, state=COMPLETE, value=None, **fields):
    values = (value,) if isinstance(value, float) else value
    return Trial(number=number, point={}, source="tpe", state=state, values=values, **fields)


def recs_of(trials, own=ONE, **kept):
    return [
        recommendation(each, Kept(specs={"lr": each.number / 10}, job_id=f"job-{each.number}", **kept), own)
        for each in trials
    ]


def result(trials, own=ONE, evaluations=NOTHING):
    return result_record(
        trials, recs_of(trials, own), own, evaluations=evaluations, total=9, state={"algorithm": "tpe"}
    )  # fmt: skip


def test_a_recommendation_is_the_mapping_of_its_values():
    (rec,) = recs_of([trial(3, value=0.5)])
    assert dict(rec) == {"lr": 0.3}
    assert (rec["lr"], rec.get("x", 7), "lr" in rec, len(rec)) == (0.3, 7, True, 1)
    assert (rec.id, rec.job_id, rec.metric, rec.status, rec.result) == (3, "job-3", "loss", "success", 0.5)
    assert rec.objective_values == {"loss": 0.5}


@pytest.mark.parametrize(
    ("state", "status"), [(RUNNING, "running"), (FAILED, "failure"), (PRUNED, "canceled")]
)
def test_what_has_no_value_has_none(state, status):
    (rec,) = recs_of([trial(0, state, why="because")], values={"loss": 0.1})
    assert (rec.status, rec.result, rec.objective_score, rec.objective_values) == (status, None, None, {})
    assert rec.failure_reason == (None if state is RUNNING else "because")


def test_a_value_that_was_adjusted_is_the_one_that_was_tried():
    kept = Kept(
        specs={"lr": 1.0, "batch": 64}, adjustments=({"key": "batch", "to": 8}, {"key": "other", "to": 1})
    )
    rec = recommendation(trial(0, value=0.5), kept, ONE)
    assert rec.specs == {"lr": 1.0, "batch": 8}
    assert len(rec.adjustments) == 2


def test_the_score_of_several_is_their_weighted_sum():
    assert score({"loss": 0.3}, ONE) == 0.3
    assert score({"acc": 0.9, "ms": 50.0}, TWO) == pytest.approx(2 * 0.9 - 0.5)
    assert score({"acc": 0.9}, TWO) is None
    assert score({"acc": math.inf, "ms": 1.0}, TWO) is None


def test_the_result_has_every_key_of_the_original():
    trials = [
        trial(0, value=0.5),
        trial(1, FAILED, why="out of memory"),
        trial(2, value=0.2),
        trial(3, PRUNED),
    ]
    found = result(trials)
    assert set(found) == {"best", "progress", "baseline", "final_evaluation", "history", "algorithm_state"}
    assert found["best"] == {
        "rec_id": 2, "job_id": "job-2", "specs": {"lr": 0.2}, "metric_value": 0.2, "objective_score": 0.2,
        "objective_values": {"loss": 0.2}, "adjustments": [], "feedback": None,
    }  # fmt: skip
    progress = found["progress"]
    assert (progress["completed"], progress["total"], progress["best_metric"], progress["best_rec_id"]) == (
        4, 9, 0.2, 2,
    )  # fmt: skip
    assert progress["algorithm"] == "tpe"
    assert progress["objectives"]["objectives"] == [
        {"metric": "loss", "direction": "minimize", "weight": 1.0, "scale": 1.0}
    ]
    assert [each["status"] for each in found["history"]] == ["success", "failure", "success", "canceled"]
    assert [each["metric"] for each in found["history"]] == [0.5, None, 0.2, None]
    assert set(found["history"][1]) == {
        "rec_id", "job_id", "metric", "objective_score", "objective_values", "status", "failure_reason",
        "adjustments", "feedback",
    }  # fmt: skip
    assert found["history"][1]["failure_reason"] == "out of memory"
    assert found["baseline"]["comparison_to_best"] is None


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_no_failure_is_ever_the_best(direction):
    own = settings(direction=direction)
    trials = [
        trial(0, value=-1.0),
        trial(1, FAILED),
        trial(2, value=1.0),
        trial(3, PRUNED),
        trial(4, RUNNING),
    ]
    best = best_of(trials, recs_of(trials, own), own)
    assert best.id == (0 if direction == "minimize" else 2)


def test_only_the_largest_budget_may_be_best():
    trials = [trial(0, value=0.1, budget=3), trial(1, value=0.4, budget=9)]
    assert best_of(trials, recs_of(trials), ONE).id == 1


def test_all_failed_is_an_error_as_with_the_original():
    trials = [trial(0, FAILED, why="no GPU"), trial(1, FAILED, why="no GPU")]
    with pytest.raises(RuntimeError, match=r"failed: \[0, 1\] \(no GPU\)") as caught:
        result(trials)
    assert isinstance(caught.value, NoSuccessError)


def test_several_objectives_have_a_front():
    trials = [
        trial(0, value=(0.9, 90.0)),
        trial(1, value=(0.8, 10.0)),
        trial(2, value=(0.7, 80.0)),
        trial(3, FAILED),
    ]
    found = result(trials, TWO)
    assert [each["rec_id"] for each in found["pareto_front"]] == [0, 1]
    assert found["progress"]["pareto_front_size"] == 2
    assert found["progress"]["objectives"]["score_direction"] == "maximize"
    assert found["best"]["rec_id"] == 1  # 1.6 - 0.1 against 1.8 - 0.9
    assert found["best"]["metric_value"] == 0.8


def test_values_that_were_kept_stand_for_one_score():
    (rec,) = recs_of([trial(0, value=1.3)], TWO, values={"acc": 0.9, "ms": 50.0})
    assert (rec.result, rec.objective_values) == (0.9, {"acc": 0.9, "ms": 50.0})


def test_comparisons_have_a_direction():
    assert comparison(0.5, 0.3, "minimize") == {"delta": 0.2, "improved": True, "direction": "minimize"}
    assert comparison(0.5, 0.3, "maximize")["improved"] is False
    assert comparison(None, 0.3, "minimize") is comparison(0.3, None, "minimize") is None
    found = result([trial(0, value=0.25)], evaluations=({"metric_value": 0.5}, {"metric_value": 0.75}))
    assert found["baseline"]["comparison_to_best"]["delta"] == 0.25
    assert found["final_evaluation"]["comparison_to_baseline"] == {
        "delta": -0.25, "improved": False, "direction": "minimize",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("evaluations", "measured", "status", "value"),
    [
        ({"baseline": False}, Outcome(value=1), "skipped", None),
        ({"baseline_metric": 0.4}, Outcome(value=1), "provided", 0.4),
        ({}, None, "unavailable", None),
        ({}, Outcome(value=0.3), "measured", 0.3),
        ({}, Outcome(value=None), "metric_missing", None),
        ({}, Outcome(value=True), "failure", None),
        ({}, Outcome(value=math.nan), "failure", None),
        ({}, Outcome(trouble="KeyError: 'x'"), "failure", None),
    ],
)
def test_the_baseline(evaluations, measured, status, value):
    record = baseline_record(Evaluations(**evaluations), "loss", measured)
    assert (record["status"], record["metric_value"], record["metric_name"]) == (status, value, "loss")
    assert ("failure_reason" in record) == (status in ("failure", "unavailable"))


@pytest.mark.parametrize(
    ("evaluations", "measured", "status", "value"),
    [
        ({"final": False}, Outcome(value=1), "skipped", None),
        ({"final_given": 0.4}, Outcome(value=1), "provided", 0.4),
        ({"final_given": {"metric_value": 0.4}}, None, "provided", 0.4),
        ({"final_given": {"metric": 0.4, "status": "measured"}}, None, "measured", 0.4),
        ({"final_given": {"note": 1}}, None, "metric_missing", None),
        ({}, Outcome(value=0.3), "measured", 0.3),
        ({}, Outcome(value={"metric_value": 0.3, "split": "test"}), "measured", 0.3),
        ({}, Outcome(value=None), "metric_missing", None),
        ({}, Outcome(trouble="KeyError: 'x'"), "callback_error", None),
        ({"reuse_best": True}, None, "reused_best", 0.5),
        ({}, None, "unavailable", None),
    ],
)
def test_the_final_evaluation(evaluations, measured, status, value):
    (best,) = recs_of([trial(0, value=0.5)])
    record = final_record(Evaluations(**evaluations), "loss", best=best, measured=measured)
    assert (record["status"], record["metric_value"]) == (status, value)
    if isinstance(measured, Outcome) and isinstance(measured.value, dict):
        assert record["split"] == "test"


def test_places_of_records_are_told():
    own = Evaluations(baseline_record="b.json", final_record="f.json")
    assert baseline_record(own, "loss", None)["record_path"] == "b.json"
    assert final_record(own, "loss", best=None, measured=None)["record_path"] == "f.json"


def test_a_status_tells_what_runs():
    trials = [trial(0, value=0.5), trial(1, FAILED), trial(2, PRUNED), trial(3, RUNNING)]
    found = status_record(trials, recs_of(trials), ONE, total=9, name="run_1")
    assert found["experiment_id"] == "run_1"
    assert found["progress"] == {
        **progress_record(trials, recs_of(trials), ONE, total=9),
        "completed": 3, "total": 9, "best_metric": 0.5, "best_rec_id": 0, "algorithm": "tpe", "succeeded": 1,
        "failed": 1, "canceled": 1, "pending": 1,
    }  # fmt: skip
    assert found["active_jobs"] == [{"rec_id": 3, "job_id": "job-3"}]
    assert found["active_rec_ids"] == [3]
    assert [each["rec_id"] for each in found["pareto_front"]] == [0]
    assert found["best"]["rec_id"] == 0
    assert [each["metric_value"] for each in found["recommendations"]] == [0.5, None, None, None]
    assert status_record([], [], ONE, total=9, name="run_1")["best"] == {}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (0.5, {"loss": 0.5}),
        (2, {"loss": 2.0}),
        ({"metric_value": 0.5}, {"loss": 0.5}),
        ({"score": 0.5, "loss": 0.4}, {"loss": 0.4}),
        ({"other": 1}, "no value of loss"),
        (None, "no value of loss"),
        (math.nan, "no value of loss"),
        (True, "no value of loss"),
        ("0.5", "no value of loss"),
    ],
)
def test_what_a_callback_gives(payload, expected):
    assert values_of(payload, ["loss"]) == expected


def test_all_objectives_are_wanted_of_a_callback():
    assert values_of({"acc": 1, "ms": 2, "note": 3}, ["acc", "ms"]) == {"acc": 1.0, "ms": 2.0}
    assert values_of({"acc": 1}, ["acc", "ms"]) == "no value of ms"
    assert values_of(1.0, ["acc", "ms"]) == "no value of ms"


@given(st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.lists(st.integers()))
def test_a_number_is_finite_or_none(value):
    found = number_of(value)
    assert found is None or math.isfinite(found)


STATES = st.sampled_from([COMPLETE, FAILED, PRUNED, RUNNING])


@given(st.lists(st.tuples(STATES, st.floats(-1e6, 1e6)), min_size=1, max_size=12), st.booleans())
def test_the_best_is_the_best_success(kinds, more):
    own = settings(direction="maximize" if more else "minimize")
    trials = [trial(i, s, v if s is COMPLETE else None) for i, (s, v) in enumerate(kinds)]
    values = [v for s, v in kinds if s is COMPLETE]
    best = best_of(trials, recs_of(trials, own), own)
    if values:
        assert best.result == (max(values) if more else min(values))
    else:
        assert best is None
