"""Options that the routing commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def results_option(function: F) -> F:
    """`--results DIR`, which may be given several times."""
    return click.option(
        "--results", "results", type=click.Path(path_type=Path), required=True, multiple=True, metavar="DIR",
        help="A folder with results.parquet and prompts.parquet, as `modelyard import` leaves them.",
    )(function)  # fmt: skip
