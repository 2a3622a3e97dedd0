"""Domains: the values that a parameter may have, and how they lie along dimensions.

Every domain turns coordinates into a JSON value and back: `value(coordinates(v)) == v` for each of its
values, both ends of a range among them, and `coordinates` raises `ValueError` with the reason for
anything else. Coordinates beyond a range count as its end, so that rounding in an optimiser never leaves
it. Which of them belongs to which parameter, and relations between parameters, are the space's.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
from dataclasses import dataclass
from typing import Any

from modelyard.tuning.dimensions import Coordinate, Dimension, Point
from modelyard.tuning.spaces.scalars import Ordered, Range, number_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """JSON values without an order."""

    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        _check_options(self.options)

    def dimensions(self, name: str) -> tuple[Dimension, ...]:
        """One axis of choices."""
        return (Dimension(name=name, kind="choice", choices=tuple(map(json_text, self.options))),)

    def value(self, name: str, point: Point) -> Any:
        """The option whose JSON text the coordinate is."""
        for option in self.options:
            if json_text(option) == point[name]:
                return json.loads(json_text(option))  # the caller's own: options may be lists
        raise ValueError(f"{point[name]} is not one of {_listed(self.options)}")

    def coordinates(self, name: str, value: object) -> dict[str, Coordinate]:
        """The JSON text of the option."""
        return {name: json_text(self.options[_place(self.options, value)])}

    def middle(self) -> Any:
        """The first option."""
        return self.options[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """JSON values of unequal likelihood: each has a share of the axis from 0 to 1."""

    options: tuple[Any, ...]
    # Above 0; they need not add up to 1.
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_options(self.options)
        if len(self.weights) != len(self.options):
            raise ValueError(f"has {len(self.options)} options and {len(self.weights)} weights")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise ValueError("weights must be above 0 and finite; leave an option out that has none")

    def dimensions(self, name: str) -> tuple[Dimension, ...]:
        """One axis from 0 to 1."""
        return (Dimension(name=name, kind="float", low=0.0, high=1.0),)

    def value(self, name: str, point: Point) -> Any:
        """The option in whose share the coordinate lies."""
        index = bisect.bisect_right(self._ends(), number_of(point[name]))
        return json.loads(json_text(self.options[min(index, len(self.options) - 1)]))

    def coordinates(self, name: str, value: object) -> dict[str, Coordinate]:
        """The middle of the option's share."""
        place = _place(self.options, value)
        ends = (0.0, *self._ends(), 1.0)
        return {name: (ends[place] + ends[place + 1]) / 2}

    def middle(self) -> Any:
        """The likeliest option."""
        return self.options[self.weights.index(max(self.weights))]

    def covers(self, coordinate: Coordinate) -> bool:
        """Whether the coordinate lies on the axis."""
        return not isinstance(coordinate, str) and 0 <= coordinate <= 1

    def _ends(self) -> list[float]:
        total = math.fsum(self.weights)
        return [part / total for part in itertools.accumulate(self.weights)][:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """Lists of one length, each element with values of its own."""

    items: tuple[Range | Ordered | Choices | Weighted, ...]
    # Whether the list is in rising order; the coordinates may lie in any.
    rising: bool = False

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("a list needs at least one element")

    def dimensions(self, name: str) -> tuple[Dimension, ...]:
        """The axes of the elements, `name[0]` and so on."""
        return tuple(d for i, item in enumerate(self.items) for d in item.dimensions(f"{name}[{i}]"))

    def value(self, name: str, point: Point) -> Any:
        """The list."""
        values = [item.value(f"{name}[{i}]", point) for i, item in enumerate(self.items)]
        return sorted(values) if self.rising else values

    def coordinates(self, name: str, value: object) -> dict[str, Coordinate]:
        """The coordinates of the elements."""
        if not isinstance(value, list | tuple) or len(value) != len(self.items):
            raise ValueError(f"{json_text(value)} is not a list of {len(self.items)}")
        if self.rising and list(value) != sorted(value):
            raise ValueError(f"{json_text(value)} is not in rising order")
        pairs = enumerate(zip(self.items, value, strict=True))
        return {n: c for i, (item, v) in pairs for n, c in item.coordinates(f"{name}[{i}]", v).items()}

    def middle(self) -> Any:
        """The middle of each element."""
        values = [item.middle() for item in self.items]
        return sorted(values) if self.rising else values


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Lists of some of the options, in the order of the options: an axis of no and yes for each."""

    options: tuple[Any, ...]
    # Whether none of them is possible too.
    empty: bool = False

    def __post_init__(self) -> None:
        _check_options(self.options)

    def dimensions(self, name: str) -> tuple[Dimension, ...]:
        """One axis for each option, `name[option]`."""
        answers = (json_text(False), json_text(True))
        return tuple(Dimension(name=axis, kind="choice", choices=answers) for axis in self._axes(name))

    def value(self, name: str, point: Point) -> Any:
        """The options that are in."""
        answers = [point[axis] == json_text(True) for axis in self._axes(name)]
        return json.loads(json_text([o for o, chosen in zip(self.options, answers, strict=True) if chosen]))

    def coordinates(self, name: str, value: object) -> dict[str, Coordinate]:
        """Yes for the options of the list. Null is the empty list."""
        given = [] if value is None else value
        if not isinstance(given, list | tuple):
            raise ValueError(f"{json_text(value)} is not a list")
        if not given and not self.empty:
            raise ValueError(f"is empty; take at least one of {_listed(self.options)}")
        places = {_place(self.options, item) for item in given}
        return {axis: json_text(i in places) for i, axis in enumerate(self._axes(name))}

    def middle(self) -> Any:
        """All of them, or none where that is possible."""
        return [] if self.empty else list(self.options)

    def _axes(self, name: str) -> list[str]:
        return [f"{name}[{o if isinstance(o, str) else json_text(o)}]" for o in self.options]


Domain = Range | Ordered | Choices | Weighted | Vector | Subset


def json_text(value: object) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)


def same(one: object, other: object) -> bool:
    """Whether two JSON values are equal; true is not 1, but 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def _check_options(options: tuple[Any, ...]) -> None:
    if not options:
        raise ValueError("needs at least one option")
    texts = [json_text(option) for option in options]
    if len(set(texts)) != len(texts):
        raise ValueError(f"has an option twice: {_listed(options)}")


def _place(options: tuple[Any, ...], value: object) -> int:
    for place, option in enumerate(options):
        if type(option) is type(value) and option == value:
            return place
    for place, option in enumerate(options):
        if same(option, value):
            return place
    raise ValueError(f"{value!r} is not one of {_listed(options)}")


def _listed(options: tuple[Any, ...]) -> str:
    return ", ".join(json_text(option) for option in options)
