"""Spherical interpolation from the base to one other model."""

from __future__ import annotations

import math

from modelyard.merging.method import Base, MergeMethod, Parameter
from modelyard.merging.tensors import Tensors

#: Vectors with a larger cosine are interpolated on the line.
STRAIGHT = 0.9995
#: A norm below this cannot be divided by.
TINY_NORM = 1e-8


def slerp(tensors: Tensors) -> None:
    """sin((1-t) theta)/sin(theta) b + sin(t theta)/sin(theta) x, over the flattened tensor."""
    tensors.need_base()
    gram = tensors.gram()
    t = tensors.number("t")
    x, b = slerp_coefficients(float(gram[0, 0]), float(gram[1, 1]), float(gram[0, 1]), t)
    tensors.weighted_sum([x], base=b)


def slerp_coefficients(square_x: float, square_b: float, product: float, t: float) -> tuple[float, float]:
    """The factors of x and b at t, from their squared norms and their inner product.

    A vector without length has no direction: its cosine counts as its inner product with the other's
    direction, which is 0.
    """
    norm_x, norm_b = math.sqrt(square_x), math.sqrt(square_b)
    divisor = (norm_x if norm_x > TINY_NORM else 1.0) * (norm_b if norm_b > TINY_NORM else 1.0)
    cosine = min(1.0, max(-1.0, product / divisor))
    if abs(cosine) > STRAIGHT:
        return t, 1.0 - t
    theta = math.acos(cosine)
    return math.sin(t * theta) / math.sin(theta), math.sin((1.0 - t) * theta) / math.sin(theta)


SLERP = MergeMethod(
    name="slerp",
    merge=slerp,
    formula="sin((1-t)θ)/sin(θ) b + sin(tθ)/sin(θ) x, θ their angle; a straight line where |cos θ| > 0.9995",
    paper="Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985",
    base=Base.REQUIRED,
    most=1,
    parameters=(Parameter(name="t", help="0 is the base, 1 the other model."),),
)
