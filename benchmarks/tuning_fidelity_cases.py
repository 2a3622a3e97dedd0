"""Trainings for the comparison of searchers that look at steps. Nothing here knows modelyard.

A case is advanced step by step from a state, so that trials can go on from each other's checkpoints. Run it
to make the table of learning curves that `digits` looks up:

    python benchmarks/tuning_fidelity_cases.py TABLE.json
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning_race_cases import Axis

#: Where the table of `digits` stands.
TABLE = "TUNING_TABLE"
_RATES = tuple(10 ** (-4 + i / 3) for i in range(13))
_GRID = {
    "rate": _RATES,
    "alpha": (1e-6, 1e-3, 1e-1),
    "batch": (16, 64, 256),
    "units": (8, 32, 128),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A training whose last value is to be as low as can be."""

    name: str
    axes: tuple[Axis, ...]
    # The state at the beginning, and (state, point) -> (state, value) after one step.
    begin: Callable[[], Any]
    advance: Callable[[Any, Mapping[str, Any]], tuple[Any, float]]
    # Steps of the lowest rung or one interval, and of a whole training.
    low: int
    high: int
    # How many steps a search has in all.
    total: int
    # The lowest value after a whole training.
    lowest: Callable[[], float]


def from_unit(axis: Axis, at: float) -> float | int:
    """The value of a place from 0 to 1."""
    if axis.log:
        value = math.exp(math.log(axis.low) + at * (math.log(axis.high) - math.log(axis.low)))
    else:
        value = axis.low + at * (axis.high - axis.low)
    return round(value) if axis.kind == "int" else min(axis.high, max(axis.low, value))


def _looked_up(curve: Callable[[Mapping[str, Any], int], float]) -> Callable[[int, Mapping[str, Any]], Any]:
    """The step of a training whose value follows from the point and the count of steps."""
    return lambda done, point: (done + 1, curve(point, done + 1))


def crossing(point: Mapping[str, Any], step: int) -> float:
    """What learns fast may end worse: ranks after 1 and 27 of 81 steps agree with the last by 0.7, 0.97."""
    rate = math.log10(point["rate"])
    floor = 0.08 * (rate + 2.5) ** 2 + 0.05 * (math.log10(point["decay"]) + 4 + 0.5 * rate) ** 2
    floor += 0.3 * (point["momentum"] - 0.7) ** 2 + 0.02 * (math.log2(point["width"] / 96)) ** 2
    speed = 0.3 * 10 ** (0.25 * (rate + 2.5))
    return floor + math.exp(-speed * step**0.9) * (1.5 + 0.1 * math.log2(point["width"] / 96))


@functools.cache
def _crossing_lowest() -> float:
    best = math.inf
    for r in range(401):
        rate = 10 ** (-5 + 5 * r / 400)
        decay = 10 ** min(-1.0, max(-7.0, -4 - 0.5 * math.log10(rate)))
        for width in range(16, 513):
            point = {"rate": rate, "decay": decay, "momentum": 0.7, "width": width}
            best = min(best, crossing(point, 81))
    return best


_CURVATURE = (1.0, 0.05)
_NOISE = 0.02


def _noisy_step(state: tuple[float, float], point: Mapping[str, Any]) -> tuple[tuple[float, float], float]:
    """Expected squared distances of descent with noise: large rates are fast, and never get close."""
    rates = (point["rate_0"], point["rate_1"])
    state = tuple(
        (1 - a * rate) ** 2 * at + _NOISE * rate**2
        for a, rate, at in zip(_CURVATURE, rates, state, strict=True)
    )
    return state, math.fsum(a * at for a, at in zip(_CURVATURE, state, strict=True))


def _noisy_lowest(steps: int = 120) -> float:
    """With the best rate at every step, which is a schedule: no fixed rate comes near it."""
    state = (1.0, 1.0)
    for _ in range(steps):
        rates = [min(1.0, a * at / (a * a * at + _NOISE)) for a, at in zip(_CURVATURE, state, strict=True)]
        state, value = _noisy_step(state, {"rate_0": rates[0], "rate_1": rates[1]})
    return value


@functools.cache
def _table() -> dict[str, list[float]]:
    return json.loads(Path(os.environ[TABLE]).read_text())["curves"]


def _key(point: Mapping[str, Any]) -> str:
    return ",".join(str(point[name]) for name in _GRID)


def digits(point: Mapping[str, Any], step: int) -> float:
    """A network on scikit-learn's digits, looked up among trainings that were made before."""
    return _table()[_key(point)][step - 1]


CASES = {
    case.name: case
    for case in (
        Case(
            name="crossing", begin=int, advance=_looked_up(crossing), low=1, high=81, total=20 * 81,
            lowest=_crossing_lowest,
            axes=(
                Axis(name="rate", kind="float", low=1e-5, high=1.0, log=True),
                Axis(name="decay", kind="float", low=1e-7, high=1e-1, log=True),
                Axis(name="momentum", kind="float", low=0.0, high=1.0),
                Axis(name="width", kind="int", low=16, high=512, log=True),
            ),
        ),
        Case(
            name="digits", begin=int, advance=_looked_up(digits), low=1, high=27, total=12 * 27,
            lowest=lambda: min(curve[26] for curve in _table().values()),
            axes=tuple(Axis(name=name, kind="int", low=0, high=len(_GRID[name]) - 1) for name in _GRID),
        ),
        Case(
            name="noisy", begin=lambda: (1.0, 1.0), advance=_noisy_step, low=4, high=120, total=10 * 120,
            lowest=_noisy_lowest,
            axes=tuple(Axis(name=f"rate_{i}", kind="float", low=1e-3, high=1.0, log=True) for i in range(2)),
        ),
    )
}  # fmt: skip


def main() -> None:
    """Train every network of the table."""
    from tuning_digits import curve

    curves = {}
    for indices in itertools.product(*(range(len(values)) for values in _GRID.values())):
        chosen = {name: _GRID[name][i] for name, i in zip(_GRID, indices, strict=True)}
        values = {
            "lr": chosen["rate"], "alpha": chosen["alpha"], "batch_size": chosen["batch"],
            "units": chosen["units"], "layers": 1,
        }  # fmt: skip
        told = [round(value, 6) for value in curve(values, epochs=27, seed=0)]
        curves[_key(dict(zip(_GRID, indices, strict=True)))] = told
    Path(sys.argv[1]).write_text(json.dumps({"grid": _GRID, "curves": curves}))


if __name__ == "__main__":
    main()
