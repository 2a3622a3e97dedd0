"""LoRA adapters: what PEFT makes of them, scales, blocks, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from modelyard.artifacts.safetensors import read_header
from modelyard.core.errors import CheckpointError
from modelyard.merging.architecture import stored_turned
from modelyard.merging.blocks import OpenFiles, Stored
from modelyard.merging.lora import LowRank, added, elements, read_adapter, unmatched

PEFT = Path(__file__).parent / "peft"
STEM = "base_model.model.model.layers.0.self_attn.q_proj"
NAME = "model.layers.0.self_attn.q_proj.weight"


def adapter(folder, tensors=None, **config):
    """A PEFT folder; with the weights of one projection of rank 2 where none are given."""
    chance = np.random.default_rng(0)
    pair = {
        f"{STEM}.lora_A.weight": chance.standard_normal((2, 5), np.float32),
        f"{STEM}.lora_B.weight": chance.standard_normal((4, 2), np.float32),
    }
    folder.mkdir(parents=True, exist_ok=True)
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none"} | config
    (folder / "adapter_config.json").write_text(json.dumps(told))
    save_file(pair if tensors is None else tensors, folder / "adapter_model.safetensors")
    return folder


def stored(folder, values):
    """A stored tensor, and the files that it is open in."""
    save_file({"weight": values}, folder / "one.safetensors")
    files = OpenFiles()
    info = read_header(folder / "one.safetensors")[0][0]
    return Stored(info=info, descriptor=files.descriptor(info.path)), files


@pytest.mark.parametrize(("model", "tensors"), [("gpt2", 7), ("llama", 8)])
def test_every_tensor_is_what_peft_merges(model, tensors):
    folder = PEFT / model
    found = read_adapter(folder)
    infos = {info.name: info for info in read_header(folder / "base.safetensors")[0]}
    base, merged = load_file(folder / "base.safetensors"), load_file(folder / "merged.safetensors")
    assert unmatched(found, infos) == []
    files, changed = OpenFiles(), set()
    for name, info in infos.items():
        update, copy = found.delta(name), found.replacement(name)
        assert update is None or copy is None  # a copy would be taken in place of the update
        source = Stored(info=copy or info, descriptor=files.descriptor((copy or info).path))
        opened = source if update is None else added(source, update, info.shape)
        values = elements(opened, 0, info.size).reshape(info.shape)
        np.testing.assert_allclose(values, merged[name], rtol=2e-6, atol=1e-7, err_msg=name)
        if update is not None or copy is not None:
            changed.add(name)
    files.close()
    assert changed == {name for name in base if not np.array_equal(base[name], merged[name])}
    assert len(changed) == tensors


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 3.0),
        ({"use_rslora": True}, 6 / math.sqrt(2)),
        ({"r": 8, "rank_pattern": {"q_proj": 2}}, 3.0),
        ({"rank_pattern": {"proj": 9}}, 3.0),  # a pattern is the whole end of a name, from a dot on
        ({"alpha_pattern": {r"layers\.0\..*": 1, "q_proj": 5}}, 0.5),  # the first that matches
        ({"lora_alpha": 0.5}, 0.25),
    ],
)
def test_the_scale_is_alpha_over_rank(config, scale, tmp_path):
    update = read_adapter(adapter(tmp_path, **config)).delta(NAME)
    assert update.scale == pytest.approx(scale, rel=1e-15)
    assert update.shape == (4, 5) and not update.transposed


def test_a_model_stored_the_other_way_is_transposed(tmp_path):
    update = read_adapter(adapter(tmp_path, fan_in_fan_out=True)).delta(NAME)
    assert update.transposed and update.shape == (5, 4)


def test_what_an_adapter_does_not_name_stays(tmp_path):
    found = read_adapter(adapter(tmp_path))
    assert found.delta("model.norm.weight") is None and found.replacement(NAME) is None
    assert found.files == (tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors")


def test_a_copy_is_found_under_the_name_that_the_model_has(tmp_path):
    tensors = {
        "base_model.model.lm_head.modules_to_save.weight": np.ones((3, 2), np.float16),
        "base_model.model.score.modules_to_save.default.weight": np.ones((2, 2), np.float16),
        "base_model.model.model.embed_tokens.base_layer.weight": np.ones((1, 2), np.float16),
    }
    found = read_adapter(adapter(tmp_path, tensors))
    assert unmatched(found, ["lm_head.weight"]) == ["model.embed_tokens.weight", "score.weight"]
    assert found.replacement("lm_head.weight").shape == (3, 2)


def test_half_precision_is_read_exactly(tmp_path):
    a, b = np.float16([[0.1, 0.2]]), np.float16([[0.3], [0.4]])
    tensors = {f"{STEM}.lora_A.default.weight": a, f"{STEM}.lora_B.default.weight": b}
    update = read_adapter(adapter(tmp_path, tensors, r=1)).delta(NAME)
    assert np.array_equal(update.a, a) and np.array_equal(update.b, b)


@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    rank=st.integers(1, 4),
    transposed=st.booleans(),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_any_stretch_of_elements_is_that_of_the_whole(shape, rank, transposed, place, tmp_path_factory):
    chance = np.random.default_rng(sum(shape) * rank)
    weights = chance.standard_normal(shape, np.float32)
    rows, columns = reversed(shape) if transposed else shape
    a, b = chance.standard_normal((rank, columns)), chance.standard_normal((rows, rank))
    update = LowRank(a=a, b=b, scale=0.7, transposed=transposed)
    whole = weights + 0.7 * ((b @ a).T if transposed else b @ a)
    begin, end = sorted(round(each * whole.size) for each in place)
    source, files = stored(tmp_path_factory.mktemp("one"), weights)
    got = elements(added(source, update, shape), begin, end - begin)
    files.close()
    np.testing.assert_allclose(got, whole.reshape(-1)[begin:end], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"peft_type": "LOHA"},
        {"init_lora_weights": "pissa_niter_4"},
        {"target_parameters": ["experts.gate_up_proj"]},
        {"r": 3},
        {"r": "2"},
        {"lora_alpha": True},
        {"rank_pattern": {"(": 2}},
    ],
    ids=str,
)
def test_what_is_not_plain_lora_is_refused_by_its_key(config, tmp_path):
    with pytest.raises(CheckpointError, match=next(iter(config))):
        read_adapter(adapter(tmp_path, **config))


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({f"{STEM}.lora_A.weight": (2, 5)}, "stands alone"),
        ({f"{STEM}.lora_A.weight": (2, 5), f"{STEM}.lora_B.weight": (4, 3)}, r"\[2, 5\] and B \[4, 3\]"),
        ({f"{STEM}.lora_A.weight": (2, 5, 1), f"{STEM}.lora_B.weight": (4, 2, 1)}, "merge this adapter"),
        ({f"{STEM}.lora_A.weight": (0, 5), f"{STEM}.lora_B.weight": (4, 0)}, "has rank 0"),
        ({f"{STEM}.lora_magnitude_vector": (4,)}, "lora_magnitude_vector is neither"),
        ({f"{STEM}.lora_B.bias": (4,)}, r"lora_B\.bias is neither"),
        ({"base_model.model.wte.token_adapter.trainable_tokens_delta": (1, 4)}, "is neither"),
        ({f"{STEM}.lora_A.one.weight": (2, 5), f"{STEM}.lora_A.two.weight": (2, 5)}, "holds both"),
    ],
)
def test_weights_that_are_not_pairs_are_refused(tensors, told, tmp_path):
    values = {name: np.zeros(shape, np.float32) for name, shape in tensors.items()}
    with pytest.raises(CheckpointError, match=told):
        read_adapter(adapter(tmp_path, values, r=next(iter(tensors.values()))[0]))


def test_a_folder_without_an_adapter_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: does not exist"):
        read_adapter(tmp_path)
    adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: cannot be read"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    ("weights", "told"),
    [(np.zeros((5, 4), np.float32), r"\[5, 4\].*\[4, 5\]"), (np.zeros((4, 5), np.int8), "I8")],
)
def test_an_update_that_does_not_fit_is_refused(weights, told, tmp_path):
    update = read_adapter(adapter(tmp_path / "a")).delta(NAME)
    source, files = stored(tmp_path, weights)
    with pytest.raises(CheckpointError, match=told):
        added(source, update, weights.shape)
    files.close()


@pytest.mark.parametrize(
    ("shape", "turned", "expected"),
    [((6, 4), None, False), ((4, 6), None, True), ((6, 4), True, False), ((5, 5), None, False)],
)
def test_an_update_is_turned_as_the_matrix_is_stored(shape, turned, expected):
    rows, columns = (5, 5) if shape == (5, 5) else (6, 4)
    update = LowRank(a=np.ones((2, columns), np.float32), b=np.ones((rows, 2), np.float32), scale=1.0)
    assert update.fitted(shape, turned=turned).transposed is expected


@pytest.mark.parametrize("turned", [True, False])
def test_a_square_matrix_is_turned_by_the_models_type(turned):
    # PEFT writes one flag for GPT-2's Conv1D layers and its Linear head together.
    for flag in (True, False):
        square = np.ones((5, 5), np.float32)
        update = LowRank(a=square, b=square, scale=1.0, transposed=flag)
        assert update.fitted((5, 5), turned=turned).transposed is turned
        assert update.fitted((5, 5), turned=None).transposed is flag
    config = {"model_type": "gpt2"}
    assert stored_turned("transformer.h.0.attn.c_proj.weight", config) is True
    assert stored_turned("lm_head.weight", config) is False
    assert stored_turned("transformer.h.0.attn.c_proj.weight", {"model_type": "gpt_bigcode"}) is None
