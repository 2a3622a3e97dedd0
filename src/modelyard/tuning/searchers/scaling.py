"""Dimensions as optimisers of numbers see them: each coordinate a place between 0 and 1.

The place of a coordinate is where it stands between the ends of its dimension, by ratio where the
dimension is logarithmic. Choices have no place: they are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from modelyard.tuning.dimensions import Coordinate, Dimension, Point


def size(dimension: Dimension) -> int | None:
    """How many coordinates a dimension has; None for as many as there are floats."""
    if dimension.kind == "choice":
        return len(dimension.choices)
    if dimension.low == dimension.high:
        return 1
    step = _step(dimension)
    if step is None:
        return None
    return int((Decimal(str(dimension.high)) - Decimal(str(dimension.low))) // Decimal(str(step))) + 1


def coordinate(dimension: Dimension, index: int) -> Coordinate:
    """The coordinate with this index, of a dimension that has a size."""
    if dimension.kind == "choice":
        return dimension.choices[index]
    if dimension.kind == "int":
        return int(dimension.low) + index * int(dimension.step or 1)
    # In decimals, so that three steps of 0.1 from 0 are 0.3.
    return float(Decimal(str(dimension.low)) + index * Decimal(str(_step(dimension) or 0)))


def settled(dimension: Dimension, value: Coordinate) -> Coordinate:
    """A coordinate as it is written: steps of 0.1 are not 0.30000000000000004."""
    count, step = size(dimension), _step(dimension)
    if count is None or step is None or not isinstance(value, int | float):
        return value
    index = round((value - dimension.low) / step)
    return coordinate(dimension, min(count - 1, max(0, index)))


def fixed(dimensions: Iterable[Dimension]) -> dict[str, Coordinate]:
    """The coordinates of the dimensions that have but one."""
    return {each.name: coordinate(each, 0) for each in dimensions if size(each) == 1}


def place(dimension: Dimension, value: Coordinate) -> float:
    """Where a number stands in its dimension, from 0 to 1."""
    low, high, at = dimension.low, dimension.high, float(value)
    if low == high:
        return 0.0
    if dimension.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return min(1.0, max(0.0, (at - low) / (high - low)))


def nearest(dimension: Dimension, at: float) -> Coordinate:
    """The coordinate of a numeric dimension that stands nearest to a place from 0 to 1."""
    low, high = dimension.low, dimension.high
    share = min(1.0, max(0.0, at))
    if dimension.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low + share * (high - low)
    value = min(high, max(low, value))
    count, step = size(dimension), _step(dimension)
    if count is None or step is None:
        return float(low if count == 1 else value)
    below = min(count - 1, max(0, int((value - low) / step)))
    near = (coordinate(dimension, below), coordinate(dimension, min(count - 1, below + 1)))
    return min(near, key=lambda one: abs(place(dimension, one) - share))


def at_place(dimension: Dimension, at: float) -> Coordinate:
    """The coordinate nearest to a place from 0 to 1, or of a choice to its index."""
    return coordinate(dimension, round(at)) if dimension.kind == "choice" else nearest(dimension, at)


def even(dimension: Dimension, at: float) -> Coordinate:
    """The coordinate for a place that was drawn evenly: each of a dimension with a size is as likely.

    A logarithmic integer gets the place's nearest instead, so that ratios are drawn evenly.
    """
    count = size(dimension)
    if count is None or (dimension.log and count > 1):
        return nearest(dimension, at)
    return coordinate(dimension, min(count - 1, int(at * count)))


def inside(dimensions: Sequence[Dimension], point: Mapping[str, object]) -> bool:
    """Whether a point has a coordinate within each of the dimensions."""
    return all(_holds(each, point.get(each.name)) for each in dimensions)


def sobol_point(dimensions: Sequence[Dimension], *, seed: int, index: int) -> Point:
    """The point with this index of a scrambled Sobol sequence over the dimensions."""
    from scipy.stats import qmc

    sequence = qmc.Sobol(len(dimensions), scramble=True, rng=seed)
    if index:
        sequence.fast_forward(index)
    drawn = sequence.random(1)[0]
    return {each.name: even(each, float(at)) for each, at in zip(dimensions, drawn, strict=True)}


def _step(dimension: Dimension) -> float | None:
    return dimension.step or 1 if dimension.kind == "int" else dimension.step


def _holds(dimension: Dimension, value: object) -> bool:
    if dimension.kind == "choice":
        return value in dimension.choices
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and dimension.low <= value <= dimension.high
    )
