"""What methods share that need more than one pass knows: differences block by block, elections, order.

In numpy, block by block in float64. The kernels behind the other passes of `Tensors` are several times
faster, where a method can be said in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from modelyard.merging.blocks import Floats
from modelyard.merging.methods.parameters import TINY
from modelyard.merging.tensors import Tensors

Flags = npt.NDArray[np.bool_]


def differences(tensors: Tensors, row: int = 1) -> Iterator[tuple[slice, Floats, list[Floats]]]:
    """Places of a block, the base there, and each model's differences to it; all flattened.

    A block holds whole rows of so many elements.
    """
    tensors.need_base()
    for begin, (*models, base) in tensors.blocks(row):
        yield slice(begin, begin + len(base)), base, [model - base for model in models]


def elected(terms: Sequence[Floats]) -> list[Flags]:
    """Which terms have the sign of their sum, 0 counting as +; a term of 0 has no sign."""
    sign = np.where(sum(terms) >= 0, 1.0, -1.0)
    return [term * sign > 0 for term in terms]


def agreed(terms: Sequence[Floats], weights: Floats, *, divide: bool) -> Floats:
    """The sum of the terms that have the elected sign; divided by their weights if wanted.

    Args:
        terms: One array a model, its weight multiplied in.
        weights: One a model.
        divide: Divide by the sum of the weights that took part, unless that is nearly 0.
    """
    flags = elected(terms)
    total: Floats = np.sum([np.where(f, t, 0.0) for f, t in zip(flags, terms, strict=True)], axis=0)
    if not divide:
        return total
    share = np.sum([np.where(f, w, 0.0) for f, w in zip(flags, weights, strict=True)], axis=0)
    return total / np.where(np.abs(share) >= TINY, share, 1.0)


def largest(values: Floats, count: int) -> Flags:
    """Marks exactly so many of the largest values; of equal ones those that come first, row by row."""
    flat = values.reshape(-1)
    kept = np.zeros(flat.size, np.bool_)
    if count > 0:
        bound = np.partition(flat, flat.size - count)[flat.size - count]
        kept = flat > bound
        equal = np.flatnonzero(flat == bound)
        kept[equal[: count - np.count_nonzero(kept)]] = True
    return kept.reshape(values.shape)
