"""ELPA's training file (JSON), accepted verbatim and turned into a plan.

The format is that of the public `elpa` skill: top-level fields, a `context` of scalars, and
`models[]` with `name, group, enabled, env, train_cmd`. A model may also carry what yard.yaml
knows: `shell, secrets, timeout_s, retries, backoff_s, resources, outputs, required`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.faults import Faults, json_section
from modelyard.jobs.plan import Plan, make_plan
from modelyard.training.members import (
    Member,
    Scalar,
    Scope,
    base_values,
    check_members,
    member_outputs,
    member_step,
    read_member,
    scalars_only,
    twins,
)

_COMMAND = "train_cmd"
_DATASETS = ("dataset", "train_dataset", "val_dataset", "test_dataset")
_FILES = (*_DATASETS, "project_root")
_KNOWN = (
    *_FILES,
    "horizon",
    "period",
    "beta",
    "seed",
    "context",
    "models",
    "run_dir",
    "skill",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One ELPA training file, read and checked."""

    path: Path
    dataset: str
    horizon: int
    period: int
    beta: float
    members: tuple[Member, ...]
    scope: Scope


def read_train_config(path: Path, run_dir: Path) -> TrainConfig:
    """Read an ELPA training file.

    Args:
        path: The JSON file; relative paths in it start from its folder.
        run_dir: Where the run's files go; `{run_dir}` and `{model_dir}` follow from it.

    Raises:
        DocumentError: With every fault of the file.
    """
    section = json_section(path)
    faults = section.faults
    context = section.scalars("context")
    horizon = section.integer("horizon", 1, low=1)
    period = section.integer("period", 24, low=1)
    beta = section.number("beta", 0.7, above=0.0, below=1.0)
    seed = section.integer("seed", 42, low=0)
    folder = path.absolute().parent
    files = {name: section.optional_text(name) or _path_in(context, name) for name in _FILES}
    members = [read_member(item, train_key=_COMMAND, extra=False) for item in section.sections("models")]
    if not members and section.raw("models") in (None, []):
        faults.add("models", section.raw("models"), "names no model", "list at least one model")
    free = _free_scalars(section.rest(), faults)
    values = _values(folder, run_dir, {**free, **context}, files)
    values |= {"horizon": horizon, "period": period, "beta": beta, "seed": seed}
    datasets = tuple(name for name in _DATASETS if name in values)
    scope = Scope(folder=folder, run_dir=run_dir, values=values, datasets=datasets)
    check_members(members, scope, faults, train_key=_COMMAND)
    faults.raise_if_any()
    return TrainConfig(
        path=path,
        dataset=str(values.get("dataset", "")),
        horizon=horizon,
        period=period,
        beta=beta,
        members=tuple(members),
        scope=scope,
    )


def train_plan(config: TrainConfig, faults: Faults) -> Plan:
    """One training step for each enabled model. Raises `DocumentError`."""
    steps = [
        member_step(member, "train", config.scope, tuple(member_outputs(member, config.scope).values()), ())
        for member in config.members
        if member.enabled
    ]
    return make_plan(config.path.stem, steps, run_dir=config.scope.run_dir, faults=faults)


def _values(
    folder: Path, run_dir: Path, given: Mapping[str, Scalar], files: Mapping[str, str | None]
) -> dict[str, Scalar]:
    """What placeholders stand for: files are made absolute, and of our own names ELPA's win."""
    scope = Scope(folder=folder, run_dir=run_dir, values={}, datasets=())
    absolute = {name: scope.absolute(path) for name, path in files.items() if path is not None}
    own = base_values(run_dir, folder)
    return {**own, **given, **absolute, **twins(absolute), "run_dir": own["run_dir"]}


def _path_in(context: Mapping[str, Scalar], name: str) -> str | None:
    """A file that is named in the context instead of at the top."""
    return str(context[name]) if name in context else None


def _free_scalars(rest: Mapping[str, object], faults: Faults) -> dict[str, Scalar]:
    """Top-level fields of the user's own; one that looks like a known field misspelt is a fault."""
    for name, value in rest.items():
        near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.85)
        if near and name not in _KNOWN:
            faults.add(name, value, "looks like a known field misspelt", f"did you mean {near[0]}?")
    return scalars_only(rest)
