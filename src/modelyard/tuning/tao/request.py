"""The arguments of `AutoMLRunner.run`, by TAO's names, in its order and with its defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from modelyard.core.errors import TuneError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a caller of `run` gave."""

    train_dataset_uri: str = ""
    eval_dataset_uri: str = ""
    base_checkpoint: str = ""
    workspace_id: str | None = None
    image: str | None = None
    automl_settings: Mapping[str, Any] | None = None
    automl_hyperparameters: Sequence[str] | None = None
    custom_param_ranges: Mapping[str, Mapping[str, Any]] | None = None
    workspace_path: str | Path = "./automl_workspace"
    spec_overrides: Mapping[str, Any] | None = None
    resume: bool = False
    # (logs, metric) -> value or None
    metric_extractor: Callable[[str, str], Any] | None = None
    # (recommendation, job id) -> number, mapping or None
    eval_fn: Callable[[Any, str], Any] | None = None
    # (specification) -> number or None
    baseline_fn: Callable[[dict[str, Any]], Any] | None = None
    # (best recommendation, job id) -> number, mapping or None
    final_eval_fn: Callable[[Any, str | None], Any] | None = None
    on_recommendation: Callable[[Any], object] | None = None
    # (recommendation, value or None, status)
    on_result: Callable[[Any, Any, str], object] | None = None
    execution: Mapping[str, Any] | None = None
    # (recommendation, job id) -> JSON value
    feedback_fn: Callable[[Any, str | None], Any] | None = None
    # Everything else, for the SDK.
    platform_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(given: Sequence[Any], named: Mapping[str, Any]) -> RunRequest:
        """The arguments of one call.

        Raises:
            TuneError: There are too many, or one is given twice.
        """
        names = argument_names()
        if len(given) > len(names):
            raise TuneError(f"run: takes {len(names)} arguments by position, and {len(given)} were given")
        by_position = dict(zip(names, given, strict=False))
        twice = sorted(set(by_position) & set(named))
        if twice:
            raise TuneError(f"run: {', '.join(twice)} is given twice, by position and by name; give it once")
        own = {**by_position, **{name: value for name, value in named.items() if name in names}}
        rest = {name: value for name, value in named.items() if name not in names}
        return RunRequest(**own, platform_kwargs=rest)


def argument_names() -> tuple[str, ...]:
    """The names of the arguments, in order."""
    return tuple(each.name for each in fields(RunRequest) if each.name != "platform_kwargs")


def run_signature() -> inspect.Signature:
    """The signature of `run`, for help and for those who look it up."""
    kind = inspect.Parameter
    own = [
        kind(each.name, kind.POSITIONAL_OR_KEYWORD, default=each.default)
        for each in fields(RunRequest)
        if each.name != "platform_kwargs"
    ]
    itself = kind("self", kind.POSITIONAL_ONLY)
    return inspect.Signature([itself, *own, kind("platform_kwargs", kind.VAR_KEYWORD)])
