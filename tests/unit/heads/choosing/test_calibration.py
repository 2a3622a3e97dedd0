"""The best tree against all trees, counts against a plain loop, passes counted offline against decoding."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelyard.core.errors import HeadsError
from modelyard.heads.choosing.calibration import (
    Acceptance,
    best_tree,
    path_counts,
    ranked,
    stretches,
    total,
    walked,
)
from modelyard.heads.choosing.choice import crossed
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.learning.data import TokenSequence, corpus_of
from modelyard.heads.tree import Tree, chain

WIDE = Tree.of([(0,), (1,), (0, 0), (2,), (0, 1), (1, 0), (0, 0, 0), (3,), (0, 0, 0, 0), (0, 2), (1, 0, 0)])
TREES = {
    "chain": chain(4),
    "short": chain(1),
    "wide": WIDE,
    "odd": Tree.of([(1,), (1, 1), (0,)]),
    "none": chain(0),
}


def arrays_of_ranks(*, ranks=3, heads=3):
    """Ranks of stretches of up to 8 tokens; `ranks` where a head did not name the token, -1 beyond."""
    lengths = st.integers(2, 8).map(lambda tokens: (tokens, heads))
    return st.lists(
        lengths.flatmap(lambda shape: arrays.arrays(np.int64, shape, elements=st.integers(-1, ranks))),
        min_size=1, max_size=3,
    )  # fmt: skip


def counted_by_hand(found, ranks):
    counts = Counter()
    for row in itertools.chain.from_iterable(found):
        for length in range(1, len(row) + 1):
            if all(0 <= rank < ranks for rank in row[:length]):
                counts[tuple(int(rank) for rank in row[:length])] += 1
    return counts


@given(found=arrays_of_ranks())
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_a_plain_loop(found):
    assert path_counts(found, ranks=3) == counted_by_hand(found, 3)


@given(found=arrays_of_ranks(ranks=2, heads=2), size=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_best_tree_is_the_best_of_all_trees(found, size):
    """All sets of the six paths of two heads and two ranks that are closed under parents."""
    counts = counted_by_hand(found, 2)
    if not counts:
        with pytest.raises(HeadsError, match=r"no head named a token that came; give more text"):
            best_tree(found, size, ranks=2)
        return
    paths = [path for length in (1, 2) for path in itertools.product(range(2), repeat=length)]
    closed = [
        chosen
        for number in range(size + 1)
        for chosen in itertools.combinations(paths, number)
        if all(path[:-1] in ((), *chosen) for path in chosen)
    ]
    tree = best_tree(found, size, ranks=2)
    assert sum(counts[path] for path in tree.paths) == max(sum(map(counts.__getitem__, c)) for c in closed)
    worths = [counts[path] for path in tree.paths]
    assert worths == sorted(worths, reverse=True) and tree.size <= size
    assert Tree.of(tree.paths) == tree, "each path comes after its parent"


def texts_of(decoded, prompts):
    """What was made after prompts, as a corpus of which the made part was written by the model."""
    return corpus_of(
        [
            TokenSequence(
                tokens=np.array([*ids, *each.tokens], np.int32),
                learned=np.arange(len(ids) + len(each.tokens)) >= len(ids),
            )
            for ids, each in zip(prompts, decoded, strict=True)
        ],
        place="made",
    )


@pytest.mark.parametrize("tree", TREES)
def test_offline_passes_are_exactly_those_of_decoding_the_same_text(
    tree, tiny_base, tiny_heads, tiny_prompts
):
    """An off-by-one in heads, states, positions or the cache leaves the text right, and this not."""
    decoder = Decoder(tiny_base, tiny_heads, TREES[tree])
    for ends in (False, True):
        asked = DecodeSettings(max_new_tokens=60, ignore_end=not ends)
        online = decoder.generate_batch(tiny_prompts, asked)
        offline = walked(ranked(tiny_base, tiny_heads, texts_of(online, tiny_prompts)), TREES[tree])
        begun = [each for each in online if len(each.tokens) > 1]  # one that ends at once has no pass
        assert [(each.passes - 1, len(each.tokens) - 1) for each in begun] == [
            (each.passes, each.tokens) for each in offline
        ]
    if tree == "wide":
        assert total(offline).tokens_per_pass > 1.8, "the heads foretell, or this test would tell little"
    if tree == "none":
        assert total(offline).tokens_per_pass == 1


def test_stretches_are_what_the_model_wrote():
    def found(*learned):
        learned = np.array(learned, bool)
        return list(stretches(TokenSequence(tokens=np.zeros(len(learned), np.int32), learned=learned)))

    assert found(0, 0, 1, 1, 1, 0, 1, 1) == [(2, 5), (6, 8)]
    assert found(1, 1, 1) == [(1, 3)], "no pass comes before the first token"
    assert found(1, 1) == [] and found(0, 1, 0, 0) == [], "one token needs no pass after that over the prompt"
    assert found(0, 0) == []


def test_a_walk_by_hand():
    ranks = np.array([[0, 1], [0, 0], [5, 0], [1, 0], [0, -1], [-1, -1]])
    # from 0 by (0, 1) to 3, from 3 by (1,) to 5
    assert walked([ranks], Tree.of([(0,), (0, 1), (1,)])) == [Acceptance(passes=2, tokens=5)]
    # to 2, where nothing is right; 3, 4; and by (0,) beyond the end
    assert walked([ranks], Tree.of([(0,)])) == [Acceptance(passes=4, tokens=5)]
    assert walked([ranks], chain(0)) == [Acceptance(passes=5, tokens=5)]
    assert Acceptance(passes=0, tokens=0).tokens_per_pass == 1
    tree = Tree.of([(0,), (0, 1), (1,)])
    found = {size: total(walked([ranks], tree.first(size))).tokens_per_pass for size in (0, 1, 3)}
    assert found == {0: 1.0, 1: 5 / 4, 3: 5 / 2}


def test_a_rank_that_was_not_looked_at_is_not_taken_for_accepted():
    """10 stands for every rank from 10 on: a tree that asks for rank 10 must gain nothing by it."""
    ranks = np.array([[10], [10], [0], [10]])
    tree = Tree.of([(10,), (0,)])
    assert walked([ranks], tree) == walked([ranks], Tree.of([(0,)]))


def test_halves_judge_each_other():
    """Each half's own favourite is never what comes in the other."""
    first, second = np.zeros((9, 1), np.int64), np.ones((9, 1), np.int64)
    assert crossed([[first], [second]], [1]) == {1: 1.0}
    assert crossed([[first], [second], [first], [second]], [1]) == {1: 1.0}
    assert crossed([[first], [first]], [1]) == {1: 2.0}
    assert crossed([[first]], [1]) == crossed([[], [first], []], [1]) == {1: 2.0}, "one alone judges itself"
    mixed = np.array([[0]] * 6 + [[1]] * 3)
    found = crossed([[mixed], [mixed], [first], [second]], [1, 2])
    by_hand = walked([mixed, first], best_tree([mixed, second], 1)) + walked(
        [mixed, second], best_tree([mixed, first], 1)
    )
    assert found[1] == total(by_hand).tokens_per_pass < found[2] == 2.0


def test_what_stands_in_one_text_is_not_judged_by_itself():
    """Every text has its own favourite throughout: by stretches each half would know those of the other."""
    first, second = np.zeros((9, 1), np.int64), np.ones((9, 1), np.int64)
    assert crossed([[first, first], [second, second]], [1]) == {1: 1.0}
    assert crossed([[first, first]], [1]) == {1: 2.0}, "of one text the stretches are halved"
    assert crossed([[first, second]], [1]) == {1: 1.0}
