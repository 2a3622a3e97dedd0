"""The plain space of a document: a mapping of parameter names to their values.

    lr:       {low: 1e-5, high: 1e-1, default: 1e-3}         # log by default, by its name
    layers:   {low: 1, high: 4}                              # integers, since both ends are
    width:    {low: 64, high: 1024, multiple_of: 8}
    rank:     {low: 1, high: 256, power_of: 2}
    dropout:  {above: 0, high: 0.5}                          # an end that is not among the values
    optimiser: {choices: [adam, sgd], weights: [3, 1]}
    momentum: {low: 0, high: 0.99, when: {optimiser: sgd}}
    crop_max: {low: 32, high: 1333, above: crop_min}         # of another parameter
    betas:    {low: 0.8, high: 0.999, length: 2, rising: true}
    modules:  {subset_of: [query, key, value], allow_empty: true}
    image:    {ordered: [256, 512, 768]}

Reading notes faults in the section and gives what could be read; nothing here knows the rest of the
document.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from modelyard.core.faults import Section
from modelyard.tuning.spaces.domains import Choices, Domain, Subset, Vector, Weighted
from modelyard.tuning.spaces.scalars import Ordered, Range, Scalar, is_scale, just_inside, multiples, powers
from modelyard.tuning.spaces.space import Condition, Parameter, Relation, Space

#: Keys that name another parameter, with the relation and whether it is the other that stands above.
_RELATIONS: tuple[tuple[str, Literal[">", ">="], bool], ...] = (
    ("above", ">", False),
    ("at_least", ">=", False),
    ("below", ">", True),
    ("at_most", ">=", True),
)
_UNBOUNDED = "give the largest and the smallest value that may make sense; a search needs both ends"
_CHANGE = "change its keys so that values are left"


def read_space(section: Section) -> Space:
    """The space that a mapping declares; faults are noted in the section, and leave an empty space."""
    before = len(section.faults.found)
    parameters, relations = [], []
    for key in section.data:
        own = section.section(key)
        if not isinstance(section.data[key], Mapping | None):
            continue
        parameter = _parameter(str(key), own)
        relations.extend(_relations(str(key), own))
        own.close()
        if parameter is not None:
            parameters.append(parameter)
    if not section.data:
        section.faults.add(section.path, None, "has no parameter", "write name: {low: .., high: ..} for each")
    if len(parameters) == len(section.data):
        _check_names(section, parameters, relations)
    if len(section.faults.found) > before:
        return Space(())
    try:
        return Space(parameters, relations)
    except ValueError as error:
        section.faults.add(section.path, None, str(error), "correct the space")
        return Space(())


def _parameter(name: str, own: Section) -> Parameter | None:
    before = len(own.faults.found)
    try:
        domain = _domain(name, own)
    except ValueError as error:
        domain = None
        if len(own.faults.found) == before:  # otherwise a fallback may be at fault
            own.faults.add(own.path, own.data, str(error), _CHANGE)
    conditions = _conditions(own)
    default = own.raw("default")
    if domain is None or len(own.faults.found) > before:
        own.rest()  # what is wrong may be why keys were not read
        return None
    if isinstance(domain, Scalar) and isinstance(default, str):
        default = _as_number(default)
    parameter = Parameter(name=name, domain=domain, default=default, when=conditions)
    try:
        parameter.default_coordinates()
    except ValueError as error:
        own.faults.add(own.key("default"), default, str(error), "choose one of its values")
        return None
    return parameter


def _domain(name: str, own: Section) -> Domain | None:
    if own.has("subset_of"):
        return Subset(options=_listed(own, "subset_of"), empty=own.flag("allow_empty", default=False))
    element: Range | Ordered | Choices | Weighted | None
    if own.has("choices"):
        options = _listed(own, "choices")
        weights = _numbers(own, "weights")
        element = Weighted(options=options, weights=weights) if weights else Choices(options=options)
    elif own.has("ordered"):
        element = Ordered(options=_numbers(own, "ordered"))
    else:
        element = _range(name, own)
    if element is None or not own.has("length"):
        return element
    length = own.integer("length", None, low=1, high=1000)
    return Vector(items=(element,) * length, rising=own.flag("rising", default=False))


def _range(name: str, own: Section) -> Scalar | None:
    (low, above), (high, below) = _end(own, "low", "above"), _end(own, "high", "below")
    if low is None or high is None:
        return None
    whole = isinstance(low, int) and isinstance(high, int)
    whole = whole and not any(isinstance(own.raw(key), float) for key in ("default", "step"))
    if own.has("power_of"):
        return powers(own.integer("power_of", None, low=2), *_whole_ends(low, high, above=above, below=below))
    if own.has("multiple_of"):
        base = own.integer("multiple_of", None, low=1)
        return multiples(base, *_whole_ends(low, high, above=above, below=below))
    integer = own.flag("integer", default=whole)
    step = _number(own, "step")
    if integer:
        low, high = _whole_ends(low, high, above=above, below=below)
    elif step is not None:
        low, high = low + step * above, high - step * below
    else:
        low, high = just_inside(low, high, above=above, below=below)
    scale = is_scale(name) and not integer and step is None and 0 < 10 * low <= high
    return Range(low=low, high=high, step=step, log=own.flag("log", default=scale), integer=integer)


def _whole_ends(low: float, high: float, *, above: bool, below: bool) -> tuple[float, float]:
    """The closed ends of a range of integers."""
    first = math.floor(low) + 1 if above else low
    last = math.ceil(high) - 1 if below else high
    return first, last


def _end(own: Section, closed: str, opened: str) -> tuple[float | None, bool]:
    """One end, and whether it is itself no value; None after a fault was noted."""
    given = own.raw(opened)
    strict = given is not None and _as_number(given) is not None
    if strict and own.has(closed):
        own.faults.add(own.key(opened), given, f"stands beside {closed}", "keep one of the two")
    name = opened if strict else closed
    if not own.has(name):
        own.raw(name)
        own.faults.add(own.key(name), None, "is missing", f"{_UNBOUNDED}, or choices, ordered or subset_of")
        return None, False
    return _number(own, name), strict


def _number(own: Section, name: str) -> float | None:
    value = own.raw(name)
    if value is None:
        return None
    number = _as_number(value)
    if number is None:
        own.faults.add(own.key(name), value, "is not a number", "write a number")
    elif not math.isfinite(number):
        own.faults.add(own.key(name), value, "is not finite", _UNBOUNDED)
        return None
    return number


def _as_number(value: object) -> float | None:
    """A number, or a text such as 1e-5, which YAML 1.1 does not read as one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _listed(own: Section, name: str) -> tuple[Any, ...]:
    value = own.raw(name)
    if isinstance(value, list) and value:
        return tuple(value)
    own.faults.add(own.key(name), value, "is not a list of values", "write a list with at least one value")
    return (None,)


def _numbers(own: Section, name: str) -> tuple[float, ...]:
    if not own.has(name):
        own.raw(name)
        return ()
    numbers = tuple(n for n in map(_as_number, _listed(own, name)) if n is not None and math.isfinite(n))
    if len(numbers) == len(own.data[name]):
        return numbers
    raise ValueError(f"{name} is not a list of finite numbers")


def _conditions(own: Section) -> tuple[Condition, ...]:
    if not own.has("when"):
        own.raw("when")
        return ()
    found = []
    for name, wanted in own.section("when").data.items():
        values = tuple(wanted) if isinstance(wanted, list) else (wanted,)
        if not values:
            own.faults.add(f"{own.key('when')}.{name}", wanted, "names no value", "write a value or several")
        found.append(Condition(parameter=str(name), values=values))
    return tuple(found)


def _relations(name: str, own: Section) -> list[Relation]:
    """What is said of other parameters; `above` and `below` with a number are ends, read elsewhere."""
    found = []
    listed = any(own.has(key) for key in ("choices", "ordered", "subset_of"))
    for key, kind, other_above in _RELATIONS:
        other = own.raw(key)
        number = other is not None and _as_number(other) is not None
        if other is None or (number and kind == ">" and not listed):
            continue
        if number or not isinstance(other, str):
            own.faults.add(
                own.key(key), other, "is not the name of a parameter", "name one, or use low and high"
            )
        elif other_above:
            found.append(Relation(upper=other, lower=name, kind=kind))
        else:
            found.append(Relation(upper=name, lower=other, kind=kind))
    return found


def _check_names(section: Section, parameters: Sequence[Parameter], relations: Sequence[Relation]) -> None:
    """Note a fault for every parameter that another one names, and that is not there."""
    known = [parameter.name for parameter in parameters]
    named = [(f"{p.name}.when", c.parameter) for p in parameters for c in p.when]
    named += [(str(r), name) for r in relations for name in (r.upper, r.lower)]
    for place, name in named:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            section.faults.add(section.key(place), name, "is no parameter of the space", advice)
