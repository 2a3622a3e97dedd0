"""What a merge must never do: touch its inputs, take half for whole, mix what does not mix."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tests.unit.merging.made import llama, loaded, ref, source, written

from modelyard.core.errors import DocumentError, MergeError
from modelyard.merging.chain import run_chain
from modelyard.merging.engine import MergeOptions, run_merge
from modelyard.merging.output import held, work_folder
from modelyard.merging.planning import plan_merge
from modelyard.merging.recipe import Module, Recipe, Slice


@pytest.fixture
def pool(tmp_path):
    for seed, name in enumerate(("a", "b")):
        written(tmp_path / "pool" / name, llama(seed))
    return tmp_path / "pool"


def linear(*paths):
    return Recipe(method="linear", models=tuple(source(path, weight=1.0) for path in paths))


def merge(recipe, out, observe=lambda _item: None, **options):
    plan = plan_merge(recipe, file="recipe.yml", folder=Path())
    return run_merge(plan, out, MergeOptions(**options), observe)


@pytest.mark.parametrize("out", ["", "a", "a/../a"])
def test_an_input_is_never_replaced(pool, out):
    with pytest.raises(MergeError, match="holds the model"):
        merge(linear(pool / "a", pool / "b"), pool / out, overwrite=True)
    assert set(loaded(pool / "a")) == set(llama(0))


def test_places_where_nothing_can_be_put_are_refused_at_once(pool, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (tmp_path / "file", Path()):
        with pytest.raises(MergeError, match="give the name of a new folder"):
            merge(linear(pool / "a", pool / "b"), out, overwrite=True)
    assert not list(tmp_path.glob(".*"))


def test_a_link_to_an_empty_folder_is_followed(pool, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    merge(linear(pool / "a", pool / "b"), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "merge.json").exists()


def test_one_process_at_a_time(pool, tmp_path):
    out = tmp_path / "out"
    for suffix, options in (("merging", MergeOptions()), ("stages", MergeOptions())):
        with held(out, suffix), pytest.raises(MergeError, match="another process"):
            run_chain([linear(pool / "a", pool / "b")], out, options, file="x", folder=Path())
    run_chain([linear(pool / "a", pool / "b")], out, MergeOptions(), file="x", folder=Path())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pool"]


def test_a_damaged_output_is_not_taken_for_finished(pool, tmp_path):
    recipe = linear(pool / "a", pool / "b")
    merge(recipe, tmp_path / "out", shard_bytes=1500)
    next((tmp_path / "out").glob("model-00002*")).unlink()
    with pytest.raises(Exception, match=r"not a file beside it|lacks tensors"):
        merge(recipe, tmp_path / "out", shard_bytes=1500, resume=True)


def test_inputs_that_change_while_they_are_read_are_noticed(pool, tmp_path):
    touched = []

    def touch(_item):
        if not touched:
            touched.append(os.utime(pool / "a" / "model.safetensors", ns=(1, 1)))

    with pytest.raises(MergeError, match="changed while it was read"):
        merge(linear(pool / "a", pool / "b"), tmp_path / "out", observe=touch)
    assert not (tmp_path / "out").exists()
    with pytest.raises(MergeError, match="without --resume"):
        merge(linear(pool / "a", pool / "b"), tmp_path / "out", resume=True)


def test_a_config_that_changed_is_another_merge(pool, tmp_path):
    recipe = linear(pool / "a", pool / "b")
    work = work_folder(tmp_path / "out")
    merge(recipe, tmp_path / "out")
    (pool / "a" / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 3, "new": 1}')
    with pytest.raises(MergeError, match="is there already"):
        merge(recipe, tmp_path / "out", resume=True)
    assert not work.exists()


def test_copied_tensors_are_looked_at_too(pool, tmp_path):
    sick = llama(0)
    sick["model.embed_tokens.weight"][2, 3] = np.nan
    written(pool / "sick", sick)
    recipe = Recipe(
        method="linear", models=linear(pool / "a", pool / "b").models, embedding_source=ref(pool / "sick")
    )
    with pytest.raises(MergeError, match=r"embed_tokens\.weight \(1\)"):
        merge(recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("modules", "match"),
    [(("model", "layers"), "overlap"), (("model", "text_decoder"), "is not in the models")],
)
def test_modules_must_fit(pool, tmp_path, modules, match):
    module = Module(models=linear(pool / "a", pool / "b").models)
    with pytest.raises(DocumentError, match=match):
        merge(Recipe(method="linear", modules=dict.fromkeys(modules, module)), tmp_path / "out")


def test_numbers_and_flags_do_not_mix(tmp_path):
    written(tmp_path / "a", {"x.0.w": np.ones(3, np.float32)})
    written(tmp_path / "b", {"x.0.w": np.ones(3, np.int64)})
    with pytest.raises(DocumentError, match="types that do not mix"):
        merge(linear(tmp_path / "a", tmp_path / "b"), tmp_path / "out")


def test_a_head_is_not_lost_between_tied_and_untied_slices(pool, tmp_path):
    tied = llama(5, head=False)
    written(tmp_path / "tied", tied, config={"tie_word_embeddings": True})
    recipe = Recipe(
        method="passthrough",
        slices=(
            Slice(sources=(source(pool / "a", (0, 2)),)),
            Slice(sources=(source(tmp_path / "tied", (1, 3)),)),
        ),
    )
    merge(recipe, tmp_path / "out")
    np.testing.assert_array_equal(
        loaded(tmp_path / "out")["lm_head.weight"], tied["model.embed_tokens.weight"]
    )


def test_a_tensor_that_only_a_later_source_has_is_a_fault(pool, tmp_path):
    biased = llama(1)
    biased["model.layers.0.self_attn.q_proj.bias"] = np.ones(8, np.float32)
    written(tmp_path / "biased", biased)
    part = Slice(
        sources=(source(pool / "a", (0, 3), weight=1.0), source(tmp_path / "biased", (0, 3), weight=1.0))
    )
    with pytest.raises(DocumentError, match=r"q_proj\.bias"):
        merge(Recipe(method="linear", slices=(part,)), tmp_path / "out")
