"""Plans of TAO AutoML, carried out: what reaches the runner, and what keeps a plan from running."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import DocumentError, TuneError
from modelyard.tuning.tao.__main__ import main
from modelyard.tuning.tao.automl_plan import PLATFORMS, make_sdk, run_automl_plan


@pytest.fixture
def plan(bench):
    settings = {"algorithm": "random", "metric": "loss", "num_recommendations": 2}
    params = {
        "skill_dir": str(bench.skill), "train_dataset_uri": "/data", "sdk_kwargs": {"where": "here"},
        "platform_kwargs": {"env_vars": {"A": "b"}}, "spec_overrides": {"train.num_epochs": 1},
    }  # fmt: skip
    return {
        "ready": True, "automl_settings": settings, "automl_hyperparameters": ["train.optim.lr"],
        "custom_param_ranges": {"train.optim.lr": {"valid_min": 0.02, "valid_max": 0.05}},
        "automl_workspace_path": str(bench.workspace), "steps": [{"params": params}],
    }  # fmt: skip


def test_a_plan_is_carried_out(bench, plan):
    made = []

    def make(platform, **sdk_kwargs):
        made.append((platform, sdk_kwargs))
        return bench.sdk()

    result = run_automl_plan(plan, "docker", make=make, poll_interval=0.02)
    assert made == [("docker", {"where": "here"})]
    assert result["progress"]["completed"] == 2
    assert result["best"]["specs"].keys() == {"train.optim.lr"}
    assert bench.launches() == 2
    specs = json.loads((bench.run_dir / "trials" / "0000" / "trial.json").read_text())["specs"]
    assert specs["train"]["num_epochs"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ready": False, "blocking_issues": ["no credentials", "no image"]}, "no credentials; no image"),
        ({"ready": None}, "no reason is given"),
        ({"steps": []}, "skill_dir"),
        ({"steps": [{"params": {"skill_dir": "x"}}]}, "train_dataset_uri"),
        ({"steps": [{"params": {"skill_dir": "x", "sdk_kwargs": [1]}}]}, "sdk_kwargs"),
        ({"steps": [{"params": {"skill_dir": "x", "platform_kwargs": "p"}}]}, "platform_kwargs"),
    ],
)
def test_a_plan_that_is_not_whole_is_told(plan, changes, words):
    def never(*_, **__):
        raise AssertionError

    with pytest.raises(DocumentError, match=words):
        run_automl_plan({**plan, **changes}, "docker", make=never)


def test_a_platform_that_cannot_be_had_is_told():
    with pytest.raises(TuneError, match="use one of lepton, slurm"):
        make_sdk("moon")
    with pytest.raises(TuneError, match=r"nvidia-tao-sdk==7\.0\.0"):
        make_sdk("lepton")  # no later version has it
    assert len(PLATFORMS) == 6


def test_the_command_tells_why_there_is_no_result(tmp_path, capsys):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"ready": False, "blocking_issues": ["no credentials"]}))
    assert main([str(path), "--platform", "docker"]) == 1
    assert "no credentials" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(path), "--platform", "moon"])
    assert "invalid choice" in capsys.readouterr().err
