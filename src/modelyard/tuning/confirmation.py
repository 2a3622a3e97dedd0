"""Confirmation: the best configuration beside the default one, trained again with other seeds.

The best of many trials is partly luck. What it gained is told from trainings that chose nothing: both
configurations with the same seeds, compared seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.jobs.backend import Backend
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import Progress, StepProgress, StepStatus
from modelyard.jobs.step import Step
from modelyard.tuning.metrics.watching import Watch
from modelyard.tuning.search import Search
from modelyard.tuning.trial import Objective, Trial
from modelyard.tuning.workload import Attempt

_LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """By how much one is better than the other: mean over the seeds, with a t-interval of 95 %."""

    mean: float
    # Infinite where there is one seed.
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two configurations that are compared."""

    best: Trial
    default: Trial


def confirmation_plan(search: Search, pair: Pair) -> Plan:
    """Both trained with every seed; what was trained before is not trained again."""
    steps = [_step(search, trial, seed) for seed in _seeds(search) for trial in (pair.best, pair.default)]
    return Plan(name=search.name, run_dir=str(search.run_dir), steps=tuple(steps))


def confirmed(search: Search, pair: Pair, progress: Progress, backend: Backend) -> dict[str, Any]:
    """What came of it, as a JSON value. A training that failed leaves its seed out."""
    values = [
        [_value(search, progress[_name(trial, seed)], backend) for seed in _seeds(search)]
        for trial in (pair.best, pair.default)
    ]
    whole = [
        (seed, best, default)
        for seed, best, default in zip(_seeds(search), *values, strict=True)
        if best is not None and default is not None
    ]
    best, default = [each[1] for each in whole], [each[2] for each in whole]
    return {
        "trial": pair.best.number,
        "wanted": search.confirm_seeds,
        "seeds": [each[0] for each in whole],
        "best": best,
        "default": default,
        "gain": _gain_record(best, default, search.objectives[0]) if whole else None,
    }


def paired_gain(best: Sequence[float], other: Sequence[float], objective: Objective) -> Gain:
    """How much better the first is than the second, seed by seed; more is better.

    Raises:
        ValueError: There is no pair.
    """
    from scipy import stats

    gaps = [objective.sign * (b - a) for a, b in zip(best, other, strict=True)]
    if not gaps:
        raise ValueError("no seed has a value of both")
    mean, count = sum(gaps) / len(gaps), len(gaps)
    if count == 1:
        return Gain(mean=mean, low=-math.inf, high=math.inf)
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (count - 1) / count)
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, count - 1)) * spread
    return Gain(mean=mean, low=mean - half, high=mean + half)


def _gain_record(best: Sequence[float], other: Sequence[float], objective: Objective) -> Mapping[str, Any]:
    gain = paired_gain(best, other, objective)
    low, high = (bound if math.isfinite(bound) else None for bound in (gain.low, gain.high))
    return {"mean": gain.mean, "low": low, "high": high}


def _seeds(search: Search) -> list[int]:
    return [search.limits.seed + 1 + index for index in range(search.confirm_seeds)]


def _name(trial: Trial, seed: int) -> str:
    return f"confirm/{trial.number:04d}/seed-{seed}"


def _step(search: Search, trial: Trial, seed: int) -> Step:
    name = _name(trial, seed)
    attempt = Attempt(
        name=name, folder=search.run_dir / name, number=trial.number, seed=seed,
        assignments=search.space.assignments(trial.point),
        budget=search.rungs.high if search.rungs else None,
    )  # fmt: skip
    return search.workload.step(attempt)


def _value(search: Search, item: StepProgress, backend: Backend) -> float | None:
    if item.status is not StepStatus.SUCCEEDED:
        return None
    job = item.jobs[-1]
    native_id = job.native_id or backend.find(job.key) or ""
    watch = Watch(
        key=job.key, rules=search.rules, places=search.reads.places(search.run_dir / item.step.name), seen={},
        logs=lambda at: backend.logs(native_id, "stdout", at) if native_id else (b"", at),
    )  # fmt: skip
    watch.look(ended_well=True)
    values = watch.values(search.objectives[:1])
    return None if isinstance(values, str) else values[0]
