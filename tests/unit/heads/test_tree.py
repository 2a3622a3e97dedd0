"""Trees against brute force: their masks and depths, and what one pass through a model says at every node."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import pytest
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.tree import Tree, ancestry, chain, depths, read_choices
from modelyard.heads.tree_files import read_tree, tree_in

PROMPTS = ([1, 9, 20, 33, 8], [1, 40], [1, 7, 7, 12, 30, 5, 61, 9, 14])


def random_tree(chance, *, most=24, heads=4, ranks=5):
    """Paths grown at random, parents first."""
    paths = [()]
    for _ in range(chance.randrange(1, most + 1)):
        grown = (*chance.choice([p for p in paths if len(p) < heads]), chance.randrange(ranks))
        if grown not in paths:
            paths.append(grown)
    return Tree.of(paths[1:])


def trees(count, *, seed, **limits):
    chance = random.Random(seed)
    return [random_tree(chance, **limits) for _ in range(count)]


def test_masks_and_depths_of_200_trees_are_those_of_a_plain_loop():
    for tree in trees(200, seed=1):
        rows = [(), *tree.paths]
        seen, deep = ancestry(tree.parents), depths(tree.parents)
        assert seen.shape == (tree.size + 1,) * 2
        for i, path in enumerate(rows):
            assert deep[i] == len(path)
            assert seen[i].tolist() == [path[: len(other)] == other for other in rows]
        assert tree.depth == max(map(len, rows)) and tree.ranks == max(max(p) for p in tree.paths) + 1
        assert [rows[parent] for parent in tree.parents] == [path[:-1] for path in tree.paths]
        assert list(zip(tree.heads, tree.last_ranks, strict=True)) == [
            (len(path) - 1, path[-1]) for path in tree.paths
        ]
        for size in range(tree.size + 1):
            assert Tree.of(tree.first(size).paths).size == size


def test_200_fuzzed_trees_give_at_every_node_what_its_own_path_alone_gives(tiny_base, wild_heads):
    """In ragged batches, behind caches that are committed out of order, with lookup and without."""
    heads = [wild_heads(seed=seed) for seed in range(4)]
    worst = 0.0
    for number, tree in enumerate(trees(200, seed=3)):
        decoder = Decoder(tiny_base, heads[number % 4], tree)
        seen = all_nodes(decoder, PROMPTS[number % 3 :], seed=number, lookup=5 * (number % 4 == 3))
        worst = max(worst, float((seen.logits_nv - recomputed(tiny_base, seen.prefixes)).abs().max()))
    assert worst < 5e-4


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a model said after some tokens."""

    prefixes: list
    logits_nv: torch.Tensor


def all_nodes(decoder, prompts, *, seed, lookup=0):
    """The logits of every node of some passes.

    A threshold of nothing makes typical acceptance visit every node, and the longest paths are accepted; a
    processor is shown the tokens of each node's own path, and its logits.
    """
    prefixes, logits_nv = [], []

    def look(ids_bn, scores_bv):
        prefixes.append(ids_bn[0].tolist())
        logits_nv.append(scores_bv[0])
        return scores_bv

    settings = DecodeSettings(
        max_new_tokens=7, temperature=1.0, typical=True, epsilon=1e-30, delta=1e-30, seed=seed, lookup=lookup,
        ignore_end=True,
    )  # fmt: skip
    done = decoder.generate_batch(prompts, settings, processors=[look])
    if not lookup:
        assert len(prefixes) == sum(1 + (each.passes - 1) * (decoder.tree.size + 1) for each in done)
    return Seen(prefixes=prefixes, logits_nv=torch.stack(logits_nv))


@torch.inference_mode()
def recomputed(base, prefixes):
    """The logits after each, with no cache and no tree."""
    ids_bn = torch.zeros((len(prefixes), max(map(len, prefixes))), dtype=torch.long)
    for row, ids in enumerate(prefixes):
        ids_bn[row, : len(ids)] = torch.tensor(ids)  # padding stands behind, where nothing looks
    hidden_bnh = base.hidden(ids_bn, use_cache=False)
    return base.logits(hidden_bnh[range(len(prefixes)), [len(ids) - 1 for ids in prefixes]])


def test_a_wrong_mask_would_be_seen(tiny_base, wild_heads):
    """The test above with one node that looks at a node beside its path."""

    class Wrong(Decoder):
        def geometry(self, candidates):
            depths_n, mask_nn = super().geometry(candidates)
            wrong_nn = mask_nn.clone()
            wrong_nn[2, 1] = 0
            return depths_n, wrong_nn

    decoder = Wrong(tiny_base, wild_heads(seed=0), Tree.of([(0,), (1,)]))
    seen = all_nodes(decoder, PROMPTS, seed=0)
    assert float((seen.logits_nv - recomputed(tiny_base, seen.prefixes)).abs().max()) > 0.05


def test_a_tree_that_is_no_tree_is_refused():
    for paths, told in (
        ([(0, 0), (0,)], r"mine: path \[0, 0\] has no parent before it; add it"),
        ([(0,), (0,)], r"path \[0\] is empty, doubled or negative; leave it out"),
        ([(0,), ()], r"path \[\] is empty"),
        ([(-1,)], r"path \[-1\] is empty, doubled or negative"),
    ):
        with pytest.raises(HeadsError, match=told):
            Tree.of(paths, place="mine")


def test_the_empty_tree_and_a_chain():
    none = Tree(paths=())
    assert (none.size, none.depth, none.ranks, none.parents) == (0, 0, 0, ())
    assert ancestry(none.parents).tolist() == [[True]] and depths(()).tolist() == [0]
    assert chain(3).paths == ((0,), (0, 0), (0, 0, 0)) and chain(3).parents == (0, 1, 2)


def test_choices_of_others_are_read_in_any_order():
    in_worth = [[0], [0, 0], [1], [0, 0, 0], [0, 1]]
    assert read_choices(in_worth, place="f").as_json() == in_worth
    assert read_choices([[0, 0], [1], [0]], place="f").as_json() == [[0], [1], [0, 0]]
    assert read_choices([], place="f").size == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as JSON .*; choose a tree by `heads tree`"),
        ("\xff", "cannot be read as JSON"),
        ("{}", "is no list of lists of ranks; give"),
        ('{"choices": [[0], ["1"]]}', "is no list of lists"),
        ("[[true]]", "is no list of lists"),
        ("[[0.0]]", "is no list of lists"),
        ("[0]", "is no list of lists"),
        ("[[0], [1, 0, 0]]", r"path \[1, 0, 0\] has no parent"),
        ("[[0], [0]]", "doubled"),
        ("[[]]", "empty"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_its_name(content, told, tmp_path):
    path = tmp_path / "tree.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(HeadsError, match=f"(?s)tree.json: .*{told}|tree.json: {told}"):
        read_tree(path)


def test_a_folder_without_a_tree_has_a_chain(tmp_path):
    assert tree_in(tmp_path, heads=2) == chain(2)
    (tmp_path / "tree.json").write_text(json.dumps({"choices": [[1], [0]]}))
    assert tree_in(tmp_path, heads=2).paths == ((1,), (0,))
    (tmp_path / "tree.json").write_text(json.dumps([[0]]))
    assert tree_in(tmp_path, heads=2) == chain(1)
    (tmp_path / "tree.json").unlink()
    with pytest.raises(HeadsError, match="cannot be read"):
        read_tree(tmp_path / "tree.json")
