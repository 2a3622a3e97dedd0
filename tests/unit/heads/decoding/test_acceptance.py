"""Sampling: the same tokens with a tree and without, the model's distribution, the typical rule by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from modelyard.heads.decoding.acceptance import Chooser
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.drafting import Candidates
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.tree import Tree

WIDE = Tree.of([(0,), (1,), (0, 0), (2,), (0, 1), (1, 0), (0, 0, 0), (0, 1, 0)])
VOCABULARY, DRAWS = 5, 4000
#: Where a p-value under this makes a test fail, a right sampler fails one test in a thousand.
ERROR_RATE = 1e-3
NONE = Candidates(tokens=(), parents=())
DRAFTS = {
    "nothing": NONE,
    "one": Candidates(tokens=(1,), parents=(0,)),
    "the least likely": Candidates(tokens=(4, 4), parents=(0, 1)),
    "a tree": Candidates(tokens=(0, 3, 2, 1, 0), parents=(0, 0, 1, 1, 2)),
    "everything": Candidates(
        tokens=(*range(5), *list(range(5)) * 5), parents=(*[0] * 5, *np.repeat(range(1, 6), 5).tolist())
    ),
}


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5, "top_k": 4, "lookup": 4},
        {"temperature": 3, "top_p": 0.9, "repetition_penalty": 1.2},
    ],
)
def test_a_seed_gives_the_same_tokens_with_a_tree_and_without(settings, tiny_base, tiny_heads, tiny_prompts):
    plain, decoder = Decoder(tiny_base), Decoder(tiny_base, tiny_heads, WIDE)
    told = set()
    for seed in range(4):
        asked = DecodeSettings(max_new_tokens=30, seed=seed, **settings)
        ours, theirs = (way.generate_batch(tiny_prompts, asked) for way in (decoder, plain))
        assert [each.tokens for each in ours] == [each.tokens for each in theirs]
        told.add(tuple(each.tokens for each in ours))
    assert len(told) == 4 and any(each.passes < len(each.tokens) for each in ours)


def model(seed=0):
    """The logits of a first token, and of a second one after each first one."""
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(VOCABULARY, generator=chance), torch.randn(VOCABULARY, VOCABULARY, generator=chance)


def chances(settings):
    """The distribution of two tokens, [first, second], by softmax and cuts in numpy."""

    def cut(logits):
        scaled = np.asarray(logits, np.float64) / settings.temperature
        if settings.top_k:
            scaled[np.argsort(-scaled)[settings.top_k :]] = -np.inf
        share = np.exp(scaled - scaled.max())
        share /= share.sum()
        order = np.argsort(-share)
        kept = np.cumsum(share[order]) - share[order] < settings.top_p
        share[order[~kept]] = 0
        return share / share.sum()

    first, second = model()
    return cut(first)[:, None] * np.stack([cut(row) for row in second])


def two_tokens(chooser, drafts):
    """Two tokens by passes over drafts, as decoding makes them."""
    first, second = model()
    rows = [first, *(second[token] for token in drafts.tokens)]
    tokens = chooser.walk(torch.stack(rows), drafts, [0]).tokens
    if len(tokens) == 1:
        tokens += chooser.walk(second[tokens[0]][None], NONE, [0, *tokens]).tokens
    return tokens[:2]


def p_value(chooser, drafts, settings):
    """Of the hypothesis that two tokens have the model's distribution."""
    expected = chances(settings)
    counts = np.zeros_like(expected)
    for _ in range(DRAWS):
        counts[two_tokens(chooser, drafts)] += 1
    assert not counts[expected == 0].any(), "what is cut off is never drawn"
    possible = expected > 0
    return chisquare(counts[possible], DRAWS * expected[possible]).pvalue


def chooser_of(settings, kind=Chooser):
    made = settings.processors(asked=1, end_tokens=[])
    return kind(settings, made, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("drafts", DRAFTS)
def test_two_tokens_have_the_models_distribution_whatever_is_drafted(drafts):
    settings = DecodeSettings(temperature=0.8)
    assert p_value(chooser_of(settings), DRAFTS[drafts], settings) > ERROR_RATE


def test_two_tokens_have_the_distribution_that_top_k_and_top_p_leave():
    settings = DecodeSettings(temperature=1.3, top_k=4, top_p=0.8)
    assert p_value(chooser_of(settings), DRAFTS["a tree"], settings) > ERROR_RATE


class Wrong(Chooser):
    """Tries each draft by its chance and, where all are refused, draws anew from all tokens."""

    def _choose(self, logits_v, prefix):
        chances_v = torch.softmax(self._processed(logits_v, prefix), -1)
        for token in self.drafts if len(prefix) == 1 else ():
            if torch.rand((), generator=self._generator) < chances_v[token]:
                return token
        return self._draw(chances_v)


@pytest.mark.parametrize("drafts", ["one", "the least likely", "a tree"])
def test_a_wrong_rule_would_be_seen(drafts):
    settings = DecodeSettings(temperature=0.8)
    wrong = chooser_of(settings, Wrong)
    wrong.drafts = DRAFTS[drafts].tokens[:1]
    assert p_value(wrong, DRAFTS[drafts], settings) < ERROR_RATE / 100


def typical_by_hand(logits_nv, drafts, settings):
    """Every node on its own: the nodes of the longest way of typical drafts, the likeliest of these."""
    chances_nv = torch.softmax(logits_nv.double(), -1).numpy()
    ways = {0: ([0], 0.0)}
    for node, (token, parent) in enumerate(zip(drafts.tokens, drafts.parents, strict=True), start=1):
        share = chances_nv[parent]
        entropy = -sum(float(p) * math.log(p) for p in share if p > 0)
        if parent in ways and share[token] > min(settings.epsilon, settings.delta * math.exp(-entropy)):
            before, score = ways[parent]
            ways[node] = ([*before, node], score + math.log(share[token]))
    return tuple(max(ways.values(), key=lambda way: (len(way[0]), way[1]))[0])


def random_drafts(chance):
    tokens, parents, told = [], [], set()
    for _ in range(chance.randrange(1, 16)):
        parent, token = chance.randrange(len(tokens) + 1), chance.randrange(8)
        if (parent, token) not in told:
            told.add((parent, token))
            tokens.append(token)
            parents.append(parent)
    return Candidates(tokens=tuple(tokens), parents=tuple(parents))


def test_typical_acceptance_is_the_papers_rule():
    chance, source = random.Random(4), torch.Generator().manual_seed(4)
    lengths = set()
    for number in range(300):
        settings = DecodeSettings(
            temperature=1.0, typical=True, epsilon=chance.choice([0.09, 0.3, 0.02]),
            delta=chance.choice([0.3, 0.9]),
        )  # fmt: skip
        drafts = random_drafts(chance)
        logits_nv = chance.choice([0.5, 2.0, 4.0]) * torch.randn(len(drafts.tokens) + 1, 8, generator=source)
        walk = Chooser(settings, [], torch.Generator().manual_seed(number)).walk(logits_nv, drafts, [0])
        assert walk.nodes == typical_by_hand(logits_nv, drafts, settings)
        assert walk.tokens[:-1] == tuple(drafts.tokens[node - 1] for node in walk.nodes[1:])
        number_drawn = torch.rand((), generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        summed_v = torch.softmax(logits_nv[walk.nodes[-1]], -1).double().cumsum(0)
        assert walk.tokens[-1] == int((summed_v <= number_drawn * summed_v[-1]).sum())
        lengths.add(len(walk.nodes))
    assert lengths >= {1, 2, 3, 4}


def test_a_typical_way_ends_at_an_end_token():
    """Token 1 leads on to more drafts, but ends the text: what comes behind it is not even looked at."""
    drafts = Candidates(tokens=(1, 2, 2), parents=(0, 1, 2))
    logits_nv = torch.zeros(4, 3)
    settings = DecodeSettings(temperature=1.0, typical=True)
    walk = Chooser(settings, [], torch.Generator(), ends=[1]).walk(logits_nv, drafts, [0])
    assert (walk.nodes, walk.tokens) == ((0,), (1,))
    on = Chooser(settings, [], torch.Generator()).walk(logits_nv, drafts, [0])
    assert on.nodes == (0, 1, 2, 3) and on.tokens[:3] == (1, 2, 2)


def test_typical_acceptance_takes_more_drafts_than_the_exact_one(tiny_base, tiny_heads, tiny_prompts):
    decoder = Decoder(tiny_base, tiny_heads, WIDE)
    passes = [
        sum(
            each.passes / len(each.tokens)
            for each in decoder.generate_batch(
                tiny_prompts,
                DecodeSettings(max_new_tokens=30, temperature=1.5, typical=typical, ignore_end=True),
            )
        )
        for typical in (False, True)
    ]
    assert passes[1] < 0.9 * passes[0]
