"""`modelyard run list`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.runs.states import standings
from modelyard.runs.yard import open_yard


@click.command(name="list")
@yard_option
@json_option
def command(yard_dir: Path, as_json: bool) -> None:
    """List the governed runs of a yard, in the order in which they were requested."""
    from modelyard.lifecycle.governed.view import governed_runs

    yard = open_yard(yard_dir, create=False)
    rows = list(standings(yard.journal, governed_runs(yard)).values())
    if as_json:
        told = ("run", "state", "iteration", "next_action")
        print_json([{name: getattr(row, name) for name in told} for row in rows])
        return
    for row in rows:
        click.echo(f"{row.run:<36} {row.state:<16} iteration {row.iteration}  next: {row.next_action}")
    if not rows:
        click.echo(f"{yard.root}: no governed run yet")
