"""Checkpoint folders and files: what is found, and what is refused with its reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.artifacts.checkpoints import INDEX, SINGLE, open_checkpoint
from modelyard.core.errors import CheckpointError

TORCH = Path(__file__).with_name("fixtures") / "module.bin"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    return path


def shard(path, **shapes):
    safetensors.numpy.save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)


def index(folder, places, name=INDEX):
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_folder_of_one_file(folder):
    shard(folder / SINGLE, a=(2, 3), b=4)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    opened = open_checkpoint(folder)
    assert set(opened.tensors) == {"a", "b"}
    assert opened.config == {"model_type": "llama"}
    assert (opened.folder, opened.files, opened.bytes) == (folder, (folder / SINGLE,), 40)


def test_a_folder_of_shards_is_read_by_its_index(folder):
    shard(folder / "m-2.safetensors", b=4)
    shard(folder / "m-1.safetensors", a=(2, 3))
    shard(folder / "other.safetensors", a=9)
    index(folder, {"b": "m-2.safetensors", "a": "m-1.safetensors"})
    opened = open_checkpoint(folder)
    assert opened.files == (folder / "m-1.safetensors", folder / "m-2.safetensors")
    assert [(name, info.shape) for name, info in opened.tensors.items()] == [("a", (2, 3)), ("b", (4,))]
    assert opened.config == {}


def test_an_index_goes_before_a_single_file(folder):
    shard(folder / SINGLE, stale=1)
    shard(folder / "m-1.safetensors", a=1)
    index(folder, {"a": "m-1.safetensors"})
    assert set(open_checkpoint(folder).tensors) == {"a"}


def test_shards_without_an_index_are_all_read(folder):
    shard(folder / "y.safetensors", b=1)
    shard(folder / "x.safetensors", a=1)
    assert list(open_checkpoint(folder).tensors) == ["a", "b"]


def test_a_single_file_brings_its_folder_but_not_its_neighbours(folder):
    shard(folder / "x.safetensors", a=1)
    shard(folder / "y.safetensors", b=1)
    opened = open_checkpoint(folder / "x.safetensors")
    assert set(opened.tensors) == {"a"}
    assert (opened.folder, opened.config) == (folder, {})


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "weights.pth"])
def test_a_file_of_pytorch(folder, name):
    shutil.copy(TORCH, folder / name)
    assert set(open_checkpoint(folder / name).tensors) == {"weight", "bias"}


def test_a_folder_of_pytorch_with_and_without_an_index(folder):
    shutil.copy(TORCH, folder / "pytorch_model.bin")
    assert set(open_checkpoint(folder).tensors) == {"weight", "bias"}
    (folder / "pytorch_model.bin").rename(folder / "part-1.bin")
    index(folder, dict.fromkeys(["weight", "bias"], "part-1.bin"), "pytorch_model.bin.index.json")
    assert open_checkpoint(folder).files == (folder / "part-1.bin",)


def test_safetensors_go_before_pytorch(folder):
    shutil.copy(TORCH, folder / "pytorch_model.bin")
    shard(folder / SINGLE, a=1)
    assert set(open_checkpoint(folder).tensors) == {"a"}


def test_a_shard_may_be_a_link_to_elsewhere(folder):
    """A download cache keeps the bytes in another folder."""
    shard(folder.parent / "blob", a=1)
    (folder / "m-1.safetensors").symlink_to("../blob")
    index(folder, {"a": "m-1.safetensors"})
    assert set(open_checkpoint(folder).tensors) == {"a"}


def test_an_empty_folder_and_nothing_at_all(folder):
    assert "holds no" in refusal(folder)
    assert "neither a folder nor a file" in refusal(folder / "none")
    assert "cannot be read" in refusal(folder / ("x" * 300))


def test_a_folder_of_no_tensors(folder):
    shard(folder / SINGLE)
    assert "holds no tensors" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["gone.safetensors", "link.safetensors", ".", "", "x" * 300, "a\0b", "\ud800"]
)
def test_an_index_of_what_is_not_there(folder, name):
    (folder / "link.safetensors").symlink_to("nowhere")
    shard(folder / "m-1.safetensors", a=1)
    index(folder, {"a": "m-1.safetensors", "b": name})
    refusal(folder)


@pytest.mark.parametrize(
    "form", ["../out.safetensors", "{parent}/out.safetensors", "sub/in.safetensors", ".."]
)
def test_an_index_that_leaves_its_folder(folder, form):
    (folder / "sub").mkdir()
    shard(folder.parent / "out.safetensors", a=1)
    shard(folder / "sub/in.safetensors", a=1)
    index(folder, {"a": form.format(parent=folder.parent)})
    assert "not a file beside it" in refusal(folder)


def test_an_index_of_a_tensor_that_no_file_holds(folder):
    shard(folder / "m-1.safetensors", a=1)
    index(folder, {"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-1.safetensors"})
    assert "names 2 tensors that no file holds, the first 'b'" in refusal(folder)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "\xff", "[" * 100_000, '{"weight_map": {}}', '{"weight_map": []}'),
        *('{"weight_map": {"a": 5}}', '{"weight_map": {"a": null}}', '{"weight_map": {"a": {}}}'),
    ],
)
def test_an_index_that_is_none(folder, text):
    shard(folder / SINGLE, a=1)
    (folder / INDEX).write_bytes(text.encode("latin-1"))
    assert INDEX in refusal(folder)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_tensor_in_two_shards(folder, indexed):
    shard(folder / "m-1.safetensors", a=1, b=1)
    shard(folder / "m-2.safetensors", b=1, c=1)
    if indexed:
        index(folder, {"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"})
    assert "b is in both m-1.safetensors and m-2.safetensors" in refusal(folder)


def test_a_damaged_shard_is_named(folder):
    shard(folder / "m-1.safetensors", a=1)
    (folder / "m-2.safetensors").write_bytes(b"short")
    assert "m-2.safetensors: has 5 bytes" in refusal(folder)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b'"llama"', b"{", b"\xff\xff\xff", b"[" * 100_000])
def test_a_config_that_is_none(folder, text):
    shard(folder / SINGLE, a=1)
    (folder / "config.json").write_bytes(text)
    assert "config.json" in refusal(folder)


def test_what_cannot_be_read(folder):
    # A file that is there and gives an input error, whoever reads it.
    (folder / SINGLE).symlink_to("/proc/self/mem")
    assert "cannot be read" in refusal(folder)


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything | st.fixed_dictionaries({"weight_map": anything}), anything)
def test_any_json_as_index_and_config(folder, places, config):
    shard(folder / "m-1.safetensors", a=1)
    (folder / INDEX).write_text(json.dumps(places))
    (folder / "config.json").write_text(json.dumps(config))
    try:
        opened = open_checkpoint(folder)
    except CheckpointError:
        return
    assert set(opened.tensors) == {"a"}
