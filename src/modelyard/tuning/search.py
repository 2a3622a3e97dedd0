"""Searches: what is searched and how, as one record, and what is told of it while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.tuning.earlier import WarmStart
from modelyard.tuning.metrics.files import Places
from modelyard.tuning.metrics.rules import MetricRules
from modelyard.tuning.searcher import Rungs, Searcher
from modelyard.tuning.spaces.space import Space
from modelyard.tuning.trial import Constraint, Objective, Trial
from modelyard.tuning.workload import METRICS_FILE, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a search ends, and how it goes about its trials."""

    # In all, those of earlier invocations and of other processes among them.
    trials: int = 40
    # Of one invocation; when it is over nothing more is launched, and what runs is waited for.
    budget_s: float | None = None
    # The search ends once the first objective is as good as this.
    target: float | None = None
    parallel: int = 1
    seed: int = 0
    # The study stops when so many trials at its beginning all fail alike; 0: never.
    fail_alike: int = 3
    # Between two looks at what the running trials report.
    poll_s: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """What is read beside what is printed and told, relative to a trial's folder; None: nothing."""

    # TAO's status.json, or a folder below which it appears.
    status: str | None = None
    # A folder below which TensorBoard's event files appear.
    events: str | None = None

    def places(self, folder: Path) -> Places:
        """Where one attempt's reports stand."""
        return Places(
            told=folder / METRICS_FILE,
            status=None if self.status is None else folder / self.status,
            events=None if self.events is None else folder / self.events,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is searched, and how."""

    name: str
    run_dir: Path
    # The file that declared it, or what called it.
    source: str
    space: Space
    objectives: tuple[Objective, ...]
    workload: Workload
    searcher: Searcher
    # How the metrics are found in what a trial reports, and where in its folder.
    rules: MetricRules
    reads: Reads = Reads()
    limits: Limits = Limits()
    rungs: Rungs | None = None
    # Trials that break one are never best.
    constraints: tuple[Constraint, ...] = ()
    # Configurations to be tried after the default one.
    starts: tuple[Mapping[str, Any], ...] = ()
    # Earlier studies from which this one learns.
    warm_start: WarmStart | None = None
    # How many other seeds the best and the default are trained with at the end.
    confirm_seeds: int = 0
    # Optuna's storage; None: study.db in the run's folder.
    url: str | None = None
    # What makes two searches the same, apart from space and objectives.
    identity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What is told of a search as it goes on; all are called in the tuner's thread."""

    # The study is open, with so many trials that have ended.
    opened: Callable[[int], None] = lambda _ended: None
    # A trial is about to be launched.
    proposed: Callable[[Trial], None] = lambda _trial: None
    # A running trial has reported a step.
    reported: Callable[[int, int, float], None] = lambda _number, _step, _value: None
    # A trial has ended; with the best so far.
    ended: Callable[[Trial, Trial | None], None] = lambda _trial, _best: None
    # Values that count instead of what the trial reported, or why there are none; None: what it reported.
    measured: Callable[[Trial, str], tuple[float, ...] | str | None] = lambda _trial, _job: None
