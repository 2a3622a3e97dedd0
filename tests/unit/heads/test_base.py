"""Which models a tree can be checked through, and that others are refused instead of decoded wrongly."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base, refuse_unfit
from modelyard.heads.config import HeadsConfig, HeadsRecord, read_record
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.model import Heads, save_heads
from modelyard.heads.tree import Tree

TREE = Tree.of([(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)])
NAMES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
FIT = {
    "qwen3": {**NAMES, "intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8},
    "gpt2": GPT2,
    "gpt_neox": {**NAMES, "intermediate_size": 32},
    "opt": {**NAMES, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64},
    "mixtral": {**NAMES, "intermediate_size": 32, "num_key_value_heads": 1, "num_local_experts": 3},
}
UNFIT = {
    "mpt": {"vocab_size": 40, "d_model": 16, "n_layers": 2, "n_heads": 2},
    "bloom": {"vocab_size": 40, "hidden_size": 16, "n_layer": 2, "n_head": 2},
}


class Letters:
    """A tokenizer as far as decoding needs one."""

    eos_token_id = None

    def decode(self, tokens, **_):
        return "".join(chr(97 + token % 26) for token in tokens)


def model_of(kind, shape):
    """A model with random weights that are large enough for its places and masks to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = AutoConfig.for_model(kind, **shape, bos_token_id=1, eos_token_id=None, pad_token_id=0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.data.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("kind", FIT)
def test_models_of_many_kinds_decode_as_transformers_does(kind, tmp_path):
    model, chance = model_of(kind, FIT[kind]), random.Random(0)
    prompts = [[chance.randrange(3, 40) for _ in range(length)] for length in (3, 8)]
    expected = [
        tuple(model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :].tolist())
        for ids in prompts
    ]
    base = Base.of(model, tokenizer=Letters(), folder=tmp_path)
    config = HeadsConfig(
        heads=3, layers=1, hidden_size=16, vocab_size=40, projection="shared", drafted=40, base=""
    )
    decoder = Decoder(base, Heads(config, base.projection_vh).eval(), TREE)
    for lookup in (0, 3):
        done = decoder.generate_batch(prompts, DecodeSettings(max_new_tokens=16, lookup=lookup))
        assert [each.tokens for each in done] == expected


@pytest.mark.parametrize("kind", UNFIT)
def test_models_with_places_of_their_own_are_refused(kind, tmp_path):
    """With ALiBi the place of a key is the row that it stands in, which in a tree is not its depth."""
    told = "does not take positions and masks as they are given .*; use a base with rotary or learned"
    with pytest.raises(HeadsError, match=f"(?s){told}"):
        Base.of(model_of(kind, UNFIT[kind]), tokenizer=Letters(), folder=tmp_path)


def test_a_model_that_scales_its_logits_is_refused(tmp_path):
    shape = {**NAMES, "intermediate_size": 32, "num_key_value_heads": 1}
    Base.of(model_of("granite", shape), tokenizer=Letters(), folder=tmp_path)
    with pytest.raises(HeadsError, match="alters its logits after the output projection"):
        Base.of(model_of("granite", {**shape, "logits_scaling": 8.0}), tokenizer=Letters(), folder=tmp_path)


@pytest.mark.parametrize(
    ("config", "odd"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"layer_types": ["linear_attention"]}, "linear_attention"),
        ({"sliding_window": 4096}, "sliding_attention"),
        ({"is_encoder_decoder": True}, "an encoder"),
        ({"state_size": 16, "conv_kernel": 4}, "state_size, conv_kernel"),
    ],
)
def test_layers_through_which_no_tree_can_be_checked_are_named(config, odd):
    with pytest.raises(
        HeadsError, match=rf"^here: its layers \({odd}\) are not full attention, .*; use a base"
    ):
        refuse_unfit(config, place="here")


def test_full_attention_is_let_pass():
    refuse_unfit({"layer_types": ["full_attention"] * 2, "sliding_window": 9}, place="here")
    refuse_unfit({"sliding_window": 4096, "use_sliding_window": False}, place="here")
    refuse_unfit({}, place="here")


def test_end_tokens_are_those_of_the_generation_config_or_else_of_the_tokenizer(tiny_base):
    assert tiny_base.end_tokens == {2} and tiny_base.most_tokens == 512
    tiny_base.model.generation_config.eos_token_id = [2, 7]
    assert tiny_base.end_tokens == {2, 7}
    tiny_base.model.generation_config.eos_token_id = None
    assert tiny_base.end_tokens == {tiny_base.tokenizer.eos_token_id}


def test_heads_without_the_name_of_a_base_can_be_read_again(tiny_base, tmp_path):
    config = HeadsConfig(
        heads=1, layers=1, hidden_size=32, vocab_size=tiny_base.vocab_size, projection="shared",
        drafted=tiny_base.vocab_size, base="sha256:1",
    )  # fmt: skip
    save_heads(Heads(config, tiny_base.projection_vh), tmp_path, {"from": "here"})
    assert read_record(tmp_path) == HeadsRecord(config=config, training={"from": "here"})


def test_a_folder_that_cannot_be_loaded_is_named(tiny_base_folder, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HeadsError, match=rf"(?s){tmp_path}: cannot be loaded .*; mend the checkpoint"):
        Base.open(Path(tmp_path))
