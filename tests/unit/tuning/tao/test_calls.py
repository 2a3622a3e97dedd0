"""A trial as a call: its specification, the arguments of the SDK, and a command that runs without TAO's."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from tests.unit.tuning.tao_bench import SPECS, make_skill

from modelyard.core.errors import SubmitError
from modelyard.core.faults import Faults
from modelyard.core.files import read_json
from modelyard.jobs.backends.sdk_calls import Call
from modelyard.tuning.tao.calls import (
    TaoWorkload,
    check_call,
    container_command,
    has_entrypoints,
    plain_command,
)
from modelyard.tuning.tao.settings import read_tao_settings
from modelyard.tuning.tao.skill import read_skill
from modelyard.tuning.workload import Attempt

SHOW = (
    f"{sys.executable} -c 'import sys; print(open(sys.argv[1]).read())' {{config_path}}; echo {{results_dir}}"
)
SCRIPT = {"type": "python_script", "script": "train.py"}


@pytest.fixture
def skill(tmp_path):
    return read_skill(make_skill(tmp_path / "toy"), "train")


@pytest.fixture
def workload(skill):
    def make(own=None, platform=None, **settings):
        read = read_tao_settings({"algorithm": "asha", "metric": "loss", **settings})
        return TaoWorkload(skill=own or skill, specs=SPECS, settings=read, platform=platform or {})

    return make


@pytest.fixture
def attempt(tmp_path):
    def make(**fields):
        given = {"name": "trial/0007", "folder": tmp_path / "trials" / "0007", "number": 7, "seed": 3,
                 "assignments": {"train.optim.lr": 0.01}}  # fmt: skip
        return Attempt(**{**given, **fields})

    return make


def test_a_trial_is_its_values_its_budget_and_places_of_its_own(workload, attempt):
    made = workload(train_sample_count=3)
    specs = {**SPECS, "train": {**SPECS["train"], "save_dir": "/out"}}
    trial = replace(made, specs=specs).trial(attempt(budget=9))
    assert trial["specs"]["train"] == {
        "num_epochs": 9, "optim": {"lr": 0.01, "momentum": 0.9}, "resume": None, "save_dir": "/out/rec_7",
        "checkpoint_interval_unit": "epoch", "checkpoint_interval": 9,
    }  # fmt: skip
    assert trial["specs"]["dataset"]["batch_size"] == 3
    assert trial["outputs"] == ["train.save_dir"]
    assert [change["to"] for change in trial["adjustments"]] == [3]
    assert made.trial(attempt())["specs"]["train"]["num_epochs"] == 3


def test_a_batch_may_be_left_alone(workload, attempt):
    for made in (
        workload(train_sample_count=3, allow_unsafe_effective_batch=True),
        workload(train_sample_count=3, platform={"allow_unsafe_effective_batch": True}),
    ):
        assert made.trial(attempt())["specs"]["dataset"]["batch_size"] == 4


def test_checkpoints_are_those_of_training_only(workload, attempt, skill):
    made = workload(own=replace(skill, action="evaluate"))
    assert "checkpoint_interval" not in made.trial(attempt())["specs"]["train"]


def test_a_step_says_what_runs_and_its_call_what_is_asked(workload, attempt, skill):
    made = workload()
    step = made.step(attempt())
    assert step == made.step(attempt())
    assert (step.name, step.argv, step.shell, step.image, step.seed) == (
        "trial/0007", (skill.command,), True, "toys/trainer:1", 3,
    )  # fmt: skip
    call = made.call(step)
    specs = made.trial(attempt())["specs"]
    assert call == Call(
        method="create_job", arguments={"image": "toys/trainer:1", "command": container_command(skill, specs)}
    )  # fmt: skip


def test_a_script_is_called_with_what_tao_gives_it(workload, attempt, tmp_path):
    folder = tmp_path / "toy2"
    script = read_skill(
        make_skill(folder, inputs={"dataset.train": {}}, upload_excludes=["*.log"]), "train", execution=SCRIPT
    )  # fmt: skip
    made = workload(own=script)
    step = made.step(attempt())
    assert step.argv == ("python", str(folder / "train.py"), "--config", "{config_path}")
    call = made.call(step)
    assert call.method == "create_python_job"
    assert call.arguments == {
        "script": str(folder / "train.py"), "specs": made.trial(attempt())["specs"], "config_format": "yaml",
        "script_args": ["--config", "{config_path}"], "inputs": {"dataset.train": {}},
        "outputs": ["results_dir"], "upload_excludes": ["*.log"], "cwd": str(folder),
        "network_arch": "toy", "action": "train",
        "env_vars": {"MODELYARD_METRICS": str(attempt().folder / "metrics.jsonl")},
    }  # fmt: skip


def test_a_trial_that_cannot_train_is_not_launched(workload, attempt):
    made = workload(train_sample_count=1, platform={"gpu_count": 8})
    step = made.step(attempt())
    assert read_json(attempt().folder / "trial.json")["refusal"]
    with pytest.raises(
        SubmitError, match=r"trial/0007: invalid_configuration: dataset\.batch_size=4 exceeds"
    ):
        made.call(step)


# -- a command of our own -----------------------------------------------------------------------------------


def ran(skill, specs, tmp_path, **variables):
    command = plain_command(replace(skill, command=SHOW), specs)
    base = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={**base, **variables}, capture_output=True, text=True, check=True
    )  # fmt: skip
    text, _, results = done.stdout.rstrip("\n").rpartition("\n")
    return text, results


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_the_command_finds_the_specification_as_it_was_meant(skill, tmp_path, kind):
    specs = {**SPECS, "text": 'it\'s "$HOME" `id` \\ | & é\nnew', "none": None, "train": {"lr": 1e-05}}
    text, results = ran(
        replace(skill, config_format=kind), specs, tmp_path, TAO_RESULTS_ROOT=f"{tmp_path}/a&b|c d"
    )
    read = json.loads(text) if kind == "json" else yaml.safe_load(text)
    assert read == {**specs, "results_dir": f"{tmp_path}/a&b|c d/results_dir"}
    assert results == f"{tmp_path}/a&b|c d"
    assert (tmp_path / "a&b|c d").is_dir()


def test_without_a_place_of_the_platform_results_lie_beside_the_specification(skill, tmp_path):
    text, results = ran(skill, SPECS, tmp_path)
    assert results.startswith(str(tmp_path))
    assert yaml.safe_load(text)["results_dir"] == f"{results}/results_dir"


def test_a_failure_of_the_command_is_the_jobs(skill):
    command = plain_command(replace(skill, command="exit 3"), SPECS)
    assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 3


def faults_of(skill, specs):
    faults = Faults(file="run")
    check_call(skill, specs, faults)
    return "\n".join(map(str, faults.found))


@pytest.mark.skipif(has_entrypoints(), reason="nvidia-tao-sdk is installed and does both")
def test_what_only_tao_can_do_is_refused_without_it(skill):
    own = replace(skill, inputs={"dataset.train": {}, "dataset.val": {}}, config_format="toml")
    told = faults_of(own, {"dataset": {"train": "s3://bucket/x", "val": "file:///data"}})
    assert "only nvidia-tao-sdk writes" in told
    assert "dataset.train" in told
    assert "dataset.val" not in told
    assert faults_of(skill, SPECS) == ""
    script = replace(own, script=read_skill(skill.folder, "train", execution=SCRIPT).script)
    assert faults_of(script, SPECS) == ""


def test_tao_makes_the_command_where_it_is_installed(skill):
    pytest.importorskip("tao_sdk.script_runner", reason="peer: nvidia-tao-sdk is not installed")
    command = container_command(replace(skill, upload_excludes=("*.log",)), SPECS)
    words = (
        shlex.split(command.splitlines()[-1])
        if "--specs" in command.splitlines()[-1]
        else shlex.split(command)
    )
    assert json.loads(words[words.index("--specs") + 1]) == SPECS
    assert words[words.index("--command") + 1] == skill.command
    assert "*.log" in command
