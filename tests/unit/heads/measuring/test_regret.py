"""Regret by its definition, one token at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.measuring.regret import Regret, regrets, summed
from modelyard.heads.tree import chain


def by_hand(base, prompt, tokens):
    """One pass of the whole model for each token."""
    found = []
    for place, token in enumerate(tokens):
        logits_v = base.model(input_ids=torch.tensor([[*prompt, *tokens[:place]]]), use_cache=False).logits[
            0, -1
        ]
        found.append(float(logits_v.max() - logits_v[token]))
    return found


def test_it_is_the_highest_logit_less_that_of_the_token(tiny_base):
    prompt, tokens = [1, 34, 47], [53, 9, 41, 41, 60]
    found = regrets(tiny_base, prompt, tokens)
    assert found == pytest.approx(by_hand(tiny_base, prompt, tokens), abs=1e-4)
    assert (found >= 0).all() and found.max() > 1
    all_v = [regrets(tiny_base, prompt, [token])[0] for token in range(tiny_base.vocab_size)]
    assert min(all_v) == 0 and sum(each == 0 for each in all_v) == 1


def test_what_float32_takes_has_none(tiny_base, tiny_heads, tiny_prompts):
    asked = DecodeSettings(max_new_tokens=40, ignore_end=True)
    decoder = Decoder(tiny_base, tiny_heads, chain(3))
    told = summed(
        [
            regrets(tiny_base, prompt, done.tokens)
            for prompt, done in zip(tiny_prompts, decoder.generate_batch(tiny_prompts, asked), strict=True)
        ]
    )
    assert told == Regret(tokens=40 * len(tiny_prompts), flips=0, mean=0.0, largest=0.0)


def test_what_is_summed():
    told = summed([np.array([0.0, 0.5]), np.array([0.0, 0.0, 0.25])])
    assert told == Regret(tokens=5, flips=2, mean=0.15, largest=0.5) and told.flip_rate == 0.4
    assert told.as_json() == {"tokens": 5, "flips": 2, "flip_rate": 0.4, "mean": 0.15, "largest": 0.5}
    assert summed([]) == Regret(tokens=0, flips=0, mean=0.0, largest=0.0) and summed([]).flip_rate == 0


def test_a_reference_that_rounds_is_refused(tiny_base_folder):
    with pytest.raises(HeadsError, match="by a model in float32; open the base so"):
        regrets(Base.open(tiny_base_folder, dtype="bfloat16"), [1], [2])
