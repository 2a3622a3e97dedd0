"""Select the elements on which models differ most, calculate weights from them, erase minority signs."""

from __future__ import annotations

import numpy as np

from modelyard.merging.method import Base, MergeMethod, Parameter
from modelyard.merging.methods.elementwise import Flags, differences, elected, largest
from modelyard.merging.methods.parameters import INT8_MASK
from modelyard.merging.tensors import Tensors


def sce(tensors: Tensors) -> None:
    """b + the mean of those selected differences that have the sign of their sum, by their mean squares."""
    kept = _selected(tensors, tensors.number("select_topk"))
    squares = np.zeros(tensors.count)
    for place, _, changes in differences(tensors):
        squares += [float(np.square(change[kept[place]]).sum()) for change in changes]
    total = squares.sum()
    weights = squares / (total if total > 0 else 1.0)
    result = np.empty(tensors.size)
    for place, base, changes in differences(tensors):
        terms = [np.where(kept[place], change, 0.0) for change in changes]
        change, share = np.zeros(len(base)), np.zeros(len(base))
        for term, agrees, weight in zip(terms, elected(terms), weights, strict=True):
            change += np.where(agrees, weight * term, 0.0)
            share += np.where(agrees, weight, 0.0)
        result[place] = base + change / np.where(share > 0, share, 1.0)
    tensors.emit(result)


def _selected(tensors: Tensors, part: float) -> Flags:
    """The elements of the largest variance over the models: of those that vary at all, this part."""
    if part >= 1:
        return np.ones(tensors.size, np.bool_)
    variance = np.empty(tensors.size)
    for place, _, changes in differences(tensors):
        variance[place] = np.var(changes, axis=0)
    return largest(variance, int(part * np.count_nonzero(variance)))


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
