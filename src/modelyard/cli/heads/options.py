"""Options that commands on heads share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

_PATH: Any = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the outcome of a conversion goes."""

    output: Path
    # What the written config calls the base; empty for its folder.
    base_name: str


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """`--output` and `--base-name`, handed over as `places`."""

    @wraps(function)
    def with_places(output: Path, base_name: str, **rest: Any) -> None:
        function(places=Places(output=output, base_name=base_name), **rest)

    for option in (
        click.option(
            "--base-name", default="", help="What is written as the base's name. [default: its folder]"
        ),
        click.option("--output", type=_PATH, required=True, help="A folder that is not there yet."),
    ):
        with_places = option(with_places)
    return with_places


def plot_option(function: Callable[..., None]) -> Callable[..., None]:
    """`--plot FILE`, of which it is known before the command runs that it can be made."""

    @wraps(function)
    def with_plot(plot: Path | None, **rest: Any) -> None:
        if plot is not None:
            from modelyard.heads.pictures import check_picture

            check_picture(plot)
        function(plot=plot, **rest)

    return click.option(
        "--plot", type=_PATH, metavar="FILE", help="Also a picture: FILE.png or FILE.svg."
    )(with_plot)  # fmt: skip


def recorded_base_option(function: Callable[..., None]) -> Callable[..., None]:
    """`--base`, which the record of the heads has where it is not given."""
    return click.option(
        "--base", type=_PATH, help="Their base. [default: where it lay when they were made]"
    )(function)  # fmt: skip
