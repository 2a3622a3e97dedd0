"""A search declared by TAO's own files, from the command line to the last trial."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelyard.core.errors import DocumentError
from modelyard.tuning.tao.document import TaoFiles, read_tao_files

SCHEMA = {
    "type": "object",
    "default": {"train": {"optim": {"lr": 0.001, "name": "adam"}, "num_epochs": 3}},
    "automl_default_parameters": ["train.optim.lr"],
    "properties": {
        "train": {
            "type": "object",
            "properties": {
                "num_epochs": {"type": "int", "default": 3, "minimum": 1, "maximum": 9},
                "optim": {
                    "type": "object",
                    "properties": {
                        "lr": {
                            "type": "float", "default": 0.001, "minimum": 1e-5, "maximum": 0.1,
                            "automl_enabled": "TRUE", "math_cond": "> 0.0",
                        },
                        "name": {"type": "categorical", "default": "adam", "enum": ["adam", "sgd"]},
                    },
                },
            },
        }
    },
}  # fmt: skip
TRAINING = """
import json, math, os, sys, yaml
spec = yaml.safe_load(open(sys.argv[1]))
for epoch in range(1, 1 + spec["train"]["num_epochs"]):
    loss = abs(math.log10(spec["train"]["optim"]["lr"]) + 2) + 1 / epoch
    print(f"epoch: {epoch} loss: {loss}", flush=True)
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "train.py").write_text(TRAINING)

    def with_settings(command="{python} train.py {config}", **settings):
        told = {"algorithm": "random", "metric": "loss", "automl_max_recommendations": 4, **settings}
        (tmp_path / "settings.json").write_text(json.dumps(told))
        return TaoFiles(schema=Path("train.schema.json"), settings=Path("settings.json"), command=command)

    return with_settings


def test_settings_become_limits_and_the_schema_the_space(files):
    declaration, _ = read_tao_files(files(automl_max_concurrent=3))
    assert (declaration.limits.trials, declaration.limits.parallel) == (4, 3)
    assert [each.name for each in declaration.space.parameters] == ["train.optim.lr"]
    assert [(each.metric, each.direction) for each in declaration.objectives] == [("loss", "minimize")]
    assert declaration.rungs is None
    assert declaration.workload.specification["train"]["optim"] == {"lr": 0.001, "name": "adam"}


def test_an_algorithm_with_budgets_gets_its_rungs(files):
    declaration, _ = read_tao_files(files(algorithm="asha", automl_max_epochs=9))
    assert (declaration.rungs.low, declaration.rungs.high, declaration.rungs.eta) == (1, 9, 3)


def test_options_of_an_algorithm_are_handed_on(files):
    declaration, notes = read_tao_files(files(algorithm="bohb", automl_kde_samples=9, automl_max_trials=4))
    assert declaration.options == {"samples": 9}
    assert any("automl_max_trials has no effect on bohb" in note for note in notes)
    declaration, notes = read_tao_files(files(algorithm="asha", automl_min_top_configs=4))
    assert (declaration.limits.trials, declaration.options) == (4, {})
    assert any("ends the searches of AutoMLRunner alone" in note for note in notes)


def test_a_population_needs_a_command_that_goes_on_from_checkpoints(files):
    own = {"algorithm": "pbt", "automl_population_size": 4, "automl_max_generations": 3}
    with pytest.raises(DocumentError, match=r"takes no \{parent_dir\} and no \{budget\}"):
        read_tao_files(files(**own))
    command = "{python} train.py {config} {budget} {parent_dir}"
    declaration, _ = read_tao_files(files(command, **own))
    assert (declaration.rungs.low, declaration.rungs.high, declaration.rungs.promote) == (10, 30, True)
    assert declaration.limits.trials == 12
    declaration, _ = read_tao_files(files(command, algorithm="asha"))
    assert declaration.rungs.promote


def test_a_model_is_named_in_the_settings_and_its_key_is_not(files):
    asked = {"algorithm": "hybrid", "llm_endpoint": "http://localhost:1/v1", "llm_model": "m"}
    declaration, _ = read_tao_files(files(**asked, llm_max_total_tokens=99), {"AUTOML_LLM_API_KEY": "k"})
    assert declaration.options["api_key_env"] == "AUTOML_LLM_API_KEY"
    assert declaration.options["max_total_tokens"] == 99
    with pytest.raises(DocumentError, match="only taken from the environment") as caught:
        read_tao_files(files(**asked, llm_api_key="xyzzy"), {})
    assert "xyzzy" not in str(caught.value)
    with pytest.raises(DocumentError, match="AUTOML_LLM_MODEL"):
        read_tao_files(files(algorithm="llm"), {})


def test_a_command_that_does_not_take_the_specification_is_refused(files):
    with pytest.raises(DocumentError, match=r"does not use train\.optim\.lr"):
        read_tao_files(files(command="{python} train.py"))


def test_a_misspelled_setting_is_refused_with_the_nearest(files):
    with pytest.raises(DocumentError, match="automl_max_recommendations"):
        read_tao_files(files(automl_max_recomendations=9))


def test_the_command_line_runs_them_verbatim(files, tmp_path):
    files(automl_max_concurrent=2)
    argv = [sys.executable, "-m", "modelyard.cli.main", "tune", "--schema", "train.schema.json"]
    argv += ["--settings", "settings.json", "--command", "{python} train.py {config}", "--json"]
    said = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
    record = json.loads(said.stdout)
    assert record["counts"]["COMPLETE"] == 4
    assert set(record["best"]["assignments"]) == {"train.optim.lr"}
    spec = yaml.safe_load((tmp_path / ".modelyard/runs/train/trials/0000/config.yaml").read_text())
    assert spec == SCHEMA["default"]
