"""A merge from recipe to folder: the values, what lies beside them, and that nothing but the seed matters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.merging.made import llama, loaded, ref, source, written

from modelyard.core.digests import digest_path
from modelyard.core.errors import CheckpointError, DocumentError, MergeError
from modelyard.merging.engine import MergeOptions, run_merge
from modelyard.merging.planning import plan_merge
from modelyard.merging.recipe import Conditional, Ends, Recipe, Slice
from modelyard.merging.verification import verify_merge


@pytest.fixture
def models(tmp_path):
    base = llama(0)
    tensors = {"base": base, "a": llama(1, around=base, spread=0.01), "b": llama(2, around=base, spread=0.01)}
    return {name: written(tmp_path / name, t, shards=1 + (name == "a")) for name, t in tensors.items()}


def merge(recipe, out, **options):
    plan = plan_merge(recipe, file="recipe.yml", folder=Path())
    return run_merge(plan, out, MergeOptions(**options))


def ties(models, **settings):
    return Recipe(
        method="ties",
        base_model=ref(models["base"]),
        models=(source(models["a"], weight=0.6, density=0.5), source(models["b"], weight=0.4, density=0.5)),
        settings=settings,
    )


def test_linear_is_the_weighted_average(models, tmp_path):
    recipe = Recipe(
        method="linear", models=(source(models["a"], weight=3.0), source(models["b"], weight=1.0))
    )
    result = merge(recipe, tmp_path / "out")
    a, b, out = loaded(models["a"]), loaded(models["b"]), loaded(tmp_path / "out")
    assert list(out) == sorted(out) or set(out) == set(a)
    for name, value in out.items():
        expected = (0.75 * a[name].astype(np.float64) + 0.25 * b[name].astype(np.float64)).astype(np.float32)
        np.testing.assert_array_equal(value, expected)
    assert result.tensors == len(a)
    assert verify_merge(tmp_path / "out").faults == ()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_identities(models, tmp_path, weight):
    one = Recipe(
        method="task_arithmetic", base_model=ref(models["base"]), models=(source(models["a"], weight=weight),)
    )
    merge(one, tmp_path / "out")
    expected = loaded(models["a" if weight else "base"])
    for name, value in loaded(tmp_path / "out").items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-7, atol=0)


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_threads_shards_and_order_change_nothing(models, tmp_path, method):
    recipe = replace(ties(models), method=method)
    merge(recipe, tmp_path / "one", threads=1)
    merge(recipe, tmp_path / "three", threads=3, shard_bytes=1500)
    assert len(list((tmp_path / "three").glob("*.safetensors"))) > 1
    one, three = loaded(tmp_path / "one"), loaded(tmp_path / "three")
    for name in one:
        assert one[name].tobytes() == three[name].tobytes()


def test_the_seed_decides_what_is_dropped(models, tmp_path):
    recipe = replace(ties(models), method="dare_ties")
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        merge(recipe, tmp_path / name, seed=seed)
    assert digest_path(tmp_path / "first") == digest_path(tmp_path / "again")
    first, other = loaded(tmp_path / "first"), loaded(tmp_path / "other")
    assert any(first[name].tobytes() != other[name].tobytes() for name in first)


def test_gradients_run_over_the_layers(models, tmp_path):
    recipe = Recipe(
        method="slerp", base_model=ref(models["base"]), models=(source(models["a"]),),
        settings={"t": (Conditional(value=(0.0, 1.0), filter="mlp"), Conditional(value=0.0))},
    )  # fmt: skip
    merge(recipe, tmp_path / "out")
    base, a, out = loaded(models["base"]), loaded(models["a"]), loaded(tmp_path / "out")
    for name, value in out.items():
        expected = a if "layers.2.mlp" in name else base
        if "layers.1.mlp" not in name:
            np.testing.assert_allclose(value, expected[name], rtol=1e-6)
    middle = "model.layers.1.mlp.down_proj.weight"
    assert not np.allclose(out[middle], base[middle], rtol=1e-4)


@pytest.mark.parametrize(("ends", "expected"), [(Ends.FIRST, "base"), (Ends.POSITION, "a")])
def test_where_the_head_lies_on_a_gradient_is_a_choice(models, tmp_path, ends, expected):
    recipe = Recipe(
        method="slerp", base_model=ref(models["base"]), models=(source(models["a"]),),
        settings={"t": (0.0, 1.0)}, gradient_ends=ends,
    )  # fmt: skip
    merge(recipe, tmp_path / "out")
    out = loaded(tmp_path / "out")
    for name in ("lm_head.weight", "model.norm.weight"):
        np.testing.assert_allclose(out[name], loaded(models[expected])[name], rtol=1e-6)
    np.testing.assert_allclose(
        out["model.embed_tokens.weight"], loaded(models["base"])["model.embed_tokens.weight"], rtol=1e-6
    )


def test_slices_are_put_one_after_another(models, tmp_path):
    halved = (Conditional(filter="down_proj", value=0.5), Conditional(value=1.0))
    recipe = Recipe(
        method="passthrough",
        slices=(
            Slice(sources=(source(models["a"], (0, 2)),)),
            Slice(sources=(source(models["b"], (1, 3), scale=halved),)),
        ),
    )  # fmt: skip
    merge(recipe, tmp_path / "out")
    a, b, out = loaded(models["a"]), loaded(models["b"]), loaded(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 4
    q, down = "model.layers.{}.self_attn.q_proj.weight", "model.layers.{}.mlp.down_proj.weight"
    for layer, (model, own) in enumerate([(a, 0), (a, 1), (b, 1), (b, 2)]):
        np.testing.assert_array_equal(out[q.format(layer)], model[q.format(own)])
        factor = np.float32(0.5 if layer > 1 else 1)
        np.testing.assert_array_equal(out[down.format(layer)], factor * model[down.format(own)])
    np.testing.assert_array_equal(out["model.embed_tokens.weight"], a["model.embed_tokens.weight"])
    np.testing.assert_array_equal(out["lm_head.weight"], b["lm_head.weight"])
    np.testing.assert_array_equal(out["model.norm.weight"], b["model.norm.weight"])


def test_a_tied_head_takes_part_as_its_embedding(models, tmp_path):
    tied = llama(5, head=False)
    written(tmp_path / "tied", tied, config={"tie_word_embeddings": True})
    recipe = Recipe(
        method="linear", models=(source(tmp_path / "tied", weight=1.0), source(models["a"], weight=1.0))
    )
    merge(recipe, tmp_path / "out")
    expected = (tied["model.embed_tokens.weight"].astype(float) + loaded(models["a"])["lm_head.weight"]) / 2
    np.testing.assert_allclose(loaded(tmp_path / "out")["lm_head.weight"], expected, rtol=1e-6)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_integers_are_taken_over(tmp_path):
    for name in ("a", "b"):
        written(tmp_path / name, {"w.0.x": np.ones(3, np.float32), "table": np.arange(4) + (name == "b")})
    recipe = Recipe(
        method="linear", models=(source(tmp_path / "a", weight=1.0), source(tmp_path / "b", weight=1.0))
    )
    merge(recipe, tmp_path / "out")
    np.testing.assert_array_equal(loaded(tmp_path / "out")["table"], np.arange(4))


def test_the_output_says_where_it_comes_from(models, tmp_path):
    for name, licence in (("base", "apache-2.0"), ("a", "mit")):
        (models[name] / "README.md").write_text(f"---\nlicense: {licence}\n---\n# A model\n")
    (models["base"] / "generation_config.json").write_text('{"eos_token_id": 2}')
    (models["base"] / "tokenizer.json").write_text("{}")
    result = merge(replace(ties(models), out_dtype="float16"), tmp_path / "out")
    out = tmp_path / "out"
    record = json.loads((out / "merge.json").read_text())
    assert set(record["parents"]) == {str(models[name]) for name in models}
    assert all(
        p["tensors_read"] == p["tensors"] and p["digest"].startswith("sha256:")
        for p in record["parents"].values()
    )
    assert set(record["tensors"]) == set(loaded(out))
    assert {v.dtype for v in loaded(out).values()} == {np.dtype(np.float16)}
    assert (out / "generation_config.json").exists()
    assert (out / "tokenizer.json").exists()
    card = (out / "README.md").read_text()
    assert "ties" in card
    assert "density: 0.5" in card
    assert any("apache-2.0" in w and "mit" in w for w in result.warnings)


def test_all_faults_are_found_before_anything_is_written(models, tmp_path):
    odd = llama(3)
    odd["model.layers.0.self_attn.q_proj.weight"] = np.zeros((4, 4), np.float32)
    del odd["model.norm.weight"]
    written(tmp_path / "odd", odd)
    recipe = Recipe(
        method="linear", models=(source(models["a"], weight=1.0), source(tmp_path / "odd", weight=1.0))
    )
    with pytest.raises(DocumentError) as caught:
        merge(recipe, tmp_path / "out")
    text = str(caught.value)
    assert "model.layers.0.self_attn.q_proj.weight" in text
    assert "[4, 4]" in text
    assert "model.norm.weight" in text
    assert "skip_missing" in text
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*merging"))


def test_a_wrong_vocabulary_is_refused_and_can_be_cut(models, tmp_path):
    written(tmp_path / "larger", llama(4, vocabulary=15))
    recipe = Recipe(
        method="linear", models=(source(models["a"], weight=1.0), source(tmp_path / "larger", weight=1.0))
    )
    with pytest.raises(DocumentError, match="tokenizer_source"):
        merge(recipe, tmp_path / "out")
    result = merge(replace(recipe, truncate_embeddings=True), tmp_path / "out")
    assert loaded(tmp_path / "out")["lm_head.weight"].shape == (12, 8)
    assert any("12 rows" in warning for warning in result.warnings)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["linear", "ties", "slerp"])
def test_inputs_that_are_not_finite_are_named(models, tmp_path, bad, method):
    tensors = loaded(models["a"])
    tensors["model.norm.weight"][3] = bad
    written(tmp_path / "sick", tensors)
    sick = source(tmp_path / "sick", weight=1.0)
    recipes = {
        "linear": Recipe(method="linear", models=(sick, source(models["b"], weight=1.0))),
        "ties": replace(ties(models), models=(source(tmp_path / "sick", weight=1.0, density=0.5),)),
        "slerp": Recipe(
            method="slerp", base_model=ref(models["base"]), models=(sick,), settings={"t": 0.5}
        ),
    }  # fmt: skip
    with pytest.raises(MergeError, match=r"model\.norm\.weight \(1\)"):
        merge(recipes[method], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = merge(recipes[method], tmp_path / "out", allow_not_finite=True)
    assert any("model.norm.weight" in warning for warning in result.warnings)


def test_results_beyond_the_type_are_told(models, tmp_path):
    big = {name: value * 0 + 60000 for name, value in loaded(models["a"]).items()}
    written(tmp_path / "big", big)
    recipe = Recipe(method="passthrough", models=(source(tmp_path / "big", scale=2.0),), out_dtype="float16")
    result = merge(recipe, tmp_path / "out")
    assert any("range" in warning for warning in result.warnings)


def test_what_is_there_is_not_touched(models, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    with pytest.raises(MergeError, match="--overwrite"):
        merge(ties(models), tmp_path / "out")
    with pytest.raises(MergeError, match="holds no checkpoint"):
        merge(ties(models), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "precious").read_text() == "mine"
    (tmp_path / "out" / "precious").unlink()
    merge(ties(models), tmp_path / "out")
    (tmp_path / "out" / "note").write_text("of the old merge")
    merge(ties(models), tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "note").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"base", "a", "b", "out"}


def test_a_finished_merge_is_not_made_again(models, tmp_path):
    merge(ties(models), tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert merge(ties(models), tmp_path / "out", resume=True).resumed == 12
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    with pytest.raises(MergeError, match="is there already"):
        merge(ties(models, normalize=False), tmp_path / "out", resume=True)


def test_a_damaged_output_is_found(models, tmp_path):
    merge(ties(models), tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert len(verify_merge(tmp_path / "out").faults) == 1
    file.write_bytes(data[:-8])
    with pytest.raises(CheckpointError, match="describes"):
        verify_merge(tmp_path / "out")


def refused(recipe):
    with pytest.raises(DocumentError) as caught:
        plan_merge(recipe, file="recipe.yml", folder=Path())
    return [(fault.key, fault.problem, fault.remedy) for fault in caught.value.faults]


def test_parameters_that_do_not_go_together_are_refused_before_a_tensor_is_read(models):
    sources = (source(models["a"], weight=1.0), source(models["b"], weight=-1.0))
    (fault,) = refused(Recipe(method="linear", models=sources))
    assert fault[0] == "parameters.weight" and "add up to 0" in fault[1] and "normalize: false" in fault[2]
    plan_merge(Recipe(method="linear", models=sources, settings={"normalize": False}), file="", folder=Path())


def test_they_are_refused_where_only_one_layer_has_them(models):
    recipe = ties(models, density=(0.5, 0.5, 0.9), epsilon=0.15)
    recipe = replace(recipe, method="della", models=(source(models["a"], weight=1.0),))
    (fault,) = refused(recipe)
    assert fault[0] == "parameters.epsilon" and ".layers." in fault[1] and "below 0.1" in fault[2]
