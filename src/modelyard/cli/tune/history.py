"""`modelyard tune history`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.tune.studies import opened, storage_option, trial_line


@click.command(name="history")
@click.argument("study")
@click.option("--ranked", is_flag=True, help="The best first; without it, in the order of their numbers.")
@storage_option
@yard_option
@json_option
def command(study: str, url: str | None, yard_dir: Path, ranked: bool, as_json: bool) -> None:
    """Every trial of a STUDY: its values, what it was told, and why it failed or was stopped."""
    view = opened(yard_dir, study, url)
    trials = view.ranked if ranked else view.trials
    if as_json:
        print_json([each.record() for each in trials])
        return
    for each in trials:
        click.echo(trial_line(each.trial, each.assignments))
