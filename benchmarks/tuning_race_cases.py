"""The cases of the race of optimisers: functions, and spaces of trainings. Standard library alone.

Peers run in interpreters of their own, so nothing here knows modelyard, and what is trained stands elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One parameter: a float, an int, or a choice."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()
    # It counts only while each of these others counts and has one of the values.
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A function to be minimised, and how many trials there are."""

    name: str
    axes: tuple[Axis, ...]
    # None: a training, which the race does itself, and its peers ask it for.
    function: Callable[[Mapping[str, Any]], float] | None
    # None: nobody knows; the best value of any run counts as it.
    lowest: float | None
    trials: int
    # What a user would begin with, inactive parameters too: the first trial of those who take one.
    default: Mapping[str, Any]
    # A regret below this counts as this.
    floor: float = 1e-9

    def active(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The values that count at a point; parents stand before those that depend on them."""
        counting: dict[str, Any] = {}
        for axis in self.axes:
            if all(name in counting and counting[name] in values for name, values in axis.when):
                counting[axis.name] = point[axis.name]
        return counting


def branin(point: Mapping[str, Any]) -> float:
    """Dixon and Szegő's; three lowest places."""
    x, y = point["x"], point["y"]
    curve = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return curve**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


_WEIGHTS = (1.0, 1.2, 3.0, 3.2)
_SCALES = (
    (10, 3, 17, 3.5, 1.7, 8), (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8), (17, 8, 0.05, 10, 0.1, 14),
)  # fmt: skip
_CENTRES = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886), (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650), (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)  # fmt: skip


def hartmann6(point: Mapping[str, Any]) -> float:
    """Hartmann's function of six variables."""
    xs = [point[f"x{i}"] for i in range(6)]
    return -sum(
        weight * math.exp(-sum(a * (x - p) ** 2 for a, x, p in zip(scales, xs, centres, strict=True)))
        for weight, scales, centres in zip(_WEIGHTS, _SCALES, _CENTRES, strict=True)
    )


_PENALTY = {"adam": 0.0, "sgd": 0.05, "lion": 0.08, "rmsprop": 0.15}


def mixed(point: Mapping[str, Any]) -> float:
    """A training run as one imagines it: a rate for the optimizer, coupled decay, a width; 0 at best."""
    rate = math.log10(point["rate"]) + 2.5 - (1.0 if point["optimizer"] == "sgd" else 0.0)
    decay = math.log10(point["decay"]) + 4.0
    eps = math.log10(point["eps"]) + 7.0
    size = 0.01 * (point["layers"] - 4) ** 2 + 0.02 * math.log2(point["width"] / 192) ** 2
    slope = 0.05 * rate**2 + 0.02 * (decay + 0.5 * rate) ** 2 + 0.005 * (eps - decay) ** 2
    return slope + size + _PENALTY[point["optimizer"]]


BRANIN = Case(
    name="branin", function=branin, lowest=0.39788735772973816, trials=30,
    axes=(Axis(name="x", kind="float", low=-5, high=10), Axis(name="y", kind="float", low=0, high=15)),
    default={"x": 2.5, "y": 7.5},
)  # fmt: skip
HARTMANN6 = Case(
    name="hartmann6", function=hartmann6, lowest=-3.322368011415511, trials=50,
    axes=tuple(Axis(name=f"x{i}", kind="float", low=0, high=1) for i in range(6)),
    default={f"x{i}": 0.5 for i in range(6)},
)  # fmt: skip
MIXED = Case(
    name="mixed", function=mixed, lowest=0.0, trials=40,
    axes=(
        Axis(name="rate", kind="float", low=1e-5, high=1.0, log=True),
        Axis(name="decay", kind="float", low=1e-7, high=1e-1, log=True),
        Axis(name="eps", kind="float", low=1e-10, high=1e-3, log=True),
        Axis(name="layers", kind="int", low=1, high=8),
        Axis(name="width", kind="int", low=16, high=1024, log=True),
        Axis(name="optimizer", kind="choice", choices=("adam", "lion", "rmsprop", "sgd")),
    ),
    default={"rate": 1e-2, "decay": 1e-5, "eps": 1e-8, "layers": 2, "width": 128, "optimizer": "sgd"},
)  # fmt: skip
_SVM, _FOREST = (("model", ("svm",)),), (("model", ("forest",)),)
#: Half a digit of 1,197.
_HALF = 0.5 / 1197
CLASSIFIER = Case(
    name="classifier", function=None, lowest=None, trials=30, floor=_HALF,
    axes=(
        Axis(name="model", kind="choice", choices=("forest", "svm")),
        Axis(name="components", kind="int", low=2, high=64),
        Axis(name="kernel", kind="choice", choices=("poly", "rbf"), when=_SVM),
        Axis(name="penalty", kind="float", low=1e-3, high=1e3, log=True, when=_SVM),
        Axis(name="gamma", kind="float", low=1e-4, high=10.0, log=True, when=_SVM),
        Axis(name="degree", kind="int", low=2, high=5, when=(*_SVM, ("kernel", ("poly",)))),
        Axis(name="features", kind="float", low=0.05, high=1.0, when=_FOREST),
        Axis(name="leaf", kind="int", low=1, high=20, when=_FOREST),
    ),
    default={
        "model": "forest", "components": 16, "kernel": "rbf", "penalty": 1.0, "gamma": 0.02, "degree": 3,
        "features": 0.25, "leaf": 1,
    },
)  # fmt: skip
NETWORK = Case(
    name="network", function=None, lowest=None, trials=30, floor=_HALF,
    axes=(
        Axis(name="optimizer", kind="choice", choices=("adam", "sgd")),
        Axis(name="rate", kind="float", low=1e-4, high=1.0, log=True),
        Axis(name="momentum", kind="float", low=0.0, high=0.99, when=(("optimizer", ("sgd",)),)),
        Axis(name="decay", kind="float", low=1e-6, high=1e-1, log=True),
        Axis(name="dropout", kind="float", low=0.0, high=0.6),
        Axis(name="batch", kind="int", low=8, high=128, log=True),
        Axis(name="layers", kind="int", low=1, high=3),
        Axis(name="width", kind="int", low=8, high=128, log=True, when=(("layers", (2, 3)),)),
    ),
    default={
        "optimizer": "sgd", "rate": 1e-2, "momentum": 0.9, "decay": 1e-4, "dropout": 0.2, "batch": 32,
        "layers": 2, "width": 64,
    },
)  # fmt: skip
CASES = {case.name: case for case in (BRANIN, HARTMANN6, MIXED, CLASSIFIER, NETWORK)}
