"""A search declared by TAO's own files: `train.schema.json`, `automl_settings.json` and ranges, verbatim.

What they do not say, the command that trains, is given beside them.
"""

from __future__ import annotations

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
from modelyard.tuning.tao.schema import SchemaRules, read_tao_space
from modelyard.tuning.tao.settings import read_tao_settings
from modelyard.tuning.workload import CommandWorkload


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


def read_tao_files(files: TaoFiles) -> tuple[TuneDeclaration, tuple[str, ...]]:
    """The search that they declare, and what a person should know of how they were taken.

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
    faults = Faults(file="command line")
    check_workload(workload, space.space, settings.rungs, faults)
    faults.raise_if_any()
    metrics = dict.fromkeys(objective.metric for objective in settings.objectives)
    declaration = TuneDeclaration(
        path=files.settings, name=files.schema.name.partition(".")[0] or "study", space=space.space,
        objectives=settings.objectives, rules=MetricRules(names=tuple(metrics)),
        reads=Reads(status="."), workload=workload, algorithm=settings.algorithm, options={},
        rungs=settings.rungs, constraints=(), starts=(), confirm_seeds=0, url=None,
        limits=Limits(trials=settings.recommendations, parallel=settings.parallel, seed=settings.seed),
    )  # fmt: skip
    return declaration, (*settings.notes, *space.notes)


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
