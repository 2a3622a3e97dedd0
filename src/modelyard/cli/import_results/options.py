"""Options of the importers, and what they print."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.results.importers import Record

F = TypeVar("F", bound=Callable[..., Any])


def import_options(function: F) -> F:
    """`FILES...`, `--output DIR` and `--json`."""
    files = click.argument(
        "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
    )
    output = click.option(
        "--output", required=True, type=click.Path(path_type=Path), help="The folder of the two tables."
    )
    return files(output(json_option(function)))


def model_option(function: F) -> F:
    """`--model NAME`."""
    return click.option("--model", help="The model's name. [default: what the log says]")(function)


def import_and_tell(records: Iterable[Record], output: Path, *, as_json: bool) -> None:
    """Write the tables and say what they hold."""
    from modelyard.results.importers import write_import  # pyarrow loads here, not before

    done = write_import(records, output)
    for warning in done.warnings:
        click.echo(f"WARNING: {warning}", err=True)
    if as_json:
        print_json(asdict(done))
        return
    click.echo(f"{done.rows} rows, {len(done.models)} models, {done.examples} examples: {output}")
