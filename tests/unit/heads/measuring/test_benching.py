"""Ways of decoding held against one another: who decodes what and when, and ratios by hand."""

from __future__ import annotations

import pytest

from modelyard.heads.decoding.decoder import Decoded, Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.measuring.benching import PLAIN, Way, compare, decoder_way
from modelyard.heads.measuring.regret import Regret
from modelyard.heads.tree import chain


def told(tokens, *, passes, wall_s, cpu_s):
    """What a way is said to have done."""
    return Decoded(
        tokens=tuple(tokens), text="", finish="length", passes=passes, accepted={}, wall_s=wall_s, cpu_s=cpu_s
    )


@pytest.fixture
def scripted():
    """Two ways over three prompts, and the calls that they got."""
    calls = []
    plain = {
        1: told(range(5), passes=5, wall_s=1.0, cpu_s=2.0),
        2: told(range(9), passes=9, wall_s=2.0, cpu_s=4.0),
    }
    fast = {
        1: told(range(5), passes=3, wall_s=0.5, cpu_s=2.0),
        2: told([*range(7), 0, 0, 0, 0, 0], passes=4, wall_s=1.5, cpu_s=3.0),
    }
    plain[3], fast[3] = plain[1], fast[1]

    def way(name, script):
        def decode(ids):
            calls.append((name, ids[0]))
            return script[ids[0]]

        return Way(name=name, decode=decode)

    return [way(PLAIN, plain), way("fast", fast)], calls


def test_ratios_are_those_of_sums(scripted):
    plain, fast = compare(scripted[0], [[1], [2], [3]])
    # 19 tokens in 4 s and 8 s of the processor; 22 in 2.5 s and 7 s
    assert (plain.tokens, fast.tokens) == (19, 22)
    assert plain.wall_ms_per_token == pytest.approx(4000 / 19)
    assert fast.cpu_ms_per_token == pytest.approx(7000 / 22)
    assert fast.wall_speedup.value == pytest.approx((4 / 19) / (2.5 / 22))
    assert fast.cpu_speedup.value == pytest.approx((8 / 19) / (7 / 22))
    assert plain.tokens_per_pass.value == 1
    assert fast.tokens_per_pass.value == pytest.approx(19 / 7), (
        "the pass over the prompt and its token left out"
    )
    assert (plain.identical, fast.identical, fast.prompts) == (3, 2, 3)
    for each in (fast.tokens_per_pass, fast.wall_speedup, fast.cpu_speedup):
        assert each.low < each.value < each.high
    assert plain.wall_speedup.low == plain.wall_speedup.high == 1
    # whatever prompts are drawn, the ratios lie between those of single prompts
    assert fast.wall_speedup.low >= (2 / 9) / (1.5 / 12) - 1e-9 and fast.wall_speedup.high <= 2 + 1e-9
    document = fast.as_json()
    assert document["wall_speedup"][0] == round(fast.wall_speedup.value, 4) and document["regret"] is None
    assert len(document["tokens_per_pass"]) == 3 and document["identical"] == 2


def test_ways_take_turns_after_one_prompt_that_does_not_count(scripted):
    ways, calls = scripted
    seen = []
    compare(ways, [[1], [2], [3]], observe=lambda *each: seen.append(each))
    warm, rest = calls[:2], calls[2:]
    assert warm == [(PLAIN, 1), ("fast", 1)]
    assert rest == [(PLAIN, 1), ("fast", 1), ("fast", 2), (PLAIN, 2), (PLAIN, 3), ("fast", 3)]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_in_float32_every_way_gives_the_same_tokens_without_regret(tiny_base, tiny_heads, tiny_prompts):
    asked, plain = DecodeSettings(max_new_tokens=20), Decoder(tiny_base)
    ways = [
        decoder_way(PLAIN, plain, asked),
        decoder_way("tree", Decoder(tiny_base, tiny_heads, chain(3)), asked),
        decoder_way("lookup", plain, DecodeSettings(max_new_tokens=20, lookup=4)),
    ]
    results = compare(ways, tiny_prompts, reference=tiny_base)
    for each in results:
        assert each.identical == each.prompts == len(tiny_prompts) and each.tokens == results[0].tokens
        assert each.regret == Regret(tokens=each.tokens, flips=0, mean=0.0, largest=0.0)
    assert results[1].tokens_per_pass.value > 1.2 and results[0].tokens_per_pass.value == 1
