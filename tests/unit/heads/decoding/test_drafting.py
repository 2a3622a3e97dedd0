"""Prompt lookup against a naive search, and chains merged into trees."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelyard.heads.decoding.drafting import Candidates, Memory, drafted
from modelyard.heads.tree import Tree, ancestry, chain

SMALL = st.lists(st.integers(0, 3), min_size=1, max_size=30)


def naive(tokens, length):
    """What followed the latest earlier place of the last three tokens, else of the last two."""
    for gram in (3, 2):
        last = tokens[-gram:]
        for end in range(len(tokens) - 1, gram - 1, -1):
            if len(tokens) > gram and tokens[end - gram : end] == last:
                return tokens[end : end + length]
    return []


@given(tokens=SMALL, length=st.integers(0, 8), cuts=st.lists(st.integers(0, 30)))
def test_lookup_finds_what_a_naive_search_finds(tokens, length, cuts):
    memory, begun = Memory([]), 0
    for cut in sorted({*(min(c, len(tokens)) for c in cuts), len(tokens)}):
        memory.extend(tokens[begun:cut])
        begun = cut
    assert memory.continuation(length) == naive(tokens, length) == Memory(tokens).continuation(length)


def test_lookup_prefers_three_tokens_to_two_and_late_to_early():
    assert Memory([1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3]).continuation(2) == [7, 9]
    assert Memory([2, 3, 7, 2, 3, 8, 2, 3]).continuation(1) == [8]
    assert Memory([1, 2, 3]).continuation(5) == [] and Memory([]).continuation(5) == []


TREE = Tree.of([(0,), (1,), (0, 0), (0, 1), (1, 0), (2,)])
DRAFTS = np.array([[10, 11, 12], [20, 21, 22]])


def ways(candidates):
    """The tokens on the way to each node."""
    on = ancestry(candidates.parents)[1:, 1:]
    return [tuple(t for t, here in zip(candidates.tokens, row, strict=True) if here) for row in on]


def test_without_a_chain_the_tree_is_filled():
    made = drafted(TREE, DRAFTS, [])
    assert made == Candidates(tokens=(10, 11, 20, 21, 20, 12), parents=TREE.parents)
    assert made.children() == [{10: 1, 11: 2, 12: 6}, {20: 3, 21: 4}, {20: 5}, {}, {}, {}, {}]


def test_a_chain_takes_the_last_places():
    made = drafted(TREE, DRAFTS, [30, 31])
    assert ways(made) == [(10,), (11,), (10, 20), (10, 21), (30,), (30, 31)] and not made.plain


def test_a_chain_goes_along_the_tree_where_it_can():
    made = drafted(TREE, DRAFTS, [10, 20, 40])
    assert ways(made) == [(10,), (11,), (10, 20), (10, 20, 40), (10, 21), (11, 20)], "and leaves two places"
    assert ways(drafted(chain(2), DRAFTS, [10, 20, 40, 41])) == [
        (10,),
        (10, 20),
        (10, 20, 40),
        (10, 20, 40, 41),
    ]
    assert ways(drafted(Tree(paths=()), np.zeros((0, 0), int), [5, 5])) == [(5,), (5, 5)]


@given(seed=st.integers(0, 10**6))
def test_any_chain_and_tree_make_a_tree_of_no_more_rows_with_both_in_it(seed):
    chance = random.Random(seed)
    paths = [()]
    for _ in range(chance.randrange(10)):
        grown = (*chance.choice([p for p in paths if len(p) < 3]), chance.randrange(3))
        paths += [grown] if grown not in paths else []
    tree = Tree.of(paths[1:])
    drafts = np.stack([np.array(chance.sample(range(5), 3)) for _ in range(3)])
    found = [chance.randrange(5) for _ in range(chance.randrange(1, 8))]
    made = drafted(tree, drafts, found)
    assert len(made.tokens) == len(made.parents) <= max(tree.size, len(found))
    assert all(0 <= parent < node for node, parent in enumerate(made.parents, start=1))
    told = ways(made)
    assert len(set(told)) == len(told), "no node is checked twice"
    assert {tuple(found[:length]) for length in range(1, len(found) + 1)} <= set(told)
    kept, whole = max(tree.size - len(found), 0), ways(drafted(tree, drafts, []))
    assert told[:kept] == whole[:kept]
    missing = [i for i, way in enumerate(whole) if way not in told]
    beside = [i for i, way in enumerate(whole) if way in told and way != tuple(found[: len(way)])]
    assert not missing or all(i < missing[0] for i in beside), "the worthiest of the tree"
    assert len(told) == max(tree.size, len(found)) or set(whole) <= set(told), "no place stays empty"
