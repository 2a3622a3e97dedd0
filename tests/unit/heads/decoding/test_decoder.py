"""Decoding gives what transformers' own `generate` gives, token by token, wherever it ends, and in pieces."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LogitsProcessorList, NoBadWordsLogitsProcessor

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.decoding.decoder import Decoder, open_decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.tree import Tree, chain

TREES = {
    "plain": None,
    "chain": chain(4),
    "small": Tree.of([(0,), (1,), (0, 0)]),
    "wide": Tree.of([(0,), (1,), (0, 0), (2,), (0, 1), (1, 0), (0, 0, 0), (3,), (0, 0, 0, 0), (4,), (0, 2)]),
}
MOST = 40


def by_transformers(base, prompt, *, most=MOST, own=(), **options):
    """The new tokens of `generate`, greedily."""
    ids_bn = torch.tensor([prompt])
    made = base.model.generate(
        ids_bn, attention_mask=torch.ones_like(ids_bn), max_new_tokens=most, do_sample=False,
        logits_processor=LogitsProcessorList(own), **options,
    )  # fmt: skip
    return tuple(made[0, len(prompt) :].tolist())


def decoder_of(base, heads, tree):
    return Decoder(base) if tree is None else Decoder(base, heads, tree)


@pytest.fixture
def decoder(tiny_base, tiny_heads):
    return Decoder(tiny_base, tiny_heads, TREES["wide"])


@pytest.fixture
def plain(tiny_base):
    return Decoder(tiny_base)


@pytest.mark.parametrize("lookup", [0, 3, 16])
@pytest.mark.parametrize("tree", TREES)
def test_greedy_tokens_are_those_of_generate(tree, lookup, tiny_base, tiny_heads, tiny_prompts):
    expected = [by_transformers(tiny_base, each) for each in tiny_prompts]
    decoder = decoder_of(tiny_base, tiny_heads, TREES[tree])
    settings = DecodeSettings(max_new_tokens=MOST, lookup=lookup)
    together = decoder.generate_batch(tiny_prompts, settings)
    assert [each.tokens for each in together] == expected
    assert [decoder.generate(each, settings).tokens for each in tiny_prompts[::3]] == expected[::3]
    for each in together:
        assert sum(count * times for count, times in each.accepted.items()) <= len(each.tokens) - 1
        assert sum(each.accepted.values()) == each.passes - 1
        assert each.text == tiny_base.tokenizer.decode(each.tokens, skip_special_tokens=True)
        ended = each.tokens[-1] in tiny_base.end_tokens
        assert each.finish == ("stop" if ended else "length") and (ended or len(each.tokens) == MOST)
    if tree == "plain" and not lookup:
        assert all(each.tokens_per_pass == 1 and set(each.accepted) <= {0} for each in together)


def test_text_of_no_language_is_decoded_alike(tiny_base, wild_heads):
    """A thousand and more tokens of prompts drawn at random, which do not end, by heads that know nothing."""
    chance = random.Random(5)
    prompts = [[chance.randrange(3, 60) for _ in range(chance.randrange(1, 12))] for _ in range(12)]
    settings = DecodeSettings(max_new_tokens=100, ignore_end=True, lookup=4)
    expected = [by_transformers(tiny_base, each, most=100, eos_token_id=-1) for each in prompts]
    for seed in range(2):
        decoder = Decoder(tiny_base, wild_heads(seed=seed), TREES["wide"])
        assert [each.tokens for each in decoder.generate_batch(prompts, settings)] == expected


@pytest.mark.parametrize(
    "options",
    [{"repetition_penalty": 1.3}, {"min_new_tokens": 30}, {"repetition_penalty": 2, "min_new_tokens": 25}],
)
def test_penalties_are_applied_by_each_nodes_own_prefix(options, decoder, plain, tiny_prompts):
    prompts = tiny_prompts[1::2]
    theirs = {name: float(v) if name == "repetition_penalty" else v for name, v in options.items()}
    expected = [by_transformers(plain.base, each, **theirs) for each in prompts]
    settings = DecodeSettings(max_new_tokens=MOST, lookup=2, **options)
    for each in (decoder, plain):
        assert [done.tokens for done in each.generate_batch(prompts, settings)] == expected
    assert expected != [by_transformers(plain.base, each) for each in prompts]


def test_processors_of_the_caller_see_each_nodes_own_prefix(decoder, plain, tiny_prompts):
    """Pairs of tokens that would come are forbidden: the second one, after the first."""
    greedy = [by_transformers(plain.base, each) for each in tiny_prompts]
    pairs = [list(each[place : place + 2]) for each in greedy for place in (2, 5) if len(each) > place + 1]
    banned = NoBadWordsLogitsProcessor([list(p) for p in {tuple(p) for p in pairs}], eos_token_id=[2])
    expected = [by_transformers(plain.base, each, own=[banned]) for each in tiny_prompts]
    settings = DecodeSettings(max_new_tokens=MOST)
    for each in (decoder, plain):
        done = each.generate_batch(tiny_prompts, settings, processors=[banned])
        assert [one.tokens for one in done] == expected
    assert expected != greedy


def test_processors_see_the_texts_of_plain_decoding_and_none_that_goes_on_after_its_end(
    decoder, plain, tiny_prompts
):
    """So that one with a state, such as a grammar, works as it does with `generate`."""

    def shown(way, **more):
        seen = []

        def look(ids_bn, scores_bv):
            seen.append(ids_bn[0].tolist())
            return scores_bv

        settings = DecodeSettings(max_new_tokens=200, **more)
        return way.generate(tiny_prompts[2], settings, processors=[look]), seen

    for more in ({}, {"temperature": 1.0, "seed": 4}):
        done, seen = shown(decoder, **more)
        assert done.finish == "stop" and done.passes < len(done.tokens) and max(done.accepted) > 1
        assert seen == shown(plain, **more)[1]
    _, seen = shown(decoder, temperature=1.0, typical=True)
    assert not any(2 in ids for ids in seen)


def test_a_processor_that_leaves_only_unlikely_tokens_works_with_top_k_and_top_p(
    decoder, plain, tiny_prompts
):
    unlikely = torch.full((1, plain.base.vocab_size), -torch.inf)
    unlikely[0, [50, 51]] = 0
    settings = DecodeSettings(max_new_tokens=5, temperature=0.7, top_k=1, top_p=0.1)
    for each in (decoder, plain):
        done = each.generate(
            tiny_prompts[2], settings, processors=[lambda _, scores_bv: scores_bv + unlikely]
        )
        assert set(done.tokens) <= {50, 51}
    with pytest.raises(HeadsError, match=r"no token is left to choose from.*let one be"):
        plain.generate([5], settings, processors=[lambda _, scores_bv: scores_bv - torch.inf])


def test_it_ends_inside_an_accepted_path_at_each_length(decoder, tiny_prompts):
    whole = decoder.generate(tiny_prompts[1], DecodeSettings(max_new_tokens=30, ignore_end=True))
    assert max(whole.accepted) >= 3
    for most in range(1, 20):
        cut = decoder.generate(tiny_prompts[1], DecodeSettings(max_new_tokens=most, ignore_end=True))
        assert (cut.tokens, cut.finish) == (whole.tokens[:most], "length")
        assert cut.passes <= most and sum(n * times for n, times in cut.accepted.items()) <= most - 1
    assert decoder.generate(tiny_prompts[1], DecodeSettings(max_new_tokens=1)).passes == 1


def test_it_ends_at_an_end_token_inside_an_accepted_path(decoder, tiny_base, tiny_prompts):
    """Every token that comes is made the end token once."""
    settings = DecodeSettings(max_new_tokens=24)
    whole = decoder.generate(tiny_prompts[1], settings)
    for end in set(whole.tokens):
        tiny_base.model.generation_config.eos_token_id = [end, 2]
        done = decoder.generate(tiny_prompts[1], settings)
        place = whole.tokens.index(end) + 1
        assert (done.tokens, done.finish) == (whole.tokens[:place], "stop")
        assert done.tokens == by_transformers(tiny_base, tiny_prompts[1], most=24)
        on = decoder.generate(tiny_prompts[1], DecodeSettings(max_new_tokens=24, ignore_end=True))
        assert on.tokens[: len(whole.tokens)] == whole.tokens


def test_stop_strings_end_it_wherever_they_lie(decoder, plain, tiny_base, tiny_prompts):
    whole = decoder.generate(tiny_prompts[1], DecodeSettings(max_new_tokens=30, ignore_end=True))
    text = whole.text

    def decode(tokens):
        return tiny_base.tokenizer.decode(tokens, skip_special_tokens=True)

    chance, across = random.Random(3), 0
    for _ in range(40):
        start = chance.randrange(len(text) - 6)
        stop = text[start : start + chance.randrange(1, 6)]
        pieces = []
        settings = DecodeSettings(max_new_tokens=30, ignore_end=True, stop=("never", stop))
        done = decoder.generate(tiny_prompts[1], settings, pieces.append)
        assert done.text == text[: text.index(stop)] == "".join(pieces)
        assert done.finish == "stop" and done.tokens == whole.tokens[: len(done.tokens)]
        assert stop in decode(done.tokens) and stop not in decode(done.tokens[:-1])
        across += stop not in decode(done.tokens[-1:])
        assert plain.generate(tiny_prompts[1], settings).tokens == done.tokens
    assert 5 < across < 40, "stop strings within a token and across several were tried"


def test_the_first_prompts_text_is_streamed_as_it_grows(decoder, plain, tiny_prompts):
    for way in (decoder, plain):
        pieces = []
        done = way.generate_batch(tiny_prompts[1:4], DecodeSettings(max_new_tokens=30), emit=pieces.append)
        assert "".join(pieces) == done[0].text and len(pieces) > 3 and all(pieces)


@pytest.mark.parametrize(("prompts", "nodes"), [(1, 8), (2, 3), (3, 2), (4, 1), (5, 0), (9, 0)])
def test_the_prompts_of_a_batch_share_the_rows_that_one_would_have(
    tiny_base, tiny_heads, tiny_prompts, prompts, nodes
):
    tree = Tree.of([(0,), (0, 0), (0, 0, 0), (1,), (2,), (0, 1), (1, 0), (3,)])
    run = Decoder(tiny_base, tiny_heads, tree, most_rows=9).begin(
        tiny_prompts[1 : prompts + 1], DecodeSettings(max_new_tokens=12, ignore_end=True)
    )
    assert {len(each.tokens) for each in run._candidates()} == {nodes}


def test_a_batch_takes_its_prompts_as_if_each_were_alone(decoder, tiny_prompts):
    """Also in sampling, where prompt i has the random numbers of seed + i."""
    settings = DecodeSettings(max_new_tokens=20, temperature=1.2, seed=11, lookup=3)
    for number, done in enumerate(decoder.generate_batch(tiny_prompts, settings)):
        alone = decoder.generate(
            tiny_prompts[number],
            DecodeSettings(max_new_tokens=20, temperature=1.2, seed=11 + number, lookup=3),
        )
        assert (done.tokens, done.passes, done.accepted) == (alone.tokens, alone.passes, alone.accepted)
    assert decoder.generate_batch([], settings) == []


@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_emit_that_raises_ends_it_and_the_decoder_goes_on(after, decoder, tiny_prompts):
    class GoneError(Exception):
        pass

    told = []

    def gone(piece):
        told.append(piece)
        if len(told) > after:
            raise GoneError

    settings = DecodeSettings(max_new_tokens=30)
    before = decoder.generate(tiny_prompts[3], settings)
    with pytest.raises(GoneError):
        decoder.generate(tiny_prompts[3], settings, gone)
    assert len(told) == after + 1
    again = decoder.generate(tiny_prompts[3], settings)
    assert (again.tokens, again.text, again.passes) == (before.tokens, before.text, before.passes)


def test_what_fits_the_model_exactly_is_decoded_and_one_more_is_not(tiny_base, tiny_heads):
    long = [5] * (512 - 10)
    assert (
        len(Decoder(tiny_base).generate(long, DecodeSettings(max_new_tokens=10, ignore_end=True)).tokens)
        == 10
    )
    told = "prompt 1 has 502 tokens, and 11 new ones and 0 of a draft .* from 1 to 512; shorten the prompt"
    with pytest.raises(HeadsError, match=told):
        Decoder(tiny_base).generate_batch([[5], long], DecodeSettings(max_new_tokens=11))
    decoder = Decoder(tiny_base, tiny_heads, chain(3))
    with pytest.raises(HeadsError, match="and 3 of a draft are asked for"):
        decoder.generate(long, DecodeSettings(max_new_tokens=8))
    fits = DecodeSettings(max_new_tokens=7, ignore_end=True)
    assert decoder.generate(long, fits).tokens == Decoder(tiny_base).generate(long, fits).tokens


def test_errors_name_what_is_wrong(tiny_base, tiny_heads):
    with pytest.raises(HeadsError, match=r"prompt 0 has 0 tokens, .* reads from 1 to 512; shorten"):
        Decoder(tiny_base).generate([], DecodeSettings())
    for tree in (chain(5), Tree.of([(rank,) for rank in range(61)])):
        told = f"looks at {tree.depth} heads and {tree.ranks} ranks, there are 4 heads and 60 tokens; choose"
        with pytest.raises(HeadsError, match=told):
            Decoder(tiny_base, tiny_heads, tree)
    with pytest.raises(HeadsError, match="no heads are given; give a folder"):
        Decoder(tiny_base).with_heads()
    assert Decoder(tiny_base, None, chain(5)).tree.size == 0, "without heads there is no tree"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens = 0: must be at least 1"),
        ({"min_new_tokens": -1}, "min_new_tokens = -1"),
        ({"temperature": -0.5}, "temperature = -0.5: must be 0 or more"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0}, "top_p = 0: must be above 0 and at most 1"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"epsilon": 0}, "epsilon"),
        ({"delta": 1.5}, "delta"),
        ({"lookup": -1}, "lookup"),
        ({"stop": ("a", "")}, "stop = .*texts that are not empty"),
        ({"seed": 2**70}, "seed"),
        ({"typical": True}, "typical acceptance needs a temperature above 0; give one"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, told):
    with pytest.raises(HeadsError, match=told):
        DecodeSettings(**settings)


class TestOpening:
    """`open_decoder`."""

    @pytest.fixture
    def folder(self, tiny_heads_folder, tmp_path):
        return shutil.copytree(tiny_heads_folder, tmp_path / "heads")

    def test_the_tree_of_the_folder_is_used_and_else_a_chain(self, tiny_base_folder, folder, tiny_prompts):
        settings = DecodeSettings(max_new_tokens=30)
        expected = Decoder(Base.open(tiny_base_folder)).generate(tiny_prompts[1], settings).tokens
        for choices in (None, [[0], [1]], []):
            if choices is not None:
                (folder / "tree.json").write_text(json.dumps({"choices": choices}))
            decoder = open_decoder(tiny_base_folder, folder)
            assert decoder.tree == (chain(4) if choices is None else Tree.of(choices))
            assert decoder.generate(tiny_prompts[1], settings).tokens == expected
        assert open_decoder(tiny_base_folder, None).heads is None

    def test_a_tree_that_does_not_fit_is_named(self, tiny_base_folder, folder):
        (folder / "tree.json").write_text(json.dumps([[0], [0, 0], [0] * 3, [0] * 4, [0] * 5]))
        with pytest.raises(HeadsError, match=r"heads/tree.json: looks at 5 heads.*there are 4 heads"):
            open_decoder(tiny_base_folder, folder)

    def test_damage_is_named(self, tiny_base_folder, folder):
        weights = (folder / "heads.safetensors").read_bytes()
        (folder / "heads.safetensors").write_bytes(weights[:-100])
        with pytest.raises(HeadsError, match=r"heads.safetensors: cannot be read .*fetch the heads again"):
            open_decoder(tiny_base_folder, folder)
        (folder / "heads.safetensors").unlink()
        with pytest.raises(HeadsError, match=r"heads.safetensors: cannot be read"):
            open_decoder(tiny_base_folder, folder)
        (folder / "heads.json").unlink()
        with pytest.raises(HeadsError, match=r"heads: holds no heads.json; give a folder"):
            open_decoder(tiny_base_folder, folder)

    def test_another_base_is_refused(self, tiny_base_folder, folder, tmp_path):
        other = tmp_path / "other"
        altered(tiny_base_folder, other, lambda weights_h: weights_h * 1.01)
        with pytest.raises(HeadsError, match=r"these heads belong to .*train its own, or measure"):
            open_decoder(other, folder)
        altered(tiny_base_folder, other, lambda weights_h: weights_h * torch.nan)
        with pytest.raises(HeadsError, match=r"other: its logits are not finite in .*; mend the checkpoint"):
            open_decoder(other, folder)
        with pytest.raises(HeadsError, match=r"is no folder with a config\.json; give"):
            open_decoder(tmp_path / "none", folder)
        with pytest.raises(HeadsError, match="'int8' is none of float32, bfloat16, float16; choose one"):
            open_decoder(tiny_base_folder, folder, dtype="int8")


def altered(base_folder, folder, change):
    """A copy of a base whose last norm is another."""
    shutil.copytree(base_folder, folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = change(tensors["model.norm.weight"])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_in_bfloat16_it_decodes_too(tiny_base_folder, tiny_heads_folder, tiny_prompts):
    """What differs there is measured by `regret`; here that it runs, and in pieces that are the text."""
    decoder = open_decoder(tiny_base_folder, tiny_heads_folder, dtype="bfloat16")
    pieces = []
    settings = DecodeSettings(max_new_tokens=20, lookup=2)
    done = [decoder.generate(ids, settings, pieces.append) for ids in tiny_prompts]
    assert "".join(pieces) == "".join(each.text for each in done) and all(each.tokens for each in done)
    assert max(max(each.accepted, default=0) for each in done) >= 2
