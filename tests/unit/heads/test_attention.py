"""Attention under a tree's mask, by sums in a fixed order."""

from __future__ import annotations

import pytest
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.attention import _fixed, _grouped, fix_sums
from modelyard.heads.base import Base
from modelyard.heads.decoding.decoder import FIXED_ROWS, Decoder, open_decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.tree import Tree

LOWEST = torch.finfo(torch.bfloat16).min
MODULE = torch.nn.Module()


def drawn(rows, keys, seed=0, heads=6, groups=2, width=16):
    chance = torch.Generator().manual_seed(seed)
    shapes = ((1, heads, rows, width), (1, groups, keys, width), (1, groups, keys, width))
    return [torch.randn(shape, generator=chance).bfloat16() for shape in shapes]


@pytest.mark.parametrize("attention", [_grouped, _fixed])
def test_it_is_attention(attention):
    query, key, value = drawn(5, 37)
    seen = torch.rand(5, 37, generator=torch.Generator().manual_seed(1)) < 0.7
    seen[:, 0] = True
    mask = torch.zeros(1, 1, 5, 37, dtype=torch.bfloat16).masked_fill(~seen, LOWEST)
    out, _ = attention(MODULE, query, key, value, mask, scaling=0.25)
    scores = query.double() @ key.double().repeat_interleave(3, 1).transpose(-1, -2) * 0.25
    shares = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    right = (shares @ value.double().repeat_interleave(3, 1)).transpose(1, 2)
    assert torch.allclose(out.double(), right, atol=0.02)


@pytest.mark.parametrize("known", [3, 40, 130, 300, 700])
def test_masked_keys_between_its_own_do_not_change_a_single_bit(known):
    """Three tokens after what is known stand side by side, or with keys of other branches between them."""
    query, key, value = drawn(FIXED_ROWS, known + FIXED_ROWS)
    own = [known + place for place in (0, 5, 11)]
    kept = [*range(known), *own]
    others = [place for place in range(known, known + FIXED_ROWS) if place not in own]
    results = []
    for order in (list(range(known + FIXED_ROWS)), [*kept, *others]):
        mask = torch.full((1, 1, FIXED_ROWS, len(order)), LOWEST, dtype=torch.bfloat16)
        mask[..., [place for place, which in enumerate(order) if which in kept]] = 0
        results.append(_fixed(MODULE, query, key[:, :, order], value[:, :, order], mask, scaling=0.25)[0])
    assert torch.equal(*results)


def test_exact_in_bfloat16_no_draft_changes_a_token(tiny_base_folder, tiny_heads, tiny_prompts):
    plain = open_decoder(tiny_base_folder, None, dtype="bfloat16", exact=True)
    heads = tiny_heads.to(torch.bfloat16)
    settings = {"max_new_tokens": 40, "ignore_end": True}
    wanted = [plain.generate(ids, DecodeSettings(**settings)).tokens for ids in tiny_prompts]
    for paths in ([(0,)], [(0,), (1,), (0, 0), (0, 1)], [(rank,) for rank in range(10)]):
        for lookup in (0, 5):
            decoder = Decoder(plain.base, heads, Tree.of(paths), fixed_rows=FIXED_ROWS)
            made = decoder.generate_batch(tiny_prompts, DecodeSettings(lookup=lookup, **settings))
            assert [each.tokens for each in made] == wanted
    assert sum(each.passes for each in made) < len(wanted) * 41, "drafts were accepted"


def test_exact_past_a_stretch_of_keys(tiny_base_folder, tiny_heads, tiny_prompts):
    """Where a draft might be summed in the next stretch of 256 keys, a pass checks nothing."""
    plain = open_decoder(tiny_base_folder, None, dtype="bfloat16", exact=True)
    tree = Tree.of([(0,), (1,), (0, 0), (0, 1), (0, 0, 0)])
    decoder = Decoder(plain.base, tiny_heads.to(torch.bfloat16), tree, fixed_rows=FIXED_ROWS)
    words = [token for ids in tiny_prompts for token in ids] * 4
    settings = DecodeSettings(max_new_tokens=40, ignore_end=True)
    for length in (230, 241, 250):
        made = decoder.generate(words[:length], settings)
        assert made.tokens == plain.generate(words[:length], settings).tokens
        assert made.passes < 40 and made.accepted[0] >= 1


def test_what_does_not_fit_is_refused(tiny_base_folder, tiny_heads, tiny_prompts):
    base = Base.open(tiny_base_folder)
    decoder = Decoder(base, tiny_heads, Tree.of([(rank,) for rank in range(8)]), fixed_rows=8)
    with pytest.raises(HeadsError, match=r"8 nodes and 0 places for lookup need 9 rows, passes have 8"):
        decoder.generate(tiny_prompts[0], DecodeSettings())
    base.model.set_attn_implementation("eager")
    with pytest.raises(HeadsError, match=r"eager attention on cpu.*decode in float32"):
        fix_sums(base.model)
