"""`AutoML`: a caller that trains by itself asks and tells, in one process or several, to the end."""

from __future__ import annotations

import inspect
import json
import os

import pytest
from tests.unit.tuning.tao.sessions import far, trained

from modelyard.core.errors import DocumentError, TuneError
from modelyard.tuning.tao.automl import AutoML
from modelyard.tuning.view import view_study


def test_ask_and_tell_to_the_end(begin):
    automl = begin()
    asked = trained(automl)
    assert [rec.id for rec in asked] == [0, 1, 2, 3]
    assert dict(asked[0]) == {"train.optim.lr": 0.001, "train.optim.momentum": 0.9}  # the default first
    assert automl.next_recommendation() == []
    best = automl.get_best()
    assert best.result == min(far(rec) for rec in asked)
    progress = automl.get_progress()
    assert (progress["completed"], progress["total"], progress["best_rec_id"]) == (4, 4, best.id)
    assert [rec.status for rec in automl.get_history()] == ["success"] * 4
    status = automl.get_status()
    assert status.keys() == {"progress", "best", "recommendations", "pareto_front", "active_rec_ids"}
    assert status["best"]["metric_value"] == best.result


def test_the_arguments_have_taos_names_and_order():
    names = [
        "self", "workspace", "network", "train_specs", "settings", "automl_hyperparameters",
        "custom_param_ranges", "action", "resume", "wandb_config", "search_schema",
    ]  # fmt: skip
    assert list(inspect.signature(AutoML.__init__).parameters) == names
    with pytest.raises(TypeError, match="missing"):
        AutoML("workspace")


def test_as_many_as_may_run_are_given_out_and_no_more(begin):
    automl = begin({"automl_max_concurrent": 3})
    assert [rec.id for rec in automl.next_recommendation()] == [0, 1, 2]
    assert automl.next_recommendation() == []
    assert automl.get_status()["active_rec_ids"] == [0, 1, 2]
    assert not automl.is_complete()
    automl.report_result(1, 0.5)
    assert [rec.id for rec in automl.next_recommendation()] == [3]


def test_names_and_ranges_of_the_caller(begin):
    ranges = {"train.optim.lr": {"valid_min": 0.02, "valid_max": 0.05}}
    asked = trained(begin(automl_hyperparameters=["train.optim.lr"], custom_param_ranges=ranges))
    assert all(rec.keys() == {"train.optim.lr"} for rec in asked)
    assert all(0.02 <= rec["train.optim.lr"] <= 0.05 for rec in asked[1:])


def test_what_is_no_number_is_a_failure_and_no_score(begin):
    automl = begin()
    for value in (float("nan"), None, "good"):
        (rec,) = automl.next_recommendation()
        automl.report_result(rec.id, value)
    history = automl.get_history()
    assert [(told.status, told.result) for told in history] == [("failure", None)] * 3
    assert {told.failure_reason for told in history} == {"no value of loss was reported"}
    assert automl.get_best() is None


def test_a_failure_never_counts(begin):
    automl = begin()
    (rec,) = automl.next_recommendation()
    automl.report_result(rec.id, 0.0, status="failure")
    (rec,) = automl.next_recommendation()
    automl.report_result(rec.id, 0.7, best_epoch=2, feedback={"note": "good"})
    automl.report_result(rec.id, 0.1)  # the first word stands
    best = automl.get_best()
    assert (best.id, best.result, best.best_epoch_number, best.feedback) == (1, 0.7, 2, {"note": "good"})
    assert automl.get_history()[0].failure_reason == "reported as failure"
    with pytest.raises(TuneError, match="there is no recommendation 7"):
        automl.report_result(7, 0.5)


@pytest.mark.parametrize(("algorithm", "asked"), [("asha", 4), ("hyperband", 6)])
def test_a_promotion_says_whose_checkpoint_it_goes_on_from(begin, algorithm, asked):
    own = {"algorithm": algorithm, "automl_max_epochs": 3, "automl_max_recommendations": None,
           "automl_max_trials": 3}  # fmt: skip
    automl = begin(own)
    seen = []
    while not automl.is_complete():
        for rec in automl.next_recommendation():
            assert rec["train.num_epochs"] == rec.budget
            rec.assign_job_id(f"job-{rec.id}")
            automl.report_result(rec.id, far(rec))
            seen.append(rec)
    assert len(seen) == automl.get_progress()["total"] == asked
    (promoted,) = [rec for rec in seen if rec.resume_from_job_id]
    assert (promoted.budget, promoted.resume_from_epoch) == (3, 1)
    parent = seen[int(promoted.resume_from_job_id.removeprefix("job-"))]
    assert parent["train.optim.lr"] == promoted["train.optim.lr"]
    assert automl.get_best().budget == 3
    assert automl.get_history()[0].job_id == "job-0"


@pytest.mark.parametrize("algorithm", ["asha", "hyperband", "pbt"])
def test_no_checkpoint_is_given_up_that_is_gone_on_from_later(begin, algorithm):
    """Whoever deletes what is not required at every turn never lacks the one to resume."""
    own = {"algorithm": algorithm, "automl_max_epochs": 9, "automl_max_recommendations": None}
    own |= {"automl_population_size": 3, "automl_max_generations": 4} if algorithm == "pbt" else {}
    automl = begin(own | ({"automl_max_trials": 9} if algorithm == "asha" else {}))
    there, deleted, resumed = set(), 0, 0
    while not automl.is_complete():
        for rec in automl.next_recommendation():
            rec.assign_job_id(f"job-{rec.id}")
            if rec.resume_from_job_id:
                resumed += 1
                assert rec.resume_from_job_id in there & automl.get_required_checkpoint_job_ids()
            assert f"job-{rec.id}" in automl.get_required_checkpoint_job_ids()
            there.add(f"job-{rec.id}")
            automl.report_result(rec.id, far(rec))
            kept = there & automl.get_required_checkpoint_job_ids()
            deleted, there = deleted + len(there - kept), kept
    assert resumed and deleted
    assert automl.get_required_checkpoint_job_ids() == set()


def test_a_best_of_a_smaller_budget_is_not_verified(begin):
    automl = begin(
        {"algorithm": "asha", "automl_max_epochs": 3, "automl_max_recommendations": None,
         "automl_max_trials": 3}
    )  # fmt: skip
    assert automl.get_verified_full_fidelity_best() is automl.get_best() is None
    for rec in automl.next_recommendation():
        automl.report_result(rec.id, far(rec))
    assert automl.get_best().budget == 1 and automl.get_verified_full_fidelity_best() is None
    trained(automl)
    assert automl.get_verified_full_fidelity_best().id == automl.get_best().id
    plain = begin({"session_id": "plain"})
    trained(plain)
    assert plain.get_verified_full_fidelity_best().id == plain.get_best().id


def test_the_state_of_the_algorithm_is_all_that_it_decides_from(begin):
    automl = begin({"algorithm": "hyperband", "automl_max_epochs": 3, "automl_max_recommendations": None})
    asked = trained(automl)
    state = json.loads(json.dumps(automl.get_algorithm_state()))
    assert (state["algorithm"], state["budgets"]) == ("hyperband", [1, 3])
    assert state["counts"] == {"complete": len(asked)} and len(state["trials"]) == len(asked)
    assert [each["budget"] for each in state["trials"]] == [rec.budget for rec in asked]
    (promoted,) = [each for each in state["trials"] if each["parent"] is not None]
    assert promoted["values"] == [automl.get_history()[promoted["rec_id"]].result]


@pytest.mark.parametrize("algorithm", ["tpe", "cmaes"])
def test_several_objectives(begin, algorithm):
    automl = begin({"algorithm": algorithm, "objectives": [{"metric": "loss"}, {"metric": "latency"}]})
    trained(automl, lambda rec: {"loss": far(rec), "latency": rec["train.optim.momentum"]})
    best, front = automl.get_best(), automl.get_pareto_front()
    assert best.objective_values.keys() == {"loss", "latency"}
    assert best.objective_score == pytest.approx(-sum(best.objective_values.values()))
    assert best.id in [rec.id for rec in front]


def test_a_session_is_resumed_with_what_was_given_out(begin):
    whole = trained(begin({"session_id": "a"}))
    first = begin({"session_id": "b"})
    (rec,) = first.next_recommendation()
    first.report_result(rec.id, far(rec))
    (rec,) = first.next_recommendation()  # and the process ends
    second = begin({"session_id": "b"}, resume=True)
    assert second.get_status()["active_rec_ids"] == [1]
    asked = trained(second)
    assert [each.id for each in asked] == [1, 2, 3]
    assert dict(asked[0]) == dict(rec)
    assert [dict(each) for each in second.get_history()[:1]] == [dict(whole[0])]
    assert len(second.get_history()) == len(whole) == 4
    assert second.run_dir.name == second.wandb_group == "automl_b"


def test_without_a_session_the_one_written_to_last_is_resumed(begin):
    first, second = begin(), begin()
    assert second.run_dir.name == "automl_20260102_030405_2"
    writes = (
        second.next_recommendation,
        lambda: second.get_history()[0].assign_job_id("job-0"),
        lambda: second.report_result(0, 0.5),
    )
    for write in writes:
        os.utime(first.run_dir / "automl.json", (4e9, 4e9))
        assert begin(resume=True).run_dir == first.run_dir
        for each, at in ((first, 2), (second, 1)):
            os.utime(each.run_dir / "automl.json", (at, at))
        write()
        assert begin(resume=True).run_dir == second.run_dir


def test_what_cannot_be_resumed_is_told(begin, tmp_path):
    with pytest.raises(TuneError, match="no session to resume"):
        begin(resume=True)
    with pytest.raises(TuneError, match="no such session"):
        begin({"session_id": "a"}, resume=True)
    with pytest.raises(TuneError, match="take / out of it"):
        begin({"session_id": "../a"})
    assert not list(tmp_path.iterdir())
    begin({"session_id": "a"})
    with pytest.raises(TuneError, match="say resume=True"):
        begin({"session_id": "a"})
    with pytest.raises(TuneError, match="begun with another algorithm"):
        begin({"session_id": "a", "algorithm": "tpe"}, resume=True)


def test_what_is_wrong_is_told_before_anything_is_made(begin, tmp_path):
    with pytest.raises(DocumentError, match="did you mean automl_max_trials"):
        begin({"automl_max_trial": 3})
    with pytest.raises(DocumentError, match="give search_schema"):
        begin(search_schema=None)
    with pytest.raises(DocumentError, match="WANDB_API_KEY"):
        begin(wandb_config={"enabled": True, "api_key": "xyzzy"})
    assert not list(tmp_path.iterdir())


def test_the_session_is_a_study_as_any_other(begin):
    automl = begin({"session_id": "a"})
    trained(automl)
    view = view_study(automl.run_dir)
    assert view.best.trial.number == automl.get_best().id
    assert view.counts()["COMPLETE"] == 4


def test_a_session_is_written_for_weights_and_biases(begin):
    automl = begin({"automl_max_recommendations": 1}, wandb_config={"enabled": True})
    trained(automl)
    automl.finish()
    assert len(list(automl.run_dir.glob("wandb/offline-run-*"))) == 1
