"""Keys and values of all layers in one preallocated block; what a pass accepted is committed by index.

A pass writes the keys and values of a whole tree behind what is known. Committing moves those of the accepted
nodes to the front, for all layers at once, and forgets the others; nothing that was committed before is
touched. Sequences of a batch may have different lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from modelyard.core.errors import HeadsError


class BlockCache(Cache):
    """A cache of transformers for a decoder that checks trees.

    Args:
        layers: Of the model.
        capacity: Positions for each sequence, those of one pass's tree included.
    """

    def __init__(self, *, layers: int, capacity: int) -> None:
        self.capacity, self.lengths = capacity, [0]
        self._count = layers
        self._block: torch.Tensor | None = None
        super().__init__(layers=[_Layer(self, number) for number in range(layers)])

    @property
    def even(self) -> bool:
        """Whether all sequences are of one length."""
        return min(self.lengths) == max(self.lengths)

    def store(self, number: int, keys_bhnd: torch.Tensor, values_bhnd: torch.Tensor) -> tuple[Any, Any]:
        """Write behind what is committed; all keys and values of the layer up to there, as views."""
        block = self._room(keys_bhnd)
        new, end = keys_bhnd.shape[2], max(self.lengths) + keys_bhnd.shape[2]
        alike = keys_bhnd.shape == values_bhnd.shape and keys_bhnd.shape[1::2] == block.shape[2::2]
        if end > self.capacity or not alike:
            raise HeadsError(
                f"keys of shape {list(keys_bhnd.shape)} do not fit the cache of {self.capacity} positions and"
                f" {block.shape[2]} heads; use a base whose layers are all alike"
            )
        for which, states in ((2 * number, keys_bhnd), (2 * number + 1, values_bhnd)):
            if self.even:
                block[which, : len(states), :, end - new : end] = states
            else:
                for row, length in enumerate(self.lengths):
                    block[which, row, :, length : length + new] = states[row]
        batch = len(keys_bhnd)
        return block[2 * number, :batch, :, :end], block[2 * number + 1, :batch, :, :end]

    def commit(self, accepted: Sequence[Sequence[int]]) -> None:
        """Keep of the last pass, for each sequence, the rows with these numbers, in this order."""
        for row, kept in enumerate(accepted):
            start = self.lengths[row]
            if list(kept) != list(range(len(kept))) and self._block is not None:
                where = torch.tensor(kept, device=self._block.device) + start
                of_row = self._block[:, row]
                of_row[:, :, start : start + len(kept)] = of_row.index_select(2, where)
            self.lengths[row] = start + len(kept)

    def begin(self, lengths: Sequence[int]) -> None:
        """Say how many of the positions written first belong to each sequence; the rest was padding."""
        self.lengths = list(lengths)

    def drop(self, row: int) -> None:
        """Forget a sequence; the last one takes its place."""
        last = len(self.lengths) - 1
        if row != last and self._block is not None:
            length = self.lengths[last]
            self._block[:, row, :, :length] = self._block[:, last, :, :length]
            self.lengths[row] = length
        self.lengths.pop()

    def _room(self, states_bhnd: torch.Tensor) -> torch.Tensor:
        if self._block is None:
            batch, heads, _, width = states_bhnd.shape
            self._block = states_bhnd.new_zeros((2 * self._count, batch, heads, self.capacity, width))
            if len(self.lengths) != batch:
                self.lengths = [0] * batch
        return self._block


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """What transformers sees of one layer."""

    def __init__(self, cache: BlockCache, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache, self._number = cache, number
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `BlockCache.store`."""
        return self._cache.store(self._number, key_states, value_states)

    def get_seq_length(self) -> int:
        """The positions that are committed, of the longest sequence."""
        return max(self._cache.lengths)
