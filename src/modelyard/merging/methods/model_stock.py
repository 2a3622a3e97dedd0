"""Towards the average of fine-tuned models as far as the angle between them says."""

from __future__ import annotations

import itertools

import numpy as np

from modelyard.merging.blocks import Floats
from modelyard.merging.method import Base, Kind, MergeMethod, Parameter
from modelyard.merging.methods.elementwise import differences
from modelyard.merging.tensors import Mask, Tensors

#: A denominator below this divides nothing.
_TINY = 1e-6


def model_stock(tensors: Tensors) -> None:
    """t mean(x_i) + (1-t) b with t = N c/(1 + (N-1) c); c is the mean cosine of two task vectors."""
    if tensors.flag("filter_wise") and len(tensors.shape) > 1:
        _by_filter(tensors)
        return
    gram, n = tensors.gram(relative=True), tensors.count
    t = float(_ratio(gram[:, :, None])[0])
    tensors.combine([Mask()] * n, weights=np.full(n, t / n))


def _by_filter(tensors: Tensors) -> None:
    """The same for each vector along the last axis by itself."""
    n, row = tensors.count, tensors.shape[-1]
    for _, base, flat in differences(tensors, row):
        changes = [change.reshape(-1, row) for change in flat]
        gram = np.array([[np.einsum("ri,ri->r", a, c) for c in changes] for a in changes])
        mean: Floats = sum(changes[1:], changes[0]) / n
        tensors.emit_next(base.reshape(-1, row) + _ratio(gram)[..., None] * mean)


def _ratio(gram: Floats) -> Floats:
    """t of inner products [N, N, ...]; a difference without length has cosine 0 with any."""
    n = len(gram)
    norms = np.sqrt([gram[i, i] for i in range(n)])
    pairs = list(itertools.combinations(range(n), 2))
    cosines = np.zeros(gram.shape[2:])
    for i, j in pairs:
        product = norms[i] * norms[j]
        cosines += gram[i, j] / np.where(product > 0, product, 1.0)
    mean = cosines / len(pairs)
    below = 1.0 + (n - 1) * mean
    ratio: Floats = np.where(np.abs(below) < _TINY, 0.0, n * mean / np.where(below == 0, 1.0, below))
    return ratio


MODEL_STOCK = MergeMethod(
    name="model_stock",
    merge=model_stock,
    formula="t mean(x_i) + (1-t) b, t = N c/(1 + (N-1) c), c the mean cosine of pairs of task vectors",
    paper="Jang et al., Model Stock, ECCV 2024 (arXiv 2403.19522)",
    base=Base.REQUIRED,
    least=2,
    parameters=(
        Parameter(
            name="filter_wise",
            help="A t of its own for each vector along the last axis.",
            kind=Kind.FLAG,
            default=False,
        ),
    ),
)
