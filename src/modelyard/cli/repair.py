"""`modelyard repair`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from modelyard.cli.options import json_option, yard_option
from modelyard.cli.run.showing import end, shown_progress


@click.command(name="repair")
@click.argument("run")
@click.argument("file", type=click.Path(path_type=Path), default=Path("yard.yaml"))
@click.option("--run-dir", type=click.Path(path_type=Path), help="[default: governed/RUN in the yard]")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE",
    help="A value of the training's command that is changed, over those of earlier repairs; may be repeated.",
)  # fmt: skip
@yard_option
@json_option
def command(
    run: str, file: Path, run_dir: Path | None, changes: tuple[str, ...], yard_dir: Path, as_json: bool
) -> None:
    """Train and prove the next iteration of RUN, whose gate failed, within its budgets.

    FILE is the yard.yaml that declares them. The training command is told which items were lost ({losses}),
    by id, cluster and tags; never what they ask. Exit status as of `modelyard run start`.
    """
    from modelyard.lifecycle.governed.run_training import Caller, drive_repair
    from modelyard.lifecycle.governed.view import governed_dir
    from modelyard.runs.yard import open_yard

    yard = open_yard(yard_dir, create=False)
    place = run_dir or governed_dir(yard, run)
    with shown_progress(quiet=as_json) as told:
        caller = Caller(environment=dict(os.environ), told=told)
        result = drive_repair(yard, file, run, place, caller, delta=_delta(changes))
    sys.exit(end(result, as_json=as_json))


def _delta(changes: tuple[str, ...]) -> dict[str, str | int | float | bool]:
    """Values as YAML would read them."""
    import yaml

    delta = {}
    for change in changes:
        name, equals, text = change.partition("=")
        try:
            value = yaml.safe_load(text) if equals else None
        except yaml.YAMLError:
            value = None
        if not name or not isinstance(value, str | int | float | bool):
            raise click.BadParameter(f"{change!r} is no NAME=VALUE", param_hint="--set")
        delta[name] = value
    return delta
