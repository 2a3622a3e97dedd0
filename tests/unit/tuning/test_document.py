"""tune.yaml: what it says is what is searched, and everything that is wrong with it is told at once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.tuning.document import direction_of, read_tune
from modelyard.tuning.metrics.rules import STEP_NAMES
from modelyard.tuning.searcher import Rungs
from modelyard.tuning.searchers.median import MedianRule
from modelyard.tuning.trial import Objective

LR = {"low": 1e-5, "high": 0.1}
PLAIN = {"command": "{python} train.py {params}", "metric": "val_loss", "space": {"lr": LR}}


def write(folder: Path, **changes) -> Path:
    path = folder / "study one.yaml"
    kept = {name: value for name, value in {**PLAIN, **changes}.items() if value is not ...}
    path.write_text(yaml.safe_dump(kept))
    return path


def read(folder: Path, **changes):
    return read_tune(write(folder, **changes))


def told(folder: Path, **changes) -> list[str]:
    """The faults, without the file's name."""
    with pytest.raises(DocumentError) as caught:
        read(folder, **changes)
    return [str(fault).partition("yaml: ")[2] for fault in caught.value.faults]


def test_little_has_to_be_said(tmp_path):
    read_one = read(tmp_path)
    assert read_one.name == "study-one"
    assert read_one.objectives == (Objective(metric="val_loss", direction="minimize", take="last"),)
    assert (read_one.algorithm, read_one.options, read_one.rungs, read_one.starts) == (
        "bayesian",
        {},
        None,
        (),
    )
    assert (read_one.limits.trials, read_one.limits.parallel, read_one.limits.budget_s) == (40, 1, None)
    assert read_one.workload.cwd == tmp_path and read_one.workload.retries == 0
    assert read_one.rules.names == ("val_loss",) and read_one.rules.steps == STEP_NAMES
    assert read_one.confirm_seeds == 0 and read_one.url is None


def test_everything_can_be_said(tmp_path):
    document = read(
        tmp_path, schema="modelyard.tune/1", name="digits", algorithm="asha", options={"sampler": "tpe"},
        rungs={"low": 2, "high": 18, "eta": 3, "promote": True}, trials=7, budget="90min", target=0.5,
        parallel=3, seed=11, fail_alike=0, poll="0.1s", start=[{"lr": 1e-3}, {}], confirm_seeds=4,
        storage="sqlite:///x.db", cwd="sub", python="/py", env={"A": 1, "B": True}, secrets=["T"],
        inputs=["data"], image="img", timeout="2h", retries=2, shell=True, config="base.yaml",
        resources={"cpus": 2, "gpus": 1, "nodes": 1, "memory_gib": 1.5},
        metric={"name": "err", "direction": "maximize", "take": "best"},
        read={"steps": ["batch"], "spellings": {"err": "error rate"}, "patterns": {"err": "e=(?P<value>.*)"}},
        command="{python} t.py {config} {budget} {parent_dir}",
    )  # fmt: skip
    limits, work = document.limits, document.workload
    assert (document.name, document.algorithm, document.options) == ("digits", "asha", {"sampler": "tpe"})
    assert document.rungs == Rungs(low=2, high=18, eta=3, promote=True)
    assert (limits.trials, limits.budget_s, limits.target, limits.parallel) == (7, 5400.0, 0.5, 3)
    assert (limits.seed, limits.fail_alike, limits.poll_s) == (11, 0, 0.1)
    assert document.starts == ({"lr": 1e-3}, {}) and document.confirm_seeds == 4
    assert document.url == "sqlite:///x.db"
    assert (work.cwd, work.python, work.env) == (tmp_path / "sub", "/py", {"A": "1", "B": "True"})
    assert (work.secrets, work.inputs, work.image) == (("T",), (str(tmp_path / "data"),), "img")
    assert (work.timeout_s, work.retries, work.shell, work.config) == (
        7200.0,
        2,
        True,
        tmp_path / "base.yaml",
    )
    assert (work.resources.cpus, work.resources.gpus, work.resources.memory_gib) == (2, 1, 1.5)
    assert document.objectives == (Objective(metric="err", direction="maximize", take="best"),)
    assert document.rules.steps == ("batch",) and document.rules.spellings == {"err": ("error rate",)}


def test_absolute_paths_stay(tmp_path):
    work = read(tmp_path, cwd="/else", inputs=["/data"]).workload
    assert (work.cwd, work.inputs) == (Path("/else"), ("/data",))


@pytest.mark.parametrize(
    ("said", "sources", "first", "inform"),
    [
        ("old", [("old", None)], 1, True),
        (["old", "runs/old"], [("old", None), ("HERE/runs/old", None)], 1, True),
        (
            {"from": [{"study": "old", "storage": "sqlite:///x.db"}], "first": 3, "inform": False},
            [("old", "sqlite:///x.db")], 3, False,
        ),
    ],
)  # fmt: skip
def test_earlier_studies_are_named_in_the_yard_by_their_folder_or_in_a_database(
    tmp_path, said, sources, first, inform
):
    warm = read(tmp_path, warm_start=said).warm_start
    named = [(each.study, each.url) for each in warm.sources]
    assert named == [(study.replace("HERE", str(tmp_path)), url) for study, url in sources]
    assert (warm.first, warm.inform) == (first, inform)


def test_the_median_rule_is_asked_for_by_its_name_or_with_its_numbers(tmp_path):
    assert read(tmp_path).median is None
    assert read(tmp_path, stop="median").median == MedianRule()
    said = {"rule": "median", "after_trials": 2, "from_step": 0, "every": 3, "average": True}
    rule = MedianRule(after_trials=2, from_step=0, every=3, average=True)
    assert read(tmp_path, stop=said).median == rule


def test_several_objectives(tmp_path):
    document = read(tmp_path, metric=["loss", {"name": "size", "direction": "minimize"}])
    assert [(o.metric, o.direction) for o in document.objectives] == [
        ("loss", "minimize"),
        ("size", "minimize"),
    ]


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_loss", "minimize"), ("Validation Error", "minimize"), ("rmse", "minimize"), ("wer", "minimize"),
        ("val/accuracy", "maximize"), ("mAP50", None), ("map", "maximize"), ("f1", "maximize"),
        ("AUC", "maximize"), ("reward", "maximize"), ("test.bleu", "maximize"), ("perplexity", "minimize"),
        ("inference_time", "minimize"), ("kpi", None), ("answer", None), ("remap", None), ("x", None),
    ],
)  # fmt: skip
def test_a_name_tells_its_direction_or_does_not(name, direction):
    assert direction_of(name) == direction


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"command": ...}, ["command: is missing; write a string"]),
        ({"metric": ...}, ["metric: is missing; name what the command reports: metric: val_loss"]),
        ({"space": ...}, [
            "space: is missing; say what may vary: space: {lr: {low: 1e-5, high: 0.1}}",
        ]),
        ({"metric": "kpi"}, [
            "metric.direction: is missing, and 'kpi' does not tell it; say direction: minimize or "
            "direction: maximize",
        ]),
        ({"metric": ["loss", {"name": "kpi"}]}, [
            "metric[1].direction: is missing, and 'kpi' does not tell it; say direction: minimize or "
            "direction: maximize",
        ]),
        ({"metric": {"name": "loss", "take": "first"}}, [
            'metric.take = "first": is not known; use one of last, best',
        ]),
        ({"name": "a/b"}, ["name = \"a/b\": cannot name a folder; use letters, digits, '.', '_', '-'"]),
        ({"trails": 3}, ["trails = 3: is an unknown key; did you mean trials?"]),
        ({"schema": "other/1"}, ['schema = "other/1": is not known; use one of modelyard.tune/1']),
        ({"rungs": {"low": 9, "high": 3}}, ["rungs.high = 3: is not above low; use more than 9"]),
        ({"timeout": "soon"}, [
            'timeout = "soon": is not a duration; write a number and s, min, h or d, such as 30min',
        ]),
        ({"trials": 0}, ["trials = 0: is out of range; use at least 1 and at most 1000000"]),
        ({"target": "low"}, ['target = "low": is not a number; write a number above -inf']),
        ({"stop": "mean"}, ['stop.rule = "mean": is not known; use one of median']),
        ({"stop": {"after_trial": 2}}, [
            "stop.after_trial = 2: is an unknown key; did you mean after_trials?",
        ]),
        ({"warm_start": []}, [
            "warm_start = []: names no study; list names of studies, or folders of runs",
        ]),
        ({"warm_start": [3]}, [
            "warm_start[0] = 3: is no study; write a study's name, a run's folder, or {study: NAME, "
            "storage: URL}",
        ]),
        ({"warm_start": [{"study": "a"}]}, ["warm_start[0].storage: is missing; write a string"]),
        ({"warm_start": {"from": ["a"], "best": 2}}, None),
        ({"start": [{"lr": 5}]}, None),
        ({"start": [{"other": 5}]}, None),
        ({"read": {"patterns": {"x": "("}}}, None),
        ({"read": {"patterns": {"val_loss": "no group"}}}, None),
        ({"command": "x {lr} {nothing}"}, [
            'command = "x {lr} {nothing}": unknown placeholder {nothing}; known: lr, params_json, '
            "parent_dir, python, seed, trial, trial_dir",
        ]),
        ({"command": "x {params} {budget}"}, None),
        ({"command": "x"}, [
            'command = "x": does not use lr; hand the values over: {params}, {params_json}, config:, or each '
            "by its name",
        ]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_place(tmp_path, changes, faults):
    found = told(tmp_path, **changes)
    if faults is None:
        (fault,) = found
        assert ": " in fault and "; " in fault
    else:
        assert found == faults


def test_what_is_not_always_set_cannot_stand_alone_in_a_command(tmp_path):
    space = {"opt": {"choices": ["a", "b"]}, "m": {"low": 0, "high": 1.0, "when": {"opt": "b"}}}
    first, *_ = told(tmp_path, space=space, command="x {params} {m}")
    assert "holds {m}, which is not set in every configuration; use {params}" in first
    read(tmp_path, space=space, command="x {params}")


def test_all_faults_are_told_together(tmp_path):
    found = told(tmp_path, trials=0, parallel=0, seed=-1, metric="kpi", algoritm="x", command="{oh}")
    assert len(found) >= 6


@pytest.mark.parametrize("command", ["x {params}", "x {params_json}", "x --lr {lr}"])
def test_each_way_of_handing_values_over_is_enough(tmp_path, command):
    read(tmp_path, command=command)


def test_a_configuration_file_is_enough(tmp_path):
    read(tmp_path, command="x {config}", config="base.yaml")


@pytest.mark.parametrize("name", ["seed", "trial", "python", "budget", "trial_dir", "config", "parent.dir"])
def test_a_parameter_may_not_have_the_name_of_something_else_in_the_command(tmp_path, name):
    """Its value would not be the one that the command sees."""
    (fault,) = told(tmp_path, space={name: {"low": 0, "high": 9}}, command="x {params}")
    assert name in fault and "has a meaning of its own" in fault


def test_two_parameters_may_not_be_one_in_the_command(tmp_path):
    space = {"a.b": {"low": 0, "high": 9}, "a_b": {"low": 0, "high": 9}}
    (fault,) = told(tmp_path, space=space, command="x {params}")
    assert "a.b" in fault and "a_b" in fault


def test_names_that_collide_do_no_harm_where_the_command_does_not_hold_them(tmp_path):
    read(tmp_path, space={"seed": {"low": 0, "high": 9}}, command="x {params_json}")


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text("ab{}:0.e", max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)
KEYS = [
    "schema", "name", "command", "metric", "space", "algorithm", "options", "trials", "parallel", "rungs",
    "seed", "fail_alike", "poll", "budget", "target", "start", "confirm_seeds", "storage", "resources",
    "config", "cwd", "python", "shell", "env", "secrets", "inputs", "image", "timeout", "retries", "read",
]  # fmt: skip


@given(st.sampled_from(KEYS), anything)
def test_whatever_stands_there_is_read_or_refused_with_its_place(tmp_path_factory, key, value):
    path = tmp_path_factory.getbasetemp() / "tune.yaml"
    path.write_text(json.dumps({**PLAIN, key: value}))
    try:
        document = read_tune(path)
    except DocumentError as error:
        assert all(fault.file == str(path) for fault in error.faults)
    else:
        assert document.limits.poll_s > 0 and math.isfinite(document.limits.poll_s)
