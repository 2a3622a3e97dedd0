"""The merge commands on small checkpoints: the short form, dry runs, refusals, JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from tests.unit.merging.made import llama, loaded, written

from modelyard.core.errors import CheckpointError, DocumentError, MergeError


@pytest.fixture
def models(tmp_path):
    base = llama(0)
    for seed, name in enumerate(("base", "a", "b")):
        written(tmp_path / name, llama(seed, around=base, spread=0.01))
    return tmp_path


@pytest.fixture
def linear(models):
    recipe = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": 1.0}} for name in ("a", "b")],
    }
    (models / "linear.yml").write_text(yaml.safe_dump(recipe))
    return models / "linear.yml"


def test_run_is_implied_by_a_file_name(call, linear, models):
    assert call("merge", linear, "out", "--json").exit_code == 0
    assert call("merge", "run", linear, "again", "--json").exit_code == 0
    out, again = loaded(models / "out"), loaded(models / "again")
    assert all(out[name].tobytes() == again[name].tobytes() for name in out)


def test_what_is_printed_for_machines(call, linear):
    record = json.loads(call("merge", linear, "out", "--json").stdout)
    assert record["method"] == "linear"
    assert record["tensors"] == 12
    assert record["bytes"] == sum(value.nbytes for value in llama(0).values())
    assert set(record["parents"]) == {"a", "b"}


def test_a_dry_run_writes_nothing(call, linear, models):
    before = sorted(models.rglob("*"))
    record = json.loads(call("merge", linear, "out", "--dry-run", "--json").stdout)
    assert record["tensors"] == 12
    assert record["read_bytes"] == 2 * record["output_bytes"]
    assert sorted(models.rglob("*")) == before


def test_a_value_can_be_set(call, linear, models):
    result = call("merge", linear, "out", "--set", "models.0.parameters.weight=3", "--json")
    assert result.exit_code == 0
    a, b, out = (loaded(models / name) for name in ("a", "b", "out"))
    name = "model.norm.weight"
    np.testing.assert_allclose(out[name], 0.75 * a[name] + 0.25 * b[name], rtol=1e-6)


def test_a_wrong_file_names_line_key_and_remedy(call, linear):
    linear.write_text(linear.read_text().replace("weight: 1.0", "wieght: 1.0", 1))
    result = call("merge", linear, "out")
    assert isinstance(result.exception, DocumentError)
    assert "line 4" in str(result.exception)
    assert "wieght" in str(result.exception)
    assert "weight" in str(result.exception)


def test_truncated_shards_are_refused(call, linear, models):
    shard = models / "b" / "model.safetensors"
    data = shard.read_bytes()
    for length in (0, 7, 8, 100, len(data) - 1):
        shard.write_bytes(data[:length])
        result = call("merge", linear, "out")
        assert isinstance(result.exception, DocumentError | CheckpointError)
        assert "model.safetensors" in str(result.exception)
        assert not (models / "out").exists()


def test_documents_that_feed_one_another(call, models):
    (models / "chain.yml").write_text(
        "name: mean\nmerge_method: linear\nmodels:\n"
        "  - {model: a, parameters: {weight: 1}}\n  - {model: b, parameters: {weight: 1}}\n"
        "---\nmerge_method: task_arithmetic\nbase_model: base\n"
        "models: [{model: mean, parameters: {weight: 2}}]\n"
    )
    assert json.loads(call("merge", "chain.yml", "out", "--dry-run", "--json").stdout)["tensors"] == 12
    assert call("merge", "chain.yml", "out", "--json").exit_code == 0
    base, a, b, out = (loaded(models / name) for name in ("base", "a", "b", "out"))
    for name, value in out.items():
        mean = (a[name].astype(np.float64) + b[name]) / 2
        np.testing.assert_allclose(value, base[name] + 2 * (mean - base[name]), rtol=1e-5, atol=1e-8)
    assert {path.name for path in models.iterdir()} == {"base", "a", "b", "out", "chain.yml"}


def test_stack(call, models):
    stack = {
        "layer_slices": [
            {"model": "a", "start": 0, "end": 2},
            {"model": "b", "start": 1, "end": 3, "scale": 3.0},
        ],
        "embedding_source": "base",
    }
    (models / "layers.yml").write_text(yaml.safe_dump(stack))
    assert call("merge", "stack", "layers.yml", "out", "--json").exit_code == 0
    base, b, out = (loaded(models / name) for name in ("base", "b", "out"))
    np.testing.assert_array_equal(out["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    np.testing.assert_array_equal(out["lm_head.weight"], b["lm_head.weight"])
    for part, factor in (("mlp.down_proj", np.float32(3)), ("self_attn.q_proj", np.float32(1))):
        for layer, own in ((2, 1), (3, 2)):
            expected = factor * b[f"model.layers.{own}.{part}.weight"]
            np.testing.assert_array_equal(out[f"model.layers.{layer}.{part}.weight"], expected)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"layer_slices": []}, "is empty"),
        ({"layer_slices": [{"model": "a", "start": 2, "end": 2}]}, "is not above start"),
        ({"layer_slices": [{"model": "a", "start": 0, "end": 9}]}, "3 layers"),
        ({"layer_slices": [{"model": "a", "start": 0, "end": 1, "scael": 2}]}, "did you mean scale"),
    ],
)
def test_a_wrong_stack_is_refused(call, models, change, match):
    (models / "layers.yml").write_text(yaml.safe_dump(change))
    result = call("merge", "stack", "layers.yml", "out")
    assert isinstance(result.exception, DocumentError)
    assert match in str(result.exception)


def test_the_command_of_2023(call, models):
    told = ("--merge", "a", "--merge", "b", "--method", "linear", "--weight", "0.5", "--no-bf16", "--cuda")
    assert call("merge", "legacy", "out", *told, "--json").exit_code == 0
    a, b, out = (loaded(models / name) for name in ("a", "b", "out"))
    for name, value in out.items():
        np.testing.assert_allclose(value, (a[name] + b[name]) / 2, rtol=1e-5, atol=1e-8)


def test_methods_are_listed(call):
    listed = {record["name"]: record for record in json.loads(call("merge", "methods", "--json").stdout)}
    assert {"linear", "slerp", "task_arithmetic", "ties", "dare_ties", "passthrough"} <= set(listed)
    assert all(record["formula"] for record in listed.values())
    assert "density" in call("merge", "methods", "ties").stdout


def test_verify_tells_a_stranger(call, models):
    result = call("merge", "verify", "a")
    assert isinstance(result.exception, MergeError)
    assert "merge.json" in str(result.exception)


@pytest.mark.parametrize(
    ("size", "good"), [("2MB", True), ("1.5GiB", True), ("300", True), ("0", False), ("big", False)]
)
def test_sizes(call, linear, size, good):
    result = call("merge", linear, "out", "--shard-size", size, "--json")
    assert (result.exit_code == 0) is good
