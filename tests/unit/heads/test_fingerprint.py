"""A model has one fingerprint however it is stored, and another one when anything in it was trained."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from modelyard.core.errors import CheckpointError
from modelyard.heads.fingerprint import fingerprint

WEIGHTS = "model.safetensors"


@pytest.fixture
def copied(tiny_base_folder, tmp_path):
    """A function that copies the tiny base, with its tensors changed."""

    def copy(change, name="copy"):
        folder = shutil.copytree(tiny_base_folder, tmp_path / name)
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})
        return folder

    return copy


def held_by_both(tensor):
    """Values that bfloat16 and float16 can hold: of the latter's range, tiny ones left out."""
    return torch.where(tensor.abs() < 2**-14, 0, tensor).bfloat16()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_type_that_it_is_stored_in_does_not_matter(dtype, copied):
    def stored(kind):
        return lambda tensors: {name: held_by_both(each).to(kind) for name, each in tensors.items()}

    assert fingerprint(copied(stored(dtype), "a")) == fingerprint(copied(stored(torch.float32), "b"))


def test_a_copy_in_bfloat16_is_the_same_model(copied, tiny_base_folder):
    other = copied(lambda tensors: {name: each.bfloat16() for name, each in tensors.items()})
    assert fingerprint(other) == fingerprint(tiny_base_folder)


def test_shards_do_not_matter(tiny_base_folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_base_folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert fingerprint(tmp_path) == fingerprint(tiny_base_folder)


def test_a_fine_tuning_of_one_layer_is_seen(copied, tiny_base_folder):
    """Changes of a thousandth, which bfloat16 shows only here and there."""

    def tuned(name):
        def change(tensors):
            chance = torch.Generator().manual_seed(0)
            tensors[name] *= 1 + 1e-3 * torch.randn(tensors[name].shape, generator=chance)
            return tensors

        return change

    names = [name for name in load_file(tiny_base_folder / WEIGHTS) if "layers.1" in name]
    told = {fingerprint(copied(tuned(name), name)) for name in names}
    assert len(names) == 9 and len(told | {fingerprint(tiny_base_folder)}) == 10


def test_names_and_shapes_belong_to_it(copied, tiny_base_folder):
    def renamed(tensors):
        return {name.replace("layers.0", "layers.7"): each for name, each in tensors.items()}

    def reshaped(tensors):
        return tensors | {name: each.T.contiguous() for name, each in tensors.items() if "down_proj" in name}

    told = {
        fingerprint(copied(renamed, "a")),
        fingerprint(copied(reshaped, "b")),
        fingerprint(tiny_base_folder),
    }
    assert len(told) == 3


def test_the_middle_of_a_long_tensor_is_looked_at(tmp_path):
    def of(**changed):
        tensor = torch.zeros(9000)
        for place in changed.values():
            tensor[place] = 1
        save_file({"w": tensor}, tmp_path / WEIGHTS)
        (tmp_path / "config.json").write_text("{}")
        return fingerprint(tmp_path)

    assert len({of(), of(at=0), of(at=4500), of(at=8999), of(at=1023)}) == 5


@pytest.mark.parametrize("said", [True, False])
def test_an_output_that_is_the_embedding_need_not_be_stored(said, copied, tiny_base_folder):
    """Whether the config says so, or leaves it unsaid since it is its model's default."""

    def with_output(tensors):
        return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}

    other = copied(with_output)
    config = json.loads((other / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    if not said:
        del config["tie_word_embeddings"]
        (other / "config.json").write_text(json.dumps(config))
    assert fingerprint(other) == fingerprint(tiny_base_folder)


def test_an_output_of_its_own_belongs_to_it(copied, tiny_base_folder):
    def untied(tensors):
        return tensors | {"lm_head.weight": 1.1 * tensors["model.embed_tokens.weight"]}

    other = copied(untied)
    assert fingerprint(other) == fingerprint(tiny_base_folder), "the config says that it is not used"
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    assert fingerprint(other) != fingerprint(tiny_base_folder)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        fingerprint(tmp_path)
