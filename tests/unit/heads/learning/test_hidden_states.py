"""Hidden states on disk are those of the base, whatever batch they came in and however often killed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.learning.data import TokenSequence, corpus_of
from modelyard.heads.learning.hidden_states import cache_states, open_states


class StoppedError(Exception):
    """Stands for a kill: nothing is tidied up."""


@pytest.fixture
def corpus():
    chance = np.random.default_rng(5)
    lengths = (7, 30, 3, 12, 30, 1, 18, 5, 9, 40, 22, 2)
    return corpus_of(
        [
            TokenSequence(
                tokens=chance.integers(4, 60, length).astype(np.int32),
                learned=np.arange(length) >= length // 3,
            )
            for length in lengths
        ],
        place="made",
    )


def test_every_position_is_what_the_base_gives_alone(tiny_base, corpus, tmp_path):
    states = cache_states(tiny_base, corpus, tmp_path, batch_tokens=64)
    assert states.sequences == len(corpus.sequences)
    for i, sequence in enumerate(corpus.sequences):
        rows = slice(states.starts_s[i], states.starts_s[i + 1])
        ids_bn = torch.from_numpy(sequence.tokens.astype(np.int64))[None]
        with torch.inference_mode():
            hidden_nh = tiny_base.hidden(ids_bn, use_cache=False)[0]
        torch.testing.assert_close(states.states_ph[rows], hidden_nh, rtol=1e-4, atol=1e-5)
        assert states.tokens_p[rows].tolist() == sequence.tokens.tolist()
        assert states.learned_p[rows].tolist() == sequence.learned.tolist()
    assert torch.equal(states.projection_vh, tiny_base.projection_vh)
    assert (states.base, states.data) == (tiny_base.fingerprint, corpus.digest)


def test_a_computation_that_was_cut_short_goes_on_and_ends_with_the_same_bytes(tiny_base, corpus, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    passes = []
    cache_states(tiny_base, corpus, whole, batch_tokens=12, observe=passes.append)
    assert len(passes) > 8

    def stop_after_nine(cached):
        if cached == passes[8]:
            raise StoppedError

    with pytest.raises(StoppedError):
        cache_states(tiny_base, corpus, cut, batch_tokens=12, observe=stop_after_nine)
    with pytest.raises(HeadsError, match=r"holds no states\.json"):
        open_states(cut)
    again = []
    cache_states(tiny_base, corpus, cut, batch_tokens=12, observe=again.append)
    assert again == passes[8:], "what was recorded is not computed again"
    for name in ("states.bin", "tokens.bin", "learned.bin", "starts.bin", "projection.bin", "states.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (cut / "progress.json").exists()


def test_a_whole_folder_is_opened_without_the_base(tiny_base, corpus, tmp_path):
    first = cache_states(tiny_base, corpus, tmp_path)

    def never(_):
        raise AssertionError("the base ran again")

    again = cache_states(tiny_base, corpus, tmp_path, observe=never)
    assert torch.equal(again.states_ph, first.states_ph)
    assert again.ends == tiny_base.end_tokens


def test_bfloat16_states_keep_every_bit(tiny_base_folder, corpus, tmp_path):
    base = Base.open(tiny_base_folder, dtype="bfloat16")
    states = cache_states(base, corpus, tmp_path, batch_tokens=1)
    assert states.states_ph.dtype == torch.bfloat16
    ids_bn = torch.from_numpy(corpus.sequences[1].tokens.astype(np.int64))[None]
    with torch.inference_mode():
        hidden_nh = base.hidden(ids_bn, use_cache=False)[0]
    assert torch.equal(states.states_ph[states.starts_s[1] : states.starts_s[2]], hidden_nh)


def test_a_folder_of_other_data_is_refused(tiny_base, corpus, tmp_path):
    cache_states(tiny_base, corpus, tmp_path)
    other = corpus_of(corpus.sequences[1:], place="made")
    with pytest.raises(HeadsError, match="another base or other data; give a folder that is free"):
        cache_states(tiny_base, other, tmp_path)


def test_a_damaged_folder_is_told(tiny_base, corpus, tmp_path):
    cache_states(tiny_base, corpus, tmp_path)
    path = tmp_path / "states.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HeadsError, match=r"is damaged .* remove it"):
        open_states(tmp_path)
