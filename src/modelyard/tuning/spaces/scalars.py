"""Numbers that a parameter may have: a range with its scale and steps, or a rising list.

Both turn coordinates into values and back as every domain does (see `domains`), and can besides be
compared with other numbers, which relations between parameters need.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from modelyard.tuning.dimensions import Coordinate, Dimension, Point

#: How near to an open end a range of reals begins, as a part of its width; seen in single precision too.
_OPEN = 1e-6
_SINGLE = 2.0**-22
_LEAST = 2.0**-126
#: How far from a grid a number given by a user may lie, in steps.
_TOLERANCE = 1e-6
#: Words in the names of parameters whose ratios matter.
_SCALES = frozenset(
    {"lr", "learningrate", "decay", "wd", "eps", "epsilon", "temperature", "tau", "l1", "l2", "lambda", "reg"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both among them; of a grid that begins at `low`, if there is a step."""

    low: float
    high: float
    # Distance of neighbours; None: every real number, or every integer.
    step: float | None = None
    # Whether distances are ratios.
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("a range needs finite bounds")
        if self.low > self.high:
            raise ValueError(f"no value lies between {self.low:g} and {self.high:g}")
        if self.log and (self.low <= 0 or self.step not in (None, 1)):
            raise ValueError("a log scale needs a low end above 0, and no step")
        if self.integer and any(x is not None and x != int(x) for x in (self.low, self.high, self.step)):
            raise ValueError("a range of integers needs integers as its ends and its step")
        if self.step is not None and not self.step > 0:
            raise ValueError("a step must be above 0")
        if self._rung(self._last) != self.high and self.grid is not None:
            raise ValueError(
                f"{self.high:g} is not {self.low:g} and whole steps of {self.grid:g}; "
                f"the nearest end below it is {self._rung(self._last):g}"
            )

    @property
    def grid(self) -> float | None:
        """The distance of neighbours; None where there are none."""
        return self.step if self.step is not None else (1 if self.integer else None)

    @property
    def top(self) -> float:
        """The largest value."""
        return self.nearest(self.high)

    def dimensions(self, name: str) -> tuple[Dimension, ...]:
        """One axis of the values themselves."""
        step = None if self.integer and self.grid == 1 else self.step
        kind: Literal["float", "int"] = "int" if self.integer else "float"
        return (
            Dimension(
                name=name, kind=kind, low=self.nearest(self.low), high=self.top, step=step, log=self.log
            ),
        )

    def value(self, name: str, point: Point) -> Any:
        """The value next to the coordinate."""
        return self.nearest(number_of(point[name]))

    def coordinates(self, name: str, value: object) -> dict[str, Coordinate]:
        """The value as it is."""
        number = number_of(value)
        if not self.low <= number <= self.high:
            raise ValueError(f"{number:g} is not from {self.low:g} to {self.high:g}")
        near = self.nearest(number)
        if self.grid is not None and abs(near - number) > self.grid * _TOLERANCE:
            what = "an integer" if self.grid == 1 else f"{self.low:g} and whole steps of {self.grid:g}"
            raise ValueError(f"{number:g} is not {what}; {near:g} is")
        return {name: near}

    def middle(self) -> Any:
        """The value halfway on its scale."""
        return self.nearest(math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2)

    def nearest(self, number: float) -> float:
        """The value next to a number."""
        inside = min(max(number, self.low), self.high)
        if self.grid is None:
            return float(inside)
        return self._rung(round((inside - self.low) / self.grid))

    def up(self, number: float, *, strict: bool) -> float | None:
        """The least value that is at least `number`, or clearly more; None where there is none."""
        if number < self.low or (number == self.low and not strict):
            return self.nearest(self.low)
        if self.grid is None:
            wanted = number + _gap(number, self.high - self.low) if strict else number
            return float(wanted) if wanted <= self.high else None
        first = max(0, math.floor((number - self.low) / self.grid) - 1)
        rungs = (self._rung(k) for k in range(first, min(first + 4, self._last + 1)))
        return next((r for r in rungs if r > number or (r == number and not strict)), None)

    def down(self, number: float, *, strict: bool) -> float | None:
        """The largest value that is at most `number`, or clearly less; None where there is none."""
        if number > self.high or (number == self.high and not strict):
            return self.top
        if self.grid is None:
            wanted = number - _gap(number, self.high - self.low) if strict else number
            return float(wanted) if wanted >= self.low else None
        last = min(self._last, math.ceil((number - self.low) / self.grid) + 1)
        rungs = (self._rung(k) for k in range(last, max(last - 4, -1), -1))
        return next((r for r in rungs if r < number or (r == number and not strict)), None)

    def fits(self, number: float) -> bool:
        """Whether the number is one of the values."""
        return self.low <= number <= self.high and self.nearest(number) == number

    @property
    def _last(self) -> int:
        if self.grid is None:
            return 0
        return math.floor((self.high - self.low) / self.grid + _TOLERANCE)

    def _rung(self, count: int) -> float:
        if self.integer:
            return int(self.low) + count * int(self.grid or 1)
        # In decimal digits, so that three steps of 0.1 are 0.3.
        return float(Decimal(repr(float(self.low))) + count * Decimal(repr(float(self.grid or 0))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """Numbers that are listed, in rising order; the axis counts them."""

    options: tuple[float, ...]
    # The number on the axis of the first one: an exponent, where the numbers are powers.
    first: int = 0

    def __post_init__(self) -> None:
        if not self.options or any(a >= b for a, b in itertools.pairwise(self.options)):
            raise ValueError("needs at least one number, each above the one before")

    @property
    def top(self) -> float:
        """The largest value."""
        return self.options[-1]

    def dimensions(self, name: str) -> tuple[Dimension, ...]:
        """One axis of integers."""
        last = self.first + len(self.options) - 1
        return (Dimension(name=name, kind="int", low=self.first, high=last),)

    def value(self, name: str, point: Point) -> Any:
        """The number that the coordinate counts."""
        index = round(number_of(point[name])) - self.first
        return self.options[min(max(index, 0), len(self.options) - 1)]

    def coordinates(self, name: str, value: object) -> dict[str, Coordinate]:
        """The place of the number."""
        number = number_of(value)
        if number not in self.options:
            raise ValueError(f"{number:g} is not one of {', '.join(map(str, self.options))}")
        return {name: self.first + self.options.index(number)}

    def middle(self) -> Any:
        """The number in the middle of the list."""
        return self.options[(len(self.options) - 1) // 2]

    def nearest(self, number: float) -> float:
        """The value next to a number."""
        return min(self.options, key=lambda option: abs(option - number))

    def up(self, number: float, *, strict: bool) -> float | None:
        """The least value that is at least `number`, or more; None where there is none."""
        return next((o for o in self.options if o > number or (o == number and not strict)), None)

    def down(self, number: float, *, strict: bool) -> float | None:
        """The largest value that is at most `number`, or less; None where there is none."""
        return next((o for o in reversed(self.options) if o < number or (o == number and not strict)), None)

    def fits(self, number: float) -> bool:
        """Whether the number is one of the values."""
        return number in self.options


#: Domains of numbers, which can be compared with other parameters.
Scalar = Range | Ordered


def powers(base: int, low: float, high: float) -> Ordered:
    """The powers of a base from `low` to `high`, 1 among them; the axis is that of the exponents."""
    if base < 2 or high < 1 or not math.isfinite(high):
        raise ValueError(f"there is no power of {base} from {low:g} to {high:g}")
    exponents = range(math.ceil(math.log(max(high, 1), base)) + 2)
    inside = [e for e in exponents if low <= base**e <= high]
    if not inside:
        raise ValueError(f"there is no power of {base} from {low:g} to {high:g}")
    return Ordered(options=tuple(base**e for e in inside), first=inside[0])


def multiples(base: int, low: float, high: float) -> Range:
    """The multiples of a base from `low` to `high`."""
    if base < 1:
        raise ValueError(f"there are no multiples of {base}; take a number of at least 1")
    first, last = math.ceil(low / base) * base, math.floor(high / base) * base
    if first > last:
        raise ValueError(f"there is no multiple of {base} from {low:g} to {high:g}")
    return Range(low=first, high=last, step=base, integer=True)


def just_inside(low: float, high: float, *, above: bool, below: bool) -> tuple[float, float]:
    """The ends of a range of reals of which `low`, `high`, or both are not among the values.

    The distance is a millionth of the width, or what single precision tells apart if that is more, so
    that a training program that reads the number as float32 does not meet the forbidden value.
    """
    first = low + _gap(low, high - low) if above else low
    last = high - _gap(high, high - low) if below else high
    return first, last


def number_of(value: object) -> float:
    """The value, if it is a number and no truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{value!r} is not a number")
    return value


def is_scale(name: str) -> bool:
    """Whether a parameter's name tells that its ratios matter: learning rates, decays, temperatures."""
    last = name.lower().rsplit(".", 1)[-1]
    words = set(last.replace("-", "_").split("_"))
    return bool(words & _SCALES) or {"learning", "rate"} <= words


def _gap(near: float, width: float) -> float:
    return max(width * _OPEN, abs(near) * _SINGLE, _LEAST)
