"""Take over only those of the other model's changes that stand out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from modelyard.merging.blocks import Floats
from modelyard.merging.method import Base, MergeMethod
from modelyard.merging.selection import select_in
from modelyard.merging.tensors import Tensors

#: Quartiles that the bound is made of, and how many interquartile ranges it lies above the median.
_QUARTILES = (0.25, 0.5, 0.75)
_RANGES = 1.5


def arcee_fusion(tensors: Tensors) -> None:
    """b + d where an element's importance reaches the median and 1.5 interquartile ranges.

    Importance is |d| times the divergence KL(softmax x || softmax b) of the element's row, the last
    axis. The quartiles are the lower order statistics of all elements of the tensor.
    """
    row = max(tensors.shape[-1] if tensors.shape else 1, 1)
    bound = _bound(lambda: (importance for _, _, importance in _passed(tensors, row)), tensors.size)
    for base, model, importance in _passed(tensors, row):
        tensors.emit_next(np.where(importance >= bound, model, base))


def _passed(tensors: Tensors, row: int) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Of whole rows, about a block at a time: the base, the model, and the elements' importance."""
    tensors.need_base()
    for _, (model, base) in tensors.blocks(row):
        yield base, model, _importance(model.reshape(-1, row), base.reshape(-1, row))


def _importance(x: Floats, b: Floats) -> Floats:
    log_p, log_q = _log_softmax(x), _log_softmax(b)
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1, keepdims=True)
    importance: Floats = (np.abs(x - b) * np.maximum(divergence, 0.0)).reshape(-1)  # below 0 by rounding only
    return importance


def _log_softmax(x: Floats) -> Floats:
    shifted = x - x.max(axis=-1, keepdims=True)
    logarithms: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logarithms


def _bound(importances: Callable[[], Iterator[Floats]], size: int) -> float:
    places = [math.floor(f * (size - 1)) for f in _QUARTILES]
    if size == 0:
        return 0.0
    if places[0] == 0:  # a handful
        low, middle, high = np.sort(np.concatenate(list(importances())))[places]
    else:
        bounds = select_in(importances, [size - place for place in places], size=size)
        low, middle, high = (bound.value for bound in bounds)
    return float(middle + _RANGES * (high - low))


ARCEE_FUSION = MergeMethod(
    name="arcee_fusion",
    merge=arcee_fusion,
    formula="b + m d; m keeps |d| KL(softmax x || softmax b) >= q(1/2) + 1.5 (q(3/4) - q(1/4))",
    paper="Arcee AI, the method of this name in mergekit",
    base=Base.REQUIRED,
    most=1,
)
