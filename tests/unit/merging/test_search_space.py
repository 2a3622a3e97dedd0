"""The space of a merge search: what may vary, what a candidate is, and what an objective has told."""

from __future__ import annotations

import contextlib
import json
import shutil
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.merging.made import llama, loaded, written

from modelyard.core.errors import DocumentError, MergeError
from modelyard.jobs.step import Resources
from modelyard.merging.__main__ import main, read_spec
from modelyard.merging.config import parse_recipes, read_recipes
from modelyard.merging.search_space import (
    Entry,
    TrialResult,
    Trials,
    best_trial,
    read_objective,
    read_space,
    setting_texts,
)
from modelyard.merging.verification import verify_merge

RECIPE = """# weights of two models
merge_method: ties
base_model: base
models:
  - model: poet
    parameters: {weight: 0.6, density: 0.5}
  - model: coder
    parameters: {weight: 0.4, density: 0.5}
search:
%s
parameters: {normalize: false, lambda: 1.0}
dtype: float32
"""


@pytest.fixture
def space_of(tmp_path):
    """Write a space whose `search` has these lines, and read it."""

    def read(*lines, text=RECIPE):
        path = tmp_path / "space.yaml"
        path.write_text(text % "\n".join(f"  {line}" for line in lines) if "%s" in text else text)
        return read_space(path)

    return read


@pytest.fixture
def refused(space_of, tmp_path):
    """The faults of a space, without the file's name."""

    def faults(*lines, **more):
        with pytest.raises(DocumentError) as caught:
            space_of(*lines, **more)
        return [str(f).removeprefix(f"{tmp_path / 'space.yaml'}: ") for f in caught.value.faults]

    return faults


def test_a_point_becomes_assignments_and_these_a_recipe(space_of):
    space = space_of(
        "models.0.parameters.weight: {low: 0.0, high: 1.0}",
        "models.1.parameters.weight: {low: 0.0, high: 1.0, gradient: 3}",
        "models.0.parameters.density: {choices: [0.2, 0.5, 1.0]}",
        "merge_method: {choices: [ties, dare_ties]}",
        "parameters.lambda: {low: 0.1, high: 1.0, step: 0.05}",
    )
    point = {
        "models.0.parameters.weight": 0.25,
        "models.1.parameters.weight[0]": 0.1,
        "models.1.parameters.weight[1]": 0.2,
        "models.1.parameters.weight[2]": 0.3,
        "models.0.parameters.density": "0.2",
        "merge_method": '"dare_ties"',
        "parameters.lambda": 0.1 + 3 * 0.05,
    }
    assert {name for entry in space.entries for name in entry.dimensions} == set(point)
    assignments = space.assignments(point)
    assert assignments == {
        "models.0.parameters.weight": 0.25,
        "models.1.parameters.weight": [0.1, 0.2, 0.3],
        "models.0.parameters.density": 0.2,
        "merge_method": "dare_ties",
        "parameters.lambda": 0.25,
    }
    (recipe,) = parse_recipes(space.recipe, file="f", assignments=setting_texts(assignments))
    assert recipe.method == "dare_ties"
    assert recipe.models[0].settings == {"weight": 0.25, "density": 0.2}
    assert recipe.models[1].settings["weight"] == (0.1, 0.2, 0.3)
    assert recipe.settings["lambda"] == 0.25


def test_the_recipe_is_the_file_without_search_line_for_line(space_of):
    space = space_of("parameters.lambda: {low: 0.1, high: 1.0}")
    text = RECIPE % "  parameters.lambda: {low: 0.1, high: 1.0}"
    assert space.recipe.splitlines() == [
        "" if i in (8, 9) else line for i, line in enumerate(text.splitlines())
    ]


def test_start_is_points_of_all_dimensions_or_some(space_of):
    space = space_of(
        "models.0.parameters.weight: {low: 0, high: 1}",
        "models.0.parameters.density: {choices: [0.2, 0.5]}",
        "start:",
        "  - {models.0.parameters.weight: 1, models.0.parameters.density: 0.5}",
        "  - {models.0.parameters.density: 0.2}",
    )
    assert space.start == (
        {"models.0.parameters.weight": 1.0, "models.0.parameters.density": "0.5"},
        {"models.0.parameters.density": "0.2"},
    )


def test_integers_and_layers_stay_what_they_are(space_of):
    text = """merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 8]}]
  - sources: [{model: b, layer_range: [4, 8]}]
search:
  slices.0.sources.0.layer_range: {choices: [[0, 8], [0, 12]]}
  slices.1.sources.0.layer_range.1: {low: 5, high: 9, integer: true}
"""
    space = space_of(text=text)
    point = {"slices.0.sources.0.layer_range": "[0, 12]", "slices.1.sources.0.layer_range.1": 7}
    (recipe,) = parse_recipes(space.recipe, file="f", assignments=setting_texts(space.assignments(point)))
    assert [part.sources[0].layers for part in recipe.slices] == [(0, 12), (4, 7)]


def test_keys_of_an_earlier_document_are_reached_by_its_name(space_of):
    text = """name: first
merge_method: linear
models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]
---
merge_method: slerp
base_model: first
models: [{model: c}]
parameters: {t: 0.5}
search:
  first:models.0.parameters.weight: {low: 0.5, high: 2}
"""
    space = space_of(text=text)
    first, _ = parse_recipes(
        space.recipe,
        file="f",
        assignments=setting_texts(space.assignments({"first:models.0.parameters.weight": 0.75})),
    )
    assert first.models[0].settings["weight"] == 0.75


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("parameters.lamda: {low: 0.1, high: 1}",
         "parameters.lamda: does not exist in the file; did you mean parameters.lambda?"),
        ("models.0.parameters.density: {low: 0.1, high: 7.5}",
         "models.0.parameters.density = 7.5: cannot be searched there"),
        ("parameters.lambda: {low: 1.0}",
         "parameters.lambda.high: is missing"),
        ("parameters.lambda: {low: 1, high: 1}",
         "parameters.lambda.high = 1.0: is not above low; use a number above 1"),
        ("parameters.lambda: {low: 0, high: 1, step: 0.3}",
         "parameters.lambda.step = 0.3: does not lead from low to high"),
        ("parameters.lambda: {low: 0, high: .inf}",
         "parameters.lambda.high = Infinity: is out of range"),
        ("parameters.lambda: {low: 0, high: 1.5, integer: true}",
         "parameters.lambda.integer = true: has a bound or a step that is none"),
        ("parameters.lambda: {choices: [1]}",
         "parameters.lambda.choices = [1]: is not a list of two or more different values"),
        ("parameters.lambda: {choices: [1, 2], low: 0}",
         "parameters.lambda.low = 0: stands beside choices"),
        ("parameters.lambda: {low: 0, hihg: 1, high: 2}",
         "parameters.lambda.hihg = 1: is an unknown key; did you mean high?"),
        ("parameters.lambda: {low: 0.1, high: 1, gradient: 1}",
         "parameters.lambda.gradient = 1: is out of range"),
        ("parameters.lambda: 0.5",
         "parameters.lambda = 0.5: is not a mapping"),
    ],
)  # fmt: skip
def test_faults_name_the_line_and_the_remedy(refused, line, told):
    found = refused(line)
    assert any(each.startswith(f"line 10: search.{told}") for each in found), found


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("{parameters.lambda: 3}", "is not from 0 to 1"),
        ("{parameters.lambda: 0.15}", "is not a whole number of steps of 0.1 above 0"),
        ("{parameters.lambda: high}", "is not a number"),
        ("{parameters.lamda: 0.1}", "did you mean parameters.lambda?"),
    ],
)
def test_a_start_must_lie_in_the_space(refused, start, told):
    (fault,) = refused("parameters.lambda: {low: 0, high: 1, step: 0.1}", "start:", f"  - {start}")
    assert fault.startswith("line 12: search.start[0].parameters.lam")
    assert told in fault


def test_a_file_without_search_and_search_in_a_line_with_other_keys_are_refused(refused):
    text = RECIPE.replace("search:\n%s\n", "")
    assert "names nothing that may vary" in refused(text=text)[0]
    flow = "{merge_method: passthrough, models: [{model: a, parameters: {scale: 1}}], search: " \
        "{models.0.parameters.scale: {low: 0, high: 1}}}"  # fmt: skip
    assert "does not stand in lines of its own" in refused(text=flow)[0]


def test_a_fault_of_the_merge_itself_keeps_its_line(refused):
    text = RECIPE.replace("dtype: float32", "dtype: flaot32") % "  parameters.lambda: {low: 0.1, high: 1}"
    assert refused(text=text) == [
        'line 12: dtype = "flaot32": is not a type that can be stored; did you mean float32?'
    ]


@given(st.decimals(-100, 100, places=2), st.integers(1, 60), st.integers(1, 500), st.floats(0, 1))
def test_what_lies_on_a_grid_is_found_there_again(low, steps, hundredths, where):
    step, high = hundredths / 100, float(low + steps * Decimal(hundredths) / 100)
    entry = Entry(key="k", low=float(low), high=high, step=step)
    value = entry.value({"k": float(low) + round(where * steps) * step})
    assert len(repr(value)) <= len("-1234.56")
    assert entry.value(entry.coordinates(value)) == value


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("0.5\n", 0.5),
        ("loss: 3\n1e-3\nfinished\n", 0.001),
        ("1\n2\n", 2.0),
        ('7\n{"objective": -0.25, "n": 3}\n', -0.25),
        ('{"loss": 3}\n4\n{"other": 1}\n', 4.0),
        ("  +.5e1  \r\n", 5.0),
    ],
)
def test_the_last_number_counts(said, value):
    assert read_objective(said) == value


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "printed no value"),
        ("loss 3\n1_000\n0x10\n", "printed no value"),
        ("0.5\nnan\n", "'nan', which is not a finite number"),
        ("0.5\n-inf\n", "'-inf', which is not a finite number"),
        ('{"objective": NaN}', "not a finite number"),
        ('1\n{"objective": "0.5"}', "not a finite number"),
        ('1\n{"objective": true}', "not a finite number"),
    ],
)
def test_what_is_no_finite_number_is_no_value(said, told):
    with pytest.raises(MergeError, match=told):
        read_objective(said)


@given(st.text())
def test_whatever_is_printed_is_a_number_or_an_error_of_ours(said):
    with contextlib.suppress(MergeError):
        assert isinstance(read_objective(said), float)


def test_the_best_is_the_first_of_equals_in_the_direction():
    trials = [
        TrialResult(number=n, assignments={}, value=v) for n, v in enumerate([None, 2.0, 1.0, 1.0, 2.0])
    ]
    assert best_trial(trials, "minimize").number == 2
    assert best_trial(trials, "maximize").number == 1
    assert best_trial(trials[:1], "minimize") is None


@pytest.fixture
def trials(tmp_path):
    return Trials(
        run_dir=tmp_path / "run", cwd=tmp_path, python="/usr/bin/python3",
        objective="judge '{merged}' {trial} {x}", threads=2, timeout_s=9.0,
        resources=Resources(cpus=1, gpus=1),
    )  # fmt: skip


def test_the_steps_of_a_trial(trials, tmp_path):
    merge, objective = trials.steps(7)
    folder = tmp_path / "run" / "trials" / "0007"
    assert merge.argv == ("/usr/bin/python3", "-m", "modelyard.merging", "merge", f"{folder}/spec.json")
    assert [output.path for output in merge.outputs] == [f"{folder}/merged.json"]
    assert merge.resources.cpus == 2
    assert objective.argv == ("judge", f"{folder}/merged", "7", "{x}")
    assert objective.needs == ("merge/0007",)
    assert (objective.resources.gpus, objective.timeout_s) == (1, 9.0)


def test_the_merging_step_makes_what_merge_run_makes(trials, space_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("base", "poet", "coder")):
        written(tmp_path / name, llama(number))
    space = space_of("models.0.parameters.weight: {low: 0.0, high: 1.0}")
    folder, given = trials.folder(0), {"models.0.parameters.weight": 0.25}
    trials.write_recipe(space)
    trials.write_spec(folder, folder / "merged", given)
    assert main(["merge", str(folder / "spec.json")]) == 0
    record = json.loads((folder / "merged.json").read_bytes())
    assert record["out"] == str(folder / "merged")
    assert verify_merge(folder / "merged").faults == ()
    (recipe,) = read_recipes(trials.run_dir / "recipe.yml", assignments=setting_texts(given))
    assert recipe.models[0].settings["weight"] == 0.25
    before = loaded(folder / "merged")
    (folder / "merged.json").unlink()
    assert main(["merge", str(folder / "spec.json")]) == 0, "it is taken up where it is done"
    assert json.loads((folder / "merged.json").read_bytes()) == record
    shutil.rmtree(tmp_path / "poet")
    shutil.rmtree(folder / "merged")
    assert main(["merge", str(folder / "spec.json")]) == 1
    assert set(before) == set(llama(0))


def test_a_spec_is_read_strictly(tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"recipe": "r.yml", "out": "o", "record": "r.json", "seeed": 1}))
    with pytest.raises(DocumentError, match=r"seeed.*did you mean seed"):
        read_spec(path)


def test_what_a_trial_merged_is_deleted_and_its_small_files_stay(trials):
    folder = trials.folder(3)
    (folder / "merged").mkdir(parents=True)
    (folder / ".merged.partial").mkdir()
    (folder / "merged" / "model.safetensors").write_text("x")
    (folder / "merged.json").write_text("{}")
    trials.delete_merged(3)
    trials.delete_merged(4)
    assert [path.name for path in folder.iterdir()] == ["merged.json"]


def test_the_place_of_the_best_is_known_once_it_was_told(trials, tmp_path):
    out = tmp_path / "out"
    assert not trials.owns(out)
    trials.write_spec(trials.best_folder, out, {})
    assert trials.owns(out)
    assert not trials.owns(tmp_path / "other")
    assert Path(trials.best_step(out).outputs[1].path) == out


def test_json_texts_of_settings_are_read_as_what_they_were():
    given = {"a": 1e-05, "b": "1e5", "c": [0, 8], "d": True, "e": "yes: no", "f": -3}
    for text in setting_texts(given):
        key, _, value = text.partition("=")
        assert yaml.safe_load(value) == given[key] or given[key] == float(value)
