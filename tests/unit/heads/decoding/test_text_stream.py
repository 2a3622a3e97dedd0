"""The pieces of a text are the text: whatever its characters, wherever tokens cut them, whatever ends it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from modelyard.heads.base import Base
from modelyard.heads.config import HeadsConfig
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.decoding.text_stream import TextStream
from modelyard.heads.model import Heads
from modelyard.heads.tree import chain


def byte_tokenizer():
    """A token for every byte, and one that is special."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def word_tokenizer():
    """Words whose space is written before them, and not before the first: as sentencepiece has them."""
    words = ["<end>", *(f"▁{word}" for word in ("a", "bc", "END")), "x", "E", "é"]
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    made.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


BYTES, WORDS = byte_tokenizer(), word_tokenizer()
STOPS = st.lists(st.text(st.sampled_from("abé\n€🙂"), min_size=1, max_size=3), max_size=3)


def streamed(tokenizer, tokens, stop=()):
    """The pieces of a text, and its stream at the end."""
    stream, pieces = TextStream(tokenizer, stop), []
    for token in tokens:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.close()], stream


@given(text=st.text() | st.text(st.sampled_from("abé\n€🙂")), stop=STOPS)
@example(text="a👩‍👩‍👧b", stop=[])
@example(text="€", stop=["€"])
@settings(max_examples=200, deadline=None)
def test_pieces_are_the_text_up_to_the_first_stop_string(text, stop):
    tokens = BYTES.encode(text)
    pieces, stream = streamed(BYTES, tokens, stop)
    assert "".join(pieces) == stream.text
    # one character comes at a time, so that the stop string that ends first is met first
    ends = [(text.index(each) + len(each), text.index(each)) for each in stop if each in text]
    first = min((end for end, _ in ends), default=None)
    start = min((start for end, start in ends if end == first), default=len(text))
    assert stream.text == text[:start] and stream.stopped == bool(ends)
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


@given(tokens=st.lists(st.integers(0, 256), max_size=20), stop=STOPS)
@settings(max_examples=200, deadline=None)
def test_pieces_are_the_text_of_any_bytes(tokens, stop):
    """Bytes that are no text too, and a special token between them, which is no part of the text."""
    pieces, stream = streamed(BYTES, tokens, stop)
    whole = BYTES.decode(tokens, skip_special_tokens=True)
    assert "".join(pieces) == stream.text and whole.startswith(stream.text)
    assert stream.stopped or stream.text == whole
    assert not any(each in stream.text for each in stop)


@given(tokens=st.lists(st.integers(0, 6), max_size=12))
@settings(max_examples=100, deadline=None)
def test_spaces_between_words_are_those_of_the_whole_text(tokens):
    pieces, stream = streamed(WORDS, tokens)
    assert "".join(pieces) == stream.text == WORDS.decode(tokens, skip_special_tokens=True)


def test_nothing_of_a_stop_string_is_told():
    pieces, stream = streamed(BYTES, BYTES.encode("one ENough, two END three"), ("END",))
    assert "".join(pieces) == "one ENough, two " and stream.stopped
    assert pieces[4:7] == ["", "", "ENo"], "what may begin a stop string is held back, and no longer"
    pieces, stream = streamed(BYTES, BYTES.encode("one EN"), ("END",))
    assert pieces[-1] == "EN" and not stream.stopped


def test_what_comes_after_a_stop_string_is_passed_over():
    stream = TextStream(BYTES, ("b",))
    told = [stream.push(token) for token in BYTES.encode("abcd")]
    assert told == ["a", "", "", ""] and stream.close() == "" and stream.text == "a"


class TestThroughTheDecoder:
    """With a model of bytes, whose tokens are nearly never whole characters."""

    @pytest.fixture
    def decoder(self, tmp_path):
        torch.manual_seed(3)
        shape = LlamaConfig(
            vocab_size=257, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=256, bos_token_id=None, eos_token_id=256,
        )  # fmt: skip
        base = Base.of(LlamaForCausalLM(shape), tokenizer=BYTES, folder=tmp_path)
        config = HeadsConfig(
            heads=2, layers=1, hidden_size=16, vocab_size=257, projection="shared", drafted=257, base=""
        )
        return Decoder(base, Heads(config, base.projection_vh).eval(), chain(2))

    def test_streamed_text_is_the_final_text(self, decoder):
        prompt = BYTES.encode("é€🙂")
        for seed in range(6):
            pieces = []
            asked = DecodeSettings(max_new_tokens=60, temperature=1.5, seed=seed, lookup=2)
            done = decoder.generate(prompt, asked, pieces.append)
            assert "".join(pieces) == done.text == BYTES.decode(done.tokens, skip_special_tokens=True)

    def test_a_character_cut_at_the_end_is_told_at_the_end(self, decoder):
        first, second, third = BYTES.encode("€")
        want = iter([*BYTES.encode("a"), first, second])
        pieces = []
        done = decoder.generate([5], DecodeSettings(max_new_tokens=3), pieces.append, [forced(want)])
        assert (pieces, done.text, done.finish) == (["a", "\ufffd"], "a\ufffd", "length")
        want = iter([first, second, third])
        done = decoder.generate([5], DecodeSettings(max_new_tokens=3), processors=[forced(want)])
        assert done.text == "€"

    def test_a_stop_string_that_only_the_end_makes_certain_is_a_stop(self, decoder):
        """The last character is half, so that all of its piece was held back."""
        first = BYTES.encode("€")[0]
        want = iter([first, first])
        done = decoder.generate(
            [5], DecodeSettings(max_new_tokens=2, stop=("\ufffd",)), processors=[forced(want)]
        )
        assert (done.text, done.finish) == ("", "stop")


def forced(wanted):
    """A processor that lets one token be, and another the next time."""

    def force(_, scores_bv):
        only_bv = torch.full_like(scores_bv, -torch.inf)
        only_bv[0, next(wanted)] = 0
        return only_bv

    return force
