"""Weighted average; and one model's tensors, scaled."""

from __future__ import annotations

from modelyard.core.errors import MergeError
from modelyard.merging.method import MergeMethod, Parameter
from modelyard.merging.methods.parameters import WEIGHT, normalize
from modelyard.merging.tensors import Tensors

#: A sum of weights below this divides nothing.
_TINY = 1e-8


def linear(tensors: Tensors) -> None:
    """sum w_i x_i, divided by sum w_i where weights are normalised."""
    weights = tensors.numbers("weight")
    if tensors.flag("normalize"):
        total = float(weights.sum())
        if abs(total) < _TINY:
            raise MergeError(
                f"{tensors.name}: the weights add up to {total:g}, which cannot be divided by; "
                "set normalize: false"
            )
        weights = weights / total
    tensors.weighted_sum(weights)


def passthrough(tensors: Tensors) -> None:
    """scale * x."""
    tensors.weighted_sum(tensors.numbers("scale"))


LINEAR = MergeMethod(
    name="linear",
    merge=linear,
    formula="sum_i w_i x_i / sum_i w_i",
    paper="Wortsman et al., Model soups, ICML 2022 (arXiv 2203.05482)",
    parameters=(WEIGHT, normalize(default=True)),
)

PASSTHROUGH = MergeMethod(
    name="passthrough",
    merge=passthrough,
    formula="scale * x",
    most=1,
    parameters=(Parameter(name="scale", help="Factor of the tensor.", default=1.0, per_model=True),),
)
