"""The linear layer whose outputs are nearest to those of all models on their own data."""

from __future__ import annotations

import numpy as np

from modelyard.core.errors import MergeError
from modelyard.merging.blocks import Floats
from modelyard.merging.method import Kind, MergeMethod, Parameter
from modelyard.merging.tensors import Tensors, Values

#: How far two halves of inner products may differ, as a part of the largest: float32 sums do.
_EVEN = 1e-4


def regmean(tensors: Tensors) -> None:
    """(sum W_i G_i)(sum G_i)^-1 of weights [out, in]; the mean where no G_i = X_i^T X_i [in, in] is given.

    Entries of G_i off the diagonal count `alpha`. A singular sum is inverted in its range.
    """
    grams = [tensors.side(j) for j in range(tensors.count)]
    for j, gram in enumerate(grams):
        if gram is not None and np.abs(gram - gram.T).max(initial=0) > _EVEN * np.abs(gram).max(initial=0):
            raise MergeError(
                f"{tensors.name}: the inner products of model {j + 1} are not symmetric; compute X^T X anew"
            )
    given = [_shrunk(gram, tensors.number("alpha")) for gram in grams if gram is not None]
    if not given:
        tensors.weighted_sum(np.full(tensors.count, 1.0 / tensors.count))
        return
    turned = tensors.flag("transposed")
    right = np.zeros(tensors.shape[::-1] if turned else tensors.shape)
    for j, gram in enumerate(given):
        weight = tensors.array(j)
        right += (weight.T if turned else weight) @ gram
    merged = right @ np.linalg.pinv(np.sum(given, axis=0), hermitian=True)
    tensors.emit(merged.T if turned else merged)


def _shrunk(gram: Floats, alpha: float) -> Floats:
    diagonal = np.diagonal(gram).copy()
    shrunk = alpha * gram
    np.fill_diagonal(shrunk, diagonal)
    return shrunk


def _gram_shape(shape: tuple[int, ...], values: Values) -> tuple[int, ...] | None:
    """[in, in] beside a matrix, [out, in] or, of a Conv1D, [in, out]."""
    if len(shape) != 2:
        return None
    inputs = shape[0] if values.common["transposed"] else shape[1]
    return (inputs, inputs)


REGMEAN = MergeMethod(
    name="regmean",
    merge=regmean,
    formula="(sum_i W_i G_i)(sum_i G_i)^-1, G_i = X_i^T X_i of the layer's inputs; else the mean",
    paper="Jin et al., Dataless knowledge fusion by merging weights, ICLR 2023 (arXiv 2212.09849)",
    parameters=(
        Parameter(
            name="grams",
            help="A safetensors file with X^T X [in, in] of a layer's inputs under the name of its weight.",
            kind=Kind.FILE,
            per_model=True,
        ),
        Parameter(
            name="alpha",
            help="Factor of the entries off the diagonal; below 1 it keeps the sum from being singular.",
            default=0.9,
            low=0.0,
            high=1.0,
        ),
        Parameter(
            name="transposed",
            help="Weights are stored [in, out], as GPT-2 stores those of its layers.",
            kind=Kind.FLAG,
            default=False,
        ),
    ),
    side_shape=_gram_shape,
)
