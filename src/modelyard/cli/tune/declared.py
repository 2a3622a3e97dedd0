"""What `tune run` is given: a tune.yaml, or TAO's files with the options that they need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from modelyard.tuning.document import TuneDeclaration

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)
_TAO = ("schema", "settings", "run_command", "specs", "ranges", "parameters", "open_ends", "allow_wider")


def tao_options(function: F) -> F:
    """The options that stand in a tune.yaml's place, for `declared`."""
    decorators = (
        click.option("--schema", type=_FILE, help="TAO's train.schema.json, in place of FILE."),
        click.option("--settings", type=_FILE, help="TAO's automl_settings as a JSON file."),
        click.option(
            "--command", "run_command", help="What trains; {config} is a trial's specification, a YAML file."
        ),
        click.option("--specs", type=_FILE, help="The specification to change. [default: the schema's]"),
        click.option("--ranges", type=_FILE, help="custom_param_ranges as a JSON or YAML file."),
        click.option("--parameters", help="What to search, a,b,c. [default: what the schema enables]"),
        click.option(
            "--open-ends", type=click.FloatRange(min=1, min_open=True), metavar="TIMES",
            help="Let an end that the schema leaves open lie so many times the default away.",
        ),
        click.option("--allow-wider", is_flag=True, help="Let ranges go beyond the schema's."),
    )  # fmt: skip
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def declared(file: Path | None, told: dict[str, Any]) -> TuneDeclaration:
    """The search that was asked for; takes its own options out of `told`, and tells notes."""
    from modelyard.tuning.document import read_tune
    from modelyard.tuning.tao.document import TaoFiles, read_tao_files

    tao = {name: told.pop(name) for name in _TAO}
    given = [f"--{'command' if name == 'run_command' else name}" for name, value in tao.items() if value]
    if file is not None:
        if given:
            raise click.UsageError(f"{' '.join(given)}: stand in the place of FILE; give one or the other")
        return read_tune(file)
    missing = [name for name in ("schema", "settings", "run_command") if tao[name] is None]
    if missing:
        raise click.UsageError("give a tune.yaml, or --schema, --settings and --command")
    command, names = tao.pop("run_command"), tao.pop("parameters") or ""
    files = TaoFiles(**tao, command=command, parameters=tuple(filter(None, names.split(","))))
    declaration, notes = read_tao_files(files)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return declaration
