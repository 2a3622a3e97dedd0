"""One model's part in a tensor to be merged: as stored, with an adapter added, or its rows rearranged.

A part is a description that costs nothing; opened, it is a `Source` that gives elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from modelyard.artifacts.safetensors import TensorInfo
from modelyard.merging.blocks import CODES, Derived, Floats, Integers, OpenFiles, Source, Stored
from modelyard.merging.kernels.library import load_kernels
from modelyard.merging.lora import LowRank, added
from modelyard.merging.vocabulary import VocabularyPlan


class Part(Protocol):
    """What one model contributes to an output tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as it takes part."""
        ...

    @property
    def read_bytes(self) -> int:
        """What one pass over it reads, about."""
        ...

    def open(self, files: OpenFiles) -> Source:
        """Where its elements come from. Raises `CheckpointError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """A tensor as it lies in a file; of a matrix perhaps only the first rows."""

    info: TensorInfo
    # First rows only, where embeddings of different size are cut.
    rows: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Part`."""
        return self.info.shape if self.rows is None else (self.rows, *self.info.shape[1:])

    @property
    def read_bytes(self) -> int:
        """See `Part`."""
        return math.prod(self.shape) * self.info.dtype.item_bytes

    def open(self, files: OpenFiles) -> Source:
        """See `Part`."""
        return Stored(info=self.info, descriptor=files.descriptor(self.info.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptedPart:
    """A tensor with a low-rank update added to it."""

    info: TensorInfo
    update: LowRank

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Part`."""
        return self.info.shape

    @property
    def read_bytes(self) -> int:
        """See `Part`."""
        return self.info.bytes

    def open(self, files: OpenFiles) -> Source:
        """See `Part`."""
        stored = Stored(info=self.info, descriptor=files.descriptor(self.info.path))
        return added(stored, self.update, self.info.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyPart:
    """A tensor with one row a token, its rows in the order of the output's vocabulary."""

    # The same tensor of every model of the plan, in its order.
    parts: Sequence[Part]
    model: int
    plan: VocabularyPlan

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Part`."""
        return (self.plan.size, *self.parts[self.model].shape[1:])

    @property
    def read_bytes(self) -> int:
        """See `Part`."""
        return self.parts[self.model].read_bytes

    def open(self, files: OpenFiles) -> Source:
        """See `Part`."""
        rows = _Rows(
            sources=[part.open(files) for part in self.parts],
            model=self.model,
            plan=self.plan,
            width=math.prod(self.shape[1:]),
        )
        return Derived(compute=rows.elements)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Rows of several models' matrices, put into the order of one vocabulary."""

    sources: Sequence[Source]
    model: int
    plan: VocabularyPlan
    width: int

    def elements(self, begin: int, count: int) -> Floats:
        """Elements begin .. begin + count of the rearranged matrix."""
        first, last = begin // self.width, -(-(begin + count) // self.width)
        whole = np.empty((last - first, self.width))
        own = self.plan.rows[self.model][first:last]
        for start, stop in _runs(own):
            if own[start] >= 0:
                whole[start:stop] = self._rows(self.model, int(own[start]), stop - start)
            else:
                for row in range(start, stop):
                    whole[row] = self._fallback(first + row)
        return whole.reshape(-1)[begin - first * self.width :][:count]

    def _fallback(self, token: int) -> Floats:
        """The mean of the rows that stand in for a token which the model does not have; zeros for none."""
        start, stop = self.plan.fallback_offsets[token : token + 2]
        total = np.zeros(self.width)
        for model, row in zip(
            self.plan.fallback_models[start:stop], self.plan.fallback_rows[start:stop], strict=True
        ):
            total += self._rows(int(model), int(row), 1)[0]
        return total / max(1, int(stop - start))

    def _rows(self, model: int, first: int, count: int) -> Floats:
        source, size = self.sources[model], count * self.width
        raw = np.empty(size * source.dtype.item_bytes, np.uint8)
        source.read(first * self.width, size, raw.data)
        values = np.empty(size)
        load_kernels().widen(raw.ctypes.data, CODES[source.dtype], size, values.ctypes.data)
        return values.reshape(count, self.width)


def _runs(rows: Integers) -> list[tuple[int, int]]:
    """Stretches in which rows follow one another, or are all missing."""
    if not len(rows):
        return []
    missing = rows < 0
    follows = (rows[1:] == rows[:-1] + 1) & ~missing[1:] & ~missing[:-1] | (missing[1:] & missing[:-1])
    cuts = np.flatnonzero(~follows) + 1
    edges = [0, *cuts.tolist(), len(rows)]
    return list(pairwise(edges))
