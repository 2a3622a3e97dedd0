"""`AutoMLRunner` as a script that was written for TAO uses it, over an SDK that really runs trainings."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime

import pytest
import yaml
from tests.unit.tuning.tao_bench import Bench

from modelyard.core.errors import DocumentError, TuneError
from modelyard.core.files import read_json
from modelyard.core.plugins import plugin_names
from modelyard.testing.bench import fork
from modelyard.testing.process_sdk import BareProcessSdk, ProcessSdk
from modelyard.tuning.tao.automl_runner import AutoMLRunner, query_status
from modelyard.tuning.tao.request import RunRequest, argument_names
from modelyard.tuning.tao.result import MetricExtractorError, NoSuccessError
from modelyard.tuning.tao.settings import ALGORITHMS

# -- a whole search -----------------------------------------------------------------------------------------


def test_a_script_of_tao_runs(bench):
    told = []
    result = bench.run(
        settings={"num_recommendations": 5},
        spec_overrides={"train.num_epochs": 2},
        on_recommendation=lambda rec: told.append(("launch", rec.id, rec.job_id, dict(rec))),
        on_result=lambda rec, metric, status: told.append(("end", rec.id, metric, status)),
    )
    assert [item[:2] for item in told] == [(kind, i) for i in range(5) for kind in ("launch", "end")]
    assert told[0][2:] == (None, {"train.optim.lr": 0.001, "train.optim.momentum": 0.9})
    assert told[1][2:] == (pytest.approx(1 + 0.4 + 1 / 2), "success")
    assert [each["metric"] for each in result["history"]] == [item[2] for item in told if item[0] == "end"]
    assert result["best"]["metric_value"] == min(each["metric"] for each in result["history"])
    assert all(each["job_id"] for each in result["history"])
    assert result["progress"]["completed"] == result["progress"]["total"] == 5
    json.dumps(result, allow_nan=False)
    assert bench.launches() == 5


def test_the_specification_is_the_templates_with_overrides_and_data(bench):
    info = bench.skill / "references" / "skill_info.yaml"
    rules = {"train": {"dataset.train": {"source": "train_datasets", "path": "images"}}}
    info.write_text(yaml.safe_dump({**yaml.safe_load(info.read_text()), "data_sources": rules}))
    bench.run(
        train_dataset_uri="/data",
        spec_overrides={"train": {"num_epochs": 1}, "custom.x": 5},
        settings={"num_recommendations": 1},
    )
    specs = read_json(bench.run_dir / "trials" / "0000" / "trial.json")["specs"]
    assert specs["dataset"]["train"] == "/data/images"
    assert specs["custom"] == {"x": 5}
    assert specs["train"]["num_epochs"] == 1


def test_trials_run_side_by_side_only_where_it_is_said(bench, wait_until):
    hold = bench.folder / "hold"
    hold.touch()
    running = []

    def most():
        jobs = bench.folder.glob("platform/*")
        return sum((job / "started.json").exists() and not (job / "exit.json").exists() for job in jobs)

    def let_go():
        wait_until(lambda: most() == 3)
        running.append(most())
        hold.unlink()

    thread = threading.Thread(target=let_go)
    thread.start()
    result = bench.run(
        settings={"automl_max_concurrent": 3, "num_recommendations": 4}, env_vars={"HOLD": str(hold)}
    )
    thread.join()
    assert running == [3]
    assert result["progress"]["completed"] == 4


def test_names_and_ranges_of_the_caller(bench):
    result = bench.run(
        automl_hyperparameters=["train.optim.lr"],
        custom_param_ranges={"train.optim.lr": {"valid_min": 0.02, "valid_max": 0.5}},
        spec_overrides={"train.optim.lr": 0.03},
    )
    values = [each["train.optim.lr"] for each in _specs(bench)]
    assert values[0] == 0.03
    assert all(0.02 <= value <= 0.5 for value in values)
    assert result["best"]["specs"].keys() == {"train.optim.lr"}


def _specs(bench):
    return [rec["specs"] for rec in query_status(bench.run_dir)["recommendations"]]


def test_a_platform_is_given_the_arguments_as_they_are(bench):
    asked = []

    class Picky(ProcessSdk):
        def create_job(self, *, image, command, partition, gpu_count=1, env_vars=None):
            asked.append((image, partition, gpu_count, env_vars["A"]))
            return super().create_job(image, command, gpu_count, env_vars)

    bench.run(sdk=bench.sdk(Picky), partition="gpu", gpu_count=2, env_vars={"A": "b"}, image="own:1",
              settings={"num_recommendations": 1})  # fmt: skip
    assert asked == [("own:1", "gpu", 2, "b")]


@pytest.mark.parametrize("algorithm", ["asha", "hyperband"])
def test_budgets_are_epochs_and_bad_trials_are_stopped(bench, algorithm):
    seen = []
    result = bench.run(
        settings={
            "algorithm": algorithm,
            "automl_max_epochs": 9,
            "automl_max_concurrent": 2,
            "num_recommendations": 7,
        },
        on_result=lambda rec, metric, status: seen.append((status, rec.budget)),
    )
    assert {"success"} <= {status for status, _ in seen} <= {"success", "canceled"}
    assert len(seen) == 7
    assert all(each["metric"] is None for each in result["history"] if each["status"] == "canceled")
    for trial in (bench.run_dir / "trials").iterdir():
        assert read_json(trial / "trial.json")["specs"]["train"]["num_epochs"] in (1, 3, 9)


def test_hyperband_ends_after_one_round(bench):
    own = {"algorithm": "hyperband", "automl_max_epochs": 3, "metric": "loss", "automl_max_concurrent": 2}
    result = bench.runner().run(automl_settings=own, workspace_path=bench.workspace)
    assert result["progress"]["completed"] == result["progress"]["total"] == 3 + 2


# -- what a trial is worth ----------------------------------------------------------------------------------


def test_an_evaluation_of_the_caller_counts_alone(bench):
    seen = []

    def evaluate(rec, job_id):
        seen.append((rec.id, job_id, rec.status))
        return [0.5, None, {"metric_value": 0.25, "split": "val"}][rec.id]

    result = bench.run(eval_fn=evaluate)
    assert [each["metric"] for each in result["history"]] == [0.5, None, 0.25]
    assert [each["status"] for each in result["history"]] == ["success", "failure", "success"]
    assert result["history"][1]["failure_reason"] == "no value of loss came from eval_fn"
    assert [job for _, job, _ in seen] == [each["job_id"] for each in result["history"]]


def test_an_evaluation_that_raises_makes_a_failure_and_no_end(bench):
    def evaluate(rec, _job):
        if rec.id == 1:
            raise KeyError("results.json")
        return 0.5

    result = bench.run(eval_fn=evaluate)
    assert "eval_fn raised KeyError" in result["history"][1]["failure_reason"]
    assert result["progress"]["completed"] == 3


def test_an_extractor_reads_the_log(bench):
    def extract(logs, metric):
        assert metric == "loss"
        return float(logs.count("epoch:"))

    result = bench.run(metric_extractor=extract, settings={"num_recommendations": 1})
    assert result["best"]["metric_value"] == 3.0


def test_a_job_that_prints_nothing_is_read_by_its_results(bench):
    result = bench.run(env_vars={"QUIET": "1"}, settings={"automl_delete_intermediate_ckpt": False})
    assert all(each["metric"] is not None for each in result["history"])


def test_three_trials_without_the_metric_are_an_error(bench):
    with pytest.raises(MetricExtractorError, match="val_acc") as caught:
        bench.run(settings={"metric": "val_acc", "num_recommendations": 9})
    assert isinstance(caught.value, RuntimeError)
    assert bench.launches() == 3


def test_a_log_that_says_the_execution_failed_is_believed(bench):
    script = bench.skill / "train.py"
    script.write_text(script.read_text() + "\nprint('Execution status: FAIL')\n")
    with pytest.raises(NoSuccessError, match="Execution status: FAIL"):
        bench.run()


def test_failures_are_never_scores(bench):
    result = bench.run(
        env_vars={"BREAKS_ABOVE": "0.002"}, settings={"num_recommendations": 6, "metric": "loss"}
    )
    failed = [each for each in result["history"] if each["status"] == "failure"]
    assert failed
    assert all(
        each["metric"] is None and "illegal memory access" in each["failure_reason"] for each in failed
    )
    assert result["best"]["metric_value"] > 0


def test_all_failures_are_an_error(bench):
    with pytest.raises(NoSuccessError, match="illegal memory access"):
        bench.run(env_vars={"BREAKS_ABOVE": "0"})


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_two_objectives_have_a_front(bench, algorithm):
    objectives = [{"metric": "loss"}, {"metric": "latency", "weight": 0.1, "scale": 10}]
    result = bench.run(settings={"algorithm": algorithm, "objectives": objectives, "num_recommendations": 4})
    assert result["best"]["objective_values"].keys() == {"loss", "latency"}
    score = result["best"]["objective_score"]
    assert score == max(each["objective_score"] for each in result["history"])
    values = result["best"]["objective_values"]
    assert score == pytest.approx(-values["loss"] - 0.1 * values["latency"] / 10)
    front = {each["rec_id"] for each in result["pareto_front"]}
    assert front
    assert min(result["history"], key=lambda h: h["objective_values"]["loss"])["rec_id"] in front


def test_an_algorithm_of_one_objective_searches_for_the_score(bench):
    objectives = ["loss", "latency"]
    result = bench.run(settings={"algorithm": "cmaes", "objectives": objectives, "num_recommendations": 3})
    assert any("weighted score" in note for note in result["algorithm_state"]["notes"])
    assert len(result["history"][0]["objective_values"]) == 2
    assert result["best"]["objective_score"] == max(each["objective_score"] for each in result["history"])


# -- before and after ---------------------------------------------------------------------------------------


def test_baseline_and_final_evaluation(bench):
    calls = []

    def final(rec, job_id):
        calls.append((rec.id, job_id))
        return {"metric_value": 0.1, "split": "test"}

    result = bench.run(baseline_fn=lambda specs: specs["train"]["optim"]["lr"] * 1000, final_eval_fn=final)
    assert result["baseline"]["status"] == "measured"
    assert result["baseline"]["metric_value"] == 1.0
    assert result["baseline"]["comparison_to_best"]["improved"] == (result["best"]["metric_value"] < 1)
    assert (result["final_evaluation"]["status"], result["final_evaluation"]["split"]) == ("measured", "test")
    assert result["final_evaluation"]["comparison_to_baseline"]["delta"] == pytest.approx(0.9)
    assert calls == [(result["best"]["rec_id"], result["best"]["job_id"])]


def test_the_baseline_is_measured_once_however_often_a_run_is_resumed(bench):
    asked = []

    def measure(specs):
        asked.append(specs)
        specs.clear()  # a copy of its own
        return 0.75

    first = bench.run(baseline_fn=measure)
    second = bench.run(baseline_fn=measure, resume=True, settings={"num_recommendations": 4})
    assert len(asked) == 1
    assert first["baseline"]["metric_value"] == second["baseline"]["metric_value"] == 0.75
    bench.run(baseline_fn=measure, settings={"baseline_metric": 0.5, "num_recommendations": 1})
    assert len(asked) == 1


def test_a_search_is_written_for_weights_and_biases(bench):
    bench.environment = {}
    bench.run(wandb_config={"enabled": True, "project": "toys"}, settings={"num_recommendations": 1})
    assert len(list(bench.run_dir.glob("wandb/offline-run-*"))) == 1
    with pytest.raises(DocumentError, match="WANDB_API_KEY"):
        bench.run(wandb_config={"enabled": True, "api_key": "xyzzy"})


def test_feedback_is_kept_if_it_can_be(bench):
    said = iter([{"note": "good"}, {1, 2}, ValueError("x")])

    def feedback(_rec, job_id):
        assert job_id
        answer = next(said)
        if isinstance(answer, Exception):
            raise answer
        return answer

    result = bench.run(feedback_fn=feedback)
    assert [each["feedback"] for each in result["history"]] == [{"note": "good"}, None, None]
    assert all(each["metric"] is not None for each in result["history"])


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_not_the_best_is_deleted_if_so_wanted(bench, keep):
    result = bench.run(settings={"automl_delete_intermediate_ckpt": not keep})
    for each in result["history"]:
        left = (bench.folder / "platform" / each["job_id"] / "results").exists()
        assert left == (keep or each["rec_id"] == result["best"]["rec_id"])


def test_what_failed_is_kept_for_those_who_look_into_it(bench):
    settings = {"num_recommendations": 6, "automl_retain_failed_artifacts": True}
    result = bench.run(env_vars={"BREAKS_ABOVE": "0.002"}, settings=settings)
    for each in result["history"]:
        left = (bench.folder / "platform" / each["job_id"] / "results").exists()
        assert left == (each["status"] == "failure" or each["rec_id"] == result["best"]["rec_id"])


# -- nothing is made before everything is checked -----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"spec_overrides": {"train.optim.1r": 1}}, ["did you mean train.optim.lr?"]),
        ({"automl_hyperparameters": ["train.optim.lrs"]}, ["train.optim.lrs"]),
        ({"settings": {"automl_max_recomendations": 3}}, ["did you mean automl_max_recommendations?"]),
        ({"custom_param_ranges": {"train.optim.lr": {"valid_low": 1}}}, ["did you mean"]),
        ({"settings": {"metric": "--"}}, ["metric"]),
        ({"spec_overrides": {"train.num_epochs.x": 1}}, ["holds no keys"]),
        ({"image": "toolkit.pyt"}, ["versions.yaml"]),
        ({"execution": {"type": "python_script", "script": "train.py"}}, ["has no create_python_job"]),
        (
            {"spec_overrides": {"train.optim.1r": 1}, "automl_hyperparameters": ["nonsense"]},
            ["did you mean train.optim.lr?", "nonsense"],
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(bench, arguments, words):
    with pytest.raises(DocumentError) as caught:
        bench.run(**arguments)
    for word in words:
        assert word in str(caught.value)
    assert not bench.workspace.exists()


def test_an_sdk_that_cannot_delete_later_is_refused_before_the_first_job(bench):
    class Stubborn(ProcessSdk):
        def validate_artifact_retention(self, **kwargs):
            raise ValueError(f"cannot delete from {kwargs['route']}")

    with pytest.raises(DocumentError, match="cannot delete from elsewhere"):
        bench.run(sdk=bench.sdk(Stubborn), route="elsewhere")
    assert not bench.workspace.exists()


def test_an_sdk_needs_its_four_methods(bench):
    with pytest.raises(DocumentError) as caught:
        bench.run(sdk=object())
    for method in ("create_job", "get_job_status", "get_job_logs", "get_failure_analysis"):
        assert method in str(caught.value)


def test_a_folder_that_is_no_skill_is_told_at_once(tmp_path):
    with pytest.raises(DocumentError, match=r"skill_info\.yaml"):
        AutoMLRunner(BareProcessSdk(tmp_path), tmp_path)


def test_every_algorithm_of_the_skill_is_there():
    assert set(ALGORITHMS) <= set(plugin_names("modelyard.tuners"))


def test_a_skill_without_a_schema_is_told(bench):
    (bench.skill / "schemas" / "train.schema.json").unlink()
    with pytest.raises(DocumentError, match="add the schema"):
        bench.run()


# -- stopping and going on ----------------------------------------------------------------------------------


def test_runs_have_folders_of_their_own(bench):
    hour = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for _ in range(2):
        runner = bench.runner(clock=lambda: hour)
        own = {"algorithm": "random", "metric": "loss", "num_recommendations": 1}
        runner.run(automl_settings=own, workspace_path=bench.workspace)
    names = sorted(path.name for path in bench.workspace.glob("run_*"))
    assert names == ["run_20260102_030405", "run_20260102_030405_2"]


def test_a_run_that_ended_can_be_lengthened(bench):
    first = bench.run()
    second = bench.run(settings={"num_recommendations": 5}, resume=True)
    assert [h["metric"] for h in second["history"][:3]] == [h["metric"] for h in first["history"]]
    assert len(second["history"]) == 5
    third = bench.runner().run(
        automl_settings={"algorithm": "random", "metric": "loss", "num_recommendations": 5},
        workspace_path=bench.run_dir, resume=True,
    )  # fmt: skip
    assert third["best"] == second["best"]
    assert bench.launches() == 5


def test_a_run_of_something_else_is_not_resumed(bench):
    bench.run()
    with pytest.raises(TuneError, match="begun with another"):
        bench.run(spec_overrides={"dataset.batch_size": 8}, resume=True)


def test_there_must_be_something_to_resume(bench):
    with pytest.raises(TuneError, match="no run to resume"):
        bench.run(resume=True)


@pytest.mark.parametrize("place", ["launch", "running", "result"])
def test_a_killed_run_goes_on_with_its_jobs(bench, place, wait_until):
    hold = bench.folder / "hold"
    hold.touch()

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def begin():
        given = {"launch": {"on_recommendation": lambda rec: rec.id == 1 and die()},
                 "result": {"on_result": lambda rec, *_: rec.id == 1 and die()}}.get(place, {})  # fmt: skip
        bench.run(env_vars={"HOLD": str(hold)}, settings={"num_recommendations": 4}, **given)

    pid = fork(begin)
    if place == "running":
        wait_until(lambda: list(bench.folder.glob("platform/*/started.json")))
        os.kill(pid, signal.SIGKILL)
        hold.unlink()
    else:
        wait_until(lambda: list(bench.folder.glob("platform/*/started.json")))
        hold.unlink()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    told = []
    result = bench.run(
        env_vars={"HOLD": str(hold)}, settings={"num_recommendations": 4}, resume=True,
        on_result=lambda rec, metric, status: told.append(rec.id),
    )  # fmt: skip
    assert [each["status"] for each in result["history"]] == ["success"] * 4
    assert bench.launches() == 4
    assert told == {"launch": [1, 2, 3], "running": [0, 1, 2, 3], "result": [2, 3]}[place]


def test_an_interrupt_stops_the_jobs_and_can_be_resumed(bench, wait_until):
    hold = bench.folder / "hold"
    hold.touch()
    pid = fork(lambda: bench.run(env_vars={"HOLD": str(hold)}))
    wait_until(lambda: list(bench.folder.glob("platform/*/started.json")))
    os.kill(pid, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    (job,) = (bench.folder / "platform").iterdir()
    assert read_json(job / "exit.json")["reason"] == "cancelled"
    hold.unlink()
    result = bench.run(env_vars={"HOLD": str(hold)}, resume=True)
    assert [each["status"] for each in result["history"]] == ["success"] * 3


def test_another_thread_can_stop_a_run(bench, wait_until):
    hold = bench.folder / "hold"
    hold.touch()
    runner = bench.runner()
    runner.cancel_active_jobs()  # nothing runs yet

    def stop():
        wait_until(lambda: list(bench.folder.glob("platform/*/started.json")))
        runner.cancel_active_jobs(reason="enough")

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SystemExit):
        runner.run(
            automl_settings={"algorithm": "random", "metric": "loss"}, workspace_path=bench.workspace,
            env_vars={"HOLD": str(hold)},
        )  # fmt: skip
    thread.join()
    assert query_status(bench.workspace)["progress"]["pending"] == 1


def test_a_status_can_be_asked_for_by_any_process(bench):
    asked = []
    assert "error" in query_status(bench.workspace)
    result = bench.run(on_result=lambda *_: asked.append(query_status(bench.workspace)))
    assert [each["progress"]["completed"] for each in asked] == [1, 2, 3]
    assert asked[-1]["best"]["rec_id"] == result["best"]["rec_id"]
    assert asked[0]["recommendations"][0]["job_id"] == result["history"][0]["job_id"]


def test_no_key_is_written_down(bench):
    bench.run(settings={"llm_api_key": "xyzzy-4711", "num_recommendations": 1})
    for path in bench.workspace.rglob("*"):
        assert not path.is_file() or b"xyzzy-4711" not in path.read_bytes()


def test_an_unknown_or_an_old_sdk_has_four_methods_only(bench):
    result = bench.run(sdk=bench.sdk(BareProcessSdk))
    assert [each["status"] for each in result["history"]] == ["success"] * 3


def test_the_defaults_are_those_of_the_original():
    request = RunRequest.of((), {})
    assert (request.workspace_path, request.resume, request.automl_settings) == (
        "./automl_workspace",
        False,
        None,
    )
    given = RunRequest.of(("train", "eval"), {"image": "i", "partition": "p"})
    assert (given.train_dataset_uri, given.eval_dataset_uri, given.image) == ("train", "eval", "i")
    assert given.platform_kwargs == {"partition": "p"}
    with pytest.raises(TuneError, match="given twice"):
        RunRequest.of(("train",), {"train_dataset_uri": "x"})
    with pytest.raises(TuneError, match="by position"):
        RunRequest.of(("x",) * 40, {})
    names = list(inspect.signature(AutoMLRunner.run).parameters)
    assert names == ["self", *argument_names(), "platform_kwargs"]


# -- the real thing -----------------------------------------------------------------------------------------


@pytest.fixture
def virtual_sdk(tmp_path):
    """nvidia-tao-sdk's VirtualEnvSDK over this interpreter's own environment."""
    module = pytest.importorskip("tao_sdk.platforms.virtualenv", reason="peer: nvidia-tao-sdk is missing")
    sdk = module.VirtualEnvSDK(sys.prefix, work_dir=tmp_path / "tao", state_file=tmp_path / "tao" / "s.db")
    yield sdk
    for thread in [t for t in threading.enumerate() if t.name.startswith("tao-virtualenv")]:
        thread.join(10)
    sdk._store.close()


def test_a_script_runs_in_taos_virtual_environment(virtual_sdk, tmp_path):
    execution = {"type": "python_script", "script": "train.py", "args": ["--config", "{config_path}"]}
    bench = Bench(tmp_path)
    result = bench.run(
        sdk=virtual_sdk, execution=execution, gpu_count=0, settings={"automl_max_concurrent": 2}
    )
    assert [each["status"] for each in result["history"]] == ["success"] * 3
    assert result["history"][0]["metric"] == pytest.approx(1 + 0.4 + 1 / 3)
    for each in result["history"]:
        left = (tmp_path / "tao" / "jobs" / each["job_id"] / "results").exists()
        assert left == (each["rec_id"] == result["best"]["rec_id"])


def test_results_of_taos_virtual_environment_are_read(virtual_sdk, tmp_path):
    execution = {"type": "python_script", "script": "train.py"}
    result = Bench(tmp_path).run(sdk=virtual_sdk, execution=execution, gpu_count=0, env_vars={"QUIET": "1"})
    assert result["history"][0]["metric"] == pytest.approx(1 + 0.4 + 1 / 3)
