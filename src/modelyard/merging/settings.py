"""What a document says of a method's parameters, and the value that they have at one tensor.

A parameter is a scalar, a gradient over the layers, or a list of conditions on the tensor's name.
Reading is strict: what the method does not know, or could not use, is a fault.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.core.faults import Faults, Section
from modelyard.merging.method import Kind, MergeMethod, Parameter
from modelyard.merging.recipe import Conditional, Gradient, Scalar, Setting, Settings

_EVERY = "*"


def resolve(
    levels: Sequence[Settings], name: str, *, tensor: str, position: float, default: Scalar | None = None
) -> Scalar | None:
    """The value that a parameter has at a tensor.

    Args:
        levels: Where to look, in order: source, slice, module, recipe. The first that has a value for
            this tensor counts; conditions of which none matches are no value.
        name: The parameter.
        tensor: The tensor's name in the output.
        position: Where the tensor lies on a gradient, 0 to 1.
        default: What it is where nothing is said.
    """
    for level in levels:
        if name in level:
            value = _value(level[name], tensor, position)
            if value is not None:
                return value
    return default


def position_in_slice(index: int, count: int) -> float:
    """Where a layer lies on the gradients of its slice: 0 the first, 1 the last and the only one."""
    return 1.0 if count <= 1 else index / (count - 1)


def read_settings(section: Section, method: MergeMethod | None, *, of_model: bool = False) -> Settings:
    """The `parameters` of a mapping; a fault for each that the method does not know or cannot use.

    Args:
        section: The mapping that has `parameters`.
        method: None where it is not known: then only the form is checked.
        of_model: Whether they stand with one model, where only parameters per model may.
    """
    given = section.section("parameters")
    settings: dict[str, Setting] = {}
    for name in given.data:
        parameter = method.parameter(name) if method else None
        value = given.raw(name)
        if method and parameter is None and name not in method.accepted:
            given.faults.add(
                given.key(name), value, f"is not a parameter of {method.name}", _known(method, name)
            )
        elif of_model and method and parameter and not parameter.per_model:
            given.faults.add(
                given.key(name), value, "is one value for all models, not one a model",
                f"move {name} to the parameters of the slice or of the file",
            )  # fmt: skip
        settings[name] = _read(given.faults, given.key(name), value, parameter)
    return settings


def lacking(method: MergeMethod, levels: Sequence[Settings], *, per_model: bool) -> list[str]:
    """The parameters that must be given and that no level gives."""
    return [
        parameter.name
        for parameter in method.parameters
        if parameter.default is None
        and parameter.per_model is per_model
        and not any(parameter.name in level for level in levels)
    ]


def _value(setting: Setting, tensor: str, position: float) -> Scalar | None:
    if not isinstance(setting, tuple):
        return setting
    if setting and isinstance(setting[0], Conditional):
        for condition in setting:
            if isinstance(condition, Conditional) and _matches(condition.filter, tensor):
                return _value(condition.value, tensor, position)
        return None
    return _on_gradient(tuple(knot for knot in setting if not isinstance(knot, Conditional)), position)


def _matches(word: str | None, tensor: str) -> bool:
    return word is None or word == _EVERY or word in tensor


def _on_gradient(knots: Gradient, position: float) -> Scalar:
    """Numbers are interpolated between evenly spaced knots; of other values the nearest knot below counts."""
    place = min(1.0, max(0.0, position)) * (len(knots) - 1)
    below = min(int(place), len(knots) - 1)
    low, high = knots[below], knots[min(below + 1, len(knots) - 1)]
    if isinstance(low, bool | str) or isinstance(high, bool | str):
        return low
    return low + (high - low) * (place - below)


def _known(method: MergeMethod, name: str) -> str:
    names = sorted({*(p.name for p in method.parameters), *method.accepted})
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"{method.name} takes {', '.join(names)}" if names else f"{method.name} takes none"


def _read(faults: Faults, key: str, value: Any, parameter: Parameter | None) -> Setting:
    """A setting in any of its forms; 0 where a fault is noted."""
    if isinstance(value, Mapping):
        return (_condition(Section(value, faults=faults, path=key), parameter),)
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        sections = [Section(item, faults=faults, path=f"{key}[{i}]") for i, item in enumerate(value)]
        return tuple(_condition(section, parameter) for section in sections)
    return _read_plain(faults, key, value, parameter)


def _condition(section: Section, parameter: Parameter | None) -> Conditional:
    word = section.optional_text("filter")
    value = section.raw("value")
    key = section.key("value")
    section.close()
    return Conditional(
        value=_read_plain(section.faults, key, value, parameter), filter=None if word == _EVERY else word
    )


def _read_plain(faults: Faults, key: str, value: Any, parameter: Parameter | None) -> Scalar | Gradient:
    """A scalar or a gradient."""
    if not isinstance(value, list):
        return _scalar(faults, key, value, parameter)
    if not value:
        faults.add(key, value, "is an empty list", "give a value, or the knots of a gradient")
    if parameter and parameter.kind is Kind.FILE:
        faults.add(key, value, "is a list of files", "name one, or conditions with a filter")
    if parameter and parameter.kind is Kind.INTEGER:
        faults.add(key, value, "is a gradient of whole numbers", "give one, or conditions with a filter")
    return tuple(_scalar(faults, f"{key}[{i}]", knot, parameter) for i, knot in enumerate(value))


def _scalar(faults: Faults, key: str, value: Any, parameter: Parameter | None) -> Scalar:
    if value is None:
        faults.add(key, None, "has no value", "give one, or remove the key")
        return 0.0
    kind = parameter.kind if parameter else _kind_of(value)
    if parameter and kind is Kind.CHOICE:
        return _choice(faults, key, value, parameter)
    if kind is Kind.FLAG:
        return _flag(faults, key, value)
    if kind is Kind.FILE:
        return _path(faults, key, value)
    if kind is Kind.CHOICE and isinstance(value, str):
        return value
    return _number(faults, key, value, parameter)


def _kind_of(value: Any) -> Kind:
    """What a value whose parameter is not known is taken for."""
    if isinstance(value, bool):
        return Kind.FLAG
    return Kind.CHOICE if isinstance(value, str) else Kind.NUMBER


def _choice(faults: Faults, key: str, value: Any, parameter: Parameter) -> Scalar:
    if isinstance(value, str) and value in parameter.choices:
        return value
    near = difflib.get_close_matches(str(value), parameter.choices, n=1)
    advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(parameter.choices)}"
    faults.add(key, value, "is not known", advice)
    return 0.0


def _path(faults: Faults, key: str, value: Any) -> Scalar:
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value
    faults.add(key, value, "is not a path", "name a safetensors file")
    return 0.0


def _flag(faults: Faults, key: str, value: Any) -> Scalar:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    faults.add(key, value, "is neither true nor false", "write true or false without quotes")
    return 0.0


def _number(faults: Faults, key: str, value: Any, parameter: Parameter | None) -> Scalar:
    whole = parameter is not None and parameter.kind is Kind.INTEGER
    low, high = (parameter.low, parameter.high) if parameter else (-math.inf, math.inf)
    number = _finite(value)
    if number is None or (whole and number != int(number)):
        what = "a whole number" if whole else "a finite number"
        faults.add(key, value, f"is not {what}", f"write {what}{_span(low, high)} without quotes")
        return 0.0
    if not low <= number <= high:
        faults.add(key, value, "is out of range", f"use a number{_span(low, high)}")
    return int(number) if whole else number


def _finite(value: Any) -> float | None:
    """A number as it is; None for what is not a finite one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _span(low: float, high: float) -> str:
    bounds = [
        f"{word} {bound:g}" for word, bound in (("at least", low), ("at most", high)) if math.isfinite(bound)
    ]
    return f" of {' and '.join(bounds)}" if bounds else ""
