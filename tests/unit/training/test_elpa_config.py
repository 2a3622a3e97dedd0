"""ELPA's training file: accepted verbatim, its faults told, its placeholders filled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import DocumentError
from modelyard.core.faults import Faults
from modelyard.core.processes import interpreter
from modelyard.training.elpa_config import TrainConfig, read_train_config, train_plan

Read = Callable[..., TrainConfig]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write an ELPA file in the test's folder and read it for a run in /runs/r."""

    def read(command: str = "true", **top: Any) -> TrainConfig:
        document = {"models": [{"name": "tide", "train_cmd": command}], **top}
        path = tmp_path / "train.json"
        path.write_text(json.dumps(document))
        return read_train_config(path, Path("/runs/r"))

    return read


@pytest.fixture
def refused(read: Read, tmp_path: Path) -> Callable[..., list[str]]:
    """The faults of a file, without its name."""

    def faults(*command: str, **top: Any) -> list[str]:
        with pytest.raises(DocumentError) as caught:
            read(*command, **top)
        told = [str(fault) for fault in caught.value.faults]
        assert all(line.startswith(f"{tmp_path / 'train.json'}: ") for line in told)
        return [line.removeprefix(f"{tmp_path / 'train.json'}: ") for line in told]

    return faults


def argv(config: TrainConfig) -> tuple[str, ...]:
    """The words of the one model's command after the program."""
    (step,) = train_plan(config, Faults(file="f")).steps
    return step.argv[1:]


def test_the_defaults_are_those_of_the_format(read: Read) -> None:
    config = read("fit {horizon} {period} {seed} {beta}")
    assert (config.horizon, config.period, config.beta, config.dataset) == (1, 24, 0.7, "")
    assert argv(config) == ("1", "24", "42", "0.7")


def test_every_named_placeholder(read: Read, tmp_path: Path) -> None:
    files = {"dataset": "a.csv", "val_dataset": "v.csv", "test_dataset": "/t.csv", "project_root": "code"}
    config = read(
        "fit {dataset} {train_dataset} {val_dataset} {test_dataset} {project_root} {run_dir} {model_dir} "
        "{model_name}",
        **files,
    )
    here = str(tmp_path)
    assert argv(config) == (
        f"{here}/a.csv",
        f"{here}/a.csv",
        f"{here}/v.csv",
        "/t.csv",
        f"{here}/code",
        "/runs/r",
        "/runs/r/models/tide",
        "tide",
    )
    (step,) = train_plan(config, Faults(file="f")).steps
    assert step.inputs == (f"{here}/a.csv", f"{here}/v.csv", "/t.csv")


@pytest.mark.parametrize(
    ("value", "word"), [("x y", "x y"), (7, "7"), (0.25, "0.25"), (1e-7, "1e-07"), (True, "True"), ("", "")]
)
@pytest.mark.parametrize("place", ["top", "context"])
def test_scalars_of_the_users_own(read: Read, value: Any, word: str, place: str) -> None:
    given = {"tag": value} if place == "top" else {"context": {"tag": value}}
    assert argv(read("fit {tag}", **given)) == (word,)


def test_the_context_wins_over_a_field_of_the_users_own(read: Read) -> None:
    assert argv(read("fit {tag}", tag="top", context={"tag": "context"})) == ("context",)


def test_what_is_no_scalar_is_no_placeholder(refused: Callable[..., list[str]]) -> None:
    (told,) = refused("fit {layers}", layers=[1, 2])
    assert "unknown placeholder {layers}" in told


def test_the_formats_own_fields_win_over_the_context(read: Read) -> None:
    context = {"horizon": 9, "seed": 9, "run_dir": "/else", "model_dir": "/else", "model_name": "else"}
    config = read("fit {horizon} {seed} {run_dir} {model_dir} {model_name}", horizon=3, context=context)
    assert argv(config) == ("3", "42", "/runs/r", "/runs/r/models/tide", "tide")


def test_the_context_wins_over_names_that_only_we_know(read: Read) -> None:
    command = "fit {python} {yard_dir} {data_dir}"
    assert argv(read(command))[0] == interpreter()
    context = {"python": "python3.9", "yard_dir": "y", "data_dir": "d"}
    assert argv(read(command, context=context)) == ("python3.9", "y", "d")


@pytest.mark.parametrize("name", ["dataset", "train_dataset"])
@pytest.mark.parametrize("place", ["top", "context"])
def test_the_training_data_has_two_names_and_two_places(
    read: Read, tmp_path: Path, name: str, place: str
) -> None:
    given = {name: "a.csv"} if place == "top" else {"context": {name: "a.csv"}}
    config = read("fit {dataset} {train_dataset}", **given)
    assert argv(config) == (str(tmp_path / "a.csv"),) * 2
    assert config.dataset == str(tmp_path / "a.csv")
    (step,) = train_plan(config, Faults(file="f")).steps
    assert step.inputs == (str(tmp_path / "a.csv"),)


def test_a_url_stays_one_and_is_not_looked_for_on_this_machine(read: Read) -> None:
    config = read("fit {dataset}", dataset="s3://bucket/train.csv")
    assert argv(config) == ("s3://bucket/train.csv",)
    assert train_plan(config, Faults(file="f")).steps[0].inputs == ()


def test_the_home_folder_is_found(read: Read) -> None:
    assert argv(read("fit {dataset}", dataset="~/a.csv")) == (str(Path.home() / "a.csv"),)


def test_what_other_elpa_files_carry_is_no_fault(read: Read) -> None:
    read(skill="ELPA", run_dir="/somewhere", notes=None, tags=["a"], nested={"a": 1})


FAULTS = [
    ({"horizon": 0}, "horizon = 0: is out of range; use at least 1"),
    ({"horizon": "24"}, 'horizon = "24": is not an integer; write an integer of at least 1'),
    ({"horizon": True}, "horizon = true: is not an integer; write an integer of at least 1"),
    ({"period": 1.5}, "period = 1.5: is not an integer; write an integer of at least 1"),
    ({"beta": 1}, "beta = 1: is out of range; use a number above 0 and below 1"),
    ({"beta": "0.7"}, 'beta = "0.7": is not a number; write a number above 0 and below 1'),
    ({"seed": -1}, "seed = -1: is out of range; use at least 0"),
    ({"seed": 2**53}, f"seed = {2**53}: is out of range; use at least 0 and at most {2**53 - 1}"),
    ({"context": []}, "context = []: is not a mapping; write name: value pairs"),
    (
        {"context": {"a": None}},
        "context.a: is not a scalar; use a string, a number or a boolean",
    ),
    ({"dataset": 5}, "dataset = 5: is not a non-empty string; write a string"),
    ({"train_dataset": [1]}, "train_dataset = [1]: is not a non-empty string; write a string"),
    ({"models": []}, "models = []: names no model; list at least one model"),
    ({"models": None}, "models: names no model; list at least one model"),
    ({"models": {"name": "a"}}, 'models = {"name": "a"}: is not a list; write a list of mappings'),
    ({"horizn": 3}, "horizn = 3: looks like a known field misspelt; did you mean horizon?"),
    ({"val_datset": "v"}, 'val_datset = "v": looks like a known field misspelt; did you mean val_dataset?'),
    ({"contxt": {}}, "contxt = {}: looks like a known field misspelt; did you mean context?"),
]


@pytest.mark.parametrize(("change", "told"), FAULTS, ids=[str(change) for change, _ in FAULTS])
def test_a_fault_tells_file_key_value_and_remedy(
    refused: Callable[..., list[str]], change: dict[str, Any], told: str
) -> None:
    assert refused(**change) == [told]


def test_a_model_that_is_no_mapping(refused: Callable[..., list[str]]) -> None:
    told = refused(models=["tide"])
    assert told[0] == 'models[0] = "tide": is not a mapping of keys to values; write key: value pairs here'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1]", "train.json = [1]: is not a mapping of keys to values"),
        ("null", "train.json: is not a mapping of keys to values"),
        ('{"models": [}', "train.json: line 1, column 13: is not JSON (Expecting value)"),
        ('{"seed": "\\ud800"}', "cannot be read as JSON"),
    ],
)
def test_a_file_that_is_no_json_mapping(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(content)
    with pytest.raises(DocumentError) as caught:
        read_train_config(path, Path("/runs/r"))
    assert len(caught.value.faults) == 1 and told in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"none\.json: does not exist; give the path of the file"):
        read_train_config(tmp_path / "none.json", Path("/runs/r"))


def test_only_enabled_models_become_steps_and_none_waits(read: Read) -> None:
    models = [
        {"name": "b", "train_cmd": "true", "outputs": {"model": "{model_dir}/m"}},
        {"name": "off", "train_cmd": "true", "enabled": False},
        {"name": "a", "train_cmd": "true"},
    ]
    config = read(models=models)
    plan = train_plan(config, Faults(file="f"))
    assert [step.name for step in plan.steps] == ["train/b", "train/a"]
    assert [(o.path, o.kind) for o in plan.steps[0].outputs] == [("/runs/r/models/b/m", "model")]
    assert all(step.needs == step.after == () for step in plan.steps)
    assert [member.name for member in config.members] == ["b", "off", "a"]
    assert (plan.name, plan.run_dir) == ("train", "/runs/r")


def test_a_disabled_model_is_checked_too(refused: Callable[..., list[str]]) -> None:
    (told,) = refused(models=[{"name": "off", "train_cmd": "fit {nope}", "enabled": False}])
    assert told.startswith('models[0].train_cmd = "fit {nope}": unknown placeholder {nope}')
