"""What a study came to: which trial is best, which are on the Pareto front, and what was gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.runs.execution import Outcome
from modelyard.tuning.failures import Triage
from modelyard.tuning.trial import Objective, Trial, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What one invocation came to."""

    outcome: Outcome
    study: str
    run_dir: Path
    trials: tuple[Trial, ...]
    # None where no trial succeeded.
    best: Trial | None
    # Where there are several objectives; by number.
    front: tuple[Trial, ...] = ()
    triage: Triage | None = None
    # Why there is no best, or why the study is not at its end.
    why: str = ""


def comparable(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that may be called best: complete, feasible, of the largest budget that any of them had."""
    complete = [t for t in trials if t.state is TrialState.COMPLETE and t.feasible]
    largest = max((t.budget or 0 for t in complete), default=0)
    return [t for t in complete if (t.budget or 0) == largest]


def best_trial(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """The best by the first objective; of equals the first. None where no trial may be called best."""
    candidates = comparable(trials)
    return min(candidates, key=lambda t: (objective.sign * (t.value or 0.0), t.number), default=None)


def pareto_front(trials: Sequence[Trial], objectives: Sequence[Objective]) -> tuple[Trial, ...]:
    """The trials that no other beats in every objective, by number."""
    candidates = comparable(trials)
    costs = {
        t.number: tuple(o.sign * v for o, v in zip(objectives, t.values or (), strict=True))
        for t in candidates
    }
    return tuple(
        t
        for t in candidates
        if not any(_dominates(costs[other.number], costs[t.number]) for other in candidates)
    )


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
