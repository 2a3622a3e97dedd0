"""From a declaration to a search that can run: the algorithm made, and the machine held against it.

Nothing is written before all of it has passed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from modelyard.core.errors import TuneError
from modelyard.core.faults import Faults
from modelyard.jobs.backend import Backend
from modelyard.jobs.plan import Plan, check_machine
from modelyard.tuning.document import TuneDeclaration
from modelyard.tuning.search import Limits, Search
from modelyard.tuning.searcher import Host, Rungs, Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import algorithm_of
from modelyard.tuning.searchers.median import MedianRule, MedianStopping
from modelyard.tuning.spaces.space import Space
from modelyard.tuning.trial import Objective
from modelyard.tuning.workload import Attempt

_DISK_GIB = 1.0


def prepare(
    declaration: TuneDeclaration, runs_dir: Path, environment: Mapping[str, str] | None = None
) -> Search:
    """The search that a file declares.

    `environment` holds the keys that options name; None: this process's.

    Raises:
        DocumentError: An option of the algorithm is wrong.
        TuneError: The algorithm cannot do what is asked, or a library is missing.
        PluginError: There is no such algorithm.
    """
    run_dir, algorithm = runs_dir / declaration.name, algorithm_of(declaration.algorithm)
    settings = _settings(
        declaration.space, declaration.objectives, limits=declaration.limits, rungs=declaration.rungs
    )
    warm = declaration.warm_start and declaration.warm_start.within(runs_dir, study=declaration.name)
    host = Host(
        folder=run_dir, environment=os.environ if environment is None else environment,
        space=declaration.space, metrics=tuple(each.metric for each in declaration.objectives),
        given=1 + len(declaration.starts) + (0 if warm is None else warm.first),
    )  # fmt: skip
    searcher = algorithm.configured(declaration.options, replace(settings, host=host), file="options")
    if declaration.median is not None:
        searcher = with_median(
            searcher, declaration.median, algorithm=declaration.algorithm, objectives=declaration.objectives
        )
    workload = declaration.workload
    identity = {
        "command": [
            workload.command,
            workload.shell,
            str(workload.cwd),
            dict(workload.env),
            str(workload.config),
            workload.specification,
        ],
        "algorithm": [declaration.algorithm, algorithm.decisive(declaration.options)],
        "seed": declaration.limits.seed,
        "stop": None if declaration.median is None else asdict(declaration.median),
    }
    if declaration.constraints:
        identity["constraints"] = [[each.metric, each.bound, each.least] for each in declaration.constraints]
    return Search(
        name=declaration.name, run_dir=run_dir, source=str(declaration.path.absolute()),
        space=declaration.space, objectives=declaration.objectives, workload=workload, searcher=searcher,
        rules=declaration.rules, reads=declaration.reads, limits=declaration.limits, rungs=declaration.rungs,
        constraints=declaration.constraints, starts=declaration.starts, warm_start=warm,
        confirm_seeds=declaration.confirm_seeds, url=declaration.url, identity=identity,
    )  # fmt: skip


def with_median(
    searcher: Searcher, rule: MedianRule, *, algorithm: str, objectives: Sequence[Objective]
) -> Searcher:
    """The searcher with the median rule on its running trials.

    Raises:
        TuneError: The algorithm judges or promotes trials itself, or there are several objectives.
    """
    if algorithm_of(algorithm).rungs:
        raise TuneError(
            f"{algorithm}: it judges trials at its rungs itself; leave stop: median out, or use tpe"
        )
    if len(objectives) > 1:
        raise TuneError("stop: median compares curves of one objective; name one, or leave it out")
    return MedianStopping(searcher, rule, direction=objectives[0].direction)


def make_searcher(
    name: str, options: Mapping[str, Any], *, space: Space, objectives: tuple[Objective, ...], limits: Limits,
    rungs: Rungs | None,
) -> Searcher:  # fmt: skip
    """The algorithm of this name with its options.

    Raises:
        DocumentError: An option is unknown or out of range.
        TuneError: It cannot do what is asked, or a library is missing.
        PluginError: There is no such algorithm.
    """
    settings = _settings(space, objectives, limits=limits, rungs=rungs)
    return algorithm_of(name).configured(options, settings, file="options")


def _settings(
    space: Space, objectives: tuple[Objective, ...], *, limits: Limits, rungs: Rungs | None
) -> SearcherSettings:
    return SearcherSettings(
        dimensions=space.dimensions, directions=tuple(each.direction for each in objectives),
        seed=limits.seed, parallel=limits.parallel, rungs=rungs, default=space.default(),
    )  # fmt: skip


def preflight(search: Search, backend: Backend, environment: Mapping[str, str]) -> None:
    """Hold the first trial against the backend: program, inputs, credentials by name, compute shape, disk.

    Raises:
        DocumentError: With everything that is missing. Nothing has been made.
    """
    faults = Faults(file=search.source)
    with TemporaryDirectory() as scratch:  # rendering a trial writes what it would read
        attempt = Attempt(
            name="trial/0000", folder=Path(scratch), number=0, seed=0,
            assignments=search.space.assignments(search.space.default()),
            budget=search.rungs.high if search.rungs else None,
        )  # fmt: skip
        try:
            step = search.workload.step(attempt)
        except (OSError, ValueError, yaml.YAMLError) as error:
            faults.add("config", None, f"cannot be merged with the values ({error})", "mend the file")
            faults.raise_if_any()
        plan = Plan(name=search.name, run_dir=str(search.run_dir), steps=(step,))
        check_machine(plan, backend, faults=faults, disk_gib=_DISK_GIB, path=environment.get("PATH"))
        if not Path(step.cwd).is_dir():
            faults.add(
                "cwd", step.cwd, "is not a folder", "give the folder in which the command runs", here=True
            )
    faults.raise_if_any()
