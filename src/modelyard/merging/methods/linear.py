"""Weighted average; and one model's tensors, scaled."""

from __future__ import annotations

from modelyard.merging.method import MergeMethod, Parameter
from modelyard.merging.methods.parameters import WEIGHT, divisible, normalize
from modelyard.merging.tensors import Tensors


def linear(tensors: Tensors) -> None:
    """sum w_i x_i, divided by sum w_i where weights are normalised."""
    weights = tensors.numbers("weight")
    if tensors.flag("normalize"):
        weights = weights / float(weights.sum())
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
    check=lambda values: divisible(values, "normalize"),
)

PASSTHROUGH = MergeMethod(
    name="passthrough",
    merge=passthrough,
    formula="scale * x",
    most=1,
    parameters=(Parameter(name="scale", help="Factor of the tensor.", default=1.0, per_model=True),),
)
