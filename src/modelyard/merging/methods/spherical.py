"""Means and interpolations on the sphere: directions are averaged, and lengths apart from them.

Every result is a linear combination of the inputs, so all arithmetic but one sum is done on the
inputs' inner products: a pass for these, a pass for the sum. With a base, the vectors are the
differences to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from modelyard.merging.blocks import Floats
from modelyard.merging.method import Base, Kind, MergeMethod, Parameter
from modelyard.merging.methods.parameters import TINY, WEIGHT, divisible
from modelyard.merging.methods.slerp import TINY_NORM
from modelyard.merging.tensors import Mask, Tensors

#: Vectors whose angle has a smaller sine are interpolated on the line.
_STRAIGHT = 1e-7
#: A sum of two weights below this is halved between them.
_TINY_WEIGHTS = 1e-6
#: A squared length below this part of what the terms could have is looked at element by element:
#: of inner products, too many digits have cancelled.
_CANCELLED = 1e-4


def nuslerp(tensors: Tensors) -> None:
    """Spherical interpolation with t = w_2/(w_1 + w_2), of whole tensors or vector by vector."""
    first, second = tensors.numbers("weight")
    total = float(first + second)
    t = 0.5 if abs(total) < _TINY_WEIGHTS else float(second) / total
    if not tensors.flag("nuslerp_flatten") and len(tensors.shape) > 1:
        _by_vectors(tensors, t)
        return
    gram = tensors.gram(relative=tensors.has_base)
    a, c = _arc(np.array([gram[0, 0], gram[1, 1], gram[0, 1]]), t)
    _emit_sum(tensors, np.array([float(a), float(c)]))


def multislerp(tensors: Tensors) -> None:
    """The weighted mean direction, times the weighted mean length.

    The mean direction is that of s = sum w_i x_i/(|x_i| + eps). Goddard goes on from there by the
    weighted sum of tangents, but at this point of the sphere that is zero. Directions that cancel
    have no mean: then the result is the weighted sum.
    """
    weights, eps = _shares(tensors), tensors.number("eps")
    if tensors.count == 1:
        _emit_sum(tensors, np.ones(1))
        return
    gram = tensors.gram(relative=tensors.has_base)
    norms = np.sqrt(np.diag(gram))
    lengths = norms + eps
    directions = weights / np.where(lengths > 0, lengths, 1.0)
    length = _length(tensors, directions, gram)
    if length <= eps:
        _emit_sum(tensors, weights)
    else:
        _emit_sum(tensors, directions * (float(weights @ norms) / length))


def karcher(tensors: Tensors) -> None:
    """The mean on the sphere of the tensors' directions, times their mean length.

    Tensors without length have no direction and count in the mean length alone. The iteration begins
    at the normalised mean, or at the first direction where all of them cancel.
    """
    if tensors.count == 1:
        tensors.weighted_sum([1.0])
        return
    gram = tensors.gram()
    norms = np.sqrt(np.diag(gram))
    lengths = np.where(norms > 0, norms, 1.0)
    some = (norms > 0).astype(np.float64)
    count = some.sum()
    if count == 0:
        tensors.weighted_sum(np.zeros(tensors.count))
        return
    start = some / count
    length = _length(tensors, start / lengths, gram)
    start = start / length if length > TINY else np.eye(tensors.count)[int(some.argmax())]
    cosines = gram / np.outer(lengths, lengths)
    steps, tolerance = int(tensors.number("max_iter")), tensors.number("tol")
    mean = _karcher_mean(cosines, some, start, steps=steps, tolerance=tolerance)
    tensors.weighted_sum(mean / lengths * norms.mean())


def _karcher_mean(cosines: Floats, some: Floats, mean: Floats, *, steps: int, tolerance: float) -> Floats:
    """Coefficients of the mean in the directions; `some` is 1 for those that take part."""
    for _ in range(steps):
        angles = np.arccos(np.clip(cosines @ mean, -1.0, 1.0))
        sines = np.sin(angles)
        factors = np.where(sines < _STRAIGHT, 0.0, angles / np.where(sines < _STRAIGHT, 1.0, sines))
        factors = factors * some / some.sum()
        tangent = factors - float(factors @ np.cos(angles)) * mean
        length = _root(float(tangent @ cosines @ tangent))
        if not length >= tolerance:
            break
        mean = mean * np.cos(length) + tangent * (np.sin(length) / length if length > 0 else 1.0)
        mean = mean / _root(float(mean @ cosines @ mean))
    return mean


def _shares(tensors: Tensors) -> Floats:
    """The weights, divided by their sum where that is wanted."""
    weights = tensors.numbers("weight")
    if not tensors.flag("normalize_weights") or tensors.count == 1:
        return weights
    return weights / float(weights.sum())


def _length(tensors: Tensors, coefficients: Floats, gram: Floats) -> float:
    """The length of a linear combination of the vectors; exact also where they nearly cancel."""
    square = float(coefficients @ gram @ coefficients)
    whole = float(np.abs(coefficients) @ np.sqrt(np.diag(gram)))
    if not square < _CANCELLED * whole**2:
        return _root(square)
    return _root(sum(float(np.square(coefficients @ vectors).sum()) for _, vectors in _vectors(tensors)))


def _vectors(tensors: Tensors, row: int = 1) -> Iterator[tuple[Floats | float, Floats]]:
    """Block after block of whole rows: the base there, or 0.0, and the models' vectors, [M, elements]."""
    for _, parts in tensors.blocks(row):
        base = parts.pop() if tensors.has_base else 0.0
        yield base, np.array(parts) - base


def _root(square: float) -> float:
    return float(np.sqrt(np.maximum(square, 0.0)))


def _emit_sum(tensors: Tensors, coefficients: Floats) -> None:
    """The linear combination of the vectors; with a base, added to it."""
    if tensors.has_base:
        tensors.combine([Mask()] * tensors.count, weights=coefficients)
    else:
        tensors.weighted_sum(coefficients)


def _arc(products: Floats, t: float) -> tuple[Floats, Floats]:
    """The factors of a and c at t, from their squared norms and inner products, [3, ...]."""
    square_a, square_c, product = products
    norm_a, norm_c = np.sqrt(square_a), np.sqrt(square_c)
    below = np.where(norm_a > TINY_NORM, norm_a, 1.0) * np.where(norm_c > TINY_NORM, norm_c, 1.0)
    theta = np.arccos(np.clip(product / below, -1.0, 1.0))
    sine = np.sin(theta)
    straight = sine < _STRAIGHT
    divisor = np.where(straight, 1.0, sine)
    return (
        np.where(straight, 1.0 - t, np.sin((1.0 - t) * theta) / divisor),
        np.where(straight, t, np.sin(t * theta) / divisor),
    )


def _by_vectors(tensors: Tensors, t: float) -> None:
    """Interpolate each vector along the last axis, or the first, by itself."""
    if not tensors.flag("nuslerp_row_wise"):
        row = max(tensors.shape[-1], 1)
        for base, vectors in _vectors(tensors, row):
            a, c = vectors.reshape(2, -1, row)
            factor_a, factor_c = _arc(_products(a, c, "ri,ri->r"), t)
            tensors.emit_next(base + (factor_a[:, None] * a + factor_c[:, None] * c).reshape(-1))
        return
    row = max(math.prod(tensors.shape[1:]), 1)
    sums = np.zeros((3, row))
    for _, vectors in _vectors(tensors, row):
        a, c = vectors.reshape(2, -1, row)
        sums += _products(a, c, "ir,ir->r")
    factor_a, factor_c = _arc(sums, t)
    for base, vectors in _vectors(tensors, row):
        a, c = vectors.reshape(2, -1, row)
        tensors.emit_next(base + (factor_a * a + factor_c * c).reshape(-1))


def _products(a: Floats, c: Floats, which: str) -> Floats:
    """Inner products of a with itself, of c with itself, of both; [3, vectors]."""
    return np.array([np.einsum(which, x, y) for x, y in ((a, a), (c, c), (a, c))])


_EPS = Parameter(
    name="eps",
    help="Added to a tensor's length before it is divided by; a mean direction shorter than it is none.",
    default=1e-8,
    low=0.0,
)

NUSLERP = MergeMethod(
    name="nuslerp",
    merge=nuslerp,
    formula="sin((1-t)θ)/sin(θ) x_1 + sin(tθ)/sin(θ) x_2, t = w_2/(w_1 + w_2); of task vectors with a base",
    paper="Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985",
    base=Base.OPTIONAL,
    least=2,
    most=2,
    parameters=(
        WEIGHT,
        Parameter(
            name="nuslerp_flatten",
            help="Interpolate the tensor as one vector.",
            kind=Kind.FLAG,
            default=True,
        ),
        Parameter(
            name="nuslerp_row_wise",
            help="Not flattened: vectors along the first axis instead of the last.",
            kind=Kind.FLAG,
            default=False,
        ),
    ),
)

MULTISLERP = MergeMethod(
    name="multislerp",
    merge=multislerp,
    formula="s/|s| sum_i w_i |x_i|, s = sum_i w_i x_i/(|x_i| + ε); of task vectors with a base",
    paper="Goddard, Extending slerp to many models by a barycentre on the sphere (in mergekit)",
    base=Base.OPTIONAL,
    parameters=(
        WEIGHT,
        Parameter(
            name="normalize_weights",
            help="Divide the weights by their sum.",
            kind=Kind.FLAG,
            default=True,
        ),
        _EPS,
    ),
    check=lambda values: divisible(values, "normalize_weights") if len(values.each) > 1 else None,
)

KARCHER = MergeMethod(
    name="karcher",
    merge=karcher,
    formula="m mean(|x_i|); m has the least sum of squared angles to all x_i",
    paper="Karcher, Riemannian center of mass and mollifier smoothing, CPAM 1977",
    parameters=(
        Parameter(name="max_iter", help="Most steps of the iteration.", kind=Kind.INTEGER, default=10, low=0),
        Parameter(name="tol", help="A step shorter than this, in radians, ends it.", default=1e-5, low=0.0),
    ),
)
