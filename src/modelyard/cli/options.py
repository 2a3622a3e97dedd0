"""Options that several commands share, and the exit status of an outcome."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from modelyard.runs.execution import ExecutionOptions, Outcome
from modelyard.runs.yard import DEFAULT

F = TypeVar("F", bound=Callable[..., Any])

EXIT_STATUS = {Outcome.SUCCEEDED: 0, Outcome.FAILED: 1, Outcome.PARTIAL: 3, Outcome.CANCELLED: 130}


def yard_option(function: F) -> F:
    """`--yard DIR`."""
    return click.option(
        "--yard", "yard_dir", type=click.Path(path_type=Path), default=Path(DEFAULT), show_default=True,
        help="The directory that holds runs, journal and artifacts.",
    )(function)  # fmt: skip


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value for machines.")(
        function
    )


def jobs_option(function: F) -> F:
    """`--jobs N`."""
    return click.option(
        "--jobs",
        "slots",
        type=click.IntRange(min=1),
        help="CPU slots; as many one-CPU steps run at once. [default: the cores]",
    )(function)


def backend_option(function: F) -> F:
    """`--backend NAME`."""
    return click.option(
        "--backend", default="local", show_default=True, help="Where jobs run: an installed backend's name."
    )(function)


def execution_flags(function: Callable[..., None]) -> Callable[..., None]:
    """`--jobs`, `--backend` and `--continue-on-error`, handed over as `options`."""

    @wraps(function)
    def with_options(slots: int | None, backend: str, continue_on_error: bool, **rest: Any) -> None:
        options = execution_options(slots, backend=backend, continue_on_error=continue_on_error)
        function(options=options, **rest)

    go_on = click.option(
        "--continue-on-error",
        is_flag=True,
        help="Let the pool go on when a member fails; the exit status is then 3.",
    )
    return jobs_option(backend_option(go_on(with_options)))


def execution_options(
    slots: int | None = None, *, backend: str = "local", continue_on_error: bool = False
) -> ExecutionOptions:
    """The options of this invocation with the environment that jobs start from."""
    return ExecutionOptions(
        backend=backend, slots=slots, continue_on_error=continue_on_error, environment=dict(os.environ)
    )


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
