"""The numeric scorer: the last number of an answer, or the first after a marker, within a tolerance."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from modelyard.results.examples import Example, Score
from modelyard.results.scorers import Scorer

_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[+\-−]?)[$€£]?(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<part>\.\d+)?"
    r"(?P<power>[eE][+\-]?\d{1,3})?(?:\s?/\s?(?P<under>\d+))?(?P<percent>\s?%)?",
    re.ASCII,
)


_UNIT = re.compile(r"\s*([^\W\d_]+|°[CF])")


def last_number(text: str, marker: str = "", units: Mapping[str, float] | None = None) -> float | None:
    """The last number in a text, or the first after the last `marker`; None where there is none.

    A number before a word of `units` is multiplied by that unit's factor.
    """
    if marker:
        _, found, text = text.rpartition(marker)
        if not found:
            return None
    values = [
        value * _factor(text, match.end(), units or {})
        for match in _NUMBER.finditer(text)
        if (value := _value(match)) is not None
    ]
    if not values:
        return None
    return values[0] if marker else values[-1]


def _factor(text: str, end: int, units: Mapping[str, float]) -> float:
    word = _UNIT.match(text, end) if units else None
    return units.get(word[1], 1.0) if word else 1.0


def _units(given: str) -> dict[str, float]:
    """The table `m=1, km=1000`; what is not a positive factor is left out."""
    table: dict[str, float] = {}
    for part in given.split(","):
        name, _, factor = part.partition("=")
        value = last_number(factor)
        if name.strip() and value is not None and value > 0:
            table[name.strip()] = value
    return table


def _value(match: re.Match[str]) -> float | None:
    if not (match["whole"] or match["part"]):
        return None
    try:
        digits = (match["whole"] or "0").replace(",", "") + (match["part"] or "") + (match["power"] or "")
        value = float(digits)
        if match["under"]:
            value /= float(match["under"])
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    value = value / 100 if match["percent"] else value
    return (-value if match["sign"] in ("-", "−") else value) if math.isfinite(value) else None


def _numeric(example: Example, answer: str) -> Score:
    units = _units(str(example.options.get("units", "")))
    given = last_number(answer, str(example.options.get("marker", "")), units)
    if given is None:
        return Score(value=0.0, why="no number")
    absolute, relative = (_tolerance(example, name) for name in ("absolute", "relative"))
    wanted = [value for each in example.answers if (value := last_number(each, units=units)) is not None]
    if any(math.isclose(given, each, rel_tol=0, abs_tol=absolute + relative * abs(each)) for each in wanted):
        return Score(value=1.0, why=f"{given:g} is within the tolerance")
    return Score(value=0.0, why=f"{given:g} is none of the answers")


def _tolerance(example: Example, name: str) -> float:
    value = example.options.get(name, 1e-9 if name == "relative" else 0.0)
    number = float(value) if isinstance(value, int | float) else 0.0
    return number if math.isfinite(number) and number >= 0 else 0.0


NUMERIC = Scorer(name="numeric", version="1", zero_one=True, judge=_numeric)
