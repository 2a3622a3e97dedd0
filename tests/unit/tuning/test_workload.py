"""Workloads: the same step each time, and every value where the command looks for it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelyard.jobs.step import Resources, step_digest
from modelyard.tuning.workload import Attempt, CommandWorkload, expanded, identifier, merged_config, shown

PARAMS = {"train.optim.lr": 1e-05, "layers": 3, "opt": "adam w", "bias": True, "none": None, "sizes": [1, 2]}


def workload(tmp_path, **fields):
    return CommandWorkload(
        **{"command": "{python} train.py {params}", "cwd": tmp_path, "python": "py", **fields}
    )


def attempt(tmp_path, **fields):
    given = {"name": "trial/0007", "folder": tmp_path / "trials" / "0007", "number": 7, "seed": 5}
    return Attempt(**{**given, "assignments": PARAMS, **fields})


# -- commands ------------------------------------------------------------------------------------------


def test_every_value_is_a_word_of_its_own(tmp_path):
    step = workload(tmp_path).step(attempt(tmp_path))
    assert step.argv == (
        "py", "train.py", "--train.optim.lr", "1e-05", "--layers", "3", "--opt", "adam w", "--bias", "true",
        "--none", "null", "--sizes", "[1, 2]",
    )  # fmt: skip
    assert json.loads((tmp_path / "trials/0007/params.json").read_text()) == PARAMS


def test_what_may_stand_in_a_command(tmp_path):
    command = "x {trial} {seed} {trial_dir} {params_json} {train_optim_lr} {layers} '{parent_dir}' {budget}"
    given = attempt(tmp_path, budget=9, parent=tmp_path / "trials/0003")
    folder = given.folder
    assert workload(tmp_path, command=command).step(given).argv == (
        "x", "7", "5", str(folder), str(folder / "params.json"), "1e-05", "3", str(given.parent), "9",
    )  # fmt: skip
    alone = workload(tmp_path, command="x '{parent_dir}' y").step(attempt(tmp_path))
    assert alone.argv == ("x", "", "y")


def test_a_shell_command_is_quoted(tmp_path):
    step = workload(tmp_path, command="echo {opt} | cat", shell=True).step(attempt(tmp_path))
    assert step.shell and step.argv == ("echo 'adam w' | cat",)


def test_a_step_carries_what_the_workload_says(tmp_path):
    made = workload(
        tmp_path, env={"A": "1"}, secrets=("TOKEN",), inputs=("/data",), image="i", timeout_s=5.0, retries=2,
        resources=Resources(cpus=2),
    ).step(attempt(tmp_path))  # fmt: skip
    assert made.env == {"A": "1", "MODELYARD_METRICS": str(tmp_path / "trials/0007/metrics.jsonl")}
    assert (made.secrets, made.inputs, made.image, made.timeout_s, made.retries, made.seed, made.cwd) == (
        ("TOKEN",), ("/data",), "i", 5.0, 2, 5, str(tmp_path),
    )  # fmt: skip
    assert made.resources.cpus == 2 and made.name == "trial/0007"


def test_an_attempt_is_the_same_step_each_time(tmp_path):
    (tmp_path / "c.yaml").write_text("a: 1\n")
    own = workload(tmp_path, config=tmp_path / "c.yaml", command="x {config}")
    one, two = own.step(attempt(tmp_path)), own.step(attempt(tmp_path))
    assert step_digest(one, run_dir=str(tmp_path)) == step_digest(two, run_dir=str(tmp_path))


def test_names_and_values_as_commands_see_them():
    assert identifier("train.optim[0].lr-x") == "train_optim_0__lr_x"
    assert expanded("a {params} b", {"x.y": 1, "z": 2}) == "a --x.y {x_y} --z {z} b"
    assert expanded("a {params}", {}) == "a "
    assert [shown(each) for each in ("a b", True, None, 1e-05, 3, [1, "x"])] == [
        "a b", "true", "null", "1e-05", "3", '[1, "x"]',
    ]  # fmt: skip


# -- configurations ------------------------------------------------------------------------------------

keys = st.text("abc", min_size=1, max_size=2)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
configs = st.dictionaries(
    keys,
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)


@st.composite
def merges(draw):
    """A configuration, and values for places of which none leads through another."""
    config = draw(configs)
    places = draw(st.lists(st.lists(keys, min_size=1, max_size=3).map(tuple), max_size=4, unique=True))
    apart = [p for p in places if not any(p != q and q[: len(p)] == p for q in places)]
    return config, {".".join(place): draw(leaves) for place in apart}


def at(config, name):
    for part in name.split("."):
        config = config[part]
    return config


def flat(value, path=()):
    """Every leaf, and every empty container, by its path."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {p: leaf for key, each in inside for p, leaf in flat(each, (*path, key)).items()}
    return found or {path: value}


@given(merges())
def test_each_value_is_at_its_place_and_all_else_is_as_it_was(case):
    config, assignments = case
    before = copy.deepcopy(config)
    try:
        merged = merged_config(config, assignments)
    except ValueError as error:
        assert any(name in str(error) for name in assignments)
        return
    finally:
        assert config == before
    assert all(at(merged, name) == value for name, value in assignments.items())
    places = [tuple(name.split(".")) for name in assignments]

    def outside(path):
        return not any(path[: len(place)] == place or place[: len(path)] == path for place in places)

    kept = {path: leaf for path, leaf in flat(merged).items() if outside(path)}
    assert kept == {path: leaf for path, leaf in flat(before).items() if outside(path)}
    assert merged_config(merged, assignments) == merged


def test_places_lead_into_lists():
    config = {"a": [{"b": 1}, {"b": 2}], "c": [1, 2]}
    assert merged_config(config, {"a[1].b": 5, "c[0]": 7, "a.0.b": 6}) == {
        "a": [{"b": 6}, {"b": 5}], "c": [7, 2],
    }  # fmt: skip


def test_a_list_that_stands_twice_is_two_lists_and_the_given_one_stays():
    shared = [1, {"x": 2}]
    config = {"a": shared, "b": shared}
    assert merged_config(config, {"a[0]": 5, "a[1].x": 6}) == {"a": [5, {"x": 6}], "b": [1, {"x": 2}]}
    assert config == {"a": [1, {"x": 2}], "b": [1, {"x": 2}]}


@pytest.mark.parametrize("name", ["a[2]", "a.x", "a[0].b", "s.x", "n.x", "new[0]", "new.a[1]"])
def test_a_place_that_is_none_is_refused_by_its_name(name):
    with pytest.raises(ValueError, match=r"holds no such place") as caught:
        merged_config({"a": [1, 2], "s": "text", "n": 3}, {name: 1})
    assert str(caught.value).startswith(name)


def test_a_section_that_is_empty_is_filled():
    assert merged_config({"optim": None}, {"optim.lr": 0.1}) == {"optim": {"lr": 0.1}}


CONFIG = """\
base: &base {lr: 0.1, day: 2024-01-02}
other: *base
1: one
text: 1e-4
"""


def written(tmp_path, name, content, **assignments):
    (tmp_path / name).write_text(content)
    step = workload(tmp_path, config=tmp_path / name, command="x {config}").step(
        attempt(tmp_path, assignments=assignments)
    )
    return Path(step.argv[1])


def test_a_yaml_file_keeps_what_is_not_varied_and_its_aliases_are_apart(tmp_path):
    path = written(tmp_path, "c.yaml", CONFIG, **{"base.lr": 1e-05, "new.x": "a"})
    merged, config = yaml.safe_load(path.read_text()), yaml.safe_load(CONFIG)
    config["base"] = {**config["base"], "lr": 1e-05}
    assert path.name == "config.yaml" and merged == {**config, "new": {"x": "a"}}
    assert (tmp_path / "c.yaml").read_text() == CONFIG


def test_a_json_file_stays_one(tmp_path):
    path = written(tmp_path, "c.json", '{"a": {"b": 1}}', **{"a.b": 2})
    assert path.name == "config.json" and json.loads(path.read_text()) == {"a": {"b": 2}}


@pytest.mark.parametrize("content", ["- a\n", "text\n", "3\n"])
def test_a_file_that_holds_no_mapping_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match="holds no mapping"):
        written(tmp_path, "c.yaml", content, a=1)


def test_an_empty_file_is_an_empty_configuration(tmp_path):
    assert yaml.safe_load(written(tmp_path, "c.yaml", "", a=1).read_text()) == {"a": 1}
