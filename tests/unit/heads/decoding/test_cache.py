"""The cache against lists of rows: lengths that differ, commits in any order, sequences that leave."""

from __future__ import annotations

import random

import pytest
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.decoding.cache import BlockCache

LAYERS, HEADS, WIDTH = 2, 2, 3


class Rows:
    """What a cache should hold: for each sequence a list of numbers, one for each position."""

    def __init__(self, cache, batch):
        self.cache, self.kept = cache, [[] for _ in range(batch)]
        cache.begin([0] * batch)

    def write(self, numbers_bn):
        """One pass over rows, each known by its number; all that each layer then sees is looked at."""
        states = torch.tensor(numbers_bn, dtype=torch.float32)[:, None, :, None].expand(-1, HEADS, -1, WIDTH)
        for layer in range(LAYERS):
            keys, values = self.cache.layers[layer].update(states + 1000 * layer, -states - 1000 * layer)
            assert torch.equal(keys, -values)
            assert keys.shape[2] == max(map(len, self.kept)) + states.shape[2]
            for row, numbers in enumerate(numbers_bn):
                seen = (keys[row, :, : len(self.kept[row]) + len(numbers)] - 1000 * layer).unique(dim=-1)
                assert seen.shape == (HEADS, len(self.kept[row]) + len(numbers), 1)
                assert [head[:, 0].tolist() for head in seen] == [[*self.kept[row], *numbers]] * HEADS
        assert self.cache.get_seq_length() == max(map(len, self.kept)), "a pass alone commits nothing"

    def commit(self, accepted, numbers_bn):
        self.cache.commit(accepted)
        for kept, chosen, numbers in zip(self.kept, accepted, numbers_bn, strict=True):
            kept += [numbers[place] for place in chosen]
        assert self.cache.lengths == [len(kept) for kept in self.kept]
        assert self.cache.even == (len({len(kept) for kept in self.kept}) == 1)

    def drop(self, row):
        self.cache.drop(row)
        self.kept[row] = self.kept[-1]
        del self.kept[-1]


@pytest.mark.parametrize("seed", range(30))
def test_passes_commits_and_departures_in_any_order(seed):
    chance, fresh = random.Random(seed), iter(range(1, 1000))
    batch = chance.randrange(1, 5)
    rows = Rows(BlockCache(layers=LAYERS, capacity=60), batch)
    for _ in range(8):
        size = chance.randrange(1, 7)
        numbers_bn = [[next(fresh) for _ in range(size)] for _ in rows.kept]
        rows.write(numbers_bn)
        accepted = [
            [0, *sorted(chance.sample(range(1, size), chance.randrange(size)))]
            if chance.random() < 0.7
            else chance.sample(range(size), chance.randrange(1, size + 1))
            for _ in rows.kept
        ]
        rows.commit(accepted, numbers_bn)
        if len(rows.kept) > 1 and chance.random() < 0.3:
            rows.drop(chance.randrange(len(rows.kept)))
    rows.write([[0] for _ in rows.kept])


def test_prompts_of_different_lengths_are_followed_by_what_is_theirs():
    cache = BlockCache(layers=LAYERS, capacity=8)
    rows = Rows(cache, 2)
    rows.write([[1, 2, 3, 4], [5, 6, 0, 0]])
    cache.begin([4, 2])
    rows.kept = [[1, 2, 3, 4], [5, 6]]
    rows.write([[7, 8], [9, 10]])
    rows.commit([[0, 1], [1]], [[7, 8], [9, 10]])
    rows.write([[11], [12]])
    assert rows.kept == [[1, 2, 3, 4, 7, 8], [5, 6, 10]]


def test_more_than_it_holds_is_refused_and_the_last_place_is_used():
    cache = BlockCache(layers=1, capacity=4)
    four, one = torch.zeros(1, HEADS, 4, WIDTH), torch.zeros(1, HEADS, 1, WIDTH)
    cache.layers[0].update(four, four)
    cache.commit([[0, 1, 2, 3]])
    with pytest.raises(HeadsError, match=r"keys of shape \[1, 2, 1, 3\] do not fit the cache of 4 positions"):
        cache.layers[0].update(one, one)


@pytest.mark.parametrize("shape", [(1, 3, 1, WIDTH), (1, HEADS, 1, 5)])
def test_layers_that_are_not_alike_are_refused(shape):
    cache = BlockCache(layers=2, capacity=4)
    one = torch.zeros(1, HEADS, 1, WIDTH)
    cache.layers[0].update(one, one)
    with pytest.raises(HeadsError, match=r"do not fit .*; use a base whose layers are all alike"):
        cache.layers[1].update(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(HeadsError, match="do not fit"):
        BlockCache(layers=1, capacity=4).layers[0].update(one, torch.zeros(1, HEADS, 1, WIDTH + 1))
