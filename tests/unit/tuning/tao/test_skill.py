"""Skills: what a folder of the skill bank says, and every way in which it can be wrong."""

from __future__ import annotations

import json

import pytest
import yaml
from tests.unit.tuning.tao_bench import SCHEMA, SPECS, make_skill

from modelyard.core.errors import DocumentError
from modelyard.tuning.tao.skill import read_skill


@pytest.fixture
def skill_dir(tmp_path):
    return make_skill(tmp_path / "bank" / "skills" / "toy")


def faults_of(folder, action="train", **given):
    with pytest.raises(DocumentError) as caught:
        read_skill(folder, action, **given)
    return "\n".join(map(str, caught.value.faults))


def changed(folder, **info):
    path = folder / "references" / "skill_info.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **info}))


def test_a_skill_is_read_whole(skill_dir):
    skill = read_skill(skill_dir, "train")
    assert (skill.network, skill.action, skill.image, skill.config_format) == (
        "toy",
        "train",
        "toys/trainer:1",
        "yaml",
    )
    assert skill.specs == SPECS
    assert skill.schema == SCHEMA
    assert skill.declared_outputs == {"results_dir"}
    assert {"train.optim.lr", "train.optim", "dataset.sources[0].path"} <= skill.known_keys
    assert skill.script is None


def test_without_a_template_the_schema_gives_the_specification(skill_dir):
    (skill_dir / "references" / "spec_template_train.yaml").unlink()
    assert read_skill(skill_dir, "train").specs == SPECS
    (skill_dir / "schemas" / "train.schema.json").unlink()
    skill = read_skill(skill_dir, "train")
    assert (skill.specs, skill.schema, skill.known_keys) == ({}, None, frozenset())


def test_numbers_with_exponents_are_numbers(skill_dir):
    (skill_dir / "references" / "spec_template_train.yaml").write_text("train: {lr: 1e-5}\n")
    assert read_skill(skill_dir, "train").specs == {"train": {"lr": 1e-5}}


def test_images_by_key_are_looked_up_above_the_folder(skill_dir, tmp_path):
    changed(skill_dir, actions={"train": {"command": "x"}})
    assert "versions.yaml" in faults_of(skill_dir)
    (tmp_path / "bank" / "versions.yaml").write_text("images: {toolkit: {pyt: 'registry/toolkit:6-pyt'}}\n")
    assert read_skill(skill_dir, "train").image == "registry/toolkit:6-pyt"
    assert read_skill(skill_dir, "train", image="own:2").image == "own:2"
    assert "is no key of" in faults_of(skill_dir, image="toolkit.tf")
    changed(skill_dir, container_image=None)
    assert "container_image: is missing" in faults_of(skill_dir)


def test_a_command_in_toml_is_the_default_of_containers(skill_dir):
    changed(skill_dir, actions={"train": {"command": "x", "container_image": "a/b"}})
    assert read_skill(skill_dir, "train").config_format == "toml"


def test_what_is_wrong_is_told_with_the_remedy(skill_dir, tmp_path):
    assert "give the folder of a model" in faults_of(tmp_path / "none")
    assert "use one of its actions: train" in faults_of(skill_dir, "evaluate")
    changed(
        skill_dir, actions={"train": {"config_format": "ini", "container_image": "a/b"}}, data_sources=[1]
    )
    told = faults_of(skill_dir)
    for word in ("command: is missing", "json, yaml, toml", "data_sources"):
        assert word in told
    (skill_dir / "references" / "skill_info.yaml").write_text("a: [")
    assert "is not YAML" in faults_of(skill_dir)


def test_a_broken_schema_and_template_are_told_together(skill_dir):
    (skill_dir / "schemas" / "train.schema.json").write_text("{")
    (skill_dir / "references" / "spec_template_train.yaml").write_text("- 1")
    told = faults_of(skill_dir)
    assert "is not JSON" in told
    assert "is not a mapping" in told


# -- scripts ------------------------------------------------------------------------------------------------


def test_a_script_needs_no_image(skill_dir):
    changed(skill_dir, actions={"train": {"execution": {"type": "python_script", "script": "train.py"}}})
    skill = read_skill(skill_dir, "train")
    assert skill.script.path == skill_dir / "train.py"
    assert skill.script.args == ("--config", "{config_path}")
    assert skill.script.cwd == skill_dir
    assert (skill.image, skill.command, skill.config_format) == ("", "", "yaml")
    assert "leave the image out" in faults_of(skill_dir, image="a/b")


def test_a_script_of_the_caller_wins(skill_dir, tmp_path):
    (tmp_path / "other.py").write_text("")
    given = {"type": "python_script", "script": str(tmp_path / "other.py"), "args": ["{config_path}"],
             "cwd": str(tmp_path), "config_format": "json"}  # fmt: skip
    skill = read_skill(skill_dir, "train", execution=given)
    assert (skill.script.path, skill.script.args) == (tmp_path / "other.py", ("{config_path}",))
    assert (skill.script.cwd, skill.config_format) == (tmp_path, "json")


@pytest.mark.parametrize(
    ("execution", "word"),
    [
        ({"type": "shell", "script": "train.py"}, "python_script"),
        ({"type": "python_script"}, "execution.script"),
        ({"type": "python_script", "script": "none.py"}, "does not exist"),
        ({"type": "python_script", "script": "train.py", "cwd": "none"}, "is not a folder"),
        ({"type": "python_script", "script": "train.py", "args": "--config x"}, "list of strings"),
        ({"type": "python_script", "script": "train.py", "config_format": "ini"}, "json, yaml, toml"),
        ("train.py", "is not a mapping"),
    ],
)
def test_a_script_that_cannot_run_is_told(skill_dir, execution, word):
    assert word in faults_of(skill_dir, execution=execution)


def test_a_script_needs_a_schema(skill_dir):
    (skill_dir / "schemas" / "train.schema.json").unlink()
    told = faults_of(skill_dir, execution={"type": "python_script", "script": "train.py"})
    assert "write the schema" in told


# -- data ---------------------------------------------------------------------------------------------------


def with_data(skill_dir, rules, train="s3://bucket/train/", evaluation="", **info):
    changed(skill_dir, data_sources={"train": rules}, **info)
    return read_skill(skill_dir, "train").with_data(train, evaluation)


def test_data_are_put_where_the_rules_say(skill_dir):
    rules = {
        "dataset.train": {"source": "train_datasets", "path": "{kind}/images.tar.gz"},
        "dataset.val": {"source": "eval_dataset", "path": "x"},
        "dataset.sources": {
            "source": "train_datasets",
            "mapping": {"path": {"path": "/images"}, "root": {}, "extra": {"optional": True}},
        },
        "dataset.one": {"source": "train_datasets", "mapping": {"a": {"path": "b"}}},
        "dataset.many": {"source": "train_datasets", "mapping": {"a": None}, "multiple_sources": True},
    }
    (skill_dir / "references" / "spec_template_train.yaml").write_text(
        yaml.safe_dump({**SPECS, "kind": "coco"})
    )
    specs = with_data(skill_dir, rules, train="aws://bucket/train/")
    base = "s3://bucket/train"
    assert specs["dataset"]["train"] == f"{base}/coco/images.tar.gz"
    assert specs["dataset"]["sources"] == [{"path": f"{base}/images", "root": base}]
    assert specs["dataset"]["one"] == {"a": f"{base}/b"}
    assert specs["dataset"]["many"] == [{"a": base}]
    assert "val" not in specs["dataset"]


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("plain", "annotations.json"), ("video", "videos.tar.gz"), ("images", "b.tar.gz"), ("folder", ""),
        ("other", "any"),
    ],
)  # fmt: skip
def test_data_by_format(skill_dir, kind, suffix):
    by_format = {
        "plain": "annotations.json", "video": ["images.tar.gz", "videos.tar.gz"],
        "images": ["a.tar.gz", "b.tar.gz"], "folder": ["a.json"], "*": "any",
    }  # fmt: skip
    rules = {"dataset.train": {"source": "train_datasets", "path_from_format": by_format}}
    specs = with_data(skill_dir, rules, train="/data", data_format=kind)
    assert specs["dataset"]["train"] == f"/data/{suffix}"


def test_the_skill_itself_is_left_alone(skill_dir):
    with_data(skill_dir, {"dataset.train": {"source": "train_datasets", "path": "x"}})
    assert read_skill(skill_dir, "train").specs == json.loads(json.dumps(SPECS))
