"""Average each element over the models that changed it.

Fine-tuning by reinforcement changes few elements, and different ones in different models: to average
over all models would shrink every change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelyard.merging.blocks import Floats
from modelyard.merging.method import Base, MergeMethod, Parameter
from modelyard.merging.methods.elementwise import differences
from modelyard.merging.tensors import Tensors


def ram(tensors: Tensors) -> None:
    """b + the mean of the differences of those models that changed an element."""
    _merge(tensors, np.ones(tensors.count))


def ramplus_tl(tensors: Tensors) -> None:
    """`ram`, where changes that only one model made are enlarged by how much it shares with others.

    The factor is 1 + r clip(shared/unique, 0, alpha), of the numbers of elements of this tensor that
    the model changed with others and alone.
    """
    epsilon = tensors.number("epsilon")
    shared, unique = np.zeros(tensors.count), np.zeros(tensors.count)
    for _, _, changes in differences(tensors):
        changed = np.abs(changes) > epsilon
        alone = changed.sum(axis=0) == 1
        unique += (changed & alone).sum(axis=1)
        shared += (changed & ~alone).sum(axis=1)
    ratio = np.where(unique > 0, shared / np.maximum(unique, 1.0), 0.0)
    _merge(tensors, 1.0 + tensors.number("r") * np.clip(ratio, 0.0, tensors.number("alpha")))


def _merge(tensors: Tensors, factors: Floats) -> None:
    epsilon = tensors.number("epsilon")
    for _, base, changes in differences(tensors):
        tensors.emit_next(base + _mean_change(changes, factors, epsilon))


def _mean_change(changes: Sequence[Floats], factors: Floats, epsilon: float) -> Floats:
    """The mean over those who changed an element; times its factor where that is a single model."""
    changed = np.abs(changes) > epsilon
    count = changed.sum(axis=0)
    kept = np.where(changed, changes, 0.0)
    alone = np.sum(factors[:, None] * kept, axis=0)
    mean: Floats = np.where(count == 1, alone, kept.sum(axis=0) / np.maximum(count, 1))
    return mean


_EPSILON = Parameter(
    name="epsilon", help="A difference to the base counts as a change above this.", default=1e-5, low=0.0
)
_PAPER = "Reinforced Agent Merging, 2026 (arXiv 2601.13572)"

RAM = MergeMethod(
    name="ram",
    merge=ram,
    formula="b + sum_C d_i / |C|; C are the models with |d_i| > ε at an element",
    paper=_PAPER,
    base=Base.REQUIRED,
    parameters=(_EPSILON,),
)

RAMPLUS_TL = MergeMethod(
    name="ramplus_tl",
    merge=ramplus_tl,
    formula="as ram, but b + (1 + r clip(shared_i/unique_i, 0, α)) d_i where only model i changed an element",
    paper=_PAPER,
    base=Base.REQUIRED,
    parameters=(
        Parameter(name="r", help="How strongly what only one model changed is enlarged.", default=0.1),
        Parameter(
            name="alpha",
            help="The largest ratio of shared to unique changes that counts.",
            default=0.2,
            low=0.0,
        ),
        _EPSILON,
    ),
)
