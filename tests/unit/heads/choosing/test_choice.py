"""Choosing a tree and timing passes, on the tiny base: what is done, not how long it takes."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.choosing.advice import EXPECTED, WORTH, Advice, advise, widest_tree
from modelyard.heads.choosing.calibration import best_tree, ranked, ranked_texts
from modelyard.heads.choosing.choice import ChosenTree, choose_tree, crossed, write_choice
from modelyard.heads.choosing.latency import PassCost, measure_passes
from modelyard.heads.choosing.sizing import SIZES, Prospect, chosen, prospects
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.learning.data import TokenSequence, corpus_of
from modelyard.heads.tree import Tree, chain
from modelyard.heads.tree_files import read_tree


class Counting(Decoder):
    """A decoder that counts the rows of each forward pass of its base, and who asked for drafts."""

    def __init__(self, base, heads, tree):
        super().__init__(base, heads, tree)
        self.rows, self.lengths = Counter(), []
        base.trunk.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _, __, arguments):
        cached = arguments[self.base.cache_word].get_seq_length()
        self.rows[arguments["input_ids"].shape[1]] += 1
        self.lengths.append(cached)


@pytest.fixture
def corpus(tiny_base, tiny_prompts):
    done = Decoder(tiny_base).generate_batch(tiny_prompts[:10], DecodeSettings(max_new_tokens=60))
    return corpus_of(
        [
            TokenSequence(
                tokens=np.array([*ids, *each.tokens], np.int32),
                learned=np.arange(len(ids) + len(each.tokens)) >= len(ids),
            )
            for ids, each in zip(tiny_prompts, done, strict=False)
        ],
        place="made",
    )


def test_each_size_is_timed_as_often_and_in_turns(tiny_base, tiny_heads):
    decoder, told = Counting(tiny_base, tiny_heads, chain(3)), []
    costs = measure_passes(decoder, [3, 1], context=40, rounds=4, observe=lambda *each: told.append(each))
    assert [each.nodes for each in costs] == [0, 1, 3]
    assert all(each.wall_s > 0 and each.cpu_s >= 0 for each in costs)
    assert decoder.rows == {40: 3, 1: 6, 2: 6, 4: 6}, "two rounds to warm up, and one prompt for each size"
    assert told == [(number, 6) for number in range(1, 7)]
    assert min(each for each in decoder.lengths if each) == 40


def test_a_model_that_reads_less_is_timed_after_fewer_tokens(tiny_base, tiny_heads):
    decoder = Counting(tiny_base, tiny_heads, chain(4))
    measure_passes(decoder, [4], context=5000, rounds=3)
    assert decoder.rows[512 - 4 - (5 * 5 + 2)] == 2, "as many for each size"
    assert max(decoder.lengths) < 512


@pytest.mark.parametrize("budget", [1, 4, 7, 63])
def test_a_budget_is_used_and_its_tree_is_the_best_of_the_text(budget, tiny_base, tiny_heads, corpus):
    choice = choose_tree(Decoder(tiny_base, tiny_heads), corpus, budget=budget)
    best = best_tree(ranked(tiny_base, tiny_heads, corpus), budget)
    assert choice.tree == best and choice.prospect.nodes == best.size <= budget
    assert [each.nodes for each in choice.costs] == [0, *(each.nodes for each in choice.prospects)]
    expected = crossed(ranked_texts(tiny_base, tiny_heads, corpus), [best.size])[best.size]
    assert choice.prospect.tokens_per_pass == expected > 1.3
    assert choice.prospects == tuple(
        prospects({each.nodes: each.tokens_per_pass for each in choice.prospects}, choice.costs, "wall")
    )


def test_auto_takes_what_the_costs_say(tiny_base, tiny_heads, corpus):
    """Whatever was measured: the choice follows from what is told of it."""
    for clock in ("wall", "cpu"):
        choice = choose_tree(Decoder(tiny_base, tiny_heads), corpus, clock=clock)
        assert choice.prospect == chosen(choice.prospects) and choice.clock == clock
        assert choice.tree.size == (0 if choice.prospect is None else choice.prospect.nodes)
        assert {each.nodes for each in choice.prospects} <= {
            *SIZES,
            len(choice.tree.paths),
            choice.prospects[-1].nodes,
        }
        assert choice.data == corpus.digest and choice.tokens == corpus.learned_tokens


def test_a_choice_is_written_and_read_again(tmp_path):
    prospect = Prospect(nodes=2, tokens_per_pass=1.4, cost=1.1)
    for tree, predicted in ((Tree.of([(0,), (0, 1)]), prospect), (Tree(paths=()), None)):
        choice = ChosenTree(
            tree=tree, prospect=predicted, prospects=(prospect,), clock="cpu", dtype="bfloat16", threads=2,
            costs=(PassCost(nodes=0, wall_s=0.001, cpu_s=0.002),), data="sha256:1", tokens=9,
        )  # fmt: skip
        write_choice(tmp_path, choice)
        assert read_tree(tmp_path / "tree.json") == tree
        told = json.loads((tmp_path / "tree.json").read_text())
        assert told["schema"] == "modelyard.tree/1" and told["choices"] == tree.as_json()
        assert told["predicted"] == (None if predicted is None else predicted.as_json())
        assert told["passes"] == [{"nodes": 0, "wall_ms": 1.0, "cpu_ms": 2.0}]


def test_without_heads_or_with_a_text_that_nothing_foretells_there_is_no_tree(tiny_base, tiny_heads, corpus):
    with pytest.raises(HeadsError, match="no heads are given"):
        choose_tree(Decoder(tiny_base), corpus)
    odd = corpus_of(
        [TokenSequence(tokens=np.array([0, 0, 0], np.int32), learned=np.ones(3, bool))], place="f"
    )
    with pytest.raises(HeadsError, match="no head named a token that came; give more text"):
        choose_tree(Decoder(tiny_base, tiny_heads), odd)


def test_advice_times_heads_that_were_never_trained(tiny_base):
    advice = advise(tiny_base, heads=2, drafted=30)
    assert [each.nodes for each in advice.costs] == [0, *SIZES] and advice.dtype == "float32"
    assert [each.tokens_per_pass for each in advice.prospects] == [EXPECTED[size] for size in SIZES]
    assert advice.threads == torch.get_num_threads()


def advice_of(costs):
    passes = [PassCost(nodes=nodes, wall_s=cost, cpu_s=cost) for nodes, cost in {0: 1.0, **costs}.items()]
    found = tuple(prospects(EXPECTED, passes, "wall"))
    return Advice(dtype="float32", threads=1, clock="wall", costs=tuple(passes), prospects=found)


def test_advice_says_no_where_a_pass_costs_too_much_and_names_the_best_where_it_does_not():
    dear = advice_of({2: 1.3, 8: 2.15, 16: 2.2})
    assert dear.best is None and dear.as_json()["pays"] is False and dear.as_json()["best"] is None
    assert [each["pays_above"] for each in dear.as_json()["sizes"]] == [1.3, 2.15, 2.2]
    cheap = advice_of({2: 1.06, 16: 1.13, 63: 1.58})
    assert cheap.best.nodes == 16 and cheap.best.speedup == pytest.approx(EXPECTED[16] / 1.13)
    assert cheap.as_json()["best"]["nodes"] == 16 and cheap.as_json()["worth"] == WORTH
    assert advice_of({2: EXPECTED[2] / 1.09}).best is None, "less than is worth training for"


@pytest.mark.parametrize(("heads", "ranks"), [(1, 4), (2, 3), (3, 10), (4, 2)])
def test_the_usual_shape_has_the_likeliest_paths_of_all(heads, ranks):
    def cost(path):
        return len(path) + sum(math.log2(1 + rank) for rank in path)

    every = [
        path
        for length in range(1, heads + 1)
        for path in itertools.product(range(ranks), repeat=length)
        if sum(path) < ranks
    ]
    ordered = sorted(every, key=lambda path: (cost(path), len(path), path))
    assert widest_tree(63, heads=heads, ranks=ranks).paths == tuple(ordered[:63])


def test_the_usual_shape_of_many_heads_takes_no_time():
    """There are more paths of 64 heads than could be listed."""
    tree = widest_tree(63, heads=64, ranks=10)
    assert tree.size == 63 and tree.depth <= 8
