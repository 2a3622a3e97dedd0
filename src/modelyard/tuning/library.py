"""Tuning from Python: a space from plain values, and a tuner without a file.

space = space_of({"lr": {"low": 1e-5, "high": 0.1}, "layers": {"low": 1, "high": 4}})
workload = CommandWorkload(command="{python} train.py {params}", cwd=Path.cwd(), python=sys.executable)
result = make_tuner(space, Objective(metric="val_loss", direction="minimize"), workload).run()
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.faults import Faults, Section
from modelyard.jobs.backend import Backend
from modelyard.runs.execution import ExecutionOptions, open_backend
from modelyard.runs.yard import DEFAULT, open_yard
from modelyard.tuning.earlier import WarmStart
from modelyard.tuning.metrics.rules import MetricRules
from modelyard.tuning.preparing import make_searcher, with_median
from modelyard.tuning.search import Hooks, Limits, Search
from modelyard.tuning.searcher import Rungs
from modelyard.tuning.searchers.median import MedianRule
from modelyard.tuning.spaces.document import read_space
from modelyard.tuning.spaces.space import Space
from modelyard.tuning.trial import Constraint, Objective
from modelyard.tuning.tuner import Tuner
from modelyard.tuning.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class TunerOptions:
    """How a search goes about it; as in a tune.yaml."""

    name: str = "study"
    yard: Path = Path(DEFAULT)
    algorithm: str = "bayesian"
    # Of the algorithm.
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    rungs: Rungs | None = None
    constraints: tuple[Constraint, ...] = ()
    starts: tuple[Mapping[str, Any], ...] = ()
    # Earlier studies from which this one learns.
    warm_start: WarmStart | None = None
    # Stops running trials of an algorithm that stops none itself.
    median: MedianRule | None = None
    confirm_seeds: int = 0
    # Optuna's storage; None: in the run's folder.
    url: str | None = None
    hooks: Hooks | None = None


def space_of(parameters: Mapping[str, Mapping[str, Any]]) -> Space:
    """The space of a mapping as a tune.yaml has it under `space:`.

    Raises:
        DocumentError: With every fault.
    """
    faults = Faults(file="space")
    space = read_space(Section(parameters, faults=faults))
    faults.raise_if_any()
    return space


def make_tuner(
    space: Space, objectives: Objective | Sequence[Objective], workload: Workload, *,
    backend: Backend | None = None, options: TunerOptions | None = None,
) -> Tuner:  # fmt: skip
    """A tuner of a study in a yard; `run()` searches, or goes on with what is there.

    Args:
        space: What may be tried.
        objectives: What is sought; the first decides which trial is best.
        workload: What a trial runs.
        backend: What runs it; None: this machine, as many trials at once as the limits say.
        options: The rest.

    Raises:
        DocumentError: An option of the algorithm is wrong.
        TuneError: The algorithm cannot do what is asked, or a library is missing.
    """
    chosen = options or TunerOptions()
    sought = (objectives,) if isinstance(objectives, Objective) else tuple(objectives)
    yard = open_yard(chosen.yard, create=True)
    run_dir = yard.runs_dir / chosen.name
    if backend is None:
        execution = ExecutionOptions(slots=chosen.limits.parallel, environment=dict(os.environ))
        backend = open_backend(execution, run_dir / "jobs")
    searcher = make_searcher(
        chosen.algorithm, chosen.options, space=space, objectives=sought, limits=chosen.limits,
        rungs=chosen.rungs,
    )  # fmt: skip
    if chosen.median is not None:
        searcher = with_median(searcher, chosen.median, algorithm=chosen.algorithm, objectives=sought)
    metrics = dict.fromkeys([*(o.metric for o in sought), *(c.metric for c in chosen.constraints)])
    search = Search(
        name=chosen.name, run_dir=run_dir, source="library", space=space, objectives=sought,
        workload=workload, searcher=searcher, rules=MetricRules(names=tuple(metrics)), limits=chosen.limits,
        rungs=chosen.rungs, constraints=chosen.constraints, starts=chosen.starts,
        confirm_seeds=chosen.confirm_seeds, url=chosen.url,
        warm_start=chosen.warm_start and chosen.warm_start.within(yard.runs_dir, study=chosen.name),
        identity={
            "algorithm": [chosen.algorithm, dict(chosen.options)], "seed": chosen.limits.seed,
            "stop": chosen.median and asdict(chosen.median),
        },
    )  # fmt: skip
    return Tuner(search, yard=yard, backend=backend, hooks=chosen.hooks)
