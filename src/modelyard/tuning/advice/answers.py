"""What of a model's answer counts: one JSON object with the values of a point of the space, or nothing.

Whatever a model was talked into, its answer is a point with a value for every parameter that counts, each
within its range and not tried before; the words beside it are kept, shortened, and never acted on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.tuning.dimensions import Point
from modelyard.tuning.searchers.scaling import inside, place
from modelyard.tuning.spaces.domains import same
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Parameter, Space
from modelyard.tuning.trial import Direction, Trial, TrialState

#: Two points are the same where no number differs by more than this share of its range.
_ALIKE = 1e-4
_LONGEST_ANSWER, _LONGEST_NUMBER = 20_000, 25
_MOST_FAULTS, _LONGEST_FAULT = 8, 300
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"\A```(?:json)?[ \t]*\n(.*?)\n?```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What is searched, as a model is told."""

    space: Space
    metric: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an answer comes to: a point, or what is wrong with it."""

    point: Point | None = None
    faults: tuple[str, ...] = ()
    # What it says beside the values, to be kept with the trial.
    said: Mapping[str, Any] = field(default_factory=dict)


def read_point(values: Mapping[str, Any], outline: Outline, trials: Sequence[Trial]) -> Reading:
    """The point of the values in an answer."""
    point, faults = _point(outline.space, values)
    if point is not None:
        for trial in trials:
            if alike(outline.space, point, trial.point):
                doing = "runs" if trial.state is TrialState.RUNNING else "has been tried"
                faults = [f"this configuration {doing} as trial {trial.number}; propose another"]
                break
    return refused(faults) if faults else Reading(point=point)


def refused(faults: Sequence[str]) -> Reading:
    """An answer with so many faults, the first of them told."""
    told = [fault.encode(errors="replace").decode()[:_LONGEST_FAULT] for fault in faults[:_MOST_FAULTS]]
    return Reading(faults=tuple(told))


def alike(space: Space, one: Point, other: Point) -> bool:
    """Whether two points are as good as the same configuration."""
    return inside(space.dimensions, other) and all(_same(each, one, other) for each in space.parameters)


def parsed(text: str, *, form: str, keys: Collection[str]) -> tuple[Mapping[str, Any], list[str]]:
    """The object that an answer is, or what keeps it from being one.

    Args:
        text: As it came: thoughts before it and a fence around it are passed over.
        form: What it is to look like, for the model to read.
        keys: What may stand in it; `values`, an object, must.
    """
    if len(text) > _LONGEST_ANSWER:
        return {}, [f"the answer has {len(text)} characters; give one short JSON object"]
    bare = _THOUGHTS.sub("", text).strip()
    fenced = _FENCED.match(bare)
    try:
        answer = json.loads(
            fenced[1] if fenced else bare,
            parse_constant=_refuse_constant, parse_int=_whole, object_pairs_hook=_mapping,
        )  # fmt: skip
    except (ValueError, RecursionError) as error:
        return {}, [f"the answer is not one JSON object ({error})"]
    if not isinstance(answer, dict) or not isinstance(answer.get("values"), dict):
        return {}, [f"the answer is not of the form {form}"]
    unknown = sorted(set(answer) - set(keys))
    wanted = " and ".join(keys)
    return answer, [f"the answer has {', '.join(unknown)} beside {wanted}"] if unknown else []


def _point(space: Space, values: Mapping[str, Any]) -> tuple[Point | None, list[str]]:
    """The point of these values, or every reason why there is none."""
    faults = []
    for name, value in values.items():
        try:
            space[name]
        except ValueError as error:
            faults.append(str(error))
            continue
        try:
            space[name].coordinates(value)
        except (ValueError, TypeError, OverflowError) as error:
            faults.append(f"{name}: {error}")
    if faults:
        return None, faults
    try:
        point = space.point(values)
    except ValueError as error:
        return None, [str(error)]
    missing = [name for name in space.active(point) if name not in values]
    if missing:
        return None, [f"{', '.join(missing)}: no value is given; give one for every parameter that counts"]
    return point, []


def _same(parameter: Parameter, one: Point, other: Point) -> bool:
    if isinstance(parameter.domain, Range) and parameter.domain.grid is None:
        (axis,) = parameter.dimensions
        return abs(place(axis, one[axis.name]) - place(axis, other[axis.name])) <= _ALIKE
    return same(parameter.value(one), parameter.value(other))


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number of JSON")


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise ValueError(f"{doubled!r} stands twice")
    return dict(pairs)
