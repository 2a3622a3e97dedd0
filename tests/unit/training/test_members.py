"""Members: what a document may say of a model, and the steps that it becomes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.faults import Faults, Section
from modelyard.core.processes import interpreter
from modelyard.jobs.step import Output, Resources
from modelyard.training.members import (
    Limits,
    Member,
    Scope,
    base_values,
    check_members,
    make_folders,
    member_outputs,
    member_step,
    read_limits,
    read_member,
    scalars_only,
    script_of,
    twins,
    used_files,
)

FOLDER = Path("/yard")
CODE = "from modelyard.core.processes import interpreter; print(interpreter(), end='')"


def scope(**values: Any) -> Scope:
    return Scope(
        folder=FOLDER, run_dir=Path("/runs/r"), values=values, datasets=("dataset", "test_dataset", "far")
    )


def read(extra: bool = False, **document: Any) -> tuple[Member, list[str]]:
    faults = Faults(file="pool.json")
    section = Section(document, faults=faults, path="models[3]")
    member = read_member(section, train_key="train" if extra else "train_cmd", extra=extra)
    return member, [str(fault) for fault in faults.found]


def checked(*members: Member, **values: Any) -> list[str]:
    faults = Faults(file="pool.json")
    check_members(list(members), scope(**values), faults)
    return [str(fault) for fault in faults.found]


def member(name: str = "tide", **fields: Any) -> Member:
    return Member(**{"name": name, "group": "online", "key": f"models[{name}]", **fields})


def test_a_model_needs_little() -> None:
    found, faults = read(name="tide", train_cmd="true")
    assert faults == []
    assert found == Member(name="tide", group="online", train="true", key="models[3]")


def test_everything_a_model_can_say() -> None:
    found, faults = read(
        extra=True,
        name="tide",
        group="offline",
        enabled=False,
        required=False,
        train="fit {dataset}",
        predict="tell",
        shell=True,
        env={"THREADS": 1, "RATE": 0.5, "FAST": True, "MODE": "x"},
        secrets=["KEY"],
        outputs={"model": "{model_dir}/m", "predictions": "p.csv"},
        resources={"gpus": 1},
        retries=2,
    )
    assert faults == []
    assert (found.group, found.enabled, found.required, found.shell) == ("offline", False, False, True)
    assert found.env == {"THREADS": "1", "RATE": "0.5", "FAST": "True", "MODE": "x"}
    assert found.secrets == ("KEY",)
    assert found.outputs == {"model": "{model_dir}/m", "predictions": "p.csv"}
    assert found.limits == Limits(resources=Resources(gpus=1), retries=2)


FAULTS = [
    ({}, "models[3].name: is missing; write a string"),
    ({"name": 7}, "models[3].name = 7: is not a non-empty string; write a string"),
    (
        {"name": "../x"},
        "models[3].name = \"../x\": cannot name a folder of the run; use letters, digits, '.', '_', '-'; "
        "begin with a letter or digit",
    ),
    (
        {"name": "x" * 101},
        f"models[3].name = \"{'x' * 101}\": cannot name a folder of the run; use letters, digits, '.', '_', "
        "'-'; begin with a letter or digit",
    ),
    ({"group": "Online"}, 'models[3].group = "Online": is not known; use one of online, offline'),
    (
        {"enabled": "false"},
        'models[3].enabled = "false": is not a boolean; write true or false without quotes',
    ),
    ({"required": 1}, "models[3].required = 1: is not a boolean; write true or false without quotes"),
    ({"shell": "yes"}, 'models[3].shell = "yes": is not a boolean; write true or false without quotes'),
    ({"train_cmd": None}, "models[3].train_cmd: is not a non-empty string; write a string"),
    ({"train_cmd": ["a"]}, 'models[3].train_cmd = ["a"]: is not a non-empty string; write a string'),
    ({"env": ["A=1"]}, 'models[3].env = ["A=1"]: is not a mapping; write name: value pairs'),
    (
        {"env": {"A": [1]}},
        "models[3].env.A = [1]: is not a scalar; use a string, a number or a boolean",
    ),
    ({"secrets": "KEY"}, 'models[3].secrets = "KEY": is not a list of strings; write a list of strings'),
    (
        {"outputs": {"model": None}},
        "models[3].outputs.model: is not a scalar; use a string, a number or a boolean",
    ),
    ({"retries": -1}, "models[3].retries = -1: is out of range; use at least 0 and at most 100"),
    ({"retries": 101}, "models[3].retries = 101: is out of range; use at least 0 and at most 100"),
    ({"retries": 1.0}, "models[3].retries = 1.0: is not an integer; write an integer of at least 0"),
    ({"backoff_s": 0}, "models[3].backoff_s = 0: is out of range; use a number above 0"),
    ({"timeout_s": 0}, "models[3].timeout_s = 0: is out of range; use a number above 0"),
    ({"timeout_s": "1h"}, 'models[3].timeout_s = "1h": is not a number; write a number above 0'),
    (
        {"resources": 4},
        "models[3].resources = 4: is not a mapping of keys to values; write key: value pairs here",
    ),
    (
        {"resources": {"cpus": 0}},
        "models[3].resources.cpus = 0: is out of range; use at least 1",
    ),
    (
        {"resources": {"gpus": "a100"}},
        'models[3].resources.gpus = "a100": is not an integer; write an integer of at least 0',
    ),
    (
        {"resources": {"memory_gib": 0}},
        "models[3].resources.memory_gib = 0: is out of range; use a number above 0",
    ),
    (
        {"resources": {"wall_time_s": True}},
        "models[3].resources.wall_time_s = true: is not a number; write a number above 0",
    ),
    (
        {"resources": {"gpu": 1}},
        "models[3].resources.gpu = 1: is an unknown key; did you mean gpus?",
    ),
    ({"trian_cmd": "x"}, 'models[3].trian_cmd = "x": is an unknown key; did you mean train_cmd?'),
]


@pytest.mark.parametrize(("change", "told"), FAULTS, ids=[str(change)[:40] for change, _ in FAULTS])
def test_a_fault_tells_file_key_value_and_remedy(change: dict[str, Any], told: str) -> None:
    sound = {"train_cmd": "true", **({"name": "tide"} if change else {})}
    _, faults = read(**{**sound, **change})
    assert faults == [f"pool.json: {told}"]


def test_an_elpa_model_must_train_and_a_member_of_a_yard_need_not() -> None:
    assert read(name="a")[1] == ["pool.json: models[3].train_cmd: is missing; write a string"]
    found, faults = read(extra=True, name="a", predict="tell")
    assert faults == [] and found.train == ""


def test_predict_is_no_key_of_an_elpa_model() -> None:
    (told,) = read(name="a", train_cmd="x", predict="y")[1]
    assert told.startswith('pool.json: models[3].predict = "y": is an unknown key; known keys: ')


def test_our_python_is_spelled_the_same_however_it_was_started() -> None:
    spelled = [
        subprocess.run([program, "-c", CODE], capture_output=True, text=True, check=True).stdout
        for program in (sys.executable, interpreter())
    ]
    assert spelled == [interpreter()] * 2


def test_null_is_the_default() -> None:
    found, faults = read(name="a", train_cmd="x", timeout_s=None, resources=None, env=None, enabled=None)
    assert faults == [] and found == Member(name="a", group="online", train="x", key="models[3]")


def test_limits_are_read() -> None:
    faults = Faults(file="f")
    asked = {"nodes": 2, "cpus": 4, "gpus": 1, "memory_gib": 8, "wall_time_s": 60}
    section = Section({"resources": asked, "retries": 3, "backoff_s": 0.5, "timeout_s": 9}, faults=faults)
    limits = read_limits(section)
    section.close()
    assert faults.found == []
    assert limits == Limits(
        resources=Resources(nodes=2, cpus=4, gpus=1, memory_gib=8.0, wall_time_s=60.0),
        retries=3,
        backoff_s=0.5,
        timeout_s=9.0,
    )


@pytest.mark.parametrize("second", ["tide", "TIDE"])
def test_two_models_never_share_a_folder(second: str) -> None:
    (told,) = checked(member("tide"), member(second, key="models[1]"))
    assert told == (
        f'pool.json: models[1].name = "{second}": names two models; '
        "rename one: models[tide] and models[1] would share a folder"
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"train": "fit {datset}"},
            'pool.json: models[tide].train = "fit {datset}": unknown placeholder {datset}; '
            "did you mean {dataset}?",
        ),
        (
            {"predict": "tell {zzz}"},
            'pool.json: models[tide].predict = "tell {zzz}": unknown placeholder {zzz}; '
            "known: dataset, model_dir, model_name",
        ),
        (
            {"outputs": {"model": "{modeldir}/m"}},
            'pool.json: models[tide].outputs.model = "{modeldir}/m": unknown placeholder {modeldir}; '
            "did you mean {model_dir}?",
        ),
    ],
)
def test_a_placeholder_that_stands_for_nothing_is_told(fields: dict[str, Any], told: str) -> None:
    assert checked(member(**fields), dataset="/d.csv") == [told]


def test_a_sound_pool_has_no_fault() -> None:
    pool = [member(f"m{i}", train="fit {dataset} {model_dir} {model_name}") for i in range(30)]
    assert checked(*pool, dataset="/d.csv") == []


@pytest.mark.parametrize(
    ("path", "absolute"),
    [
        ("data/d.csv", "/yard/data/d.csv"),
        ("/data/d.csv", "/data/d.csv"),
        ("~/d.csv", str(Path.home() / "d.csv")),
        ("../d.csv", "/d.csv"),
        ("s3://bucket/d.csv", "s3://bucket/d.csv"),
        ("with space.csv", "/yard/with space.csv"),
        ("", "/yard"),
    ],
)
def test_paths_start_from_the_document(path: str, absolute: str) -> None:
    assert scope().absolute(path) == absolute


def test_a_members_own_names_win() -> None:
    values = scope(model_dir="/elsewhere", model_name="other", lr=0.1).of("tide")
    assert values == {"model_dir": "/runs/r/models/tide", "model_name": "tide", "lr": 0.1}


def test_a_step_carries_all_that_its_member_asks_for() -> None:
    limits = Limits(resources=Resources(gpus=1), retries=2, backoff_s=0.5, timeout_s=9.0)
    one = member(
        train="fit.sh {dataset} --seed {seed}",
        env={"A": "1"},
        secrets=("KEY",),
        required=False,
        limits=limits,
    )
    outputs = (Output(path="/m", kind="model"),)
    step = member_step(one, "train", scope(dataset="/d.csv", seed=7), outputs, ("prepare/data",))
    assert (step.name, step.member, step.cwd) == ("train/tide", "tide", "/yard")
    assert step.argv == ("fit.sh", "/d.csv", "--seed", "7")
    assert (step.env, step.secrets, step.required, step.seed) == ({"A": "1"}, ("KEY",), False, 7)
    assert (step.inputs, step.outputs, step.needs) == (("/d.csv",), outputs, ("prepare/data",))
    assert (step.resources, step.retries, step.backoff_s, step.timeout_s) == (limits.resources, 2, 0.5, 9.0)


@pytest.mark.parametrize(
    ("value", "word"), [(True, "True"), (False, "False"), (3, "3"), (0.5, "0.5"), ("a b", "a b"), ("", "")]
)
def test_a_scalar_is_one_word_whatever_it_is(value: Any, word: str) -> None:
    step = member_step(member(train="fit {tag} end"), "train", scope(tag=value), (), ())
    assert step.argv == ("fit", word, "end")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_value_is_never_split(value: str) -> None:
    step = member_step(member(predict="tell {tag}"), "predict", scope(tag=value), (), ())
    assert step.argv == ("tell", value)


def test_a_shell_command_is_one_quoted_string() -> None:
    one = member(train="fit {tag} | tee log", shell=True)
    step = member_step(one, "train", scope(tag="a; b"), (), ())
    assert step.shell and step.argv == ("fit 'a; b' | tee log",)


def test_outputs_by_name_are_absolute_paths_of_their_kind() -> None:
    one = member(outputs={"model": "{model_dir}/m.bin", "log": "logs/{model_name}.txt"})
    assert member_outputs(one, scope()) == {
        "model": Output(path="/runs/r/models/tide/m.bin", kind="model"),
        "log": Output(path="/yard/logs/tide.txt", kind="log"),
    }


def test_a_member_names_further_files_that_it_reads() -> None:
    one = member(train="fit {dataset}", inputs=("shared/{model_name}.py", "/abs.py"))
    step = member_step(one, "train", scope(dataset="/d.csv"), (), ())
    assert step.inputs == ("/d.csv", "/yard/shared/tide.py", "/abs.py")


def test_inputs_are_the_files_that_a_command_names_and_that_can_be_looked_for() -> None:
    values = scope(dataset="/d.csv", test_dataset="/d.csv", far="s3://b/x", horizon=3)
    assert used_files("fit {dataset} {test_dataset} {far} {horizon}", values) == ("/d.csv",)
    assert used_files("fit dataset", values) == ()


@pytest.mark.parametrize(
    ("argv", "script"),
    [
        (("python", "fit.py", "x.py"), ("/yard/fit.py",)),
        (("bash", "/abs/fit.sh"), ("/abs/fit.sh",)),
        (("Rscript", "fit.R"), ("/yard/fit.R",)),
        (("julia", "fit.jl"), ("/yard/fit.jl",)),
        (("python", "-m", "fit.py"), ()),
        (("python", "-fit.py"), ()),
        (("fit.py",), ()),
        (("cat", "fit.txt"), ()),
    ],
)
def test_an_interpreters_script_is_an_input(argv: tuple[str, ...], script: tuple[str, ...]) -> None:
    assert script_of(argv, scope()) == script


def test_folders_are_made_for_enabled_members(tmp_path: Path) -> None:
    place = Scope(folder=tmp_path, run_dir=tmp_path / "run", values={}, datasets=())
    for _ in range(2):  # a second time changes nothing
        make_folders([member("on"), member("off", enabled=False)], place)
    assert [path.name for path in (tmp_path / "run" / "models").iterdir()] == ["on"]


def test_names_that_every_document_has() -> None:
    assert base_values(Path("/runs/r"), FOLDER) == {
        "python": interpreter(),
        "run_dir": "/runs/r",
        "data_dir": "/runs/r/data",
        "yard_dir": "/yard",
    }


def test_two_names_of_the_training_data() -> None:
    assert twins({"dataset": "/d"}) == {"train_dataset": "/d"}
    assert twins({"train_dataset": "/d"}) == {"dataset": "/d"}
    assert twins({"dataset": "/a", "train_dataset": "/b"}) == twins({"truth": "/t"}) == {}


def test_only_scalars_can_stand_in_a_command() -> None:
    data = {"a": 1, "b": 0.5, "c": True, "d": "x", "e": None, "f": [1], "g": {"h": 1}}
    assert scalars_only(data) == {"a": 1, "b": 0.5, "c": True, "d": "x"}
