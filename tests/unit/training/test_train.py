"""Training a pool: prepared without a trace, recorded dry, executed and taken up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import DocumentError, RunMismatch
from modelyard.jobs.progress import StepStatus
from modelyard.runs.execution import ExecutionOptions, Outcome
from modelyard.runs.yard import Yard
from modelyard.training.train import PreparedTraining, prepare_training, record_plan, train

Prepare = Callable[..., PreparedTraining]


@pytest.fixture
def options() -> ExecutionOptions:
    return ExecutionOptions(slots=2, environment=dict(os.environ))


@pytest.fixture
def prepare(tmp_path: Path, options: ExecutionOptions) -> Prepare:
    """Prepare the training of models with these commands."""

    def prepare(*commands: str, manifest_out: Path | None = None, **top: Any) -> PreparedTraining:
        models = [{"name": f"m{i}", "train_cmd": command} for i, command in enumerate(commands)]
        path = tmp_path / "pool.json"
        path.write_text(json.dumps({"models": models, **top}))
        return prepare_training(path, tmp_path / "run", manifest_out, options)

    return prepare


def statuses(path: Path) -> list[str]:
    return [model["status"] for model in json.loads(path.read_bytes())["models"]]


def test_preparing_writes_nothing(prepare: Prepare, tmp_path: Path) -> None:
    prepared = prepare("true", "true")
    assert [step.name for step in prepared.plan.steps] == ["train/m0", "train/m1"]
    assert prepared.lacking == ()
    assert [path.name for path in tmp_path.iterdir()] == ["pool.json"]


def test_what_this_machine_lacks_is_told_and_not_trained(
    prepare: Prepare, yard: Yard, options: ExecutionOptions, tmp_path: Path
) -> None:
    prepared = prepare("no-such-program {dataset}", dataset="none.csv")
    assert [fault.key for fault in prepared.lacking] == ["train/m0.inputs", "train/m0.argv"]
    assert all(fault.here for fault in prepared.lacking)
    with pytest.raises(DocumentError, match=r"none\.csv.*does not exist"):
        train(yard, prepared, options)
    assert not (tmp_path / "run").exists()


def test_the_dry_run_records_every_model_as_planned(prepare: Prepare, tmp_path: Path) -> None:
    prepared = prepare("true", "no-such-program", manifest_out=tmp_path / "elsewhere" / "m.json")
    record_plan(prepared)
    places = [tmp_path / "run" / "manifest.json", tmp_path / "elsewhere" / "m.json"]
    assert list(prepared.manifests) == places
    assert [statuses(place) for place in places] == [["planned", "planned"]] * 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["manifest.json"]


def test_one_place_named_twice_is_one_manifest(prepare: Prepare, tmp_path: Path) -> None:
    place = tmp_path / "run" / "manifest.json"
    assert prepare("true", manifest_out=place).manifests == (place,)


def test_a_pool_is_trained_and_what_has_succeeded_stays(
    prepare: Prepare, yard: Yard, options: ExecutionOptions, tmp_path: Path
) -> None:
    prepared = prepare("sh -c 'echo x >> {model_dir}/count'", "true")
    outcome, progress = train(yard, prepared, options)
    assert outcome is Outcome.SUCCEEDED
    assert [item.status for item in progress] == [StepStatus.SUCCEEDED] * 2
    assert statuses(tmp_path / "run" / "manifest.json") == ["ok", "ok"]
    assert train(yard, prepared, options)[0] is Outcome.SUCCEEDED
    assert (tmp_path / "run" / "models" / "m0" / "count").read_text() == "x\n"


def test_a_dry_run_leaves_the_manifest_of_a_run_alone(
    prepare: Prepare, yard: Yard, options: ExecutionOptions, tmp_path: Path
) -> None:
    prepared = prepare("true", manifest_out=tmp_path / "dry.json")
    train(yard, prepared, options)
    record_plan(prepared)
    assert statuses(tmp_path / "run" / "manifest.json") == ["ok"]
    assert statuses(tmp_path / "dry.json") == ["planned"]


def test_a_failure_is_the_outcome(prepare: Prepare, yard: Yard, options: ExecutionOptions) -> None:
    outcome, progress = train(yard, prepare("false"), options)
    assert outcome is Outcome.FAILED
    assert progress["train/m0"].note == "exit status 1"


def test_another_file_does_not_go_on_in_the_same_folder(
    prepare: Prepare, yard: Yard, options: ExecutionOptions
) -> None:
    train(yard, prepare("true"), options)
    with pytest.raises(RunMismatch):
        train(yard, prepare("echo other"), options)


def test_observers_see_every_step_end(prepare: Prepare, yard: Yard, options: ExecutionOptions) -> None:
    seen = []
    train(
        yard,
        prepare("true", "true"),
        options,
        observers=[lambda item: seen.append((item.step.name, item.status))],
    )
    ended = {name for name, status in seen if status is StepStatus.SUCCEEDED}
    assert ended == {"train/m0", "train/m1"}
