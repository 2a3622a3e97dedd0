"""What a run deletes at its end, and what becomes of promotions when such a run is lengthened."""

from __future__ import annotations

import re

import pytest
from tests.unit.tuning.tao_bench import Bench

from modelyard.core.errors import TuneError
from modelyard.core.files import read_json
from modelyard.testing.process_sdk import ProcessSdk
from modelyard.tuning.tao.retention import delete_results, deleted_jobs
from modelyard.tuning.tao.status import query_status
from modelyard.tuning.view import view_study

#: Counts from 0, as many of TAO's trainers do.
KEEPS = {"KEEPS": "model_epoch_{before:03d}.pth"}
KEEP_ALL = {"automl_delete_intermediate_ckpt": False}
AFRESH = "trained from the beginning"


def budgets(algorithm, count, **more):
    """Settings of so many configurations, of which each rung is a job."""
    own = {"algorithm": algorithm, "automl_max_epochs": 3, "automl_rungs": "resume"}
    return {**own, "num_recommendations": count, **more}


def outcomes(result):
    """What is to be the same of two runs."""
    own = ("rec_id", "metric", "status", "failure_reason")
    return [tuple(each[name] for name in own) for each in result["history"]]


def epochs_of(bench, job_id):
    """The epochs that a job trained."""
    log = (bench.folder / "platform" / job_id / "stdout.log").read_text()
    return [int(word) for word in re.findall(r"epoch: (\d+)", log)]


def recorder():
    """Every recommendation as its last callback had it."""
    seen = {}
    return seen, {"on_result": lambda rec, metric, status: seen.__setitem__(rec.id, rec)}


def notes_of(result):
    return " ".join(result["algorithm_state"]["notes"])


# -- lengthening --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "epochs", "count"), [("asha", 3, 10), ("hyperband", 9, 9), ("bohb", 9, 9)]
)
def test_a_run_that_is_lengthened_comes_to_what_a_longer_one_comes_to(bench, algorithm, epochs, count):
    other, own = Bench(bench.folder / "other"), budgets(algorithm, count, automl_max_epochs=epochs)
    whole = other.run(settings=own, env_vars=KEEPS)
    first = bench.run(settings={**own, "num_recommendations": 6}, env_vars=KEEPS)
    assert AFRESH not in notes_of(first)
    seen, hooks = recorder()
    second = bench.run(settings=own, env_vars=KEEPS, resume=True, **hooks)
    assert outcomes(second) == outcomes(whole)
    assert {each["status"] for each in second["history"]} == {"success"}
    for rec in seen.values():
        begun = (rec.resume_from_epoch or 0) + 1
        assert epochs_of(bench, rec.job_id) == list(range(begun, rec.budget + 1))
    promoted = [
        each.trial.number for each in view_study(bench.run_dir).trials if each.trial.parent is not None
    ]
    afresh = [n for n in promoted if n in seen and seen[n].resume_from_job_id is None]
    assert 0 < len(afresh) < len(set(promoted) & set(seen))
    told = f"{len(afresh)} of {len(promoted)} promoted trials were {AFRESH}"
    assert told in notes_of(second) and "automl_delete_intermediate_ckpt to false" in notes_of(second)


def test_where_every_promotion_is_trained_from_the_beginning_that_alone_is_told(bench):
    for place in ("references/spec_template_train.yaml", "schemas/train.schema.json"):
        path = bench.skill / place
        path.write_text(path.read_text().replace("resume", "restart"))
    for count, resume in ((6, False), (9, True)):
        result = bench.run(settings=budgets("asha", count), resume=resume)
        assert {each["status"] for each in result["history"]} == {"success"}
        assert "the specification has no place for a checkpoint" in notes_of(result)
        assert "the run had deleted" not in notes_of(result)


def test_a_run_that_keeps_everything_goes_on_from_it_when_it_is_lengthened(bench):
    bench.run(settings=budgets("asha", 6, **KEEP_ALL), env_vars=KEEPS)
    seen, hooks = recorder()
    result = bench.run(settings=budgets("asha", 10, **KEEP_ALL), env_vars=KEEPS, resume=True, **hooks)
    assert AFRESH not in notes_of(result)
    assert all(epochs_of(bench, rec.job_id) == [2, 3] for rec in seen.values() if rec.budget == 3)
    assert not deleted_jobs(bench.run_dir)


def test_what_a_trial_went_on_from_is_still_told_when_that_is_deleted(bench):
    seen, hooks = recorder()
    bench.run(settings=budgets("asha", 6), env_vars=KEEPS, **hooks)
    (first, *_) = [rec for rec in seen.values() if rec.resume_from_job_id]
    assert first.resume_from_job_id in deleted_jobs(bench.run_dir)
    result = bench.run(settings=budgets("asha", 7), env_vars=KEEPS, resume=True)
    assert "promoted" not in notes_of(result)  # that one was trained from a checkpoint, and is counted so


def test_a_platform_that_says_no_is_believed(bench):
    class Keeping(ProcessSdk):
        def delete_job_artifacts(self, job_id):
            return False

    bench.run(sdk=bench.sdk(Keeping), settings=budgets("asha", 6), env_vars=KEEPS)
    seen, hooks = recorder()
    result = bench.run(
        sdk=bench.sdk(Keeping), settings=budgets("asha", 10), env_vars=KEEPS, resume=True, **hooks
    )  # fmt: skip
    assert AFRESH not in notes_of(result) and not deleted_jobs(bench.run_dir)
    assert all(epochs_of(bench, rec.job_id) == [2, 3] for rec in seen.values() if rec.budget == 3)


def test_a_run_that_was_killed_while_it_deleted_knows_what_may_be_gone(bench):
    class Dying(ProcessSdk):
        def delete_job_artifacts(self, job_id):
            super().delete_job_artifacts(job_id)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(sdk=bench.sdk(Dying), settings=budgets("asha", 6), env_vars=KEEPS)
    result = bench.run(settings=budgets("asha", 10), env_vars=KEEPS, resume=True)
    assert {each["status"] for each in result["history"]} == {"success"}
    assert AFRESH in notes_of(result)
    left = {path.parent.name for path in (bench.folder / "platform").glob("*/results")}
    assert left == {result["best"]["job_id"]}


def test_hyperband_is_lengthened_beyond_its_one_round(bench):
    own = budgets("hyperband", None)
    first = bench.run(settings=own, env_vars=KEEPS)
    second = bench.run(settings={**own, "num_recommendations": 8}, env_vars=KEEPS, resume=True)
    assert len(first["history"]) == 6 and len(second["history"]) > 8
    assert outcomes(second)[:6] == outcomes(first)
    assert {each["status"] for each in second["history"]} == {"success"}


def test_a_run_that_stopped_before_its_end_deletes_nothing(bench):
    """Its training broke: three trials that failed alike end it, and it is to be gone on with."""

    def stop(rec):
        if rec.id == 5:
            raise KeyboardInterrupt

    own = budgets("asha", 9)
    with pytest.raises(KeyboardInterrupt):
        bench.run(settings=own, env_vars=KEEPS, on_recommendation=stop)
    broken = bench.run(settings=own, env_vars={**KEEPS, "BREAKS_ABOVE": "0"}, resume=True)
    assert broken["algorithm_state"]["outcome"] == "failed"
    for each in broken["history"][:5]:
        assert (bench.folder / "platform" / each["job_id"] / "results").exists()
    assert not deleted_jobs(bench.run_dir)
    result = bench.run(settings=own, env_vars=KEEPS, resume=True)
    assert result["algorithm_state"]["outcome"] == "succeeded"
    assert deleted_jobs(bench.run_dir)


def test_a_population_that_has_ended_is_not_lengthened_without_its_checkpoints(bench):
    own = budgets("pbt", None, automl_population_size=3, automl_eval_interval=2, automl_max_generations=2)
    first = bench.run(settings=own, env_vars=KEEPS)
    assert bench.run(settings=own, env_vars=KEEPS, resume=True)["history"] == first["history"]
    launches, longer = bench.launches(), {**own, "automl_max_generations": 3}
    with pytest.raises(TuneError, match=r"deleted what \d jobs left .* after 4 epochs; begin another run"):
        bench.run(settings=longer, env_vars=KEEPS, resume=True)
    assert bench.launches() == launches
    assert query_status(bench.run_dir)["progress"]["completed"] == 6


def test_a_population_that_kept_its_checkpoints_is_lengthened(bench):
    own = budgets("pbt", None, automl_population_size=3, automl_eval_interval=2, **KEEP_ALL)
    bench.run(settings={**own, "automl_max_generations": 2}, env_vars=KEEPS)
    result = bench.run(settings={**own, "automl_max_generations": 3}, env_vars=KEEPS, resume=True)
    assert [each["status"] for each in result["history"]] == ["success"] * 9


# -- the ledger ---------------------------------------------------------------------------------------------


def test_each_job_is_noted_before_it_is_asked_for(tmp_path):
    noted = []
    delete_results(tmp_path, ["a", "b"], lambda job: noted.append((job, deleted_jobs(tmp_path))) or True)
    assert noted == [("a", {"a", "b"}), ("b", {"a", "b"})]


def test_what_the_platform_answers_is_kept(tmp_path):
    answers = {"gone": True, "there": False, "silent": None}

    def delete(job):
        asked.append(job)
        return answers[job]  # nothing is known of others: it raises

    asked = []
    delete_results(tmp_path, ["gone", "there", "silent", "raises"], delete)
    assert deleted_jobs(tmp_path) == {"gone", "silent", "raises"}
    answers["raises"] = False
    asked.clear()
    delete_results(tmp_path, ["gone", "there", "silent", "raises"], delete)
    assert asked == ["there", "raises"]
    assert deleted_jobs(tmp_path) == {"gone", "silent"}
    assert read_json(tmp_path / "deleted.json")["schema"] == 1


def test_where_nothing_is_to_be_deleted_nothing_is_written(tmp_path):
    delete_results(tmp_path, [], lambda _job: True)
    assert not list(tmp_path.iterdir()) and deleted_jobs(tmp_path) == set()
