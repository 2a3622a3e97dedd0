"""Searching a merge: trials on a real backend with a real objective, their record, and taking them up."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelyard.core.errors import DocumentError, MergeError
from modelyard.lifecycle.merge_search import prepare_search, search
from modelyard.lifecycle.merge_study import SearchOptions
from modelyard.merging.chain import run_chain
from modelyard.merging.config import read_recipes
from modelyard.merging.engine import MergeOptions, read_record
from modelyard.merging.search_space import setting_texts
from modelyard.runs.execution import ExecutionOptions, Outcome
from modelyard.runs.yard import open_yard

SPACE = """merge_method: linear
models:
  - model: a
    parameters: {weight: 0.5}
  - model: b
    parameters: {weight: 0.5}
parameters: {normalize: false}
dtype: float32
search:
  models.0.parameters.weight: {low: 0.0, high: 1.0}
  models.1.parameters.weight: {low: 0.0, high: 1.0, step: 0.05}
  start:
    - {models.0.parameters.weight: 1.0, models.1.parameters.weight: 0.0}
    - {models.0.parameters.weight: 0.4, models.1.parameters.weight: 0.6}
"""

#: The squared distance of the merged tensor to a target; trials 2 and 3 go wrong, each in its way.
SCORE = """
import sys
from pathlib import Path
from safetensors.numpy import load_file
merged, trial = sys.argv[1], int(sys.argv[2])
if trial == 2:
    sys.exit("no such luck")
value = load_file(Path(merged) / "model.safetensors")["model.norm.weight"]
print("measuring", merged)
print(float("nan") if trial == 3 else ((value - [0.4, 0.6]) ** 2).sum().item())
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two models, an objective and a space, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, values in {"a": [1, 0], "b": [0, 1]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
        tensors = {"model.norm.weight": np.array(values, np.float32)}
        save_file(tensors, tmp_path / name / "model.safetensors")
    (tmp_path / "score.py").write_text(SCORE)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


@pytest.fixture
def options(folder):
    return SearchOptions(out=folder / "out", objective="{python} score.py {merged} {trial}", trials=5)


@pytest.fixture
def searched(folder, yard):
    """Prepare and run a search, in a yard."""

    def run(options, *, yard=yard, told=lambda *_: None):
        execution = ExecutionOptions(slots=2, environment={**os.environ, "OMP_NUM_THREADS": "1"})
        prepared = prepare_search(Path("space.yaml"), yard.runs_dir, options, execution)
        return search(yard, prepared, execution, told=told)

    return run


def kinds(yard):
    return Counter(entry.kind for entry in yard.journal.read())


def test_a_search_finds_the_best_and_records_every_trial(folder, options, searched, yard):
    told = []
    result = searched(options, told=lambda trial, best: told.append((trial.number, best and best.number)))
    assert result.outcome is Outcome.SUCCEEDED
    assert [trial.state for trial in result.trials] == ["complete"] * 2 + ["failed"] * 2 + ["complete"]
    assert result.trials[0].value == pytest.approx(0.72)
    assert result.best is not None
    assert result.best.assignments == {"models.0.parameters.weight": 0.4, "models.1.parameters.weight": 0.6}
    assert "no such luck" in result.trials[2].why
    assert "not a finite number" in result.trials[3].why
    assert told == [(0, 0), (1, 1), (2, 1), (3, 1), (4, 1)]
    record = json.loads((folder / "out" / "search.json").read_bytes())
    assert record["trials"] == [trial.record() for trial in result.trials]
    assert record["best"] == result.best.record()
    assert record["objective"] == options.objective
    events = [entry.data for entry in yard.journal.read() if entry.kind == "study.trial"]
    assert events == record["trials"]
    assert not [path for path in result.run_dir.glob("trials/*/*") if path.is_dir()], "merged are deleted"


def test_the_output_is_the_merge_of_the_best_byte_for_byte(folder, options, searched):
    best = searched(replace(options, trials=2)).best
    plain = folder / "plain.yml"
    plain.write_text(SPACE.partition("search:")[0])
    recipes = read_recipes(plain, assignments=setting_texts(best.assignments))
    run_chain(recipes, folder / "direct", MergeOptions(threads=1), file="plain.yml", folder=Path())
    name = "model.safetensors"
    assert (folder / "out" / name).read_bytes() == (folder / "direct" / name).read_bytes()
    assert read_record(folder / "out")["identity"] == read_record(folder / "direct")["identity"]


def test_the_same_search_goes_on_where_it_was_and_as_if_it_had_not_stopped(
    options, searched, yard, tmp_path_factory
):
    first = searched(replace(options, trials=2))
    before = kinds(yard)
    again = searched(replace(options, trials=2))
    assert again.trials == first.trials
    assert kinds(yard)["job.intent"] == before["job.intent"]
    assert kinds(yard)["study.trial"] == 2
    more = searched(replace(options, trials=5))
    assert more.trials[:2] == first.trials
    other = open_yard(tmp_path_factory.mktemp("other") / "yard", create=True)
    whole = searched(replace(options, out=options.out.with_name("whole")), yard=other)
    assert whole.trials[2].why == more.trials[2].why
    assert [(t.assignments, t.value) for t in whole.trials] == [(t.assignments, t.value) for t in more.trials]


def test_another_seed_proposes_others(options, searched):
    one = searched(replace(options, trials=3, out=options.out.with_name("one")))
    two = searched(replace(options, trials=3, seed=1, out=options.out.with_name("two")))
    assert one.run != two.run
    assert one.trials[:2] == two.trials[:2], "what the file starts with"
    assert one.trials[2].assignments != two.trials[2].assignments


def test_trials_at_a_time_are_each_measured_once(options, searched, yard):
    result = searched(replace(options, parallel=2, trials=6, direction="maximize"))
    assert [trial.number for trial in result.trials] == list(range(6))
    assert result.best is not None
    assert result.best.value == max(t.value for t in result.trials if t.value is not None)
    steps = [e.data["step"] for e in yard.journal.read() if e.kind == "job.intent"]
    expected = [f"{kind}/{n:04d}" for kind in ("merge", "objective") for n in range(6)]
    assert Counter(steps) == Counter([*expected, "merge/best"])


def test_where_no_trial_succeeds_there_is_no_output(folder, options, searched, yard):
    result = searched(replace(options, objective="false", trials=2))
    assert result.outcome is Outcome.FAILED
    assert result.best is None
    assert "no trial succeeded" in result.why
    assert not (folder / "out").exists()
    assert kinds(yard)["study.trial"] == 2


def test_a_candidate_that_cannot_be_merged_fails_alone(folder, options, searched):
    text = SPACE.replace("  start:", "  merge_method: {choices: [linear, ties]}\n  start:").replace(
        "weight: 0.6}", "weight: 0.6, merge_method: ties}"
    )
    (folder / "space.yaml").write_text(text)
    result = searched(replace(options, trials=2))
    assert result.trials[1].state == "failed"
    assert result.trials[1].why.startswith("merge/0001: ")
    assert "base_model" in result.trials[1].why


def test_an_output_that_is_not_ours_is_left_alone(folder, options, searched):
    (folder / "out").mkdir()
    with pytest.raises(MergeError, match=r"is there already.*--overwrite"):
        searched(options)
    result = searched(replace(options, overwrite=True, trials=1))
    assert (folder / "out" / "search.json").exists()
    assert result.outcome is Outcome.SUCCEEDED


def test_a_model_that_changed_since_it_was_measured_is_noticed(folder, options, searched):
    searched(replace(options, trials=2))
    shutil.rmtree(folder / "out")
    tensors = {"model.norm.weight": np.array([2, 2], np.float32)}
    save_file(tensors, folder / "a" / "model.safetensors")
    with pytest.raises(MergeError, match="is not what trial 1 measured"):
        searched(replace(options, trials=2))


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("judge {merged}", "'judge'|\"judge\""),
        ("true {merge}", r"unknown placeholder \{merge\}; did you mean \{merged\}"),
        ("true {merged} | tail", "shell"),
    ],
)
def test_a_command_that_cannot_run_is_refused_before_anything_is_written(
    options, searched, yard, objective, told
):
    with pytest.raises(DocumentError, match=told):
        searched(replace(options, objective=objective))
    assert not yard.runs_dir.exists()


def test_a_model_that_is_missing_is_refused_before_anything_is_written(folder, options, searched, yard):
    (folder / "a" / "model.safetensors").unlink()
    with pytest.raises((DocumentError, MergeError)):
        searched(options)
    assert not yard.runs_dir.exists()
