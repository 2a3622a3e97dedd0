"""One leaf of a TAO `train.schema.json`: what it says of a parameter, and the domain that follows.

The format's rules that have a meaning are kept, in the original or not: strict and other inequalities
with constants, powers (`^ n`), multiples (`/ n`), weights of options, bounds of each element of a list.
A leaf that cannot be searched is refused with the way out. Nothing here knows the other leaves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelyard.tuning.spaces.domains import Choices, Domain, Subset, Vector, Weighted
from modelyard.tuning.spaces.scalars import Ordered, Range, Scalar, is_scale, just_inside, multiples, powers

#: How far below the default a log scale begins, where the schema's own lower end is 0: a ratio.
BELOW_DEFAULT = 100
#: The most integers that are listed one by one to leave one out.
_MOST_LISTED = 1000
_TERM = re.compile(r"(>=|<=|!=|>|<|\^|/)\s*(depends_on|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
_GROUPS = ("object", "collection", "dict")
_KINDS = {
    "integer": "int", "number": "float", "boolean": "bool", "array": "list", "ordered": "categorical",
    "list_1_backbone": "list", "list_1_normal": "list", "list_2": "list", "list_3": "list",
}  # fmt: skip
_STEPS = re.compile(r"(steps|step_list|milestones)$")


class LeafRefused(ValueError):  # noqa: N818
    """A leaf that cannot be searched, with the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What a schema, and the user's ranges over it, say of one parameter."""

    name: str
    # int | float | bool | categorical | ordered_int | list | subset_list | optional_list, or another.
    kind: str
    default: Any = None
    # Numbers, lists of them, or None where the schema names none or infinity.
    low: Any = None
    high: Any = None
    options: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()
    condition: str = ""
    depends_on: str = ""
    # Whether the schema puts it into the search; None: it says nothing.
    enabled: bool | None = None
    # Whether distances are ratios; None: as its name tells.
    log: bool | None = None
    # Whether lists of bounds mean their first element.
    scalar: bool = False

    @property
    def terms(self) -> tuple[tuple[str, float | None], ...]:
        """The parts of `math_cond`: an operator with a number, or with None for `depends_on`."""
        found = _TERM.findall(self.condition)
        return tuple((op, None if text == "depends_on" else float(text)) for op, text in found)

    def factor(self, operator: str) -> int | None:
        """The integer after `^` or `/`."""
        number = next((n for op, n in self.terms if op == operator and n is not None), None)
        if number is None:
            return None
        if number != int(number) or number < 1:
            raise self.refused(f"has the math_cond {self.condition!r}", "correct the schema")
        return int(number)

    def refused(self, problem: str, remedy: str = "") -> LeafRefused:
        """The refusal; without a remedy, ranges are asked for."""
        ranges = f'custom_param_ranges {{"{self.name}": {{"valid_min": .., "valid_max": ..}}}}'
        return LeafRefused(problem, remedy or f"give {ranges}")


def leaves_of(properties: Mapping[str, Any], prefix: str = "") -> Iterator[Leaf]:
    """Every leaf under the properties of a schema, by its dotted name."""
    for key, node in properties.items():
        if not isinstance(node, Mapping):
            continue
        name = f"{prefix}{key}"
        if node.get("type") in _GROUPS and isinstance(node.get("properties"), Mapping):
            yield from leaves_of(node["properties"], f"{name}.")
        else:
            yield _leaf(name, node)


def domain_of(leaf: Leaf, *, epochs: int | None, open_ends: float | None, notes: list[str]) -> Domain:
    """The values of a leaf; what was decided for the user goes to the notes.

    Args:
        leaf: The leaf.
        epochs: How long training lasts, which bounds the steps of a schedule.
        open_ends: An end that the schema leaves open is this many times the default, or that part of it,
            for integers and for reals whose name tells of a scale; None refuses such a leaf.
        notes: Sentences for the user are added here.

    Raises:
        LeafRefused: it cannot be searched as it is.
    """
    if leaf.scalar:
        leaf = replace(leaf, low=_first(leaf.low), high=_first(leaf.high))
    try:
        if leaf.options:
            return _of_options(leaf, notes)
        if leaf.kind in ("list", "float", "int") and (
            isinstance(leaf.low, list) or isinstance(leaf.high, list)
        ):
            return _vector(leaf)
        match leaf.kind:
            case "bool":
                return Choices(options=(False, True))
            case "int":
                return _integers(leaf, open_ends, notes)
            case "float":
                return _reals(leaf, open_ends, notes)
            case "list":
                return _list(leaf, epochs, notes)
    except LeafRefused:
        raise
    except ValueError as error:
        raise leaf.refused(str(error)) from error
    raise _without_values(leaf)


def nearest(domain: Domain, value: object) -> Any:
    """The value of a domain next to one that may not fit; its middle, where nothing is near."""
    try:
        domain.coordinates("", value)
        return value
    except ValueError:
        pass
    if isinstance(domain, Scalar) and isinstance(value, int | float) and not isinstance(value, bool):
        return domain.nearest(value)
    if isinstance(domain, Vector) and isinstance(value, list) and len(value) == len(domain.items):
        near = [nearest(item, element) for item, element in zip(domain.items, value, strict=True)]
        return sorted(near) if domain.rising else near
    return domain.middle()


def _without_values(leaf: Leaf) -> LeafRefused:
    if leaf.kind in ("categorical", "ordered_int", "subset_list", "optional_list", "string"):
        options = f'custom_param_ranges {{"{leaf.name}": {{"valid_options": [..]}}}}'
        return leaf.refused(f"is a {leaf.kind} without options", f"give {options}")
    return leaf.refused(
        f"is a {leaf.kind or 'leaf without a type'}, which has no values to try", "leave it out"
    )


def _leaf(name: str, node: Mapping[str, Any]) -> Leaf:
    facts = dict(node)
    branches = [b for b in node.get("anyOf") or () if isinstance(b, Mapping) and b.get("type") != "null"]
    if not node.get("type") and branches:
        facts = {**branches[0], **node}  # the first branch that is not null, as the original reads it
    kind = str(facts.get("type", branches[0].get("type", "") if branches else ""))
    enabled = {"true": True, "false": False}.get(str(facts.get("automl_enabled", "")).lower())
    return Leaf(
        name=name,
        kind=_KINDS.get(kind, kind),
        default=facts.get("default"),
        low=bound(facts.get("minimum")),
        high=bound(facts.get("maximum")),
        options=tuple(facts.get("enum") or ()),
        weights=tuple(facts.get("option_weights") or ()),
        condition=str(facts.get("math_cond") or ""),
        depends_on=str(facts.get("depends_on") or ""),
        enabled=enabled,
    )


def bound(value: object) -> Any:
    """A bound as a number or a list of numbers; None for infinity, as for no bound."""
    if isinstance(value, list):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return value if isinstance(value, int | float) else number


def _of_options(leaf: Leaf, notes: list[str]) -> Domain:
    if leaf.kind in ("subset_list", "list"):
        return Subset(options=leaf.options, empty=leaf.default == [])
    if leaf.kind == "optional_list":
        return Subset(options=leaf.options, empty=True)
    if leaf.weights:
        if len(leaf.weights) != len(leaf.options):
            raise ValueError(f"has {len(leaf.options)} options and {len(leaf.weights)} option_weights")
        if not all(_numeric(weight) for weight in leaf.weights):
            raise ValueError("has option_weights that are not finite numbers")
        pairs = [(o, w) for o, w in zip(leaf.options, leaf.weights, strict=True) if w != 0]
        if len(pairs) < len(leaf.options):
            notes.append(f"{leaf.name}: options of weight 0 are not tried")
        return Weighted(options=tuple(o for o, _ in pairs), weights=tuple(w for _, w in pairs))
    if leaf.kind in ("int", "ordered_int", "float") and all(_numeric(o) for o in leaf.options):
        return Ordered(options=tuple(sorted(leaf.options)))
    return Choices(options=leaf.options)


def _reals(leaf: Leaf, open_ends: float | None, notes: list[str]) -> Range:
    low, above, high, below = _ends(leaf, open_ends, notes)
    log = _is_log(leaf, low, high)
    if log and low == 0:
        if not (_numeric(leaf.default) and 0 < leaf.default / BELOW_DEFAULT < high):
            raise leaf.refused("begins at 0, which a log scale cannot hold", "give a valid_min above 0")
        low, above = leaf.default / BELOW_DEFAULT, False
        notes.append(
            f"{leaf.name}: searched from {low:g}, the default / {BELOW_DEFAULT}, to {high:g} on a "
            "log scale; the schema's lower end is 0, so give valid_min or log: false for another"
        )
    low, high = just_inside(low, high, above=above, below=below)
    return Range(low=low, high=high, log=log)


def _is_log(leaf: Leaf, low: float, high: float) -> bool:
    """Whether asked for, or told by the name: not where the default lies near the upper end."""
    if leaf.log is not None:
        return leaf.log
    if not is_scale(leaf.name):
        return False
    if low > 0:
        return high >= 10 * low
    return low == 0 and _numeric(leaf.default) and 0 < 5 * leaf.default <= high


def _integers(leaf: Leaf, open_ends: float | None, notes: list[str]) -> Scalar:
    power, multiple = leaf.factor("^"), leaf.factor("/")
    if multiple and leaf.depends_on:
        raise leaf.refused(f"is computed from {leaf.depends_on}", "set it in the specification")
    low, above, high, below = _ends(leaf, open_ends, notes)
    first = math.floor(low) + 1 if above else math.ceil(low)
    last = math.ceil(high) - 1 if below else math.floor(high)
    if power:
        return powers(power, first, last)
    if multiple:
        return multiples(multiple, first, last)
    hole = next((n for op, n in leaf.terms if op == "!="), None)
    if hole is not None and first <= hole <= last:
        if last - first > _MOST_LISTED:
            raise ValueError(f"must not be {hole:g}, and has too many values to list")
        return Ordered(options=tuple(n for n in range(first, last + 1) if n != hole))
    return Range(low=first, high=last, integer=True, log=bool(leaf.log))


def _ends(leaf: Leaf, open_ends: float | None, notes: list[str]) -> tuple[float, bool, float, bool]:
    """Both ends, each with whether it is itself no value."""
    low, high, above, below = leaf.low, leaf.high, False, False
    for operator, number in leaf.terms:
        if number is None:
            continue
        if operator in (">", ">=") and (low is None or number > low or (number == low and operator == ">")):
            low, above = number, operator == ">"
        if operator in ("<", "<=") and (
            high is None or number < high or (number == high and operator == "<")
        ):
            high, below = number, operator == "<"
    if low is not None and high is not None:
        return low, above, high, below
    missing = " and ".join(end for end, b in (("lower", low), ("upper", high)) if b is None)
    # Ratios say something of scales and of counts; ten times a momentum is none.
    has_ratios = leaf.kind == "int" or is_scale(leaf.name)
    if open_ends is None or not has_ratios or not _numeric(leaf.default) or leaf.default <= 0:
        raise leaf.refused(f"has no {missing} end")
    low = leaf.default / open_ends if low is None else low
    high = leaf.default * open_ends if high is None else high
    notes.append(f"{leaf.name}: the schema names no {missing} end; searched from {low:g} to {high:g}")
    return low, above, high, below


def _vector(leaf: Leaf) -> Vector:
    """A list, each element within its own bounds; a bound that is no list is that of every element."""
    lists = [b for b in (leaf.low, leaf.high, leaf.default) if isinstance(b, list)]
    lengths = {len(b) for b in lists if len(b) > 1} or {len(b) for b in lists}
    if leaf.low is None or leaf.high is None or len(lengths) != 1:
        raise ValueError("needs valid_min and valid_max, as numbers or as lists as long as its default")
    length = lengths.pop()
    lows, highs = _spread(leaf.low, length), _spread(leaf.high, length)
    elements = leaf.default if isinstance(leaf.default, list) else []
    whole = leaf.kind in ("list", "int") and all(isinstance(n, int) for n in (*lows, *highs, *elements))
    ranges = []
    for low, high in zip(lows, highs, strict=True):
        if not (_numeric(low) and _numeric(high)):
            raise ValueError("has bounds that are not finite numbers")
        log = not whole and low > 0 and _is_log(leaf, low, high)
        ranges.append(Range(low=low, high=high, integer=whole, log=log))
    return Vector(items=tuple(ranges), rising=_rises(leaf) and whole)


def _list(leaf: Leaf, epochs: int | None, notes: list[str]) -> Vector:
    if leaf.low is not None and leaf.high is not None:
        return _vector(leaf)
    return _steps(leaf, epochs, notes)


def _steps(leaf: Leaf, epochs: int | None, notes: list[str]) -> Vector:
    """The steps of a schedule, of which the schema says nothing but how many there are."""
    given = leaf.default if isinstance(leaf.default, list) else []
    if not _rises(leaf) or not given or not all(isinstance(n, int) for n in given) or not epochs:
        raise leaf.refused("is a list without bounds")
    notes.append(f"{leaf.name}: {len(given)} rising steps from 1 to the {epochs} epochs of the training")
    return Vector(items=(Range(low=1, high=epochs, integer=True),) * len(given), rising=True)


def _rises(leaf: Leaf) -> bool:
    return bool(_STEPS.search(leaf.name))


def _spread(value: Any, length: int) -> Sequence[Any]:
    return value if isinstance(value, list) and len(value) == length else [_first(value)] * length


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
