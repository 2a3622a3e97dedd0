"""Dimensions: the axes along which an optimiser moves. It sees nothing else of a space.

A point gives every dimension of a space one coordinate, those of inactive parameters too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

#: A float, an integer, or the JSON text of a choice.
Coordinate = float | int | str
#: One coordinate for each dimension of a space.
Point = Mapping[str, Coordinate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One axis; both ends of a range can be reached."""

    name: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    # Distance of the values allowed, counted from `low`; None: every value.
    step: float | None = None
    # Whether distances are ratios; not together with a step other than 1.
    log: bool = False
    # JSON texts of what may be chosen, in the order given.
    choices: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The dimension as a JSON value."""
        return {each.name: getattr(self, each.name) for each in fields(self)}
