"""What a checkpoint holds, by its headers and by its values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.unit.merging.made import llama, ref, source, written

from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.core.errors import MergeError
from modelyard.merging.blocks import BLOCK
from modelyard.merging.engine import MergeOptions, run_merge
from modelyard.merging.inspection import inspect, inspect_values
from modelyard.merging.planning import plan_merge
from modelyard.merging.recipe import Recipe


def test_headers_and_config_tell_what_a_checkpoint_is(tmp_path):
    tensors = llama(0)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float16)
    folder = written(tmp_path / "m", tensors, shards=2, config={"architectures": ["LlamaForCausalLM"]})
    found = inspect(open_checkpoint(folder))
    assert (found.model_type, found.architectures) == ("llama", ("LlamaForCausalLM",))
    assert found.layers == {"model.layers": 3} and found.tensors == len(tensors)
    assert found.parameters == sum(t.size for t in tensors.values())
    assert found.bytes == sum(found.shards.values()) == sum(t.nbytes for t in tensors.values())
    assert sorted(found.shards) == sorted(p.name for p in folder.glob("*.safetensors"))
    assert found.dtypes == {"F32": found.parameters - 8, "F16": 8}
    assert (found.vocabulary_rows, found.head, found.tied) == (12, "lm_head.weight", False)
    assert found.origin is None


def test_kinds_put_layers_together(tmp_path):
    tensors = llama(0)
    tensors |= {f"model.layers.0.mlp.experts.{i}.w1.weight": np.ones((2, 2), np.float32) for i in range(4)}
    kinds = {k.module: k for k in inspect(open_checkpoint(written(tmp_path / "m", tensors))).kinds}
    query = kinds["model.layers.*.self_attn.q_proj.weight"]
    assert (query.role, query.tensors, query.parameters, query.bytes) == ("layer", 3, 192, 768)
    assert (query.shapes, query.dtypes) == (((8, 8),), ("F32",))
    assert kinds["model.layers.*.mlp.experts.*.w1.weight"].tensors == 4
    assert {name: kinds[name].role for name in kinds if "layers" not in name} == {
        "model.embed_tokens.weight": "embedding",
        "lm_head.weight": "head",
        "model.norm.weight": "other",
    }


def test_a_head_that_is_not_stored_is_tied_and_a_file_needs_no_config(tmp_path):
    save_file(llama(0, head=False), tmp_path / "x.safetensors")
    found = inspect(open_checkpoint(tmp_path / "x.safetensors"))
    assert found.tied and found.head is None and found.model_type is None
    save_file({"w": np.ones(3)}, tmp_path / "y.safetensors")
    found = inspect(open_checkpoint(tmp_path / "y.safetensors"))
    assert not found.tied and found.vocabulary_rows is None and found.layers == {}


def test_a_merge_tells_where_it_comes_from(tmp_path):
    models = [source(written(tmp_path / n, llama(i)), weight=1.0) for i, n in enumerate("ab")]
    plan = plan_merge(Recipe(method="linear", models=tuple(models)), file="r.yml", folder=Path())
    run_merge(plan, tmp_path / "out", MergeOptions())
    origin = inspect(open_checkpoint(tmp_path / "out")).origin
    assert origin is not None and origin.method == "linear"
    assert set(origin.parents) == {str(ref(tmp_path / n)) for n in "ab"}
    assert all(parent["digest"].startswith("sha256:") for parent in origin.parents.values())
    (tmp_path / "out" / "merge.json").write_text("{")
    with pytest.raises(MergeError, match=r"merge\.json: cannot be read"):
        inspect(open_checkpoint(tmp_path / "out"))


@pytest.mark.parametrize("threads", [1, 3])
def test_values_as_numpy_has_them_over_several_blocks(tmp_path, threads):
    rng = np.random.default_rng(2)
    table = rng.standard_normal((BLOCK // 100, 301)).astype(np.float32)  # rows that go over blocks' ends
    table[[0, 435, 436, len(table) - 1]] = 0
    table[5, :9] = 0
    broken = rng.standard_normal(BLOCK + 5)
    broken[[1, BLOCK]] = np.nan
    broken[[2, 3, BLOCK + 4]] = [np.inf, -np.inf, np.inf]
    tensors = {
        "model.embed_tokens.weight": table,
        "model.layers.0.bias": broken,
        "model.layers.0.dead.weight": np.zeros((4, 4), np.float16),
        "ids": np.arange(4),
    }
    checkpoint = open_checkpoint(written(tmp_path / "m", tensors))
    found = inspect_values(checkpoint, threads=threads)
    assert set(found) == set(tensors) - {"ids"}
    embedding, vector, dead = (found[name] for name in list(tensors)[:3])
    assert embedding.dead_rows == 4 and embedding.zeros == np.count_nonzero(table == 0)
    assert embedding.norm == pytest.approx(np.linalg.norm(table.astype(np.float64)), rel=1e-12)
    assert embedding.root_mean_square == pytest.approx(np.sqrt(np.mean(table.astype(np.float64) ** 2)))
    assert (vector.nan, vector.infinite, vector.dead_rows) == (2, 3, None)
    finite = broken[np.isfinite(broken)]
    assert vector.largest == np.abs(finite).max()
    assert vector.norm == pytest.approx(np.linalg.norm(finite), rel=1e-12)
    assert dead.dead and dead.norm == 0.0 and not vector.dead and not embedding.dead
