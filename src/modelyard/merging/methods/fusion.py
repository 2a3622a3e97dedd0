"""Take over only those of the other model's changes that stand out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from modelyard.merging.blocks import BLOCK, Floats
from modelyard.merging.method import Base, MergeMethod
from modelyard.merging.tensors import Tensors

#: Quartiles that the bound is made of, and how many interquartile ranges it lies above the median.
_QUARTILES = (0.25, 0.5, 0.75)
_RANGES = 1.5


def arcee_fusion(tensors: Tensors) -> None:
    """b + d where an element's importance reaches the median and 1.5 interquartile ranges.

    Importance is |d| times the divergence KL(softmax x || softmax b) of the element's row, the last
    axis. The quartiles are the lower order statistics of all elements of the tensor.
    """
    row = tensors.shape[-1] if tensors.shape else 1
    base, model = tensors.base().reshape(-1), tensors.array(0).reshape(-1)
    importance = np.empty(tensors.size)
    for place in _row_groups(tensors.size, row):
        importance[place] = _importance(model[place].reshape(-1, row), base[place].reshape(-1, row))
    if tensors.size:
        kept = importance >= _bound(importance)
        importance[:] = np.where(kept, model, base)
    tensors.emit(importance)


def _row_groups(size: int, row: int) -> Iterator[slice]:
    """Places of whole rows, about a block at a time."""
    step = max(1, BLOCK // max(row, 1)) * row
    for begin in range(0, size, step or 1):
        yield slice(begin, min(begin + step, size))


def _importance(x: Floats, b: Floats) -> Floats:
    log_p, log_q = _log_softmax(x), _log_softmax(b)
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1, keepdims=True)
    importance: Floats = (np.abs(x - b) * divergence).reshape(-1)
    return importance


def _log_softmax(x: Floats) -> Floats:
    shifted = x - x.max(axis=-1, keepdims=True)
    logarithms: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logarithms


def _bound(importance: Floats) -> float:
    places = [math.floor(f * (importance.size - 1)) for f in _QUARTILES]
    low, middle, high = np.partition(importance, places)[places]
    return float(middle + _RANGES * (high - low))


ARCEE_FUSION = MergeMethod(
    name="arcee_fusion",
    merge=arcee_fusion,
    formula="b + m d; m keeps |d| KL(softmax x || softmax b) >= q(1/2) + 1.5 (q(3/4) - q(1/4))",
    paper="Arcee AI, the method of this name in mergekit",
    base=Base.REQUIRED,
    most=1,
)
