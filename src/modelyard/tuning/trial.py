"""Trials: one configuration, tried once with one budget, and what became of it.

These records know neither Optuna nor a backend; the study reads and writes them, and searchers decide
from them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from modelyard.tuning.dimensions import Point

Direction = Literal["minimize", "maximize"]


def sign_of(direction: Direction) -> float:
    """What a value is multiplied by so that less is better."""
    return 1.0 if direction == "minimize" else -1.0


class TrialState(StrEnum):
    """Where a trial stands; the last three are final. PRUNED was stopped for being bad, and has a curve."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self is not TrialState.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric, and which of its values counts."""

    metric: str
    direction: Direction
    # The last value of the curve, or the best.
    take: Literal["last", "best"] = "last"

    @property
    def sign(self) -> float:
        """What a value is multiplied by so that less is better."""
        return sign_of(self.direction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A metric that must not go beyond a bound; its last value counts."""

    metric: str
    bound: float
    # Whether the metric is to be at least the bound; otherwise at most.
    least: bool = False

    def excess(self, value: float) -> float:
        """How far a value is beyond the bound: at most 0 where the constraint holds."""
        return self.bound - value if self.least else value - self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a searcher wants tried next."""

    point: Point
    # Who thought of it: default | start | retry | the name of an algorithm | llm.
    source: str
    # The largest step that the trial may reach; None where the study knows no steps.
    budget: int | None = None
    # The trial from whose checkpoint this one goes on.
    parent: int | None = None
    # What the searcher wants to find again at the trial: JSON values by name.
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial as the study knows it."""

    number: int
    point: Point
    source: str
    state: TrialState = TrialState.RUNNING
    budget: int | None = None
    parent: int | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    # One finite value for each objective, as measured (not negated); None unless COMPLETE.
    values: tuple[float, ...] | None = None
    # The first objective's value by step, as far as it has been reported; finite values only.
    curve: Mapping[int, float] = field(default_factory=dict)
    # How far the constraints are exceeded: at most 0 where all hold.
    excess: tuple[float, ...] = ()
    # Why it failed or was stopped; and of a failure its kind, as the backend's analysis has it.
    why: str = ""
    cause: str = ""

    @property
    def value(self) -> float | None:
        """The first objective's value; None unless COMPLETE."""
        return self.values[0] if self.values else None

    @property
    def is_new(self) -> bool:
        """Whether it is a new configuration of its study; a retry takes the place of what failed."""
        return self.number >= 0 and self.parent is None and self.source != "retry"

    @property
    def feasible(self) -> bool:
        """Whether no constraint is exceeded, as far as they were measured."""
        return all(part <= 0 for part in self.excess)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a trial ended."""

    state: TrialState
    # One for each objective where it is COMPLETE.
    values: tuple[float, ...] | None = None
    # One for each constraint where it is COMPLETE.
    excess: tuple[float, ...] = ()
    why: str = ""
    cause: str = ""
    # JSON values by name to be kept with it.
    attributes: Mapping[str, Any] = field(default_factory=dict)
