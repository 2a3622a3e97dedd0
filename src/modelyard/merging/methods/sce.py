"""Select the elements on which models differ most, calculate weights from them, erase minority signs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from modelyard.merging.blocks import Floats
from modelyard.merging.method import Base, MergeMethod, Parameter
from modelyard.merging.methods.elementwise import Flags, differences, elected
from modelyard.merging.methods.parameters import INT8_MASK
from modelyard.merging.selection import Bound, select_in
from modelyard.merging.tensors import Tensors


def sce(tensors: Tensors) -> None:
    """b + the mean of those selected differences that have the sign of their sum, by their mean squares."""
    bound = _least_variance(tensors, tensors.number("select_topk"))
    squares = np.zeros(tensors.count)
    for place, _, changes in differences(tensors):
        kept = _kept(changes, bound, place)
        squares += [float(np.square(change[kept]).sum()) for change in changes]
    total = squares.sum()
    weights = squares / (total if total > 0 else 1.0)
    for place, base, changes in differences(tensors):
        kept = _kept(changes, bound, place)
        terms = [np.where(kept, change, 0.0) for change in changes]
        change, share = np.zeros(len(base)), np.zeros(len(base))
        for term, agrees, weight in zip(terms, elected(terms), weights, strict=True):
            change += np.where(agrees, weight * term, 0.0)
            share += np.where(agrees, weight, 0.0)
        tensors.emit_next(base + change / np.where(share > 0, share, 1.0))


def _least_variance(tensors: Tensors, part: float) -> Bound | None:
    """Parts the largest variances over the models from the rest: of those above 0 this part; None is all."""
    if part >= 1:
        return None
    varying = sum(int(np.count_nonzero(variance)) for variance in _variances(tensors))
    return select_in(lambda: _variances(tensors), [int(part * varying)], size=tensors.size)[0]


def _variances(tensors: Tensors) -> Iterator[Floats]:
    for _, _, changes in differences(tensors):
        yield np.var(changes, axis=0)


def _kept(changes: Sequence[Floats], bound: Bound | None, place: slice) -> Flags:
    """Which elements of a block are selected; of those at the bound, the first."""
    if bound is None:
        return np.ones(len(changes[0]), np.bool_)
    variance = np.var(changes, axis=0)
    first = np.arange(place.start, place.stop) <= bound.place
    kept: Flags = (variance > bound.value) | ((variance == bound.value) & first)
    return kept


SCE = MergeMethod(
    name="sce",
    merge=sce,
    formula="b + sum_A w_i m d_i / sum_A w_i; m keeps the largest variances, w_i is the share of |m d_i|²",
    paper="Wan et al., FuseChat: knowledge fusion of chat models, 2024 (arXiv 2408.07990)",
    base=Base.REQUIRED,
    parameters=(
        Parameter(
            name="select_topk",
            help="Which part of the elements that vary between models is kept.",
            default=1.0,
            low=0.0,
            high=1.0,
        ),
    ),
    accepted=INT8_MASK,
)
