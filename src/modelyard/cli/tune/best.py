"""`modelyard tune best`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from modelyard.cli.options import print_json, yard_option
from modelyard.cli.tune.studies import opened, storage_option
from modelyard.core.errors import TuneError


@click.command(name="best")
@click.argument("study")
@click.option(
    "--as", "form", type=click.Choice(("text", "json", "yaml", "arguments")), default="text",
    show_default=True, help="`json` tells the whole trial; `yaml` and `arguments` its values alone.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --as json.")
@storage_option
@yard_option
def command(study: str, url: str | None, yard_dir: Path, form: str, as_json: bool) -> None:
    """The best configuration of a STUDY; with several objectives the Pareto front."""
    view = opened(yard_dir, study, url)
    if view.best is None:
        raise TuneError(f"{view.name}: no trial has succeeded; see `modelyard tune history {view.name}`")
    chosen = view.front if len(view.objectives) > 1 else (view.best,)
    if as_json or form == "json":
        records = [each.record() for each in chosen]
        print_json(records if len(view.objectives) > 1 else records[0])
        return
    for each in chosen:
        if form == "arguments":
            words = [w for name, value in each.assignments.items() for w in (f"--{name}", _plain(value))]
            click.echo(shlex.join(words))
            continue
        if form == "text":
            values = " ".join(f"{value:.6g}" for value in each.trial.values or ())
            click.echo(f"trial {each.trial.number}: {values}")
        for name, value in each.assignments.items():
            click.echo(f"{name}: {json.dumps(value)}")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
