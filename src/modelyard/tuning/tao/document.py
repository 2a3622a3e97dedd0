"""A search declared by TAO's own files: `train.schema.json`, `automl_settings.json` and ranges, verbatim.

What they do not say, the command that trains, is given beside them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.faults import Faults, read_json_document
from modelyard.core.processes import interpreter
from modelyard.core.yaml_documents import read_yaml_document
from modelyard.tuning.document import TuneDeclaration, check_workload
from modelyard.tuning.metrics.rules import MetricRules
from modelyard.tuning.search import Limits, Reads
from modelyard.tuning.tao.language import KEY_VARIABLE
from modelyard.tuning.tao.planning import SearchPlan, planned
from modelyard.tuning.tao.schema import SchemaRules, read_tao_space
from modelyard.tuning.tao.settings import TaoSettings, read_tao_settings
from modelyard.tuning.workload import CommandWorkload

#: In a command: the folder of the trial whose checkpoint it goes on from, and how far it trains.
_PARENT, _BUDGET = "{parent_dir}", "{budget}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaoFiles:
    """The files, and what else the person at the command line says."""

    schema: Path
    settings: Path
    # With {config} for the trial's specification; see `CommandWorkload.placeholders`.
    command: str
    # The specification that trials change, in YAML or JSON; None: the schema's default.
    specs: Path | None = None
    # `custom_param_ranges`.
    ranges: Path | None = None
    # `automl_hyperparameters`: dotted names; empty: those that the schema enables.
    parameters: tuple[str, ...] = ()
    # See `SchemaRules.open_ends`.
    open_ends: float | None = None
    allow_wider: bool = False


def read_tao_files(
    files: TaoFiles, environment: Mapping[str, str] | None = None
) -> tuple[TuneDeclaration, tuple[str, ...]]:
    """The search that they declare, and what a person should know of how they were taken.

    `environment` holds what the settings of a language model leave out; None: this process's.

    Raises:
        DocumentError: With every fault of the first file that has any.
    """
    settings = read_tao_settings(_json(files.settings), file=str(files.settings))
    specs = {} if files.specs is None else _mapping(files.specs)
    rules = SchemaRules(
        allow_wider=files.allow_wider, allow_disabled=settings.allow_disabled, open_ends=files.open_ends
    )
    ranges = {**settings.ranges, **({} if files.ranges is None else _mapping(files.ranges))}
    space = read_tao_space(files.schema, files.parameters or None, ranges, specs, rules=rules)
    workload = CommandWorkload(
        command=files.command, cwd=Path.cwd(), python=interpreter(), specification=space.default_specs
    )
    plan = _plan(settings, files, os.environ if environment is None else environment)
    faults = Faults(file="command line")
    check_workload(workload, space.space, plan.rungs, faults)
    _check_promotion(plan, files.command, faults)
    faults.raise_if_any()
    metrics = dict.fromkeys(objective.metric for objective in settings.objectives)
    declaration = TuneDeclaration(
        path=files.settings, name=files.schema.name.partition(".")[0] or "study", space=space.space,
        objectives=settings.objectives, rules=MetricRules(names=tuple(metrics)),
        reads=Reads(status="."), workload=workload, algorithm=plan.algorithm, options=dict(plan.options),
        rungs=plan.rungs, constraints=(), starts=(), confirm_seeds=0, url=None,
        limits=Limits(trials=_most(plan, settings), parallel=settings.parallel, seed=settings.seed),
    )  # fmt: skip
    return declaration, (*settings.notes, *_notes(plan), *space.notes)


def _plan(settings: TaoSettings, files: TaoFiles, environment: Mapping[str, str]) -> SearchPlan:
    """The plan; a command that takes its parent's folder goes on from there."""
    faults = Faults(file=str(files.settings))
    goes_on = settings.algorithm == "pbt" or _PARENT in files.command
    plan = planned(settings, rung_jobs=goes_on, environment=environment, faults=faults)
    if settings.llm.api_key and plan.options.get("api_key_env") == KEY_VARIABLE:
        problem = "stands in a file, and a key is only taken from the environment"
        faults.add("llm_api_key", None, problem, f"put it into {KEY_VARIABLE}, and take it out of the file")
    faults.raise_if_any()
    return plan


def _check_promotion(plan: SearchPlan, command: str, faults: Faults) -> None:
    missing = [word for word in (_PARENT, _BUDGET) if word not in command]
    if plan.rung_jobs and missing:
        problem = f"takes no {' and no '.join(missing)}, and {plan.algorithm} goes on from checkpoints"
        remedy = "begin from the checkpoint in {parent_dir} where it is not empty, and train up to {budget}"
        faults.add("command", command, problem, remedy)


def _most(plan: SearchPlan, settings: TaoSettings) -> int:
    """The most trials; where only the end of training would end the search, as many as are usual."""
    return settings.recommendations if plan.ending.finished is not None else plan.trials


def _notes(plan: SearchPlan) -> tuple[str, ...]:
    ends = "automl_min_top_configs ends the searches of AutoMLRunner alone; here --trials does"
    return () if plan.ending.finished is None else (ends,)


def _json(path: Path) -> object:
    faults = Faults(file=str(path))
    data = read_json_document(path, faults)
    faults.raise_if_any()
    return data


def _mapping(path: Path) -> Mapping[str, Any]:
    """A YAML or JSON file that holds a mapping."""
    faults = Faults(file=str(path))
    data = read_yaml_document(path, faults)
    if not faults.found and not isinstance(data, Mapping):
        faults.add("", data, "is not a mapping", "write name: value pairs")
    faults.raise_if_any()
    return data if isinstance(data, Mapping) else {}
