"""Parameters that several methods have."""

from __future__ import annotations

from modelyard.merging.method import Complaint, Kind, Parameter
from modelyard.merging.tensors import Values

WEIGHT = Parameter(name="weight", help="How much a model counts.", per_model=True)
LAMBDA = Parameter(name="lambda", help="Factor of the whole change to the base.", default=1.0)
DENSITY = Parameter(
    name="density",
    help="The share of differences that is kept.",
    default=1.0,
    low=0.0,
    high=1.0,
    per_model=True,
)
#: A sum of weights below this divides nothing.
TINY = 1e-8
#: Accepted from mergekit's files.
INT8_MASK = {"int8_mask": "masks take no memory here"}


def normalize(*, default: bool) -> Parameter:
    """`normalize` with its default in a method."""
    told = "Divide by the sum of the weights that took part."
    return Parameter(name="normalize", help=told, kind=Kind.FLAG, default=default)


def rescale(*, default: bool) -> Parameter:
    """`rescale` with its default in a method."""
    told = "Make up in size for the differences that are dropped."
    return Parameter(name="rescale", help=told, kind=Kind.FLAG, default=default)


def divisible(values: Values, flag: str) -> Complaint | None:
    """Weights that are to be divided by their sum must not add up to nothing."""
    weights = [float(each["weight"]) for each in values.each]
    if not values.common[flag] or abs(sum(weights)) >= TINY:
        return None
    problem = f"add up to {sum(weights):g}, which cannot be divided by"
    return Complaint(parameter="weight", value=weights, problem=problem, remedy=f"set {flag}: false")
