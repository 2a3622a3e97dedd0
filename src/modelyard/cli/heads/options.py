"""Options that commands on heads share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Between what a conversion goes."""

    base: Path
    output: Path
    # What the written config calls the base; empty for its folder.
    base_name: str


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """`--base`, `--output` and `--base-name`, handed over as `places`."""

    @wraps(function)
    def with_places(base: Path, output: Path, base_name: str, **rest: Any) -> None:
        function(places=Places(base=base, output=output, base_name=base_name), **rest)

    path = click.Path(path_type=Path)
    for option in (
        click.option(
            "--base-name", default="", help="What is written as the base's name. [default: its folder]"
        ),
        click.option("--output", type=path, required=True, help="A folder that is not there yet."),
        click.option("--base", type=path, required=True, help="The model that the heads are of."),
    ):
        with_places = option(with_places)
    return with_places
