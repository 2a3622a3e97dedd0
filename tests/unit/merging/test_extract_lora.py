"""Adapters extracted from fine-tunes: what a rank must keep, the best that it can, and PEFT's format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tests.unit.merging.made import llama, written

from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.artifacts.safetensors import DType, read_header
from modelyard.core.errors import CheckpointError, MergeError
from modelyard.merging.blocks import Derived, OpenFiles, Stored
from modelyard.merging.extract_lora import Names, extract, extract_lora, write_adapter
from modelyard.merging.lora import LowRank, added, elements, read_adapter, unmatched

QUERY = "model.layers.0.self_attn.q_proj.weight"


def of(values):
    """A source of these values."""
    flat = np.asarray(values, np.float64).reshape(-1)
    return Derived(compute=lambda begin, count: flat[begin : begin + count])


def low_rank(shape, rank, seed=0):
    """A random matrix of a rank, whose singular values are of one size."""
    chance = np.random.default_rng(seed)
    return chance.standard_normal((shape[0], rank)) @ chance.standard_normal((rank, shape[1]))


def pair(tmp_path, *, rank=2, **config):
    """A base and a fine-tune whose matrices differ by a rank; its norms are the base's."""
    base = llama(0)
    tuned = {
        name: (value + 0.01 * low_rank(value.shape, rank, seed)).astype(np.float32)
        if value.ndim == 2
        else value
        for seed, (name, value) in enumerate(base.items())
    }
    folders = [written(tmp_path / n, t, config=config) for n, t in (("tuned", tuned), ("base", base))]
    return (*map(open_checkpoint, folders), tuned)


def run(tuned, base, out, *, rank=2, include=None, exclude=None):
    names = Names(include=include, exclude=exclude)
    return extract(tuned, base, out, rank=rank, names=names, observe=lambda _item: None)


def put_back(base, out):
    """The base's tensors with an adapter added."""
    adapter, files, values = read_adapter(out), OpenFiles(), {}
    assert unmatched(adapter, base.tensors) == []
    for name, info in base.tensors.items():
        stored = Stored(info=info, descriptor=files.descriptor(info.path))
        update = adapter.delta(name)
        source = added(stored, update.fitted(info.shape, turned=None), info.shape) if update else stored
        values[name] = elements(source, 0, info.size).reshape(info.shape)
    files.close()
    return values


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), rank=st.integers(1, 14), seed=st.integers(0, 99))
def test_a_difference_of_the_rank_is_recovered(rows, columns, rank, seed):
    difference = low_rank((rows, columns), rank, seed)
    base = np.random.default_rng(seed).standard_normal((rows, columns))
    a, b, explained = extract_lora(of(base + difference), of(base), (rows, columns), rank)
    assert a.shape == (min(rank, rows, columns), columns) and b.shape == (rows, len(a))
    np.testing.assert_allclose(b @ a, difference, atol=1e-12 * np.abs(difference).max() * rank * 10)
    assert explained == pytest.approx(1.0, abs=1e-12)


@given(rank=st.integers(1, 6), seed=st.integers(0, 99))
def test_what_is_kept_is_the_best_of_its_rank(rank, seed):
    difference = np.random.default_rng(seed).standard_normal((9, 6))
    a, b, explained = extract_lora(of(difference), of(np.zeros((9, 6))), (9, 6), rank)
    singular = np.linalg.svd(difference, compute_uv=False)
    lost = np.linalg.norm(difference - b @ a) ** 2
    assert lost == pytest.approx(float(np.sum(singular[rank:] ** 2)), abs=1e-10)
    assert explained == pytest.approx(1 - lost / np.sum(singular**2), abs=1e-12)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=0))


def test_a_large_difference_of_the_rank_is_recovered_in_single_precision():
    difference = low_rank((600, 520), 7)
    a, b, explained = extract_lora(of(difference), of(np.zeros(difference.shape)), (600, 520), 7)
    assert a.dtype == b.dtype == np.float32
    assert np.linalg.norm(b @ a - difference) < 2e-6 * np.linalg.norm(difference)
    assert explained == pytest.approx(1.0, abs=1e-5)


def test_randomised_subspaces_come_near_the_best():
    # Singular values 1, 1/2, 1/3, ...: a slow decline, as fine-tuning shows it.
    chance = np.random.default_rng(5)
    u, v = (np.linalg.qr(chance.standard_normal((n, 520))).Q for n in (530, 520))
    singular = 1 / np.arange(1, 521)
    difference = u * singular @ v.T
    a, b, explained = extract_lora(of(difference), of(np.zeros(difference.shape)), (530, 520), 20)
    best = np.sqrt(np.sum(singular[20:] ** 2))
    assert best * (1 - 1e-5) <= np.linalg.norm(difference - b @ a) < 1.001 * best
    assert explained == pytest.approx(np.sum(singular[:20] ** 2) / np.sum(singular**2), abs=1e-4)
    again = extract_lora(of(difference), of(np.zeros(difference.shape)), (530, 520), 20)
    assert np.array_equal(a, again[0]) and np.array_equal(b, again[1])


def test_no_difference_is_explained_by_nothing():
    a, b, explained = extract_lora(of(np.ones((3, 4))), of(np.ones((3, 4))), (3, 4), 2)
    assert explained == 1.0 and not a.any() and not b.any()


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_full_adapter_gives_the_fine_tune_back(model_type, tmp_path):
    tuned, base, tensors = pair(tmp_path, rank=8, model_type=model_type)
    found = run(tuned, base, tmp_path / "out", rank=99)
    assert found.explained == pytest.approx(1.0, abs=1e-9)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is (model_type == "gpt2")
    for name, value in put_back(base, tmp_path / "out").items():
        np.testing.assert_allclose(value, tensors[name], rtol=0, atol=3e-8, err_msg=name)


def test_the_head_of_a_model_that_stores_its_layers_transposed_is_not(tmp_path):
    tuned, base, _ = pair(tmp_path, model_type="gpt2")
    run(tuned, base, tmp_path / "out")
    sides = {info.name: info.shape for info in read_header(tmp_path / "out/adapter_model.safetensors")[0]}
    head, query = base.tensors["lm_head.weight"].shape, base.tensors[QUERY].shape
    for name, (rows, columns) in (("lm_head", head), (QUERY.removesuffix(".weight"), query[::-1])):
        assert sides[f"base_model.model.{name}.lora_A.weight"] == (2, columns)
        assert sides[f"base_model.model.{name}.lora_B.weight"] == (rows, 2)


def test_a_small_rank_keeps_what_it_says(tmp_path):
    tuned, base, tensors = pair(tmp_path, rank=8)
    found = run(tuned, base, tmp_path / "out", rank=3)
    values, originals = put_back(base, tmp_path / "out"), put_back_nothing(base)
    for each in found.tensors:
        change = np.linalg.norm(tensors[each.name] - originals[each.name])
        lost = np.linalg.norm(tensors[each.name] - values[each.name])
        assert each.rank == 3 and each.change == pytest.approx(change, rel=1e-6)
        assert 0.3 < each.explained < 0.999
        assert each.explained == pytest.approx(1 - lost**2 / change**2, abs=1e-5)
    shares = [each.explained for each in found.tensors]
    assert min(shares) < found.explained < max(shares)


def put_back_nothing(base):
    return {k: v for file in base.files for k, v in load_file(file).items()}


def test_only_chosen_matrices_that_differ_are_taken_and_the_rest_is_told(tmp_path):
    tuned_tensors = llama(0)
    base = open_checkpoint(written(tmp_path / "base", tuned_tensors))
    tuned_tensors["model.norm.weight"] = tuned_tensors["model.norm.weight"] + 1
    tuned_tensors["lm_head.weight"] = np.ones((14, 8), np.float32)
    tuned_tensors["model.rotary_emb.inv_freq"] = np.ones(2, np.float32)  # a buffer
    tuned_tensors["extra.weight"] = np.ones((2, 2), np.float32)
    for layer in range(3):
        name = QUERY.replace("0", str(layer))
        tuned_tensors[name] = tuned_tensors[name] + 1
    tuned = open_checkpoint(written(tmp_path / "tuned", tuned_tensors))
    found = run(tuned, base, tmp_path / "out", exclude=r"layers\.1\.")
    assert [each.name for each in found.tensors] == [QUERY, QUERY.replace("0", "2")]
    assert found.left_out == ("extra.weight", "lm_head.weight", "model.norm.weight")
    assert len(found.unchanged) == 5 and "model.embed_tokens.weight" in found.unchanged
    assert not [name for name in found.unchanged if "layers.1." in name]
    chosen = run(tuned, base, tmp_path / "one", include="q_proj", exclude=r"layers\.[12]")
    assert [each.name for each in chosen.tensors] == [QUERY] and chosen.left_out == ()


def test_the_folder_is_as_peft_writes_it(tmp_path):
    tuned, base, _ = pair(tmp_path)
    run(tuned, base, tmp_path / "out", rank=10, include="embed|0.*q_proj|0.*down_proj")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["r"] == config["lora_alpha"] == 10
    query = "model.layers.0.self_attn.q_proj"
    assert config["target_modules"] == ["model.embed_tokens", "model.layers.0.mlp.down_proj", query]
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert config["rank_pattern"][query.replace(".", r"\.")] == 8
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {name.removeprefix("base_model.model."): value.shape for name, value in stored.items()} == {
        "model.embed_tokens.lora_embedding_A": (8, 12),
        "model.embed_tokens.lora_embedding_B": (8, 8),
        f"{query}.lora_A.weight": (8, 8),
        f"{query}.lora_B.weight": (8, 8),
        "model.layers.0.mlp.down_proj.lora_A.weight": (8, 16),
        "model.layers.0.mlp.down_proj.lora_B.weight": (8, 8),
    }


def test_a_narrow_type_and_a_scale_are_stored(tmp_path):
    update = LowRank(a=np.float32([[1, 2]]), b=np.float32([[3], [4]]), scale=0.25)
    write_adapter(tmp_path, {QUERY: update}, 1, "base", dtype=DType.F16)
    again = read_adapter(tmp_path).delta(QUERY)
    assert again.scale == 0.25 and np.array_equal(again.b, update.b)
    assert {v.dtype for v in load_file(tmp_path / "adapter_model.safetensors").values()} == {np.dtype("f2")}
    large = LowRank(a=np.float32([[1e6]]), b=np.float32([[1]]), scale=1.0)
    with pytest.raises(MergeError, match="1 values of the adapter are beyond float16"):
        write_adapter(tmp_path / "b", {QUERY: large}, 1, "base", dtype=DType.F16)
    assert not (tmp_path / "b").exists()


def test_what_one_adapter_cannot_hold_is_refused(tmp_path):
    one = LowRank(a=np.ones((1, 2)), b=np.ones((3, 1)), scale=1.0)
    other = LowRank(a=one.a, b=one.b, scale=1.0, transposed=True)
    for entries in ({"x.weight": one, "y.weight": other}, {"wte.weight": one}, {"x": one}):
        with pytest.raises(MergeError, match="write several adapters"):
            write_adapter(tmp_path / "out", entries, 1, "base")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_extracted_is_told(tmp_path):
    tuned, base, tensors = pair(tmp_path)
    with pytest.raises(MergeError, match="none of 12 chosen tensors"):
        run(base, base, tmp_path / "out")
    with pytest.raises(MergeError, match="regular expression"):
        run(tuned, base, tmp_path / "out", include="(")
    with pytest.raises(MergeError, match="rank = 0"):
        run(tuned, base, tmp_path / "out", rank=0)
    with pytest.raises(MergeError, match="there already"):
        run(tuned, base, tmp_path / "base")
    tensors[QUERY][1, 1] = np.nan
    broken = open_checkpoint(written(tmp_path / "broken", tensors))
    with pytest.raises(CheckpointError, match=r"q_proj\.weight: 1 values .* NaN"):
        run(broken, base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
