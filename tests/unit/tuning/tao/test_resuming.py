"""Promoted trials go on from their parents' checkpoints, in jobs that really train and really keep them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.core.files import read_json
from modelyard.testing.process_sdk import BareProcessSdk, ProcessSdk
from modelyard.tuning.tao.automl_runner import query_status
from modelyard.tuning.tao.calls import TaoWorkload
from modelyard.tuning.tao.checkpoints import Checkpoint, checkpoint_of, listed_checkpoints, local_checkpoints
from modelyard.tuning.tao.resuming import (
    Ancestor,
    ResumePlace,
    can_find,
    checkpoint_in,
    resume_place,
    resumed,
)
from modelyard.tuning.tao.settings import read_tao_settings
from modelyard.tuning.tao.skill import read_skill
from modelyard.tuning.tao.specs import merged
from modelyard.tuning.workload import Attempt

PLACE = ResumePlace(switch="train.resume")
#: Counts from 0, as many of TAO's trainers do.
KEEPS = {"KEEPS": "model_epoch_{before:03d}.pth"}


def epochs_of(bench, job_id):
    """The epochs that a job trained."""
    log = (bench.folder / "platform" / job_id / "stdout.log").read_text()
    return [int(word) for word in re.findall(r"epoch: (\d+)", log)]


def recs_of(bench):
    """Every recommendation as its last callback had it."""
    seen = {}
    return seen, {"on_result": lambda rec, metric, status: seen.__setitem__(rec.id, rec)}


# -- whole searches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "more", "trials"),
    [("asha", {"automl_max_trials": 3}, 4), ("hyperband", {}, 6), ("dehb", {}, 6)],
)
def test_a_promoted_trial_trains_what_is_left(bench, algorithm, more, trials):
    seen, hooks = recs_of(bench)
    own = {"automl_max_epochs": 3, "automl_rungs": "resume", "num_recommendations": None}
    result = bench.run(settings={"algorithm": algorithm, **own, **more}, env_vars=KEEPS, **hooks)
    assert {each["status"] for each in result["history"]} == {"success"}
    assert result["progress"]["total"] == len(seen) == trials
    for rec in seen.values():
        begun = (rec.resume_from_epoch or 0) + 1
        assert epochs_of(bench, rec.job_id) == list(range(begun, rec.budget + 1))
    parents = {rec.job_id: rec for rec in seen.values()}
    went_on = [rec for rec in seen.values() if rec.resume_from_job_id]
    assert len(went_on) == 1
    for rec in went_on:
        parent = parents[rec.resume_from_job_id]
        assert (dict(parent), parent.budget) == (dict(rec), rec.resume_from_epoch)
    asked = [read_json(path)["request"]["env_vars"] for path in bench.run_dir.glob("jobs/*/intent.json")]
    assert sum(variables.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") == "1" for variables in asked) == 1
    assert seen[result["best"]["rec_id"]].budget == 3


def test_a_population_copies_checkpoints(bench):
    seen, hooks = recs_of(bench)
    own = {
        "algorithm": "pbt", "automl_population_size": 3, "automl_eval_interval": 2,
        "automl_max_generations": 2, "automl_perturbation_factor": 1.5, "num_recommendations": None,
    }  # fmt: skip
    result = bench.run(settings=own, env_vars=KEEPS, **hooks)
    assert len(result["history"]) == result["progress"]["total"] == 3 * 2
    assert [rec.budget for rec in seen.values()] == [2] * 3 + [4] * 3
    by_job = {rec.job_id: rec for rec in seen.values()}
    later = [rec for rec in seen.values() if rec.budget > 2]
    assert all(epochs_of(bench, rec.job_id) == [3, 4] for rec in later)
    # one of three is replaced by a copy with other values
    assert sum(dict(by_job[rec.resume_from_job_id]) != dict(rec) for rec in later) == 1


def test_a_promotion_without_a_checkpoint_fails_and_costs_its_parent_nothing(bench):
    own = {"algorithm": "asha", "automl_max_epochs": 3, "automl_rungs": "resume", "num_recommendations": 3}
    result = bench.run(settings=own)  # nothing is kept
    failed = [each for each in result["history"] if each["status"] == "failure"]
    assert failed
    assert all("no checkpoint of epoch 1" in each["failure_reason"] for each in failed)
    assert all(each["metric"] is None for each in failed)
    assert "1 of 1 promoted trials found no checkpoint" in result["algorithm_state"]["notes"][-1]
    values = [each["metric"] for each in result["history"] if each["metric"] is not None]
    assert result["best"]["metric_value"] == min(values)
    assert bench.launches() == len(values) == 3


def test_a_skill_without_a_place_trains_promoted_trials_from_the_beginning(bench):
    template = bench.skill / "references" / "spec_template_train.yaml"
    template.write_text(template.read_text().replace("resume: null", "restart: null"))
    schema = bench.skill / "schemas" / "train.schema.json"
    schema.write_text(schema.read_text().replace('"resume": null', '"restart": null'))
    seen, hooks = recs_of(bench)
    own = {"algorithm": "asha", "automl_max_epochs": 3, "automl_rungs": "resume", "num_recommendations": 3}
    result = bench.run(settings=own, **hooks)
    assert any("train from the beginning" in note for note in result["algorithm_state"]["notes"])
    assert [epochs_of(bench, r.job_id) for r in seen.values() if r.resume_from_job_id] == [[1, 2, 3]]


def test_a_run_that_was_killed_between_rungs_goes_on_from_the_checkpoint(bench, wait_until):
    own = {"algorithm": "asha", "automl_max_epochs": 3, "automl_rungs": "resume", "num_recommendations": 3}

    def stop(rec):
        if rec.resume_from_job_id:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(settings=own, env_vars=KEEPS, on_recommendation=stop)
    assert query_status(bench.run_dir)["progress"]["pending"] == 1
    seen, hooks = recs_of(bench)
    result = bench.run(settings=own, env_vars=KEEPS, resume=True, **hooks)
    (promoted,) = [rec for rec in seen.values() if rec.resume_from_job_id]
    assert epochs_of(bench, promoted.job_id) == [2, 3]
    assert result["best"]["rec_id"] == promoted.id
    assert bench.launches() == 4


def test_what_is_kept_of_a_rung_is_its_end(bench, tmp_path):
    skill = read_skill(bench.skill, "train")
    specs = merged(skill.specs, {"train.checkpoint_interval": 3, "train.validation_interval": 2})

    def told(*, rung_jobs, specs=specs, **settings):
        own = read_tao_settings({"algorithm": "asha", **settings})
        workload = TaoWorkload(skill=skill, specs=specs, settings=own, platform={}, rung_jobs=rung_jobs)
        attempt = Attempt(name="trial/0000", folder=tmp_path, assignments={}, seed=0, number=0, budget=4)
        return workload.trial(attempt)["specs"]["train"]

    def trained(**given):
        train = told(**given)
        return train["checkpoint_interval"], train["validation_interval"]

    assert trained(rung_jobs=True) == (4, 2)
    assert trained(rung_jobs=True, automl_delete_intermediate_ckpt=False) == (4, 2)
    assert trained(rung_jobs=False, automl_delete_intermediate_ckpt=False) == (3, 2)
    best = merged(specs, {"train.checkpointer": {"monitor": "loss"}})
    assert told(rung_jobs=True, specs=best)["checkpointer"] == {"monitor": "loss"}
    assert told(rung_jobs=False, specs=best)["checkpointer"]["save_top_k"] == 1


def test_a_misspelled_way_to_the_rungs_is_told(bench):
    with pytest.raises(DocumentError, match="use one of auto, stop, resume"):
        bench.run(settings={"algorithm": "asha", "automl_rungs": "promote"})


# -- which checkpoint ---------------------------------------------------------------------------------------


def chosen(*paths, epoch=3, folders=False):
    return checkpoint_of([Checkpoint(path=path) for path in paths], epoch=epoch, folders=folders)


@pytest.mark.parametrize(
    ("paths", "best"),
    [
        (["model_epoch_001.pth", "model_epoch_002.pth", "model_epoch_003.pth"], "model_epoch_003.pth"),
        (["a/model_epoch_000.pth", "a/model_epoch_002.pth"], "a/model_epoch_002.pth"),
        (["epoch=2-step=500.ckpt", "last.ckpt"], "epoch=2-step=500.ckpt"),
        (["model_best_003.pth", "model_epoch_009.pth"], "model_best_003.pth"),
        (["x/003.pth", "x/3.txt"], "x/003.pth"),
        (["student_epoch_003.pth", "model_epoch_003.pth", "teacher_epoch_003.pth"], "model_epoch_003.pth"),
        (["latest.pth", "best_0.93.pth"], "latest.pth"),
        (["ep03.pth"], "ep03.pth"),
        (["model_epoch_001.pth", "best_0.93.pth", "model.pth"], None),
        ([], None),
    ],
)
def test_the_checkpoint_of_an_epoch(paths, best):
    assert chosen(*paths) == best


@given(st.permutations([f"model_epoch_{n:03d}.pth" for n in range(12)]), st.integers(1, 11))
def test_the_order_of_a_listing_does_not_matter(paths, epoch):
    assert chosen(*paths, epoch=epoch) == f"model_epoch_{epoch:03d}.pth"


def test_what_a_job_was_given_is_no_checkpoint_of_it(tmp_path):
    for name in (
        "inputs/model_epoch_003.pth",
        "ptm/epoch_3.pth",
        "train/epoch_3/policy/x.bin",
        "engine.onnx",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = local_checkpoints(tmp_path)
    assert [(each.path, each.is_folder) for each in found] == [(str(tmp_path / "train/epoch_3"), True)]


def test_a_listing_is_below_the_jobs_results():
    listed = ["a/model_epoch_1.pth", "s3://b/x.pth", "/c/y.ckpt", "model.onnx", {"path": "z.pth"}]
    found = [each.path for each in listed_checkpoints(listed, "s3://bucket/job/")]
    assert found == ["s3://bucket/job/a/model_epoch_1.pth", "s3://b/x.pth", "/c/y.ckpt"]


def test_checkpoints_on_a_mounted_disk_are_named_as_the_job_sees_them(tmp_path):
    (tmp_path / "job-1" / "train").mkdir(parents=True)
    (tmp_path / "job-1" / "train" / "model_epoch_002.pth").touch()
    platform = {"mounts": [{"host_path": str(tmp_path), "container_path": "/results/"}, "x"]}
    parent = Ancestor(job_id="job-1", epoch=3)
    found = checkpoint_in(object(), platform, parent, place=PLACE, network="toy")
    assert found == "/results/job-1/train/model_epoch_002.pth"
    assert checkpoint_in(object(), {}, parent, place=PLACE, network="toy") is None


def test_checkpoints_that_the_sdk_lists():
    class Remote:
        def get_checkpoints(self, job_id):
            return [f"{job_id}/model_epoch_2.pth", f"{job_id}/model_epoch_3.pth"]

        def get_job_results_dir(self, _job_id):
            raise ConnectionError("gone")

    found = checkpoint_in(
        Remote(), {}, Ancestor(job_id="j", epoch=3), place=PLACE, network="toy"
    )  # fmt: skip
    assert found == "j/model_epoch_3.pth"


def test_cosmos_goes_on_from_the_policy_in_an_epochs_folder(tmp_path):
    sdk = ProcessSdk(tmp_path)
    job = sdk.create_job("image", "true")
    policy = tmp_path / job.id / "results" / "checkpoints" / "epoch_3" / "policy"
    policy.mkdir(parents=True)
    (policy / "cosmos_config").touch()
    parent = Ancestor(job_id=job.id, epoch=3)
    assert checkpoint_in(sdk, {}, parent, place=PLACE, network="cosmos-rl") == str(policy)
    assert checkpoint_in(sdk, {}, parent, place=PLACE, network="other") == str(policy.parent)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (ResumePlace(path="train.resume_training_checkpoint_path"), ["c.pth", None]),
        (ResumePlace(path="train.resume_training_checkpoint_path", switch="train.resume"), ["c.pth", True]),
        (ResumePlace(switch="train.resume"), [None, "c.pth"]),
    ],
)
def test_how_a_training_is_told(place, told):
    train = {"num_epochs": 9, "resume": None, "resume_training_checkpoint_path": None}
    own = resumed({"train": train}, place, "c.pth", network="nvpanoptix3d")
    assert [own["train"][name] for name in ("resume_training_checkpoint_path", "resume")] == told
    assert own["train"]["num_epochs"] == 10  # this one counts a restored epoch again
    assert train["resume"] is None


def test_something_must_tell_where_checkpoints_are(tmp_path):
    mounts = {"mounts": [{"host_path": str(tmp_path), "container_path": "/results"}]}
    assert can_find(ProcessSdk(tmp_path), {})
    assert not can_find(BareProcessSdk(tmp_path), {})
    assert can_find(BareProcessSdk(tmp_path), mounts)


def test_the_place_is_found_in_the_skill(bench):
    skill = read_skill(bench.skill, "train")
    assert resume_place(skill, skill.specs) == ResumePlace(switch="train.resume")
    assert not resume_place(replace(skill, specs={}, schema={}), {})
