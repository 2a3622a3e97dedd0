"""Spaces: what may be tried. Parameters with their values, conditions, and relations between them.

An optimiser sees only the dimensions of a space; a command sees only assignments, the JSON values of
active parameters by dotted name. The space goes from one to the other, and mends what an optimiser
cannot know: that one parameter must exceed another, or does not count at present. Nothing here knows a
file format or an algorithm. What does not fit is a `ValueError` with the reason; readers of documents
make faults of them.
"""

from __future__ import annotations

import contextlib
import difflib
import graphlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.tuning.dimensions import Coordinate, Dimension, Point
from modelyard.tuning.spaces.domains import Domain, Weighted, same
from modelyard.tuning.spaces.scalars import Range, Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A parameter counts only while another one counts and has one of these values."""

    parameter: str
    values: tuple[Any, ...]

    def holds(self, value: object) -> bool:
        """Whether the other parameter's value is one of them; 1 is not true."""
        return any(same(value, wanted) for wanted in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """What holds between two numbers while both count: `upper` > `lower`, or at least as much."""

    upper: str
    lower: str
    kind: Literal[">", ">="] = ">"

    @property
    def strict(self) -> bool:
        """Whether equal values are forbidden."""
        return self.kind == ">"

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether these values of the two obey."""
        upper, lower = values[self.upper], values[self.lower]
        return bool(upper > lower if self.strict else upper >= lower)

    def __str__(self) -> str:
        return f"{self.upper} {self.kind} {self.lower}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One thing to set: its values, what it is where nothing else is known, and when it counts."""

    name: str
    domain: Domain
    # None: null where that is an option, and otherwise the middle of the range on its scale.
    default: Any = None
    # All of them must hold.
    when: tuple[Condition, ...] = ()

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Its axes; most parameters have one, which bears their name."""
        return self.domain.dimensions(self.name)

    def value(self, point: Point) -> Any:
        """The JSON value at a point; coordinates beyond a range count as its end."""
        return self.domain.value(self.name, point)

    def coordinates(self, value: object) -> dict[str, Coordinate]:
        """Coordinates that give this value. Raises `ValueError` with the reason where it does not fit."""
        return self.domain.coordinates(self.name, value)

    def default_coordinates(self) -> dict[str, Coordinate]:
        """The coordinates of the default."""
        if self.default is not None:
            return self.coordinates(self.default)
        try:
            return self.coordinates(None)
        except ValueError:
            return self.coordinates(self.domain.middle())

    def settled(self, point: Point) -> dict[str, Coordinate]:
        """Its coordinates, moved onto the nearest value; the default's where they have no meaning."""
        default = self.default_coordinates()
        own = {name: point.get(name, coordinate) for name, coordinate in default.items()}
        if isinstance(self.domain, Weighted) and self.domain.covers(own[self.name]):
            return own  # every number of an option's share is as good as another
        try:
            return self.coordinates(self.value(own))
        except ValueError:
            return default


class Space:
    """Parameters, and the relations between them. Immutable."""

    def __init__(self, parameters: Sequence[Parameter], relations: Sequence[Relation] = ()) -> None:
        """Raises `ValueError` for doubled names, defaults that do not fit, and impossible demands."""
        self.parameters = tuple(parameters)
        self.relations = tuple(relations)
        self._named = {parameter.name: parameter for parameter in parameters}
        self.dimensions: tuple[Dimension, ...] = tuple(
            d for parameter in parameters for d in parameter.dimensions
        )
        _refuse_doubles([parameter.name for parameter in parameters])
        _refuse_doubles([dimension.name for dimension in self.dimensions])
        self._check_names()
        self._parents_first = _sorted_by(
            {p.name: [condition.parameter for condition in p.when] for p in parameters}, "conditions"
        )
        self._lowest_first = _sorted_by(
            {p.name: [r.lower for r in relations if r.upper == p.name] for p in parameters}, "relations"
        )
        for parameter in parameters:
            with _named_errors(parameter.name):
                parameter.default_coordinates()
        self._tops(self.relations, {})  # raises where the relations leave nothing

    def __getitem__(self, name: str) -> Parameter:
        """The parameter of this name. Raises `ValueError` with the nearest name."""
        if name in self._named:
            return self._named[name]
        close = difflib.get_close_matches(name, self._named, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are: {', '.join(self._named)}"
        raise ValueError(f"{name}: is no parameter of the space; {advice}")

    def default(self) -> Point:
        """Every parameter's default, repaired."""
        return self.repair({})

    def repair(self, point: Point) -> Point:
        """The nearest point that may be tried; a valid point stays as it is.

        Coordinates lie on values, subsets are not empty, relations between active parameters hold, and
        inactive parameters are at their default, so that equal configurations are equal points. Missing
        coordinates are the default's, unknown ones are dropped. Where `a > b` is broken the two change
        places if they can, which leaves points spread evenly; otherwise the upper one is raised.
        """
        return self._repaired(point, frozenset())

    def active(self, point: Point) -> tuple[str, ...]:
        """Names of the parameters that count at a point, in the order of the space."""
        active: set[str] = set()
        for name in self._parents_first:
            if all(
                c.parameter in active and c.holds(self._named[c.parameter].value(point))
                for c in self._named[name].when
            ):
                active.add(name)
        return tuple(name for name in self._named if name in active)

    def assignments(self, point: Point) -> dict[str, Any]:
        """The JSON values of the active parameters at a point, which is repaired first."""
        whole = self.repair(point)
        return {name: self._named[name].value(whole) for name in self.active(whole)}

    def point(self, assignments: Mapping[str, Any], base: Point | None = None) -> Point:
        """The point of these values; parameters not named are as in `base`, or else at their default.

        Values given stay as they are: the others are moved where a relation demands it. What is given
        for a parameter that is inactive does not count. Raises `ValueError` that names the parameter
        which is unknown, whose value does not fit, or whose relation cannot hold.
        """
        coordinates = dict(self.repair(base or {}))
        for name, value in assignments.items():
            parameter = self[name]
            with _named_errors(name):
                coordinates.update(parameter.coordinates(value))
        return self._repaired(coordinates, frozenset(assignments))

    def _repaired(self, point: Point, held: Collection[str]) -> Point:
        coordinates = {n: c for parameter in self.parameters for n, c in parameter.settled(point).items()}
        active = set(self.active(coordinates))
        for parameter in self.parameters:
            if parameter.name not in active:
                coordinates.update(parameter.default_coordinates())
        links = [r for r in self.relations if {r.upper, r.lower} <= active]
        values = {n: self._named[n].value(coordinates) for r in links for n in (r.upper, r.lower)}
        if all(link.holds(values) for link in links):
            return coordinates
        self._exchange(links, values, held)
        if not all(link.holds(values) for link in links):
            self._climb(links, values, held)
        for name, value in values.items():
            coordinates.update(self._named[name].coordinates(value))
        return coordinates

    def _scalar(self, name: str) -> Scalar:
        domain = self[name].domain
        if isinstance(domain, Scalar):
            return domain
        raise ValueError(f"{name}: is not a number, and so is neither above nor below another parameter")

    def _exchange(self, links: Sequence[Relation], values: dict[str, Any], held: Collection[str]) -> None:
        for link in links:
            upper, lower = link.upper, link.lower
            movable = upper not in held and lower not in held and not link.holds(values)
            if movable and values[upper] != values[lower]:
                fit = self._scalar(upper).fits(values[lower]) and self._scalar(lower).fits(values[upper])
                if fit:
                    values[upper], values[lower] = values[lower], values[upper]

    def _climb(self, links: Sequence[Relation], values: dict[str, Any], held: Collection[str]) -> None:
        """Make all relations hold: from the lowest, each is as near to its value as it can be."""
        tops = self._tops(links, {name: values[name] for name in values if name in held})
        for name in (n for n in self._lowest_first if n in values):
            least = [values[name]]
            for link in (r for r in links if r.upper == name):
                raised = self._scalar(name).up(values[link.lower], strict=link.strict)
                least.append(tops[name] if raised is None else raised)
            values[name] = min(max(least), tops[name])
        for link in links:
            if not link.holds(values):
                raise ValueError(
                    f"{link.upper}: {values[link.upper]} is not {link.kind} {link.lower} = "
                    f"{values[link.lower]}; change one of them"
                )

    def _tops(self, links: Sequence[Relation], held: Mapping[str, Any]) -> dict[str, Any]:
        """How high each parameter may be so that those above it still find a value."""
        tops: dict[str, Any] = {}
        linked = {name for link in links for name in (link.upper, link.lower)}
        for name in (n for n in reversed(self._lowest_first) if n in linked):
            tops[name] = held[name] if name in held else self._scalar(name).top
            for link in (r for r in links if r.lower == name):
                lowered = self._scalar(name).down(tops[link.upper], strict=link.strict)
                if lowered is None or (name in held and lowered < held[name]):
                    raise ValueError(
                        f"{link.upper}: no value is left where {link}; at most {tops[link.upper]} is possible"
                    )
                tops[name] = min(tops[name], lowered)
        return tops

    def _check_names(self) -> None:
        parents = {condition.parameter for parameter in self.parameters for condition in parameter.when}
        for parameter in self.parameters:
            for condition in parameter.when:
                with _named_errors(parameter.name):
                    _check_condition(self[condition.parameter], condition)
        for relation in self.relations:
            for name in (relation.upper, relation.lower):
                self._scalar(name)
                if name in parents:
                    raise ValueError(
                        f"{name}: stands in the relation {relation} and in a condition of another "
                        "parameter; only one of them is possible"
                    )


def _check_condition(parent: Parameter, condition: Condition) -> None:
    if isinstance(parent.domain, Range) and parent.domain.grid is None:
        raise ValueError(f"depends on {parent.name}, which has no countable values; give that a step")
    for value in condition.values:
        with _named_errors(f"depends on {parent.name}"):
            parent.coordinates(value)


def _refuse_doubles(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{name}: stands twice in the space; give each parameter a name of its own")
        seen.add(name)


def _sorted_by(needs: Mapping[str, Sequence[str]], what: str) -> tuple[str, ...]:
    """Names, each after those that it needs."""
    try:
        return tuple(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        circle = " > ".join(error.args[1])
        raise ValueError(f"the {what} go round in a circle: {circle}; take one of them out") from error


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Put the parameter's name before the reason."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
